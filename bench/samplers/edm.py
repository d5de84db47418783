"""EDM: Heun's method in s with churn, the stochastic sampler of Karras et al.

Karras et al. 2022, arXiv:2206.00364, algorithm 2, in s = sigma / alpha (their sigma) on any
schedule. NFE 2n - 1 to sigma = 0 (the last step is an Euler step), 2n to sigma-min. At churn 0 it
is algorithm 1, `heun`, and deterministic. Order 2, with churn too: fresh noise and the exact flow
each lead from one marginal to another, so only Heun's error is left in the end's distribution
(with s-noise 1). A good choice from some 30 calls on, where churn corrects what earlier steps and
the network got wrong; the best churn depends on both.
"""

import math
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.refusals import infinite_s
from bench.samplers.registry import Params, sampler


def heun_step(denoise: Denoiser, x: Tensor, a: Point, b: Point) -> Tensor:
    """Heun's step in s from a to b: two calls; to sigma = 0 Euler's step, one call."""
    x0, eps = denoise(x, a)
    x_b = b.alpha * x0 + b.sigma * eps  # Euler: xbar_a + (s_b - s_a) eps with xbar_a = x0 + s_a eps
    if b.sigma == 0:
        return x_b
    _, eps_b = denoise(x_b, b)
    return x_b + 0.5 * b.alpha * (b.s - a.s) * (eps_b - eps)


def renoise(x: Tensor, a: Point, b: Point, z: Tensor) -> Tensor:
    """From a up to the noisier b along the forward process: xbar_b = xbar_a + sqrt(...) z."""
    added = b.alpha * math.sqrt(max(b.s**2 - a.s**2, 0.0))
    return b.alpha / a.alpha * x + added * z


def _refuses(grid: TimeGrid, params: Params) -> str | None:
    low, high = params["s-min"], params["s-max"]
    if isinstance(high, float) and isinstance(low, float) and low > high:
        return f"churns from s-min = {low:g} to s-max = {high:g}, which is nowhere. Swap them."
    return infinite_s(grid, params)


@sampler(
    "edm",
    family="EDM",
    paper="Karras et al. 2022, arXiv:2206.00364, algorithm 2",
    # Noise of another size than the churn's leaves another variance, however small the steps.
    order=lambda params: 2 if params["s-noise"] == 1 or params["s-churn"] == 0 else 0,
    stochastic=lambda params: params["s-churn"] != 0,
    calls=lambda steps, ends_at_zero, params: 2 * steps - ends_at_zero,
    refuses=_refuses,
)
def edm(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    s_churn: Annotated[float, Ge(0)] = 0.0,
    s_min: Annotated[float, Ge(0)] = 0.0,
    s_max: Annotated[float, Gt(0)] | None = None,
    s_noise: Annotated[float, Gt(0)] = 1.0,
) -> Tensor:
    """Heun's method in s with churn: fresh noise before each step, as much as s-churn says.

    Where s-min <= s_a <= s-max (no limit unless given) a step first goes up to (1 + gamma) s_a
    with gamma = min(s-churn / n, sqrt 2 - 1), its noise scaled by s-noise. It never goes above
    the schedule's own noisiest level, which a network knows nothing beyond: a grid that starts
    there has no churn in its first step. (The paper's settings have s-max below it: CIFAR-10 VP
    churns 30 in 0.01..1 with s-noise 1.007.)
    """
    gamma = min(s_churn / len(grid), math.sqrt(2) - 1)
    limit = math.inf if s_max is None else s_max
    top = grid.schedule.at(t=grid.schedule.t_max).s
    for a, b in grid.steps():
        if gamma > 0 and s_min <= a.s <= limit:
            hat = grid.schedule.at(s=min((1 + gamma) * a.s, top))
            x = heun_step(denoise, renoise(x, a, hat, s_noise * noise()), hat, b)
        else:
            x = heun_step(denoise, x, a, b)
    return x
