"""The probability-flow ODE itself, for models whose score is exact: the limit of its solvers.

A grid's start and end lose something that no solver can get back (a start below T keeps the
N(0, I) noise, an end above zero keeps some); what a solver loses beyond that is its own. This
sampler shows the first part: it solves the flow from the grid's first point to its last, to a
tolerance far below what a metric sees. With s = tan(phi) the flow is

    d y / d phi = cos(phi) eps - sin(phi) x0,    y = cos(phi) x0 + sin(phi) eps,

which has no singular end, neither at pure noise (phi = pi / 2) nor at the image (phi = 0): the
velocity of Salimans and Ho 2022, arXiv:2202.00512, section 4. NFE is counted; deterministic.
"""

import math
from typing import Annotated

import numpy as np
from annotated_types import Gt
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, per_sample
from bench.diffusion.march import Floats, dormand_prince, spread
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler


@sampler(
    "exact-flow",
    family="reference",
    paper="Salimans and Ho 2022, arXiv:2202.00512, section 4; Dormand and Prince 1980",
    order=5,
    stochastic=False,
    calls=None,
    exact=True,
)
def exact_flow(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    tolerance: Annotated[float, Gt(0)] = 1e-4,
) -> Tensor:
    """The exact flow from a grid's first point to its last; the points between do not matter."""

    def slope(y: Tensor, phi: Floats, rows: Tensor) -> Tensor:
        cosine, sine = np.cos(phi), np.sin(phi)
        point = per_sample([_point(c, s) for c, s in zip(cosine, sine, strict=True)], y)
        x0, eps = denoise(y, point, rows)
        return spread(cosine, y) * eps - spread(sine, y) * x0

    a, b = grid.points[0], grid.points[-1]
    start, end = math.atan2(a.sigma, a.alpha), math.atan2(b.sigma, b.alpha)
    y = dormand_prince(
        slope, x / math.hypot(a.alpha, a.sigma), start, end, rtol=tolerance, atol=tolerance
    )
    return math.hypot(b.alpha, b.sigma) * y


def _point(cosine: float, sine: float) -> Point:
    """A noise level that need not be one of the schedule; exact models read no time."""
    lam = math.log(cosine / sine) if sine > 0 else math.inf
    return Point(t=math.nan, alpha=cosine, sigma=sine, lam=lam)
