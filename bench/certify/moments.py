"""What stochastic samplers do to distributions, without any Monte-Carlo error.

On a Gaussian the exact denoiser is affine in x, so a sampler that is linear in the model's outputs
ends at shift + memory x + sum_k gain_k z_k in each channel. On a mixture in one dimension an
expectation at the end is carried back step by step, as a function of x on a spline, by quadrature
over each step's draw.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from torch import Tensor

from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise, PairFunction
from bench.certify.variants import Variant
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """Of each channel: the end is shift + memory x + sum_k gains[k] z_k."""

    shift: Tensor
    memory: Tensor
    gains: Tensor

    def mean(self, of_start: Tensor) -> Tensor:
        """The end's mean."""
        return self.shift + self.memory * of_start

    def variance(self, of_start: Tensor) -> Tensor:
        """The end's variance."""
        return self.memory**2 * of_start + self.gains.square().sum(0)


def response(variant: Variant, grid: TimeGrid, pair: PairFunction | None = None) -> Response:
    """The response of a sampler: one run with a single one, in another place of each row."""
    pair = pair or Gaussian().pair
    counted = Noise(0, [0], SHAPE, dtype=torch.float64)
    variant.run(Denoiser(pair), counted(), grid, counted)
    draws = counted.draws - 1
    rows = torch.eye(draws + 2, dtype=torch.float64)[..., None, None, None].expand(-1, -1, *SHAPE)
    noise = GivenNoise(list(rows[:, 2:].unbind(1)) or [rows[:, 0]])
    end = variant.run(Denoiser(pair), rows[:, 1], grid, noise).flatten(1)
    return Response(end[0], end[1] - end[0], end[2:] - end[0])


def marginal(point: Point) -> tuple[Tensor, Tensor]:
    """Mean and variance of alpha x0 + sigma eps in each channel of the Gaussian."""
    mean, variance = (
        torch.tensor(v, dtype=torch.float64) for v in (Gaussian().mean, Gaussian().variance)
    )
    return point.alpha * mean, point.alpha**2 * variance + point.sigma**2


def gaussian_error(variant: Variant, grid: TimeGrid) -> float:
    """From the exact marginal at the start: how far mean and deviation are off at the end."""
    found = response(variant, grid)
    start, end = marginal(grid.points[0]), marginal(grid.points[-1])
    off = [found.mean(start[0]) - end[0], found.variance(start[1]).sqrt() - end[1].sqrt()]
    return float(torch.cat(off).norm())


LINE = Blobs(weights=(0.6, 0.4), centres=((-0.7,), (1.1,)), variances=(0.04, 0.3))
"""A mixture in one dimension, skew and with two modes."""


def mixture_error(variant: Variant, grid: TimeGrid) -> float:
    """The same for E x, E x^2 and E cos 2x at the end, on the mixture; one draw a step.

    A step is a run of its own, on a grid of one step.
    """
    z, share = np.polynomial.hermite_e.hermegauss(20)
    share = share / share.sum()

    def values(x: Floats) -> Floats:
        return np.stack([x, x**2, np.cos(2 * x)], axis=-1)

    carried = values
    for a, b in reversed(list(grid.steps())):
        x = _line(a, 501)
        starts, draws = np.meshgrid(x, z, indexing="ij")
        images, noise = (torch.from_numpy(v).reshape(-1, 1, 1, 1) for v in (starts, draws))
        step = TimeGrid(grid.schedule, (a, b))
        ends = variant.run(Denoiser(LINE.pair), images, step, GivenNoise([noise])).numpy()
        carried = CubicSpline(x, np.einsum("ijk,j->ik", carried(ends.reshape(starts.shape)), share))
    return float(
        np.linalg.norm(_expected(carried, grid.points[0]) - _expected(values, grid.points[-1]))
    )


def _line(point: Point, count: int) -> Floats:
    """Places that hold all of the mixture's mass at a noise level."""
    reach = point.alpha * 1.2 + 8 * (point.alpha**2 * 0.3 + point.sigma**2) ** 0.5
    return np.linspace(-reach, reach, count)


def _expected(function: Callable[[Floats], Floats], point: Point) -> Floats:
    x = _line(point, 4001)
    density = np.zeros_like(x)
    for weight, (centre,), variance in zip(LINE.weights, LINE.centres, LINE.variances, strict=True):
        total = point.alpha**2 * variance + point.sigma**2
        density += weight * np.exp(-((x - point.alpha * centre) ** 2) / (2 * total)) / total**0.5
    return np.asarray(np.einsum("i,ik->k", density / density.sum(), function(x)))
