"""Spacings beside each other: one sampler, one NFE, a column a spacing."""

from collections.abc import Iterator

import pandas as pd

from bench.report.content import Footnotes, Place, Table
from bench.report.frame import ALL
from bench.report.markdown import Scale
from bench.report.names import MANY
from bench.report.series import Signs, series
from bench.report.yardstick import Yardstick


def by_spacing(points: pd.DataFrame, scale: Scale, yardstick: Yardstick) -> Iterator[Table]:
    """What is on at least two spacings at one NFE; none where there are too many for one table."""
    placed = points[points["budget"].notna() & (points["grid"] != ALL)]
    shared = placed.groupby(["line", "budget"])["grid"].transform("nunique") > 1
    compared = placed[shared.astype(bool)]
    grids = list(dict.fromkeys(compared["grid"]))
    if not 2 <= len(grids) <= MANY:
        return
    signs, notes, rows = Signs("row", yardstick), Footnotes(), []
    for (line, budget), at in compared.groupby(["line", "budget"], sort=False):
        head, found = series(at.assign(rank=at["grid"]), grids, "NFE", scale, signs, notes)
        rows.append([Place(str(line)), Place(f"{budget}{head}"), *found])
    header = ["Configuration", "NFE", *grids]
    legend = signs.legend()
    if any(not place.text for row in rows for place in row):
        legend.append("Empty: not asked for in this sweep.")
    yield Table(
        "Spacings compared", header, rows, notes.lines(), " ".join(legend), name="by-spacing"
    )
