"""The certificate of the grids: the schedules and spacings that all samplers run on.

golden/grids.json holds schedules at some times, and some points of grids, derived a second time in
mpmath with 50 digits by tests/samplers/golden/grids.py. What else is asked must hold of every grid
and at every time.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from bench.certify.checks import Finding
from bench.diffusion.schedule import SCHEDULES, NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import SPACINGS, Final, Spacing, TimeGrid, make_grid, steps_of
from bench.errors import ScheduleError

WITHIN = 1e-9
"""How far a number may be off, relative to 1 or to itself."""

_STEPS = (*range(1, 22), 50, 100, 1000)
_AS_EXPLICIT = "file"  # a sweep reads the file, and asks for explicit times

Numbers = Iterable[float]
Comparison = tuple[str, Callable[[], Numbers], Numbers]
"""What is compared, what gives its numbers or raises ScheduleError, and the expected numbers."""


def findings() -> Iterator[Finding]:
    """What every schedule and every spacing of the registries gives."""
    for name in SCHEDULES:
        yield from _of_schedule(name)
    for rule in SPACINGS.values():
        if rule.name != _AS_EXPLICIT:
            yield from _of_spacing(rule)


@cache
def _on_file() -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads(
        (Path(__file__).parent / "golden/grids.json").read_text("utf-8")
    )
    return values


def _compared(settings: str, check: str, kind: str, cases: Sequence[Comparison]) -> Finding:
    """A finding on numbers that are known."""
    most, wrong = 0.0, []
    for what, numbers, expected in cases:
        try:
            off = max(map(_off, numbers(), expected))
        except ScheduleError as error:
            wrong.append(f"{what}: {error}")
            continue
        most = max(most, off)
        if off > WITHIN:
            wrong.append(f"{what}, by {off:.1e}")
    found = f"{len(cases)} {kind}, off by {most:.0e} at most" if cases else "none on file"
    if wrong:
        found = f"{len(wrong)} of {len(cases)} {kind} wrong; the first: {wrong[0]}"
    ok = bool(cases) and not wrong
    return Finding(settings, check, f"off by {WITHIN:.0e} at most", found, ok)


def _off(found: float, expected: float) -> float:
    """The deviation relative to 1 or to the value; infinite where one alone is no finite number."""
    if found == expected:  # infinities too
        return 0.0
    off = abs(found - expected) / max(1.0, abs(expected))
    return math.inf if math.isnan(off) else off


def _numbers(point: Point) -> tuple[float, float, float, float]:
    return point.t, point.alpha, point.sigma, point.lam


def _read(text: str) -> list[float]:
    return [float(number) for number in text.split()]


# Schedules.


def _of_schedule(name: str) -> Iterator[Finding]:
    settings, schedule = f"schedule {name}", make_schedule(name)
    values = _on_file()["schedules"].get(name, {})
    functions: dict[str, Callable[[float], Numbers]] = {
        "point": lambda t: _numbers(schedule.at(t=t)),
        "prior std": lambda t: [t, schedule.prior_std(schedule.at(t=t))],
        "rates": lambda t: [t, *schedule.rates(t)],
        "t of lambda": lambda lam: [lam, schedule.at(lam=lam).t],
        "t of s": lambda s: [s, schedule.at(s=s).t],
        "clean image": lambda t: _numbers(schedule.clean),
        "range": lambda t: [schedule.t_min, schedule.t_max, schedule.num_train or 0],
    }
    cases: list[Comparison] = [
        (f"{what} {numbers[0]:g}", partial(functions[what], numbers[0]), numbers)
        for what, rows in values.items()
        for numbers in map(_read, rows)
    ]
    yield _compared(settings, "golden values", "values", cases)
    # Densest towards the data.
    times = [
        schedule.t_min + (i / 200) ** 4 * (schedule.t_max - schedule.t_min) for i in range(201)
    ]
    cases = [(f"t = {t:g}", partial(_back, schedule, t), [t, t]) for t in times]
    yield _compared(settings, "t of lambda and s of t", "times", cases)


def _back(schedule: NoiseSchedule, t: float) -> Numbers:
    point = schedule.at(t=t)
    return schedule.at(lam=point.lam).t, schedule.at(s=point.s).t


# Spacings.


@dataclass(frozen=True)
class _Asked:
    """A spacing at its parameters, on a schedule."""

    rule: Spacing
    params: Mapping[str, Any]
    schedule: NoiseSchedule

    def __str__(self) -> str:
        return " ".join([self.schedule.name, *(f"{k} {v}" for k, v in self.params.items())])

    def grid(self, steps: int, final: Final) -> TimeGrid:
        """Raises ScheduleError where there is none."""
        return make_grid(self.schedule, self.rule.name, steps, final=final, params=self.params)

    def numbers_of_steps(self) -> Sequence[int]:
        """To the clean image."""
        times = len(self.params.get("times", ()))
        fixed = steps_of(self.rule.name, self.schedule, "zero", times)
        return _STEPS if fixed is None else [fixed]


def _of_spacing(rule: Spacing) -> Iterator[Finding]:
    settings = f"spacing {rule.name}"
    schedules = {name: make_schedule(name) for name in SCHEDULES}
    every: dict[str, _Asked] = {}
    cases: list[Comparison] = []
    for grid in _on_file()["grids"]:
        if grid["spacing"] == rule.name:
            asked = _Asked(rule, grid["params"], schedules[grid["schedule"]])
            every[str(asked)] = asked
            expected = [number for row in grid["points"].values() for number in _read(row)]
            what = f"{asked}, {grid['steps']} steps, {grid['final']}"
            cases.append((what, partial(_as_on_file, asked, grid), expected))
    yield _compared(settings, "golden values", "grids", cases)
    for check, expected_words, fault in (
        ("every number of steps", "falling, as many as asked", _fault_of_steps),
        ("final", "zero adds the clean image", _fault_of_final),
    ):
        yield _held(settings, check, expected_words, every.values(), fault)


def _as_on_file(asked: _Asked, grid: Mapping[str, Any]) -> Numbers:
    """The numbers of those of its points that are on file."""
    points = asked.grid(grid["steps"], grid["final"]).points
    if len(points) != grid["count"]:
        raise ScheduleError(f"{len(points)} points, not {grid['count']}.")
    return [number for i in grid["points"] for number in _numbers(points[int(i)])]


def _held(
    settings: str,
    check: str,
    expected: str,
    every: Iterable[_Asked],
    fault_of: Callable[[_Asked, int], str],
) -> Finding:
    """A finding on what must hold at every number of steps."""
    grids, wrong = 0, []
    for asked in every:
        for n in asked.numbers_of_steps():
            grids += 1
            try:
                fault = fault_of(asked, n)
            except ScheduleError as error:
                fault = str(error)
            if fault:
                wrong.append(f"{asked}, {n} steps: {fault}")
    found = f"{grids} grids"
    if wrong:
        found = f"{len(wrong)} of {found} wrong; the first: {wrong[0]}"
    return Finding(settings, check, expected, found, grids > 0 and not wrong)


def _fault_of_steps(asked: _Asked, n: int) -> str:
    grid = asked.grid(n, "zero")
    if not all(a.t > b.t and a.lam < b.lam for a, b in grid.steps()):
        return "does not fall"
    # Only indices fall on one another; they are then one step.
    if len(grid) > n or (len(grid) < n and not asked.rule.needs_indices):
        return f"has {len(grid)}"
    return ""


def _fault_of_final(asked: _Asked, n: int) -> str:
    """With another end and one step less, a grid has the same points but for the clean image."""
    *points, last = asked.grid(n, "zero").points
    if last != asked.schedule.clean:
        return "zero does not end on the clean image"
    finals: tuple[Final, ...] = ("sigma-min", "denoise")
    for final in finals if n > 1 else ():
        if list(asked.grid(n - 1, final).points) != points:
            return f"{final} has other points than zero"
    return ""
