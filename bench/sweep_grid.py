"""A row of a sweep's grid -> its combinations, asking the registries what it may hold."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any, TypeVar, get_origin

from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.spacing import (
    SPACINGS,
    Final,
    Spacing,
    TimeGrid,
    make_grid,
    read_times,
    steps_of,
)
from bench.errors import ScheduleError, SweepError, nearest
from bench.models import ModelSpec
from bench.parameters import Parameter, Value
from bench.samplers import REGISTRY, Sampler, get
from bench.sweep_file import Row
from bench.yaml_lines import Document, Keys, show

EXACT = "exact"
"""In place of a sampler: exact draws of the model, the floor of every metric."""

Rule = Sampler | Spacing
Items = tuple[tuple[str, Value], ...]
"""Parameters as something that can be a key."""
Named = TypeVar("Named", Sampler, Spacing)


@cache
def grid_of(
    schedule: NoiseSchedule,
    spacing: str,
    steps: int,
    final: Final,
    params: Items,
) -> TimeGrid:
    """See `make_grid`; a grid is built once for all its cells.

    Raises:
        ScheduleError: there is no such grid.
    """
    return make_grid(schedule, spacing, steps, final=final, params=dict(params))


@dataclass(frozen=True)
class Course:
    """A sampler on a spacing of a model's schedule, short of the number of steps."""

    schedule: NoiseSchedule
    sampler: Sampler
    params: dict[str, Value]
    spacing: Spacing
    spacing_params: dict[str, Value]
    final: Final

    def __str__(self) -> str:
        return f"{self.sampler.name} with spacing: {self.spacing.name} and final: {self.final}"

    @cached_property
    def fixed(self) -> int | None:
        """The number of steps, where the spacing fixes it."""
        times = self.spacing_params.get("times")
        count = len(times) if isinstance(times, tuple) else 0
        return steps_of(self.spacing.name, self.schedule, self.final, count)

    @property
    def most(self) -> int | None:
        """The largest number of steps, None where there is none."""
        trained = self.schedule.num_train
        return trained if trained is None or self.final == "zero" else trained - 1

    def grid(self, steps: int) -> TimeGrid:
        """The grid of `steps` steps asked for."""
        params = tuple(self.spacing_params.items())
        return grid_of(self.schedule, self.spacing.name, steps, self.final, params)

    def left(self, steps: int) -> int:
        """How many of `steps` steps remain after duplicates."""
        return len(self.grid(steps))

    def check(self, steps: int) -> None:
        """Whether the sampler runs on the grid of `steps` steps.

        Raises:
            ScheduleError: there is no such grid, or the sampler refuses it.
        """
        self.sampler.check(self.grid(steps), self.params)

    def nfe(self, left: int) -> int:
        """Calls that `left` steps make, of a sampler that declares them."""
        calls = self.sampler.nfe(left, self.final, self.params)
        assert calls is not None
        return calls

    def asking(self, left: int) -> int | None:
        """The smallest number of steps of which `left` remain; None if there is none."""
        if self.fixed is not None:
            return self.fixed if self.left(self.fixed) == left else None
        if self.most is not None and left > self.most:
            return None
        if self.left(left) == left or self.most is None:
            return left
        # Duplicates only ever take a part of a further step away: what remains never falls.
        more = range(left, self.most + 1)
        place = bisect_left(more, left, key=self.left)
        return more[place] if place < len(more) and self.left(more[place]) == left else None

    def around(self, nfe: int) -> tuple[int | None, int | None]:
        """The most steps left that make at most `nfe` calls, and the fewest that make more."""
        top = self.fixed or self.most
        if top is not None and self.spacing.needs_indices:  # only there are duplicates
            top = self.left(top)
        within = nfe if top is None else min(nfe, self.nfe(top))
        best = self.sampler.steps_for(within, self.final, self.params)
        fewest = self.sampler.min_steps(self.params)
        top = max(best + 1, fewest) if top is None else top
        below = next((n for n in range(best, fewest - 1, -1) if self.asking(n)), None)
        above = next((n for n in range(max(best + 1, fewest), top + 1) if self.asking(n)), None)
        return below, above


