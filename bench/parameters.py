"""A function's keyword-only arguments as the parameters a sweep may list.

Samplers and spacings declare their parameters once, in their signature; names, types, ranges and
defaults are read from there:

    def ddim(..., *, eta: Annotated[float, Ge(0), Le(1)] | Literal["sigma-hat"] = 0.0)

In YAML and in records a parameter is written with dashes (`lower-order-final`), in Python with
underscores.
"""

import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from bench.errors import SweepError, nearest

Value = bool | int | float | str | tuple[float, ...] | None
_BOUNDS: dict[type, tuple[str, Callable[[float, float], bool]]] = {
    Ge: ("at least", lambda value, bound: value >= bound),
    Gt: ("above", lambda value, bound: value > bound),
    Le: ("at most", lambda value, bound: value <= bound),
    Lt: ("below", lambda value, bound: value < bound),
}

_FEW = 10


@dataclass(frozen=True)
class Parameter:
    """One sweepable parameter: its YAML name, its type with range, and its default.

    `default` is `inspect.Parameter.empty` where a sweep has to choose.
    """

    name: str
    annotation: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether a sweep has to give it."""
        return self.default is inspect.Parameter.empty

    @property
    def expected(self) -> str:
        """What may be written, for messages and help: 'a number at least 0 and at most 1'."""
        return " or ".join(_describe(choice) for choice in _choices(self.annotation))

    @property
    def examples(self) -> list[Value]:
        """Values that show what it does: all of a choice; of a range all if few, else the ends."""
        return list(dict.fromkeys(v for c in _choices(self.annotation) for v in _examples(c)))

    def validate(self, value: object) -> Value:
        """The value in its canonical type.

        Raises:
            SweepError: it is none of what the annotation allows.
        """
        canonical: Value
        for choice in _choices(self.annotation):
            fits, canonical = _match(choice, value)
            if fits:
                return canonical
        found = f'the text "{value}"' if isinstance(value, str) else written(value)
        raise SweepError(f"{self.name} is {found}; expected {self.expected}.")


def parameters_of(function: Callable[..., object]) -> dict[str, Parameter]:
    """YAML name -> Parameter for the keyword-only arguments of `function`, in their order."""
    hints = get_type_hints(function, include_extras=True)
    return {
        (name := argument.name.replace("_", "-")): Parameter(
            name, hints[argument.name], argument.default
        )
        for argument in inspect.signature(function).parameters.values()
        if argument.kind is inspect.Parameter.KEYWORD_ONLY
    }


def complete(
    owner: str, declared: Mapping[str, Parameter], given: Mapping[str, object]
) -> dict[str, Value]:
    """All parameters of `owner` in canonical form: those given, checked, and the other defaults.

    Args:
        owner: what the parameters belong to, for messages: 'sampler "ddim"'.
        declared: the parameters it has.
        given: YAML name -> value as the user wrote it.

    Raises:
        SweepError: unknown name, value out of range or of another type, required one missing.
    """
    for name in given:
        if name not in declared:
            has = ", ".join(declared) or "none"
            hint = nearest(name, declared)
            raise SweepError(f'{owner} has no parameter "{name}".{hint} It has: {has}.')
    for name, parameter in declared.items():
        if parameter.required and name not in given:
            raise SweepError(f'{owner} needs "{name}": {parameter.expected}.')
    return {
        name: parameter.validate(given.get(name, parameter.default))
        for name, parameter in declared.items()
    }


def as_keywords(params: Mapping[str, Value]) -> dict[str, Any]:
    """Canonical parameters as Python keyword arguments."""
    return {name.replace("-", "_"): value for name, value in params.items()}


def _choices(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation alone."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [choice for member in get_args(annotation) for choice in _choices(member)]
    return [annotation]


def _describe(choice: Any) -> str:
    if get_origin(choice) is Annotated:
        base, *bounds = get_args(choice)
        limits = [f"{_BOUNDS[type(b)][0]} {written(_limit(b))}" for b in bounds]
        return f"{_describe(base)} {' and '.join(limits)}"
    if get_origin(choice) is Literal:
        return " or ".join(f'"{v}"' if isinstance(v, str) else written(v) for v in get_args(choice))
    if get_origin(choice) is tuple:
        return "a list of numbers"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    return names.get(choice, "nothing")


def _examples(choice: Any) -> list[Value]:
    if get_origin(choice) is Annotated:
        base, *bounds = get_args(choice)
        first, *rest = (_limit(bound) for bound in bounds)
        # Of a range that is open on one side: its end, and one further.
        last = rest[0] if rest else first + (1 if isinstance(bounds[0], Ge | Gt) else -1)
        low, high = sorted((first, last))
        is_short = base is int and high - low < _FEW
        ends = range(int(low), int(high) + 1) if is_short else (low, high)
        return [number for fits, number in (_match(choice, end) for end in ends) if fits]
    if get_origin(choice) is Literal:
        return list(get_args(choice))
    if choice is bool:
        return [False, True]
    return [None] if choice is type(None) else []


def _match(choice: Any, value: Any) -> tuple[bool, Any]:
    """Whether `value` is allowed by `choice`, and its canonical form."""
    if get_origin(choice) is Annotated:
        base, *bounds = get_args(choice)
        fits, number = _match(base, value)
        return fits and all(_BOUNDS[type(b)][1](number, _limit(b)) for b in bounds), number
    if get_origin(choice) is Literal:
        # 1 == True == 1.0 in Python, but not in a sweep.
        same = [v for v in get_args(choice) if v == value and type(v) is type(value)]
        return bool(same), value
    if get_origin(choice) is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        matches = [_match(float, item) for item in value]
        return all(fits for fits, _ in matches), tuple(number for _, number in matches)
    if choice is type(None):
        return value is None, None
    if choice in (bool, str):
        return type(value) is choice, value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False, value
    if choice is int:
        return value == int(value), int(value)
    return True, float(value)


def _limit(bound: Any) -> float:
    """The number inside a Ge, Gt, Le or Lt."""
    return float(getattr(bound, type(bound).__name__.lower()))


def written(value: object) -> str:
    """A value as YAML writes it; whole numbers without a point."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "nothing"}[value]
    whole = isinstance(value, float) and value.is_integer()
    return f"{value:.0f}" if whole else f"{value}"
