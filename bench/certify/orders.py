"""Runs of deterministic samplers on exact models, in float64 from a seeded start."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import TimeGrid
from bench.parameters import as_keywords
from bench.samplers.registry import get
from bench.certify.problems import (
    SHAPE,
    Blobs,
    Gaussian,
    GivenNoise,
    grid_at,
    integrate,
    observed_order,
)

MIXTURE = Blobs().pair
PAIRS = {"gaussian": Gaussian().pair, "mixture": MIXTURE}
LOW, HIGH = -2.0, 1.5
"""Ends of the grids, in lambda, that orders are measured on."""


def solve(
    name: str,
    grid: TimeGrid,
    x: Tensor,
    pair: Callable[[Tensor, Point], Pair] = MIXTURE,
    **given: object,
) -> Tensor:
    """Where the sampler takes x (B, C, H, W) on a grid it accepts; it may draw no noise."""
    sampler = get(name)
    params = sampler.complete({key.replace("_", "-"): value for key, value in given.items()})
    sampler.check(grid, params)
    noise = GivenNoise([x])
    end = sampler.function(Denoiser(pair), x, grid, noise, **as_keywords(params))
    assert noise.draws == 0
    return end


def start_of(grid: TimeGrid) -> Tensor:
    """Three samples of the start, as `sample` would scale them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *SHAPE, dtype=torch.float64, generator=generator)
    return grid.schedule.prior_std(grid.points[0]) * x


def long_start(low: float, high: float, n: int) -> np.ndarray:
    """n steps from low to high, equal but for the first, which is eight times as long.

    So what a start of low order loses is not small before the steps are very many.
    """
    ends = np.cumsum([0.0, 8.0, *[1.0] * (n - 1)])
    return np.asarray(low + (high - low) * ends / ends[-1])


def order_of(
    name: str,
    schedule: str,
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
    steps: Sequence[int],
    **given: object,
) -> float:
    """The observed order on the flow of a problem between LOW and HIGH."""
    errors = []
    for n in steps:
        grid = grid_at(make_schedule(schedule), layout(LOW, HIGH, n))
        end = solve(name, grid, start_of(grid), PAIRS[problem], **given)
        errors.append(float((end - _flow(schedule, problem)).norm()))
    return observed_order(errors, steps)


@cache
def _flow(schedule: str, problem: str) -> Tensor:
    grid = grid_at(make_schedule(schedule), [LOW, HIGH])
    x, (a, b) = start_of(grid), grid.points
    if problem == "gaussian":
        return Gaussian().flow(x, a, b)
    return integrate(PAIRS[problem], x, grid.schedule, a, b)


def ve_twin(grid: TimeGrid, schedule: NoiseSchedule) -> TimeGrid:
    """The same noise levels s in a VE schedule; a start x of the grid is x / alpha there."""
    return TimeGrid(
        schedule,
        tuple(Point(p.s, 1.0, p.s, p.lam) if p.sigma > 0 else schedule.clean for p in grid.points),
    )


def assert_same(one: Tensor, other: Tensor) -> None:
    """To 1e-9."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
