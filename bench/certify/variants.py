"""Every sampler of the registry with every value of its parameters, read from its signature."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Gt, Lt

from bench.parameters import Parameter, Value
from bench.samplers.registry import REGISTRY, Sampler


@dataclass(frozen=True)
class Variant:
    """A sampler at canonical parameters."""

    sampler: Sampler
    params: dict[str, Value]

    def __str__(self) -> str:
        return " ".join([self.sampler.name, *(f"{k}={v}" for k, v in self.params.items())])

    @property
    def stochastic(self) -> bool:
        return self.sampler.stochastic(self.params)


def values_of(parameter: Parameter) -> list[Any]:
    """All values of a choice; the ends and the middle of a range; two sizes of a tolerance."""
    if parameter.name in ("atol", "rtol", "tolerance"):
        return [parameter.default, 10 * parameter.default]
    return list(dict.fromkeys(_values(parameter.annotation)))


def _values(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Literal:
        return list(get_args(annotation))
    if origin is Annotated:
        kind, *bounds = get_args(annotation)
        low, high = _range(bounds)
        if kind is int:
            return list(range(round(low), round(high) + 1))
        inside = [low + share * (high - low) for share in (0.0, 0.5, 1.0)]
        open_ends = [b.gt for b in bounds if isinstance(b, Gt)]
        open_ends += [b.lt for b in bounds if isinstance(b, Lt)]
        return [value for value in inside if value not in open_ends]
    if origin is tuple:
        return []  # which lists mean something, the family's own tests know
    if annotation is type(None):
        return [None]
    if annotation is bool:
        return [False, True]
    if origin is Union or get_args(annotation):
        return [value for member in get_args(annotation) for value in _values(member)]
    raise TypeError(f"no test values for {annotation}: teach bench/certify/variants.py")


def _range(bounds: list[Any]) -> tuple[float, float]:
    """The ends of a range; two further than the one end of a half-open one."""
    low = next((getattr(b, n) for b in bounds for n in ("ge", "gt") if hasattr(b, n)), None)
    high = next((getattr(b, n) for b in bounds for n in ("le", "lt") if hasattr(b, n)), None)
    if low is None:
        low = high - 2
    return low, low + 2 if high is None else high


# Where a default leaves the other parameters nothing to do, or asks for more calls than tests have
# (one Langevin step a level of the default size does not reach the data in 60 levels).
_BASE: dict[str, dict[str, Value]] = {
    "edm": {"s-churn": 1.0},
    "restart": {"s-max": 3.0},
    "annealed-langevin": {"step-size": 1.0},
}


def base_params(sampler: Sampler) -> dict[str, Value]:
    """The defaults, and the first choice where there is none."""
    needed = {n: values_of(p)[0] for n, p in sampler.params.items() if p.required}
    return sampler.complete({**needed, **_BASE.get(sampler.name, {})})


def variants_of(sampler: Sampler) -> list[Variant]:
    """The base, and every value of every parameter beside it."""
    base = base_params(sampler)
    found = [base]
    for name, parameter in sampler.params.items():
        for value in values_of(parameter):
            params = sampler.complete({**base, name: value})
            if params not in found:
                found.append(params)
    return [Variant(sampler, params) for params in found]


VARIANTS = [variant for sampler in REGISTRY.values() for variant in variants_of(sampler)]
DETERMINISTIC = [v for v in VARIANTS if not v.stochastic]
STOCHASTIC = [v for v in VARIANTS if v.stochastic]
