"""The registry of samplers: a dict filled by a decorator.

A sampler is a function `(denoise, x, grid, noise, *, parameters) -> x`; its keyword-only
arguments are the parameters a sweep may list. The decorator adds the facts that cannot be read
from the signature. Facts are checked: a declared NFE must equal the counted one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import Final, TimeGrid
from bench.errors import ScheduleError, SweepError, nearest
from bench.parameters import Parameter, Value, as_keywords, complete, parameters_of

Params = Mapping[str, Value]
SamplerFunction = Callable[..., Tensor]
T = TypeVar("T", bool, int)


@dataclass(frozen=True)
class Sampler:
    """A sampler and the facts about it.

    Attributes:
        name: as written in sweeps.
        family: group in the documentation's table.
        order: global order of convergence with the published start-up, by its parameters; of a
            stochastic sampler, the weak order.
        rough_order: that order where steps are of very different size, by its parameters.
        formula_order: order of a step's formula with an exact history, by its parameters.
        stochastic: whether it draws noise along the way, by its parameters.
        calls: NFE of n steps, given whether the grid ends at sigma = 0, by its parameters; None for
            a sampler that chooses its own steps, whose calls can only be counted.
        min_steps: the smallest number of steps it takes, by its parameters.
        refuses: why it cannot run on a grid, by its parameters; None where it can.
        exact: whether it asks for a model whose score is exact at every noise level.
        paper: authors, year, arXiv id, equation or algorithm.
        summary: the first sentence of its docstring.
        params: YAML name -> parameter.
    """

    name: str
    family: str
    order: Callable[[Params], int]
    rough_order: Callable[[Params], int]
    formula_order: Callable[[Params], int]
    stochastic: Callable[[Params], bool]
    calls: Callable[[int, bool, Params], int] | None
    min_steps: Callable[[Params], int]
    refuses: Callable[[TimeGrid, Params], str | None]
    exact: bool
    paper: str
    summary: str
    function: SamplerFunction
    params: Mapping[str, Parameter]

    def complete(self, given: Mapping[str, object]) -> dict[str, Value]:
        """All parameters in canonical form; see `bench.parameters.complete`."""
        return complete(f'sampler "{self.name}"', self.params, given)

    def nfe(self, steps: int, final: Final, params: Params) -> int | None:
        """Declared NFE of `steps` steps (those that are left after duplicates); None if counted."""
        if self.calls is None:
            return None
        return self.calls(steps, final == "zero", params) + (final == "denoise")

    def check(self, grid: TimeGrid, params: Params) -> None:
        """Whether the sampler can run on `grid`.

        Raises:
            ScheduleError: it takes more steps, or another kind of grid.
        """
        fewest = self.min_steps(params)
        if len(grid) < fewest:
            raise ScheduleError(
                f"{self.name} takes at least {fewest} steps; this grid has {len(grid)}."
            )
        reason = self.refuses(grid, params)
        if reason:
            raise ScheduleError(f"{self.name} {reason}")

    def steps_for(self, nfe: int, final: Final, params: Params) -> int:
        """The largest number of steps that costs at most `nfe` calls; 0 if the fewest cost more.

        Only for samplers that declare their calls.
        """

        def affordable(steps: int) -> bool:
            cost = self.nfe(steps, final, params)
            assert cost is not None
            return cost <= nfe

        # Every step costs at least a call and NFE rises with the steps.
        fewest = self.min_steps(params)
        return next((n for n in range(nfe, fewest - 1, -1) if affordable(n)), 0)


REGISTRY: dict[str, Sampler] = {}


def sampler(
    name: str,
    *,
    family: str,
    paper: str,
    order: int | Callable[[Params], int],
    stochastic: bool | Callable[[Params], bool],
    rough_order: int | Callable[[Params], int] | None = None,
    formula_order: int | Callable[[Params], int] | None = None,
    calls: Callable[[int, bool, Params], int] | None = lambda steps, ends_at_zero, params: steps,
    min_steps: int | Callable[[Params], int] = 1,
    refuses: Callable[[TimeGrid, Params], str | None] = lambda grid, params: None,
    exact: bool = False,
) -> Callable[[SamplerFunction], SamplerFunction]:
    """Register a sampler function under `name`; see `Sampler` for the facts.

    Raises:
        ValueError: the name is taken.
    """

    def register(function: SamplerFunction) -> SamplerFunction:
        if name in REGISTRY:
            raise ValueError(f'a sampler "{name}" is registered already')
        REGISTRY[name] = Sampler(
            name=name,
            family=family,
            order=_fact(order),
            rough_order=_fact(order if rough_order is None else rough_order),
            formula_order=_fact(order if formula_order is None else formula_order),
            stochastic=_fact(stochastic),
            calls=calls,
            min_steps=_fact(min_steps),
            refuses=refuses,
            exact=exact,
            paper=paper,
            summary=(function.__doc__ or "").strip().splitlines()[0],
            function=function,
            params=parameters_of(function),
        )
        return function

    return register


def _fact(value: T | Callable[[Params], T]) -> Callable[[Params], T]:
    return value if callable(value) else lambda params: value


def whole(params: Params, name: str) -> int:
    """The parameter `name`, which is declared as a whole number."""
    value = params[name]
    assert isinstance(value, int)
    return value


def get(name: str) -> Sampler:
    """The sampler called `name`.

    Raises:
        SweepError: there is none of that name.
    """
    if name not in REGISTRY:
        raise SweepError(
            f'There is no sampler "{name}".{nearest(name, REGISTRY)} '
            f'"bench list samplers" shows all {len(REGISTRY)}.'
        )
    return REGISTRY[name]


def sample(
    chosen: Sampler,
    denoise: Denoiser,
    grid: TimeGrid,
    noise: Noise,
    *,
    final: Final,
    params: Params,
) -> Tensor:
    """Images (B, C, H, W) in about [-1, 1] from the noise's first draw, x_T.

    `params` are in canonical form; `final` says how `grid` was made to end ("denoise" adds one
    call that returns x0 there).

    Raises:
        ScheduleError: the sampler cannot run on the grid.
    """
    chosen.check(grid, params)
    start = grid.points[0]
    x = grid.schedule.prior_std(start) * noise()
    x = chosen.function(denoise, x, grid, noise, **as_keywords(params))
    if final == "denoise":
        x, _ = denoise(x, grid.points[-1])
    return x
