"""Quality against steps: who is best, and every value.

`best`: the Pareto front, a row a range of budgets.
`by_nfe`: a row a number of function evaluations, a column a configuration; the other way round
where there are many configurations.
`by_eta`: a row a value of eta, a column a number of steps, a table a spacing: Table 1 of the DDIM
paper (Song, Meng and Ermon 2021, arXiv:2010.02502).
`by_tolerance`: samplers that choose their own steps, a row a cell.
`references`: exact draws and exact flows.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench.report.frame import ALL, Flow, Pooled, parts
from bench.report.front import Best, front
from bench.report.markdown import HOLE, Footnotes, Scale, calls, escape, table, times
from bench.report.names import plain

EXACT_DRAWS = "exact draws"
ETA = "param.eta"


@dataclass(frozen=True)
class Table:
    """A table as Markdown, and the words that go above it ('' where it needs none)."""

    title: str
    text: str


def best(points: pd.DataFrame, exact: Pooled | None, scale: Scale) -> Iterator[Table]:
    """The front, where there are at least two configurations to compare."""
    good = points[points["mean"].notna()]
    if good["rank"].nunique() < 2:
        return
    floor = math.nan if exact is None else exact.mean
    rows = []
    for place in front(points):
        point, following = place.points.iloc[0], place.following
        names = [
            " and ".join(map(escape, place.points["label"])),
            HOLE if following is None else _with_calls(following, place.nfe),
        ]
        ratio = HOLE if following is None else times(following["mean"], point["mean"])
        numbers = [scale.pooled(point["value"]), ratio, times(point["mean"], floor)]
        rows.append([_budgets(place), *names, *numbers])
    header = ["NFE", "Lowest", "Next", "Value", "Next: times as high", "Times the floor"]
    legend = (
        "Lowest: no cell with as many calls or fewer has a lower value. Next: the lowest value of "
        "the other configurations within the NFE of the row."
    )
    if good["value"].map(lambda value: value.seeds < 2).any():
        legend += (
            " A single run has no error bar: where the next is hardly higher, which of the two "
            "is better is open."
        )
    yield Table("Best at each budget", f"{table(header, rows, left=3)}\n\n{legend}")


def _budgets(place: Best) -> str:
    """The budgets, in whole calls, at which a place of the front holds."""
    if math.isinf(place.until):
        return f"from {calls(place.nfe)}"
    last = math.ceil(place.until) - 1
    return f"{calls(place.nfe)} to {last}" if last > place.nfe else calls(place.nfe)


def _with_calls(point: "pd.Series[Any]", nfe: float) -> str:
    ran = f", {calls(point['nfe'])} NFE" if point["nfe"] != nfe else ""
    return escape(point["label"]) + ran


def by_nfe(points: pd.DataFrame, exact: Pooled | None, scale: Scale) -> Iterator[Table]:
    """Tables of what has a budget: NFE down and a column a configuration, maybe one a spacing.

    Where these would be too wide, one table with NFE across and a row a configuration.
    """
    placed = points[points["budget"].notna()]
    if placed.empty:
        return
    fitting = parts(placed)
    for grid, part in fitting or [("", placed)]:
        configurations = part.drop_duplicates("rank")
        names = list(map(escape, configurations["line" if grid else "label"]))
        notes, budgets, columns = Footnotes(), [], []
        for budget, at in part.groupby("budget"):
            head, places = _series(at, configurations["rank"], "NFE", scale, notes)
            budgets.append(f"{budget}{head}")
            columns.append(places)
        if fitting:
            header = ["NFE", *names]
            rows = [[budget, *row] for budget, row in zip(budgets, columns, strict=True)]
        else:
            header = ["Configuration", *(f"NFE {budget}" for budget in budgets)]
            rows = [[name, *row] for name, *row in zip(names, *columns, strict=True)]
        rows += _floor(exact, len(header) - 1, scale, notes)
        yield Table(f"Spacing {grid}" if grid else "", _text(header, rows, notes, part))


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


def by_tolerance(points: pd.DataFrame, scale: Scale) -> Iterator[Table]:
    """The samplers that choose their own steps, if there are any."""
    free = points[points["tolerance"].notna()].sort_values(["rank", "nfe"], kind="stable")
    if free.empty:
        return
    notes, rows = Footnotes(), []
    for _, point in free.iterrows():
        names = [escape(point["label"]), escape(point["tolerance"])]
        ran = HOLE
        if not math.isnan(point["nfe"]):
            ran = f"{calls(point['nfe'])} ({point['least']} to {point['most']})"
        value = scale.pooled(point["value"]) + notes.mark(point["value"].note)
        rows.append([*names, ran, value])
    legend = "NFE is the mean over images; in brackets the least and the most that one took."
    text = _joined(
        table(["Configuration", "Tolerance", "NFE", "Value"], rows, left=2), notes, legend
    )
    yield Table("Samplers that choose their own steps", text)


def references(exact: Pooled | None, flows: Iterable[Flow], scale: Scale) -> Iterator[Table]:
    """What samplers are held against, where that is more than exact draws."""
    flows = list(flows)
    if not flows:
        return
    named = [(flow.name, flow.value) for flow in flows]
    if exact is not None:
        named.insert(0, (EXACT_DRAWS, exact))
    floor = math.nan if exact is None else exact.mean
    notes = Footnotes()
    rows = [
        [escape(name), scale.pooled(value) + notes.mark(value.note), times(value.mean, floor)]
        for name, value in named
    ]
    legend = (
        "Exact flow: the probability-flow ODE itself, from the first to the last point of that "
        "grid. What it has above exact draws, the two ends of the grid lose; what a deterministic "
        "sampler on the same ends has above it, the sampler loses. Another S may start elsewhere, "
        "and injected noise can heal what a start loses."
    )
    text = _joined(table(["Reference", "Value", "Times the floor"], rows), notes, legend)
    yield Table("References", text)


def only_eta(points: pd.DataFrame) -> bool:
    """Whether the tables by eta hold every point, so that those by NFE only repeat them."""
    held = sum(len(part) for _, part in _sweeps_of_eta(points))
    return 0 < held == len(points)


def _sweeps_of_eta(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The points in which only eta (two values or more) and the steps (likewise) vary.

    None where `by_nfe` has a row a configuration, which is this layout already.
    """
    if ETA not in points or parts(points[points["budget"].notna()]) is None:
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
    brackets = [f" ({calls(n)} {by})" if n != m else "" for n, m in pairs]
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
    return _joined(table(header, rows), notes, " ".join(legend))


def _joined(table: str, notes: Footnotes, legend: str) -> str:
    blocks = [table, "\n".join(notes.lines()).rstrip(), legend]
    return "\n\n".join(block for block in blocks if block)
