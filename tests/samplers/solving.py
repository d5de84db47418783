"""Runs of the registry's deterministic samplers by name."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bench.certify import orders
from bench.certify.orders import HIGH, LOW, PROBLEMS, Layout, start_of  # noqa: F401
from bench.certify.problems import GivenNoise, PairFunction
from bench.certify.variants import Variant
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.schedule import NoiseSchedule, Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import get

MIXTURE = PROBLEMS["mixture"]


def _even(low: float, high: float, n: int) -> np.ndarray:
    return np.linspace(low, high, n + 1)


def long_start(low: float, high: float, n: int) -> np.ndarray:
    """n steps that are equal but for the first, which is eight times as long."""
    return orders.lengthened(_even, first=8)(low, high, n)


def variant(name: str, **given: object) -> Variant:
    """A sampler of the registry at parameters with underscores, completed by the defaults."""
    sampler = get(name)
    return Variant(sampler, sampler.complete({k.replace("_", "-"): v for k, v in given.items()}))


def solve(
    name: str, grid: TimeGrid, x: Tensor, pair: PairFunction = MIXTURE, **given: object
) -> Tensor:
    """Where the sampler takes x (B, C, H, W) on a grid it accepts; it may draw no noise."""
    chosen, noise = variant(name, **given), GivenNoise([x])
    chosen.sampler.check(grid, chosen.params)
    end = chosen.run(Denoiser(pair), x, grid, noise)
    assert noise.draws == 0
    return end


def order_of(
    name: str, schedule: str, problem: str, layout: Layout, steps: Sequence[int], **given: object
) -> float:
    """The observed order on the flow of a problem between LOW and HIGH."""
    return orders.order_of(variant(name, **given), schedule, problem, layout, steps)


def ve_twin(grid: TimeGrid, schedule: NoiseSchedule) -> TimeGrid:
    """The same noise levels s in a VE schedule; a start x of the grid is x / alpha there."""
    return TimeGrid(
        schedule,
        tuple(Point(p.s, 1.0, p.s, p.lam) if p.sigma > 0 else schedule.clean for p in grid.points),
    )


def assert_same(one: Tensor, other: Tensor) -> None:
    """To 1e-9."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
