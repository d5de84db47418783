"""The problem behind the golden values: a scalar mixture of two Gaussians, in mpmath, 50 digits.

Nothing of `bench` is imported here or in the families beside.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mpmath import exp, linspace, mp, mpf, sqrt

mp.dps = 50

# The model: weights, means and variances of the two components.
MODEL = {"weights": ["0.6", "0.4"], "means": ["-0.7", "1.1"], "variances": ["0.04", "0.3"]}
STARTS = ["-1.9", "-0.6", "0.15", "0.8", "2.4"]
# What the noise calls return, one row a call; one number for each start.
NOISE = [
    ["0.31", "-1.2", "0.05", "1.7", "-0.4"],
    ["-0.8", "0.6", "1.1", "-0.2", "-1.5"],
    ["1.4", "0.9", "-0.7", "0.3", "0.2"],
    ["-0.1", "-0.5", "2.0", "-1.1", "0.7"],
    ["0.45", "1.3", "-1.6", "0.65", "-0.9"],
]

Level = tuple[mpf, mpf]  # (alpha, sigma)
Model = Callable[[mpf, Level], tuple[mpf, mpf]]


def denoise(x: mpf, level: Level) -> tuple[mpf, mpf]:
    """E[x0 | x] from the posterior of each component, and eps = (x - alpha x0) / sigma."""
    alpha, sigma = level
    shares, means = [], []
    for w, m, c in zip(
        *(map(mpf, MODEL[k]) for k in ("weights", "means", "variances")), strict=True
    ):
        total = alpha**2 * c + sigma**2
        shares.append(w / sqrt(total) * exp(-((x - alpha * m) ** 2) / (2 * total)))
        means.append((m * sigma**2 + alpha * c * x) / total)
    x0 = sum(p * m for p, m in zip(shares, means, strict=True)) / sum(shares)
    return x0, (x - alpha * x0) / sigma


def clip(x: mpf) -> mpf:
    return min(max(x, mpf(-1)), mpf(1))


def vp_linear(t: int) -> Level:
    """Ho et al.: alpha-bar is the product of 1 - beta, beta from 1e-4 to 0.02 in 1000 steps."""
    if t < 0:
        return mpf(1), mpf(0)
    betas = linspace(mpf("0.0001"), mpf("0.02"), 1000)
    abar = mpf(1)
    for beta in betas[: t + 1]:
        abar *= 1 - beta
    return sqrt(abar), sqrt(1 - abar)


def flow(t: str) -> Level:
    return 1 - mpf(t), mpf(t)


def edm(t: str) -> Level:
    return mpf(1), mpf(t)


Solve = Callable[[mpf, list[Level], list[mpf]], mpf]
"""(start, levels from noise to data, noise of each draw after the start) -> end."""


@dataclass(frozen=True)
class Case:
    """A sampler at its parameters, on one grid."""

    sampler: str
    params: dict[str, object]
    schedule: str
    times: list[float]
    solve: Solve
    within: float = 1e-10


LEVELS: dict[str, Callable[[float], Level]] = {
    "vp-linear": lambda t: vp_linear(int(t)),
    "edm": lambda t: edm(str(t)),
    "flow": lambda t: flow(str(t)),
}

# -1 is the clean image. Steps of very different size, so that no ratio can hide.
VP_TO_ZERO: list[float] = [900, 640, 410, 180, 30, -1]
VP_TO_MIN: list[float] = [999, 700, 650, 300, 12, 0]
EDM_TO_MIN: list[float] = [80, 20, 14, 3, 0.9, 0.01]
FLOW_TO_ZERO: list[float] = [1, 0.8, 0.55, 0.5, 0.1, 0]
