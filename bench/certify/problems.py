"""Models with an exact denoiser in any precision, and their exact flows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from torch import Tensor

from bench.diffusion.denoiser import Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point

PairFunction = Callable[[Tensor, Point], Pair]

SHAPE = (4, 1, 1)
"""Of the images of these models: four channels, each with its own mean and variance."""


@cache  # a run of 1000 steps would spend most of its time on these
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


@dataclass(frozen=True)
class Gaussian:
    """N(mean, diag(variance)) with one mean and variance a channel, for any height and width."""

    mean: tuple[float, ...] = (0.3, -0.2, 0.0, 0.5)
    variance: tuple[float, ...] = (1.0, 0.25, 0.04, 2.0)

    def pair(self, x: Tensor, point: Point) -> Pair:
        """E[x0 | x] and E[eps | x]."""
        mean, c = (_tensor(v, x.dtype, x.device)[:, None, None] for v in (self.mean, self.variance))
        centred = (x - point.alpha * mean) / (point.alpha**2 * c + point.sigma**2)
        return mean + point.alpha * c * centred, point.sigma * centred

    def flow(self, x: Tensor, a: Point, b: Point) -> Tensor:
        """Where the probability-flow ODE takes x from a to b: each channel keeps its z-score."""
        mean, c = (_tensor(v, x.dtype, x.device)[:, None, None] for v in (self.mean, self.variance))
        scale = ((b.alpha**2 * c + b.sigma**2) / (a.alpha**2 * c + a.sigma**2)).sqrt()
        return b.alpha * mean + scale * (x - a.alpha * mean)


@dataclass(frozen=True)
class Blobs:
    """A mixture of Gaussians that are isotropic: weights (K,), centres (K, C), variances (K,)."""

    weights: tuple[float, ...] = (0.5, 0.3, 0.2)
    centres: tuple[tuple[float, ...], ...] = (
        (0.8, -0.5, 0.1, 0.9),
        (-0.7, 0.4, 0.6, -0.3),
        (0.1, 0.9, -0.8, 0.2),
    )
    variances: tuple[float, ...] = (0.09, 0.16, 0.25)

    def pair(self, x: Tensor, point: Point) -> Pair:
        """E[x0 | x] and E[eps | x]."""
        flat = x.flatten(1)
        weights, centres, variances = (
            _tensor(v, x.dtype, x.device) for v in (self.weights, self.centres, self.variances)
        )
        # One level, or one for each sample: (n, 1).
        alpha, sigma = (
            torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(-1, 1)
            for v in (point.alpha, point.sigma)
        )
        total = alpha**2 * variances + sigma**2  # (n, K)
        centred = flat[:, None] - alpha[:, :, None] * centres  # (B, K, C)
        logits = weights.log() - 0.5 * flat.shape[1] * total.log()
        logits = logits - 0.5 * centred.square().sum(2) / total
        white = centred / total[:, :, None]
        share = logits.softmax(1)[..., None]
        eps = (share * sigma[:, :, None] * white).sum(1)
        x0 = (share * (centres + (alpha * variances)[:, :, None] * white)).sum(1)
        return x0.view_as(x), eps.view_as(x)


class GivenNoise(Noise):
    """Noise from a list, one tensor a draw."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__(0, range(len(draws[0])), tuple(draws[0].shape[1:]))
        self._given = draws

    def __call__(self) -> Tensor:
        """The next one of the list."""
        self.draws += 1
        return self._given[self.draws - 1]


def integrate(pair: PairFunction, x: Tensor, schedule: NoiseSchedule, a: Point, b: Point) -> Tensor:
    """The probability-flow ODE from a to b to about 1e-9, with scipy's DOP853.

    In log s: d (x / alpha) / d log s = s eps. An independent integrator, on another variable than
    the samplers' own.
    """

    def slope(log_s: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        point = schedule.at(lam=-log_s)
        scaled = point.alpha * torch.from_numpy(flat).view_as(x)
        return np.asarray(point.s * pair(scaled, point)[1].flatten().numpy())

    start = (x / a.alpha).flatten().numpy()
    solved = solve_ivp(slope, (-a.lam, -b.lam), start, method="DOP853", rtol=1e-10, atol=1e-11)
    assert solved.success, solved.message
    return b.alpha * torch.from_numpy(solved.y[:, -1]).view_as(x)
