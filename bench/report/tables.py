"""Quality against steps: who is best, and every value.

What is best beyond the noise is bold; what cannot be told apart from the best has a sign, and then
nothing is bold. Values are compared within a row of one NFE, or a column where that runs across.

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
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bench.report.frame import ALL, Flow, parts
from bench.report.front import Best, front
from bench.report.markdown import HOLE, NAMED, Footnotes, Scale, calls, escape, table, times
from bench.report.names import plain
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick

EXACT_DRAWS = "exact draws"
ETA = "param.eta"
BOLD, TIE, OPEN = "bold", "≈", "open"
"""What a comparison comes to: a winner, a tie, or nothing for want of an error bar."""


@dataclass(frozen=True)
class Table:
    """A table as Markdown, and the words that go above it ('' where it needs none)."""

    title: str
    text: str


def best(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
    """The front, where there are at least two configurations to compare."""
    good = points[points["mean"].notna()]
    if good["rank"].nunique() < 2:
        return
    floor = math.nan if exact is None else exact.mean
    seen: set[str] = set()
    rows = []
    for place in front(points, yardstick):
        point, following = place.points.iloc[0], place.following
        names = [
            _leader(place, yardstick, seen),
            HOLE if following is None else _with_calls(following, place.nfe),
        ]
        ratio = HOLE if following is None else times(following["mean"], point["mean"])
        numbers = [scale.pooled(point["value"]), ratio, times(point["mean"], floor)]
        rows.append([_budgets(place), *names, *numbers])
    first, worse = yardstick.best.capitalize(), "lower" if yardstick.higher else "higher"
    header = ["NFE", first, "Next", "Value", "Next: times as high", f"Times the {yardstick.bound}"]
    legend = [
        f"{first}: no cell with as many calls or fewer has a {yardstick.better} value. Next: the "
        f"{yardstick.best} value of the other configurations within the NFE of the row."
    ]
    if BOLD in seen:
        legend.append(f"Bold: the {yardstick.best} beyond the noise.")
    if TIE in seen:
        legend.append(f"{TIE}: cannot be told apart from the {yardstick.best}, best first.")
    if seen & {BOLD, TIE}:
        legend.append("At 95 %, for all cells within the NFE of a row together.")
    if not all(value.sure for value in good["value"]):
        legend.append(
            f"A single run has no error bar: where the next is hardly {worse}, which of the two "
            "is better is open."
        )
    yield Table("Best at each budget", f"{table(header, rows, left=3)}\n\n{' '.join(legend)}")


def _leader(place: Best, yardstick: Yardstick, seen: set[str]) -> str:
    """Who stands at a place of the front, with all that cannot be told apart from it."""
    name = " and ".join(map(escape, place.points["label"]))
    verdict = yardstick.judge(list(place.within["value"]))
    if verdict is None:
        return name
    among = place.within.iloc[list(verdict.among)].drop_duplicates("rank")
    tied = among[~among["rank"].isin(place.points["rank"])]
    if tied.empty and len(place.points) == 1:
        seen.add(BOLD)
        return f"**{name}**"
    seen.add(TIE)
    others = [_with_calls(point, place.nfe) for _, point in tied.head(NAMED).iterrows()]
    others += [f"{len(tied) - NAMED} more"] if len(tied) > NAMED else []
    return f" {TIE} ".join([name, *others])


def _budgets(place: Best) -> str:
    """The budgets, in whole calls, at which a place of the front holds."""
    if math.isinf(place.until):
        return f"from {calls(place.nfe)}"
    last = math.ceil(place.until) - 1
    return f"{calls(place.nfe)} to {last}" if last > place.nfe else calls(place.nfe)


def _with_calls(point: "pd.Series[Any]", nfe: float) -> str:
    ran = f", {calls(point['nfe'])} NFE" if point["nfe"] != nfe else ""
    return escape(point["label"]) + ran


def by_nfe(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
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
        signs = _Signs("row" if fitting else "column", yardstick)
        notes, budgets, columns = Footnotes(), [], []
        for budget, at in part.groupby("budget"):
            head, places = _series(at, configurations["rank"], "NFE", scale, signs, notes)
            budgets.append(f"{budget}{head}")
            columns.append(places)
        if fitting:
            header = ["NFE", *names]
            rows = [[budget, *row] for budget, row in zip(budgets, columns, strict=True)]
        else:
            header = ["Configuration", *(f"NFE {budget}" for budget in budgets)]
            rows = [[name, *row] for name, *row in zip(names, *columns, strict=True)]
        rows += _floor(exact, len(header) - 1, scale, notes)
        yield Table(f"Spacing {grid}" if grid else "", _text(header, rows, signs, notes, part))


def by_eta(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
    """Tables with eta down and steps across, one a spacing, where a sampler sweeps both."""
    for title, part in _sweeps_of_eta(points):
        etas = part.drop_duplicates("rank").set_index("rank")[ETA].map(plain)
        ranks = sorted(etas.index, key=lambda rank: _eta_order(etas[rank]))
        signs = _Signs("column", yardstick)
        notes, header, columns = Footnotes(), ["η"], []
        for steps, at in part.groupby("steps"):
            head, places = _series(at, ranks, "steps", scale, signs, notes)
            header.append(f"S = {steps}{head}")
            columns.append(places)
        rows = [[escape(etas[rank]), *row] for rank, *row in zip(ranks, *columns, strict=True)]
        rows += _floor(exact, len(columns), scale, notes)
        yield Table(title, _text(header, rows, signs, notes, part))


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


def references(
    exact: Pooled | None, flows: Iterable[Flow], scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
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
    side = "below" if yardstick.higher else "above"
    legend = (
        "Exact flow: the probability-flow ODE itself, from the first to the last point of that "
        f"grid. What it has {side} exact draws, the two ends of the grid lose; what a "
        f"deterministic sampler on the same ends has {side} it, the sampler loses. Another S may "
        "start elsewhere, and injected noise can heal what a start loses."
    )
    header = ["Reference", "Value", f"Times the {yardstick.bound}"]
    text = _joined(table(header, rows), notes, legend)
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


@dataclass
class _Signs:
    """The signs of one table: what a comparison along its rows or columns comes to.

    Attributes:
        along: "row" or "column": within which values are compared.
        yardstick: What they are compared by.
        seen: The outcomes that really occur.
    """

    along: str
    yardstick: Yardstick
    seen: set[str] = field(default_factory=set)

    def of(self, values: list[Pooled]) -> list[str]:
        """The sign of each value: BOLD, TIE or none."""
        verdict = self.yardstick.judge(values)
        if verdict is None:
            errors = {value.sure for value in values if not value.hole}
            self.seen |= {OPEN} if len(errors) == 2 else set()
            return [""] * len(values)
        sign = BOLD if verdict.beyond else TIE
        self.seen.add(sign)
        return [sign if place in verdict.among else "" for place in range(len(values))]

    def legend(self) -> list[str]:
        """What the signs that occur mean."""
        words = []
        if BOLD in self.seen:
            words.append(f"Bold: the best of its {self.along} beyond the noise.")
        if TIE in self.seen:
            words.append(
                f"{TIE}: the best of its {self.along} and what cannot be told apart from it."
            )
        if words:
            words.append(f"At 95 %, for all values of a {self.along} together.")
        if OPEN in self.seen:
            words.append(f"A {self.along} with a value without an error bar has no marks.")
        return words


def _series(
    points: pd.DataFrame,
    ranks: Iterable[int],
    by: str,
    scale: Scale,
    signs: _Signs,
    notes: Footnotes,
) -> tuple[str, list[str]]:
    """The places of one row or column, in the order of `ranks`, and an addition to its head.

    What ran stands beside the value where it is less than the head of the row or column says,
    or in the head if it is the same for all.
    """
    ran, asked = ("nfe", "budget") if by == "NFE" else ("effective", "steps")
    pairs = zip(points[ran], points[asked], strict=True)
    brackets = [f" ({calls(n)} {by})" if n != m else "" for n, m in pairs]
    shared = brackets[0] if len(set(brackets)) == 1 else ""
    values = list(points["value"])
    texts = {}
    for rank, value, sign, bracket in zip(
        points["rank"], values, signs.of(values), brackets, strict=True
    ):
        text = _signed(scale.pooled(value), sign) + notes.mark(value.note)
        texts[rank] = text if shared or value.hole else text + bracket
    return shared, [texts.get(rank, "") for rank in ranks]


def _signed(text: str, sign: str) -> str:
    return {BOLD: f"**{text}**", TIE: f"{text} {TIE}"}.get(sign, text)


def _floor(exact: Pooled | None, width: int, scale: Scale, notes: Footnotes) -> list[list[str]]:
    """The row of exact draws, with its value in every column: each one is read against it."""
    if exact is None:
        return []
    return [[EXACT_DRAWS, *[scale.pooled(exact) + notes.mark(exact.note)] * width]]


def _text(
    header: list[str],
    rows: list[list[str]],
    signs: _Signs,
    notes: Footnotes,
    part: pd.DataFrame,
) -> str:
    """The table, its footnotes, and a legend of the signs that really occur in it."""
    places = [place for row in [header, *rows] for place in row]
    legend = signs.legend()
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
