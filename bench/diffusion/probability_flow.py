"""The probability-flow ODE of a model whose score is exact, solved to a tolerance.

With s = tan(phi) the flow is

    d y / d phi = cos(phi) eps - sin(phi) x0,    y = cos(phi) x0 + sin(phi) eps,

which has no singular end, neither at pure noise (phi = pi / 2) nor at the image (phi = 0): the
velocity of Salimans and Ho 2022, arXiv:2202.00512, section 4.
"""

import math

import numpy as np
import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, per_sample
from bench.diffusion.march import Floats, dormand_prince, spread
from bench.diffusion.schedule import Point


def solve(denoise: Denoiser, x: Tensor, a: Point, b: Point, *, tolerance: float) -> Tensor:
    """Where the flow takes x (B, C, H, W) from a, which may be `per_sample`, to b.

    Each sample has its own steps, and its own calls in `denoise`. A step's error in y is at most
    tolerance (1 + |y|), as a root mean square over the sample.

    Raises:
        CellError: a tolerance that is not reached in 10,000 steps.
    """

    def slope(y: Tensor, phi: Floats, rows: Tensor) -> Tensor:
        cosine, sine = np.cos(phi), np.sin(phi)
        point = per_sample([_point(c, s) for c, s in zip(cosine, sine, strict=True)], y)
        x0, eps = denoise(y, point, rows)
        return spread(cosine, y) * eps - spread(sine, y) * x0

    alpha, sigma = _host(a.alpha), _host(a.sigma)
    y = x / spread(np.hypot(alpha, sigma), x)
    start, end = np.arctan2(sigma, alpha), math.atan2(b.sigma, b.alpha)
    y = dormand_prince(slope, y, start, end, rtol=tolerance, atol=tolerance)
    return math.hypot(b.alpha, b.sigma) * y


def _point(cosine: float, sine: float) -> Point:
    """A noise level that need not be one of the schedule; exact models read no time."""
    lam = math.log(cosine / sine) if sine > 0 else math.inf
    return Point(t=math.nan, alpha=cosine, sigma=sine, lam=lam)


def _host(level: float | Tensor) -> Floats:
    """The level of all samples (1,) or of each (B,)."""
    return torch.as_tensor(level, dtype=torch.float64, device="cpu").flatten().numpy()
