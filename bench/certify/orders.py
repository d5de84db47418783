"""Observed orders of convergence, on a smooth and on a rough grid.

Deterministic samplers are run from a seeded start on the flow of a Gaussian (closed form) and of a
mixture (by scipy), in float64, and their error at the end is fitted over the number of steps. Of
stochastic ones it is the error of moments at the end (`bench.certify.moments`): their weak order.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise, PairFunction, integrate
from bench.certify.variants import Variant
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import TimeGrid

Layout = Callable[[float, float, int], NDArray[np.float64]]
"""(low, high, n) -> the lambdas of n steps from low to high, n + 1 of them or more."""

LOW, HIGH = -2.0, 1.5
"""Ends of the grids, in lambda, that orders are measured on."""
PROBLEMS: Mapping[str, PairFunction] = {"gaussian": Gaussian().pair, "mixture": Blobs().pair}


def grid_at(schedule: NoiseSchedule, lams: Sequence[float] | NDArray[np.float64]) -> TimeGrid:
    """The grid through these half log-SNRs."""
    return TimeGrid(schedule, tuple(schedule.at(lam=float(lam)) for lam in lams))


def smooth(low: float, high: float, n: int) -> NDArray[np.float64]:
    """Steps of which the first is a third as large as the last."""
    u = np.linspace(0, 1, n + 1)
    return low + (high - low) * (0.5 * u + 0.5 * u**2)


def rough(low: float, high: float, n: int) -> NDArray[np.float64]:
    """Steps sized 1, 3, 1, 3, ...; n is even."""
    return _laid(low, high, np.tile([1.0, 3.0], n // 2))


def lengthened(layout: Layout, first: float = 1.0, last: float = 1.0) -> Layout:
    """A layout with a first and a last step that are so many times as long.

    So what a start or an end of low order loses is not small before the steps are very many.
    """

    def laid(low: float, high: float, n: int) -> NDArray[np.float64]:
        sizes = np.diff(layout(low, high, n))
        sizes[[0, -1]] *= first, last
        return _laid(low, high, sizes)

    return laid


def ramped(low: float, high: float, n: int) -> NDArray[np.float64]:
    """Steps sized 1, 3, 1, 3, ..., and next to both ends smaller and smaller ones.

    The first and last steps, which are of lower order, are so small that nothing is seen of them:
    what is left is the order of the formula. Neighbours are in ratios of 1 to 3 at most.
    """
    ramp = 2.0 ** -np.arange(1, _RAMP)
    return _laid(low, high, [*ramp[::-1], *[1.0, 3.0] * (n // 2), *ramp])


_RAMP = 17  # the smallest step is 1.5e-5 of a usual one


def _laid(
    low: float, high: float, sizes: Sequence[float] | NDArray[np.float64]
) -> NDArray[np.float64]:
    ends = np.cumsum([0.0, *sizes])
    return np.asarray(low + (high - low) * ends / ends[-1])


def observed_order(errors: Sequence[float], steps: Sequence[int]) -> float:
    """Least-squares slope of -log error over log n."""
    return -float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def start_of(grid: TimeGrid) -> Tensor:
    """Three samples of the start, scaled as `bench.samplers.sample` would."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator)
    return grid.schedule.prior_std(grid.points[0]) * x


def solve(variant: Variant, grid: TimeGrid, x: Tensor, pair: PairFunction) -> Tensor:
    """Where a sampler that draws no noise takes x (B, C, H, W)."""
    return variant.run(Denoiser(pair), x, grid, GivenNoise([x]))


def order_of(
    variant: Variant, schedule: str, problem: str, layout: Layout, steps: Sequence[int]
) -> float:
    """The observed order on the flow of a problem between LOW and HIGH."""
    exact = _exact_end(schedule, problem)
    errors = []
    for n in steps:
        grid = grid_at(make_schedule(schedule), layout(LOW, HIGH, n))
        end = solve(variant, grid, start_of(grid), PROBLEMS[problem])
        errors.append(float((end - exact).norm()))
    return observed_order(errors, steps)


@cache
def _exact_end(schedule: str, problem: str) -> Tensor:
    grid = grid_at(make_schedule(schedule), [LOW, HIGH])
    x, (a, b) = start_of(grid), grid.points
    if problem == "gaussian":
        return Gaussian().flow(x, a, b)
    return integrate(PROBLEMS[problem], x, grid.schedule, a, b)


def formula_order_of(variant: Variant, schedule: str, steps: Sequence[int]) -> float:
    """The observed order of a step's formula with an exact history.

    On a `ramped` grid, where eps depends on lambda alone: the exact solution is an integral,
    x_b / alpha_b = x_a / alpha_a - integral of e^-lambda eps dlambda.
    """
    made = make_schedule(schedule)
    low, high = _SHORT
    a, b = made.at(lam=low), made.at(lam=high)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    lam = low + 0.5 * (high - low) * (1 + nodes)
    integral = 0.5 * (high - low) * float(weights @ (np.exp(-lam) * _eps(lam)))
    errors = []
    for n in steps:
        grid = grid_at(made, ramped(low, high, n))
        x = start_of(grid)
        exact = b.alpha * (x / a.alpha - integral)
        errors.append(float((solve(variant, grid, x, _given_eps) - exact).norm()))
    return observed_order(errors, steps)


_SHORT = -1.0, 0.5  # where few enough steps show orders as high as 4


def _eps(lam: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sin(1.3 * lam) + 0.4 * np.cos(0.7 * lam))


def _given_eps(x: Tensor, point: Point) -> Pair:
    eps = torch.full_like(x, float(_eps(np.array(point.lam))))
    return (x - point.sigma * eps) / point.alpha, eps