def expand(
    document: Document, at: Keys, row: Row, models: list[ModelSpec], *, whole: bool
) -> Iterator[dict[str, Any]]:
    """The combinations of the row at `at`, as the fields of a Cell short of seed and samples.

    The last key of the row varies fastest, the model slowest. What is wrong goes into the
    document; a row with something wrong in it gives no more than a part of its combinations.
    `whole` says that the row is as it stands in the file, rather than short of what was wrong.
    """
    before = len(document.problems)
    outside = _from_outside(document, (*at, "sampler"), row.sampler)
    samplers = _named(document, (*at, "sampler"), row.sampler, {**REGISTRY, **outside})
    spacings = _named(document, (*at, "spacing"), row.spacing, SPACINGS)
    if len(document.problems) > before:
        return  # whose parameters would one check?
    params = _parameters(document, at, row, samplers, spacings)
    budgets = _budgets(document, at, row) if whole else []
    if not whole or len(document.problems) > before:
        return
    axes: dict[str, list[tuple[Keys, Any]]] = {
        "sampler": _placed((*at, "sampler"), samplers),
        "spacing": _placed((*at, "spacing"), spacings),
        "final": _placed((*at, "final"), row.final),
        "budget": budgets,
        **params,
    }
    written = [
        _AXIS.get(str(keys[-1]), str(keys[-1])) for keys in document.lines if keys[:-1] == at
    ]
    order = [name for name in [*written, *axes] if name in axes]
    axes = {name: axes[name] for name in dict.fromkeys(order)}
    for model in models:
        schedule, canonical = model.schedule(), model.canonical()
        for combination in product(*axes.values()):
            chosen = dict(zip(axes, combination, strict=True))
            sampler, spacing = chosen["sampler"][1], chosen["spacing"][1]
            place, budget = chosen["budget"]
            if sampler.exact and not model.exact_score:
                document.problem(
                    chosen["sampler"][0],
                    f"{document.found(chosen['sampler'][0])}, which asks for a model whose score "
                    f"is exact; that of {model.label} is not. Leave it out, or use a mixture.",
                )
                continue
            try:
                course = Course(
                    schedule,
                    sampler,
                    _complete(sampler, chosen),
                    *_recorded(spacing, _complete(spacing, chosen)),
                    chosen["final"][1],
                )
                steps = _steps(document, row, course, place, budget)
            except ScheduleError as error:
                own = [chosen[name][0] for name in spacing.params if name in chosen]
                where = own[0] if own else chosen["spacing"][0]
                document.problem(where, f"{show(document.written(where))}: {error}")
                continue
            if steps is not None:
                yield {
                    "model": canonical,
                    "sampler": sampler.name,
                    "params": course.params,
                    "spacing": course.spacing.name,
                    "spacing_params": course.spacing_params,
                    "steps": steps,
                    "final": course.final,
                    "nfe_asked": budget if row.nfe else None,
                }


def _recorded(spacing: Spacing, params: dict[str, Value]) -> tuple[Spacing, dict[str, Value]]:
    """What a cell holds: in place of a file, the times in it, which determine the images.

    Raises:
        ScheduleError: the file holds no times.
    """
    if spacing.name != "file":
        return spacing, params
    return SPACINGS["explicit"], {"times": read_times(str(params["file"]))}


_AXIS = {"steps": "budget", "nfe": "budget"}


def _placed(keys: Keys, values: Any) -> list[tuple[Keys, Any]]:
    """The values of an axis, each with its place."""
    return [((*keys, k), value) for k, value in enumerate(values)]


def _from_outside(document: Document, keys: Keys, names: tuple[str, ...]) -> dict[str, Sampler]:
    """Samplers of other people's by name; one that cannot be loaded is a problem."""
    found = {}
    for place, name in _placed(keys, names):
        if ":" in name:
            try:
                found[name] = get(name)
            except SweepError as error:
                document.problem(place, f"{error}")
    return found


def _named(
    document: Document, keys: Keys, names: tuple[str, ...], registry: Mapping[str, Named]
) -> list[Named]:
    """What the names stand for; an unknown one is a problem."""
    kind = keys[-1]
    for place, name in _placed(keys, names):
        if kind == "sampler" and name == EXACT:
            document.problem(
                place,
                f"{document.found(place)}; exact draws are added by themselves where a model has "
                "them. Leave this out.",
            )
        elif name not in registry and ":" not in name:
            document.problem(
                place,
                f'there is no {kind} "{name}".{nearest(name, registry)} "bench list {kind}s" '
                f"shows all {len(registry)}.",
            )
    return [registry[name] for name in names if name in registry]


def _parameters(
    document: Document,
    at: Keys,
    row: Row,
    samplers: list[Sampler],
    spacings: list[Spacing],
) -> dict[str, list[tuple[Keys, Any]]]:
    """The axes of the parameters: a value is {name of sampler or spacing: canonical value}."""
    given = row.model_extra or {}
    axes = {}
    for key, value in given.items():
        owners = _owners(document, at, key, samplers, spacings)
        if owners:
            axes[key] = list(_values(document, (*at, key), value, owners))
    rules: list[Rule] = [*samplers, *spacings]
    for rule in rules:
        for name, parameter in rule.params.items():
            if parameter.required and name not in given:
                document.problem(
                    at,
                    f'the key "{name}" is missing in {show(at)}; {rule.name} needs it: '
                    f"{parameter.expected}.",
                )
    return axes


def _owners(
    document: Document, at: Keys, key: str, samplers: list[Sampler], spacings: list[Spacing]
) -> list[Rule]:
    """All samplers of the row, or all its spacings, if `key` is a parameter of each of them."""
    for rules in (samplers, spacings):
        having: list[Rule] = [rule for rule in rules if key in rule.params]
        if len(having) == len(rules):
            return having
        if having:
            lacking = next(rule.name for rule in rules if key not in rule.params)
            document.problem(
                (*at, key),
                f"{show((*at, key))} is a parameter of {having[0].name} but not of {lacking}; "
                "write a row for each.",
            )
            return []
    here: list[Rule] = [*samplers, *spacings]
    everywhere: list[Rule] = [*REGISTRY.values(), *SPACINGS.values()]
    known = ["preset", *Row.model_fields, *(name for rule in here for name in rule.params)]
    takes = "; ".join(f"{r.name} takes {', '.join(r.params) or 'none'}" for r in here)
    others = [r.name for r in everywhere if key in r.params]
    elsewhere = f" It is a parameter of {', '.join(others)}." if others else ""
    document.problem(
        (*at, key),
        f'there is no key "{key}" in {show(at)}.{nearest(key, known)}{elsewhere} '
        f"Parameters: {takes}.",
    )
    return []


