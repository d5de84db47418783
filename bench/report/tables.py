"""Quality against steps, in the two layouts that the literature uses.

`by_nfe`: a row a number of function evaluations, a column a configuration.
`by_eta`: a row a value of eta, a column a number of steps, a table a spacing: Table 1 of the DDIM
paper (Song, Meng and Ermon 2021, arXiv:2010.02502).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from bench.report.frame import ALL, Pooled, plain
from bench.report.markdown import Footnotes, Scale, escape, table

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
            head, places = _series(at, columns["rank"], "NFE", scale, notes)
            rows.append([f"{budget}{head}", *places])
        rows += _floor(exact, len(columns), scale, notes)
        header = ["NFE", *map(escape, columns["line" if split else "label"])]
        yield Table("Spacing " + str(grid) if split else "", _text(header, rows, notes, part))


def by_eta(points: pd.DataFrame, exact: Pooled | None, scale: Scale) -> Iterator[Table]:
    """Tables with eta down and steps across, one a spacing, where a sampler sweeps both."""
    for title, part in _sweeps_of_eta(points):
        etas = part.drop_duplicates("rank").set_index("rank")[ETA].map(plain)
        ranks = sorted(etas.index, key=lambda rank: _eta_order(etas[rank]))
        notes, header, columns = Footnotes(), ["η"], []
        for steps, at in part.groupby("steps"):
            head, places = _series(at, ranks, "steps", scale, notes)
            header.append(f"S = {steps}{head}")
            columns.append(places)
        rows = [[escape(etas[rank]), *row] for rank, *row in zip(ranks, *columns, strict=True)]
        rows += _floor(exact, len(columns), scale, notes)
        yield Table(title, _text(header, rows, notes, part))


def only_eta(points: pd.DataFrame) -> bool:
    """Whether the tables by eta hold every point, so that those by NFE only repeat them."""
    held = sum(len(part) for _, part in _sweeps_of_eta(points))
    return 0 < held == len(points)


def _sweeps_of_eta(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The points in which only eta (two values or more) and the steps (likewise) vary."""
    if ETA not in points:
        return
    swept = points[points[ETA].notna()]
    without_eta = swept["line"].str.replace(r" eta=\S+", "", regex=True)
    for (line, grid), part in swept.groupby([without_eta, "grid"], sort=False):
        if part["rank"].nunique() > 1 and part["steps"].nunique() > 1:
            yield f"{line}, spacing {grid}", part


def _eta_order(eta: str) -> tuple[bool, float, str]:
    """Numbers first, by size, then names such as sigma-hat."""
    try:
        return False, float(eta), ""
    except ValueError:
        return True, 0.0, eta


def _series(
    points: pd.DataFrame, ranks: Iterable[int], by: str, scale: Scale, notes: Footnotes
) -> tuple[str, list[str]]:
    """The places of one row or column, in the order of `ranks`, and an addition to its head.

    What ran stands beside the value where it is less than the head of the row or column says,
    or in the head if it is the same for all.
    """
    ran, asked = ("nfe", "budget") if by == "NFE" else ("effective", "steps")
    pairs = zip(points[ran], points[asked], strict=True)
    brackets = [f" ({n} {by})" if n != m else "" for n, m in pairs]
    shared = brackets[0] if len(set(brackets)) == 1 else ""
    texts = {}
    for rank, value, bracket in zip(points["rank"], points["value"], brackets, strict=True):
        text = scale.pooled(value) + notes.mark(value.note)
        texts[rank] = text if shared or value.hole else text + bracket
    return shared, [texts.get(rank, "") for rank in ranks]


def _floor(exact: Pooled | None, width: int, scale: Scale, notes: Footnotes) -> list[list[str]]:
    """The row of exact draws, with its value in every column: each one is read against it."""
    if exact is None:
        return []
    return [[EXACT_DRAWS, *[scale.pooled(exact) + notes.mark(exact.note)] * width]]


def _text(header: list[str], rows: list[list[str]], notes: Footnotes, part: pd.DataFrame) -> str:
    """The table, its footnotes, and a legend of the signs that really occur in it."""
    places = [place for row in [header, *rows] for place in row]
    legend = []
    if any(place.endswith((" NFE)", " steps)")) for place in places):
        legend.append(
            "In brackets: what really ran, where duplicates on the grid were dropped or no number "
            "of steps costs what was asked."
        )
    if part["served"].any():
        steps = ", ".join(map(str, sorted(part.loc[part["served"], "steps"].unique())))
        legend.append(f"At {steps} steps: the spacing {ALL}, every index once.")
    if "" in places:
        legend.append("Empty: not asked for in this sweep.")
    blocks = [table(header, rows), "\n".join(notes.lines()).rstrip(), " ".join(legend)]
    return "\n\n".join(block for block in blocks if block)
