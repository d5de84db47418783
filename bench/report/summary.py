"""The summary of one setting in words, all made from the numbers.

Where all values of a budget have error bars, the words say which is best, or which cannot be told
apart. Elsewhere they say which value is the lowest, never that one sampler is better than another.
"""

from collections.abc import Iterator

import pandas as pd

from bench.report.markdown import NAMED, Scale, calls, count, escape, listed, times
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick

BASELINE = "ddim"
"""The sampler whose cost for the same quality is always told."""
REACH = 2.0
"""A value counts as near that of exact draws up to this many times it, or from a part of it on."""


def summary(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, stick: Yardstick
) -> Iterator[str]:
    """What the numbers of one setting say, a sentence each."""
    good = stick.ranked(points)
    if good.empty:
        yield "No cell of a sampler has a value yet."
    for budget, at in good.groupby("budget"):
        yield _leading(int(str(budget)), at, _needs(good, at, stick), scale, stick)
    if exact is not None and not exact.hole:
        yield _near_exact(good, exact, scale, stick)
    unsure = sum(not value.sure for value in good["value"])
    if len(good) and unsure == len(good):
        yield "Every value is a single run without an error bar: small differences may be noise."
    elif unsure:
        yield (
            f"{unsure} of {count(len(good), 'value')} "
            f"{'has' if unsure == 1 else 'have'} no error bar: where one of them is compared, "
            "small differences may be noise."
        )


def _leading(budget: int, at: pd.DataFrame, needs: str, scale: Scale, stick: Yardstick) -> str:
    """Who is best at a budget, the best first in `at`; or who has the lowest value, if that is all.

    "Best" is said only beyond the noise.
    """
    names = list(map(escape, at["label"]))
    ran = [f" (with {calls(nfe)})" if nfe != budget else "" for nfe in at["nfe"]]
    shown = [scale.pooled(value) for value in at["value"]]
    said = f"At {budget} NFE, "
    leader = f"{said}**{names[0]}**{ran[0]}"
    if len(at) == 1:
        return f"{leader} has the only value, {shown[0]}."
    verdict = stick.judge(list(at["value"]))
    if verdict is not None and not verdict.beyond:
        tied = [f"{names[place]}{ran[place]}" for place in verdict.among]
        last = shown[verdict.among[-1]]
        return f"{said}{listed(tied)} cannot be told apart: {shown[0]} to {last}."
    leads = f"has the {stick.best} value" if verdict is None else "is best"
    factor = _factor(*at["mean"].iloc[:2])
    return f"{leader} {leads}, {shown[0]}{needs}; next is {names[1]}, {shown[1]}{factor}."


def _needs(good: pd.DataFrame, at: pd.DataFrame, stick: Yardstick) -> str:
    """How many calls the baseline, or else the next sampler, takes for the best value of `at`.

    That is where its value is as good or cannot be told apart from it; silent where there is no
    single best one, or where the other sampler was never given more calls.
    """
    verdict = stick.judge(list(at["value"]))
    leader = at.iloc[0]
    others = at[at["sampler"] != leader["sampler"]]["sampler"]
    if others.empty or (verdict is not None and not verdict.beyond):
        return ""
    other = BASELINE if (others == BASELINE).any() else others.iloc[0]
    theirs = good[(good["sampler"] == other) & (good["nfe"] > leader["nfe"])]
    if theirs.empty:
        return ""
    for nfe, there in theirs.groupby("nfe"):
        best = there.iloc[0]
        against = stick.judge([leader["value"], best["value"]])
        tied = against is not None and not against.beyond
        if tied or not stick.beats(leader["mean"], best["mean"]):
            return f" ({escape(other)} needs {calls(float(str(nfe)))} NFE for that)"
    return f" ({escape(other)} does not come there by {calls(theirs['nfe'].max())} NFE)"


def _factor(best: float, second: float) -> str:
    """', 1.3 times as high' where two values visibly differ and have a ratio."""
    if best <= 0 or second <= 0 or abs(second / best - 1) < 0.005:
        return ""
    return f", {times(second, best)} times as high"


def _near_exact(good: pd.DataFrame, exact: Pooled, scale: Scale, stick: Yardstick) -> str:
    """Which configurations come near the value of exact draws, each at the first NFE."""
    said = f"The {stick.bound} is {scale.pooled(exact)}, the value of exact draws of the model."
    if exact.mean <= 0:  # an unbiased estimate of a distance may be: no value is a multiple of it
        return said
    limit = exact.mean / REACH if stick.higher else REACH * exact.mean
    reach = f"{1 / REACH:g} times that" if stick.higher else f"{REACH:g} times that"
    near = good[good["mean"] >= limit if stick.higher else good["mean"] <= limit]
    first = near.sort_values(["nfe", "rank"]).drop_duplicates("rank")
    if first.empty:
        side = "above" if stick.higher else "below"
        return f"{said} No configuration comes {side} {reach}."
    reached = [
        f"{listed(list(map(escape, at['label'])))}, first at {calls(at['nfe'].iloc[0])} NFE"
        for _, at in first.head(NAMED).groupby("nfe")
    ]
    if len(first) > NAMED:
        reached.append(f"{len(first) - NAMED} more by {calls(first['nfe'].iloc[-1])} NFE")
    others = "" if len(first) == good["rank"].nunique() else "; no other"
    least = "At least" if stick.higher else "At most"
    return f"{said} {least} {reach}: {'; '.join(reached)}{others}."