def _values(
    document: Document, keys: Keys, value: object, owners: list[Rule]
) -> Iterator[tuple[Keys, dict[str, Value]]]:
    """The values of a parameter's axis, canonical for each of its owners."""
    parameters = {rule.name: rule.params[str(keys[-1])] for rule in owners}
    # A parameter that is a list itself is swept by a list of lists.
    lists = any(get_origin(parameter.annotation) is tuple for parameter in parameters.values())
    is_axis = isinstance(value, list) and (not lists or any(isinstance(v, list) for v in value))
    if is_axis or value == []:
        placed = _placed(keys, value)
    else:
        placed = [(keys, value)]
    if not placed:
        expected = next(iter(parameters.values())).expected
        document.unexpected(keys, expected)
    for place, item in placed:
        canonical = {}
        for name, parameter in parameters.items():
            try:
                canonical[name] = parameter.validate(item)
            except SweepError:
                document.unexpected(place, parameter.expected)
        yield place, canonical


def _complete(rule: Rule, chosen: Mapping[str, tuple[Keys, Any]]) -> dict[str, Value]:
    """All parameters of a sampler or spacing: those of this combination, and other defaults."""
    return {
        name: chosen[name][1][rule.name] if name in chosen else _default(parameter)
        for name, parameter in rule.params.items()
    }


@cache
def _default(parameter: Parameter) -> Value:
    return parameter.validate(parameter.default)


def _budgets(document: Document, at: Keys, row: Row) -> list[tuple[Keys, int | None]]:
    """The axis of steps or nfe; a single None where the row leaves it to its spacings."""
    if row.steps and row.nfe:
        document.problem(
            (*at, "nfe"),
            f"{show(at)} gives both steps and nfe, and one follows from the other; keep one.",
        )
    if "unreachable" in row.model_fields_set and not row.nfe:
        document.problem(
            (*at, "unreachable"),
            f"{show((*at, 'unreachable'))} is about nfe, which this row does not give; remove it.",
        )
    if row.nfe:
        return _placed((*at, "nfe"), row.nfe)
    return _placed((*at, "steps"), row.steps) if row.steps else [(at, None)]


def _steps(
    document: Document, row: Row, course: Course, place: Keys, budget: int | None
) -> int | None:
    """The number of steps to ask for; None if it is left out or a problem.

    Raises:
        ScheduleError: the schedule does not admit the spacing.
    """
    fixed, most = course.fixed, course.most
    if budget is None:
        if fixed is None:
            document.problem(
                place,
                f"{show(place)} gives neither steps nor nfe; spacing {course.spacing.name} needs "
                "one of them.",
            )
        else:
            course.check(fixed)
        return fixed
    if row.nfe:
        steps = _steps_for_nfe(document, row, course, place, budget)
        if steps is not None:
            course.check(steps)
        return steps
    if fixed is not None and budget != fixed:
        document.problem(
            place,
            f"{document.found(place)}; spacing {course.spacing.name} has {fixed} steps here. "
            f"Leave steps out, or write {fixed}.",
        )
        return None
    if most is not None and budget > most:
        document.problem(
            place,
            f"{document.found(place)}; {course.schedule.name} has {course.schedule.num_train} "
            f"trained steps: expected at most {most} with final: {course.final}.",
        )
        return None
    course.check(budget)
    return budget


def _steps_for_nfe(
    document: Document, row: Row, course: Course, place: Keys, nfe: int
) -> int | None:
    """The number of steps that makes `nfe` calls, or what `unreachable` says instead."""
    if course.sampler.calls is None:
        document.problem(
            place,
            f"{document.found(place)}; {course.sampler.name} chooses its own steps, and its calls "
            "are counted when it runs. Give steps, and its tolerances in place of a budget.",
        )
        return None
    below, above = course.around(nfe)
    if below is not None and (course.nfe(below) == nfe or row.unreachable == "below"):
        return course.asking(below)
    if row.unreachable == "skip":
        return None
    costs = [course.nfe(n) for n in (below, above) if n is not None]
    if len(costs) == 2:
        makes = f"makes {costs[0]} or {costs[1]} calls, not {nfe}"
        ways = "Write one of these, or unreachable: below, or unreachable: skip."
    else:
        makes = f"makes at {'least' if above else 'most'} {costs[0]} calls"
        ways = f"Write {costs[0]}, or unreachable: {'skip' if above else 'below'}."
    document.problem(place, f"{document.found(place)}; {course} {makes}. {ways}")
    return None
