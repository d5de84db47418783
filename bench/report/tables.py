"""Quality against steps, in the two layouts that the literature uses.

`by_nfe`: a row a number of function evaluations, a column a configuration.
`by_eta`: a row a value of eta, a column a number of steps, a table a spacing: Table 1 of the DDIM
paper (Song, Meng and Ermon 2021, arXiv:2010.02502).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bench.report.frame import ALL, Pooled, plain
from bench.report.markdown import HOLE, Footnotes, Scale, escape, table

COLUMNS = 8
"""Most columns of one table; wider ones are split by spacing."""

EXACT_DRAWS = "exact draws"
ETA = "param.eta"


@dataclass(frozen=True)
class Table:
    """A table as Markdown, and the words that go above it ('' where it needs none)."""

    title: str
    text: str


def by_nfe(points: pd.DataFrame, exact: Pooled | None, scale: Scale) -> Iterator[Table]:
    """Tables with NFE down and a column a configuration; one a spacing if they are too many."""
    split = points["rank"].nunique() > COLUMNS and points["grid"].nunique() > 1
    for grid, part in points.groupby("grid" if split else lambda _: "", sort=False):
        columns = part.drop_duplicates("rank")
        notes, rows = Footnotes(), []
        for budget, at in part.groupby("budget"):
            values = [_value(at[at["rank"] == rank], scale, notes) for rank in columns["rank"]]
            rows.append([str(budget), *values])
        rows += _floor(exact, len(columns), scale, notes)
        header = ["NFE", *map(escape, columns["line" if split else "label"])]
        yield Table("Spacing " + str(grid) if split else "", _text(header, rows, notes, part))


def by_eta(points: pd.DataFrame, exact: Pooled | None, scale: Scale) -> Iterator[Table]:
    """Tables with eta down and steps across, one a spacing, where a sampler sweeps both."""
    if ETA not in points:
        return
    swept = points[points[ETA].notna()]
    without_eta = swept["line"].str.replace(r" eta=\S+", "", regex=True)
    for (line, grid), part in swept.groupby([without_eta, "grid"], sort=False):
        etas = part.drop_duplicates("rank").set_index("rank")[ETA].map(plain)
        steps = sorted(part["steps"].unique())
        if len(etas) < 2 or len(steps) < 2:
            continue
        notes, rows = Footnotes(), []
        for rank in sorted(etas.index, key=lambda rank: _eta_order(etas[rank])):
            row = part[part["rank"] == rank]
            values = [_value(row[row["steps"] == n], scale, notes, by="steps") for n in steps]
            rows.append([escape(etas[rank]), *values])
        rows += _floor(exact, len(steps), scale, notes)
        header = ["η", *(f"S = {n}" for n in steps)]
        yield Table(f"{line}, spacing {grid}", _text(header, rows, notes, part))


def _eta_order(eta: str) -> tuple[bool, float, str]:
    """Numbers first, by size, then names such as sigma-hat."""
    try:
        return False, float(eta), ""
    except ValueError:
        return True, 0.0, eta


def _value(at: pd.DataFrame, scale: Scale, notes: Footnotes, *, by: str = "NFE") -> str:
    """What one place of a table says; the last row counts if several share it."""
    if at.empty:
        return ""
    point = at.iloc[-1]
    value: Pooled = point["value"]
    shown = scale.pooled(value) + notes.mark(value.note)
    columns = ("nfe", "budget") if by == "NFE" else ("effective", "steps")
    ran, asked = point[columns[0]], point[columns[1]]
    return shown if ran == asked or value.hole else f"{shown} ({ran} {by})"


def _floor(exact: Pooled | None, width: int, scale: Scale, notes: Footnotes) -> list[list[str]]:
    """The row of exact draws, with its value in every column: each one is read against it."""
    if exact is None:
        return []
    return [[EXACT_DRAWS, *[scale.pooled(exact) + notes.mark(exact.note)] * width]]


def _text(header: list[str], rows: list[list[str]], notes: Footnotes, part: pd.DataFrame) -> str:
    """The table, its footnotes, and a legend of the signs that really occur in it."""
    places = [place for row in rows for place in row]
    legend = []
    if any(place.endswith((" NFE)", " steps)")) for place in places):
        legend.append(
            "In brackets: what really ran, where duplicates on the grid were dropped or no number "
            "of steps costs what was asked."
        )
    if part["served"].any():
        steps = ", ".join(map(str, sorted(part.loc[part["served"], "steps"].unique())))
        legend.append(f"At {steps} steps: spacing {ALL}, every index once, for all spacings.")
    if any(place.startswith(HOLE) for place in places):
        legend.append(f"{HOLE} no value, for the reason in the footnote.")
    if "" in places:
        legend.append("Empty: not asked for in this sweep.")
    blocks = [table(header, rows), "\n".join(notes.lines()).rstrip(), " ".join(legend)]
    return "\n\n".join(block for block in blocks if block)
