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
from typing import Any

import pandas as pd

from bench.report.content import BOLD, HOLE, TIE, Footnotes, Place, Table, places
from bench.report.frame import ALL, Flow, parts
from bench.report.front import Best, front
from bench.report.markdown import NAMED, Scale, calls, times
from bench.report.names import plain
from bench.report.pooled import Pooled
from bench.report.series import Signs, series
from bench.report.yardstick import Yardstick

EXACT_DRAWS = "exact draws"
ETA = "param.eta"


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
        next_one = HOLE if following is None else _with_calls(following, place.nfe)
        ratio = HOLE if following is None else times(following["mean"], point["mean"])
        value = Place(scale.pooled(point["value"]), value=point["value"])
        names = [Place(_budgets(place)), _leader(place, yardstick, seen), Place(next_one)]
        rows.append([*names, value, *places([ratio, times(point["mean"], floor)])])
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
    yield Table("Best at each budget", header, rows, legend=" ".join(legend), left=3, name="best")


def _leader(place: Best, yardstick: Yardstick, seen: set[str]) -> Place:
    """Who stands at a place of the front, with all that cannot be told apart from it."""
    name = " and ".join(place.points["label"])
    verdict = yardstick.judge(list(place.within["value"]))
    if verdict is None:
        return Place(name)
    among = place.within.iloc[list(verdict.among)].drop_duplicates("rank")
    tied = among[~among["rank"].isin(place.points["rank"])]
    if tied.empty and len(place.points) == 1:
        seen.add(BOLD)
        return Place(name, BOLD)
    seen.add(TIE)
    others = [_with_calls(point, place.nfe) for _, point in tied.head(NAMED).iterrows()]
    others += [f"{len(tied) - NAMED} more"] if len(tied) > NAMED else []
    return Place(f" {TIE} ".join([name, *others]))


def _budgets(place: Best) -> str:
    """The budgets, in whole calls, at which a place of the front holds."""
    if math.isinf(place.until):
        return f"from {calls(place.nfe)}"
    last = math.ceil(place.until) - 1
    return f"{calls(place.nfe)} to {last}" if last > place.nfe else calls(place.nfe)


def _with_calls(point: "pd.Series[Any]", nfe: float) -> str:
    ran = f", {calls(point['nfe'])} NFE" if point["nfe"] != nfe else ""
    return str(point["label"]) + ran


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
        names = list(configurations["line" if grid else "label"])
        signs = Signs("row" if fitting else "column", yardstick)
        notes, budgets, columns = Footnotes(), [], []
        for budget, at in part.groupby("budget"):
            head, found = series(at, configurations["rank"], "NFE", scale, signs, notes)
            budgets.append(f"{budget}{head}")
            columns.append(found)
        if fitting:
            header = ["NFE", *names]
            rows = [[Place(budget), *row] for budget, row in zip(budgets, columns, strict=True)]
        else:
            header = ["Configuration", *(f"NFE {budget}" for budget in budgets)]
            rows = [[Place(name), *row] for name, *row in zip(names, *columns, strict=True)]
        rows += _floor(exact, len(header) - 1, scale, notes)
        legend = _legend(header, rows, signs, part)
        title = f"Spacing {grid}" if grid else ""
        yield Table(title, header, rows, notes.lines(), legend, name="by-nfe")


def by_eta(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
    """Tables with eta down and steps across, one a spacing, where a sampler sweeps both."""
    for title, part in sweeps_of_eta(points):
        etas = eta_rows(part)
        signs = Signs("column", yardstick)
        notes, header, columns = Footnotes(), ["η"], []
        for steps, at in part.groupby("steps"):
            head, found = series(at, etas, "steps", scale, signs, notes)
            header.append(f"S = {steps}{head}")
            columns.append(found)
        rows = [[Place(eta), *row] for eta, *row in zip(etas.values(), *columns, strict=True)]
        rows += _floor(exact, len(columns), scale, notes)
        legend = _legend(header, rows, signs, part)
        yield Table(title, header, rows, notes.lines(), legend, name="by-eta")


def by_tolerance(points: pd.DataFrame, scale: Scale) -> Iterator[Table]:
    """The samplers that choose their own steps, if there are any."""
    free = points[points["tolerance"].notna()].sort_values(["rank", "nfe"], kind="stable")
    if free.empty:
        return
    notes, rows = Footnotes(), []
    for _, point in free.iterrows():
        ran = HOLE
        if not math.isnan(point["nfe"]):
            ran = f"{calls(point['nfe'])} ({point['least']} to {point['most']})"
        rows.append(
            [
                *places([point["label"], point["tolerance"], ran]),
                _valued(point["value"], scale, notes),
            ]
        )
    yield Table(
        "Samplers that choose their own steps",
        ["Configuration", "Tolerance", "NFE", "Value"],
        rows,
        notes.lines(),
        "NFE is the mean over images; in brackets the least and the most that one took.",
        left=2,
        name="by-tolerance",
    )


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
        [Place(name), _valued(value, scale, notes), Place(times(value.mean, floor))]
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
    yield Table("References", header, rows, notes.lines(), legend, name="references")


def only_eta(points: pd.DataFrame) -> bool:
    """Whether the tables by eta hold every point, so that those by NFE only repeat them."""
    held = sum(len(part) for _, part in sweeps_of_eta(points))
    return 0 < held == len(points)


def sweeps_of_eta(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
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


def eta_rows(part: pd.DataFrame) -> dict[int, str]:
    """Eta in words by rank, in the order of the rows."""
    etas = part.drop_duplicates("rank").set_index("rank")[ETA].map(plain)
    return {rank: etas[rank] for rank in sorted(etas.index, key=lambda r: _eta_order(etas[r]))}


def _eta_order(eta: str) -> tuple[bool, float, str]:
    """Numbers first, by size, then names such as sigma-hat."""
    try:
        return False, float(eta), ""
    except ValueError:
        return True, 0.0, eta


def _valued(value: Pooled, scale: Scale, notes: Footnotes) -> Place:
    return Place(scale.pooled(value), note=notes.number(value.note), value=value)


def _floor(exact: Pooled | None, width: int, scale: Scale, notes: Footnotes) -> list[list[Place]]:
    """The row of exact draws, with its value in every column: each one is read against it."""
    if exact is None:
        return []
    return [[Place(EXACT_DRAWS), *[_valued(exact, scale, notes)] * width]]


def _legend(header: list[str], rows: list[list[Place]], signs: Signs, part: pd.DataFrame) -> str:
    """What the signs that really occur in a table mean."""
    legend = signs.legend()
    texts = [*header, *(place.text + place.after for row in rows for place in row)]
    if any(text.endswith((" NFE)", " steps)")) for text in texts):
        legend.append(
            "In brackets: what really ran, where duplicates on the grid were dropped or no number "
            "of steps costs what was asked."
        )
    if part["served"].any():
        steps = ", ".join(map(str, sorted(part.loc[part["served"], "steps"].unique())))
        legend.append(f"At {steps} steps: the spacing {ALL}, every index once.")
    if "" in texts:
        legend.append("Empty: not asked for in this sweep.")
    return " ".join(legend)
