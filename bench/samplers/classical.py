"""Classical ODE solvers on the probability-flow ODE in s = sigma / alpha.

For xbar = x / alpha the ODE is d xbar / d s = eps(x, s) (Song et al. 2021, arXiv:2010.02502,
eq. 14; Karras et al. 2022, arXiv:2206.00364, eq. 1 and 4). Deterministic. Euler is of order 1 with
NFE n; Heun of order 2 with NFE 2n - 1 to sigma = 0 (the last step stays an Euler step) and 2n to
sigma-min. Heun is a good choice from about 20 calls on.
"""

from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import Params, sampler


def _euler_step(x: Tensor, x0: Tensor, eps: Tensor, a: Point, b: Point) -> Tensor:
    """xbar_b = xbar_a + (s_b - s_a) eps, in terms of x; exact also from alpha = 0."""
    if a.alpha == 0:  # x_a = eps there, and xbar_b = x0 + s_b eps
        return b.alpha * x0 + b.sigma * eps
    return b.alpha / a.alpha * x + b.alpha * (b.s - a.s) * eps


@sampler(
    "euler",
    family="PF-ODE, classical",
    paper="Karras et al. 2022, arXiv:2206.00364, eq. 1 and 4, Euler's method",
    order=1,
    stochastic=False,
)
def euler(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Euler's method in s; the same map as ddim with eta = 0."""
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x = _euler_step(x, x0, eps, a, b)
    return x


def _infinite_s(grid: TimeGrid, params: Params) -> str | None:
    if grid.points[0].alpha > 0:
        return None
    return (
        "works in s = sigma / alpha, which is infinite where this grid starts "
        f"(t = {grid.points[0].t:g}, alpha = 0). Start the grid below it."
    )


@sampler(
    "heun",
    family="PF-ODE, classical",
    paper="Karras et al. 2022, arXiv:2206.00364, algorithm 1",
    order=2,
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: 2 * steps - ends_at_zero,
    refuses=_infinite_s,
)
def heun(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Heun's method in s; a last step to sigma = 0 is an Euler step, as in EDM."""
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x_b = _euler_step(x, x0, eps, a, b)
        if b.sigma > 0:
            _, eps_b = denoise(x_b, b)
            x_b = _euler_step(x, x0, 0.5 * (eps + eps_b), a, b)
        x = x_b
    return x
