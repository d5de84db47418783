"""Which configurations are best at each budget: the Pareto front of value against NFE."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Best:
    """A place on the front: the lowest value for who can pay from `nfe` to below `until` calls.

    Attributes:
        nfe: Calls that it really took.
        until: Calls of the next place, infinite for the last one.
        points: The points that stand there; several only if their values are equal.
        following: The point with the lowest value of all other configurations at less than
            `until` calls, or None.
    """

    nfe: float
    until: float
    points: pd.DataFrame
    following: "pd.Series[Any] | None"


def front(points: pd.DataFrame) -> list[Best]:
    """The places of the front by rising NFE, from points as `frame.points` gives them.

    A point stands on the front if no other has a lower value at as many calls or fewer, nor the
    same value at fewer. Points without a value stand nowhere.
    """
    good = points[points["mean"].notna() & points["nfe"].notna()]
    places: list[pd.DataFrame] = []
    lowest = math.inf
    for _, at in good.groupby("nfe"):
        if at["mean"].min() < lowest:
            lowest = at["mean"].min()
            places.append(at[at["mean"] == lowest])
    calls = [place["nfe"].iloc[0] for place in places]
    return [
        Best(nfe, until, place, _following(good, place, until))
        for place, (nfe, until) in zip(places, pairwise([*calls, math.inf]), strict=True)
    ]


def _following(good: pd.DataFrame, place: pd.DataFrame, until: float) -> "pd.Series[Any] | None":
    others = good[(good["nfe"] < until) & ~good["rank"].isin(place["rank"])]
    return None if others.empty else others.sort_values("mean", kind="stable").iloc[0]
