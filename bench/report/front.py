"""Which configurations are best at each budget: the Pareto front of value against NFE."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from bench.report.yardstick import Yardstick


@dataclass(frozen=True)
class Best:
    """A place on the front: the best value for who can pay from `nfe` to below `until` calls.

    Attributes:
        nfe: Calls that it really took.
        until: Calls of the next place, infinite for the last one.
        points: The points that stand there; several only if their values are equal.
        within: All points at less than `until` calls, the best first.
    """

    nfe: float
    until: float
    points: pd.DataFrame
    within: pd.DataFrame

    @property
    def following(self) -> "pd.Series[Any] | None":
        """The best point of all other configurations at less than `until` calls, if any."""
        others = self.within[~self.within["rank"].isin(self.points["rank"])]
        return None if others.empty else others.iloc[0]


def front(points: pd.DataFrame, yardstick: Yardstick, cost: str = "nfe") -> list[Best]:
    """The places of the front by rising NFE, from points as `frame.points` gives them.

    `cost` is another column than that of NFE to count the calls of, such as seconds.

    A point stands on the front if no other has a better value at as many calls or fewer, nor the
    same value at fewer. Points without a value stand nowhere.
    """
    good = yardstick.ranked(points[points[cost].notna()])
    places: list[pd.DataFrame] = []
    for _, at in good.groupby(cost):
        value = at["mean"].iloc[0]
        if not places or yardstick.beats(value, places[-1]["mean"].iloc[0]):
            places.append(at[at["mean"] == value])
    calls = [place[cost].iloc[0] for place in places]
    return [
        Best(nfe, until, place, good[good[cost] < until])
        for place, (nfe, until) in zip(places, pairwise([*calls, math.inf]), strict=True)
    ]
