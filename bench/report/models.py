"""The same cells on several models: a row a configuration and NFE, a column a model."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pandas as pd

from bench.report import planned
from bench.report.content import BOLD, Footnotes, Place, Table
from bench.report.frame import Setting, Study
from bench.report.markdown import Scale, count, escape, listed
from bench.report.pooled import Pooled
from bench.report.series import Signs, series
from bench.report.yardstick import Yardstick


def comparable(study: Study) -> Iterator[list[Setting]]:
    """Settings that differ in their model alone, where there are several."""

    def shared(setting: Setting) -> tuple[int, str]:
        return setting.samples, setting.reference

    for _, found in groupby(sorted(study.settings, key=shared), key=shared):
        settings = list(found)
        if len(settings) > 1:
            yield settings


def by_model(
    settings: Sequence[Setting],
    found: Sequence[pd.DataFrame],
    scale: Scale,
    stick: Yardstick,
    how: str,
) -> Iterator[Table]:
    """The table of `comparable` settings, if any configuration has values on two of them.

    Of two models it has the difference too, with the error of its pairs of images.

    Args:
        settings: the models.
        found: the points of each.
        scale: of all values.
        stick: what they are compared by.
        how: where the errors of differences come from (`yardstick.pairing`).
    """
    joined = pd.concat([points.assign(model=model) for model, points in enumerate(found)])
    valued = joined[joined["mean"].notna() & joined["budget"].notna()]
    signs, notes, rows = Signs("row", stick), Footnotes(), []
    two = len(settings) == 2
    for (_, budget), at in valued.groupby(["rank", "budget"]):
        if at["model"].nunique() < 2:
            continue
        ran, places = series(
            at.assign(rank=at["model"]), range(len(settings)), "NFE", scale, signs, notes
        )
        row = [Place(str(at["label"].iloc[0])), Place(f"{budget}{ran}"), *places]
        rows.append([*row, *([_difference(list(at["value"]), scale, stick)] if two else [])])
    if not rows:
        return
    names = planned.apart([setting.described for setting in settings])
    legend = signs.legend()
    if two:
        told = f" ± one standard error, {how}" if how else ""
        legend.append(f"Difference: {names[1]} less {names[0]}{told}.")
    header = ["Configuration", "NFE", *names, *(["Difference"] if two else [])]
    yield Table("", header, rows, notes.lines(), " ".join(legend), left=1, name="by-model")


def summary(found: Table) -> str:
    """How often a model stands out, as a sentence."""
    best = sum(any(place.sign == BOLD for place in row) for row in found.rows)
    rows = count(len(found.rows), "comparison")
    return f"In {best} of {rows} one model is best beyond the noise, each at 95 %."


def caption(settings: Sequence[Setting], metric: str, scale: Scale, stick: Yardstick) -> str:
    """What all values of the table share, as safe Markdown."""
    what = f"{escape(metric)} {scale.words}".strip()
    names = listed([escape(setting.model) for setting in settings])
    first = settings[0]
    shared = f"{first.samples:,} samples a cell; reference {first.reference}"
    return f"{what}; {stick.better} is better. {escape(shared)}; models {names}."


def _difference(values: Sequence[Pooled], scale: Scale, stick: Yardstick) -> Place:
    first, second = values
    value = Pooled(second.mean - first.mean, 1, error=stick.difference(first, second))
    return Place(f"{'+' if value.mean > 0 else ''}{scale.pooled(value)}")
