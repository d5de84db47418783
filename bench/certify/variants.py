"""A sampler at its parameters, as something to examine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.errors import ScheduleError
from bench.parameters import Parameter, Value, as_keywords
from bench.samplers import outside
from bench.samplers.registry import Sampler


@dataclass(frozen=True)
class Variant:
    """A sampler at canonical parameters.

    `like` is what it is said to be, if that is another one: its facts and golden values are those
    that this one is held against.
    """

    sampler: Sampler
    params: dict[str, Value]
    like: "Variant | None" = None

    def __str__(self) -> str:
        return " ".join([self.sampler.name, *(f"{k}={v}" for k, v in self.params.items())])

    @property
    def claim(self) -> "Variant":
        """The one whose facts hold for this one."""
        return self.like or self

    @property
    def declared(self) -> bool:
        """Whether anything is said of it, or it claims to be one of which something is."""
        return self.claim.sampler.family != outside.FAMILY

    @property
    def stochastic(self) -> bool:
        """Whether it is said to draw noise along the way."""
        return self.claim.sampler.stochastic(self.claim.params)

    @property
    def order(self) -> int:
        """The declared order, 0 for none."""
        return self.claim.sampler.order(self.claim.params)

    @property
    def rough_order(self) -> int:
        """The declared order where steps are of very different size."""
        return self.claim.sampler.rough_order(self.claim.params)

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its own steps, so that it takes no more than the ends of a grid."""
        return self.claim.sampler.calls is None

    def run(self, denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
        """Where it takes x (B, C, H, W) on a grid that it accepts."""
        return self.sampler.function(denoise, x, grid, noise, **as_keywords(self.params))

    def refusal(self, grid: TimeGrid) -> str | None:
        """Why it does not run on a grid; None where it does."""
        try:
            self.sampler.check(grid, self.params)
        except ScheduleError as error:
            return str(error)
        return None


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
        open_ends = [getattr(b, n) for b in bounds for n in ("gt", "lt") if hasattr(b, n)]
        return [value for value in inside if value not in open_ends]
    if annotation is bool:
        return [False, True]
    if annotation is type(None):
        return [None]
    if origin is not tuple and get_args(annotation):  # a union
        return [value for member in get_args(annotation) for value in _values(member)]
    return []  # of lists, texts and free numbers only their sampler knows which mean something


def _range(bounds: list[Any]) -> tuple[float, float]:
    """The ends of a range; two further than the one end of a half-open one."""
    low, high = (
        next((float(getattr(b, n)) for b in bounds for n in names if hasattr(b, n)), None)
        for names in (("ge", "gt"), ("le", "lt"))
    )
    if low is None:
        low = 0.0 if high is None else high - 2
    return low, low + 2 if high is None else high


# Where a default leaves the other parameters nothing to do, or asks for more calls than an
# examination has (one Langevin step a level of the default size does not reach the data in 60).
_BASE: Mapping[str, dict[str, Value]] = {
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
