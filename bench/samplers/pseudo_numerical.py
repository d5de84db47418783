"""Pseudo-numerical methods: DDIM's step, taken with the noise that a classical method combines.

Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778: the transfer phi of eq. 9 is DDIM's step, and a
Runge-Kutta (eq. 13) or Adams-Bashforth method (eq. 12) with the weights of equal steps makes the
eps that goes into it. `pndm` is the paper's F-PNDM (algorithm 2), `plms` has a shorter start, as
Stable Diffusion has it, `ipndm` (Zhang and Chen 2022, arXiv:2204.13902) none. Deterministic; NFE
n + 9, n + 1 and n.

Order 2 where steps are equal in t, or change little from one to the next, and order 1 on other
grids: the weights know nothing of s. Only on a grid of equal steps in s (EDM's `linspace`) are they
the classical methods of order 4. A last step to sigma = 0 is of order 1: it lands on x0. A good
choice from about 10 calls on, on the grids they were made for; elsewhere `ab` and `deis` have the
exact weights.
"""

import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.refusals import infinite_s
from bench.samplers.registry import sampler

# Adams-Bashforth of orders 1 to 4 for equal steps, newest first.
_WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def _transfer(x: Tensor, eps: Tensor, a: Point, b: Point) -> Tensor:
    """phi(x, eps, a, b): DDIM's step with this eps."""
    return b.alpha / a.alpha * x + b.alpha * (b.s - a.s) * eps


def _multistep(history: list[Tensor]) -> Tensor:
    """The eps of a linear multistep method from those before, newest first."""
    weights = _WEIGHTS[len(history) - 1]
    combined = weights[0] * history[0]
    for weight, eps in zip(weights[1:], history[1:], strict=True):
        combined = torch.add(combined, eps, alpha=weight)  # in one pass over memory
    return combined


@sampler(
    "pndm",
    family="pseudo-numerical",
    paper="Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778, algorithm 2",
    order=2,
    rough_order=1,  # the weights are those of equal steps
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: steps + 9,
    min_steps=4,
    refuses=infinite_s,
)
def pndm(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Pseudo linear multistep method after three steps of pseudo Runge-Kutta (F-PNDM)."""
    history: list[Tensor] = []
    for i, (a, b) in enumerate(grid.steps()):
        x0, e1 = denoise(x, a)
        history = [e1, *history[:3]]
        if b.sigma == 0:
            x = b.alpha * x0
        elif i < 3:
            middle = grid.schedule.at(t=0.5 * (a.t + b.t))
            _, e2 = denoise(_transfer(x, e1, a, middle), middle)
            _, e3 = denoise(_transfer(x, e2, a, middle), middle)
            _, e4 = denoise(_transfer(x, e3, a, b), b)
            x = _transfer(x, (e1 + 2 * (e2 + e3) + e4) / 6, a, b)
        else:
            x = _transfer(x, _multistep(history), a, b)
    return x


@sampler(
    "plms",
    family="pseudo-numerical",
    paper="Liu, Ren, Lin and Zhao 2022, arXiv:2202.09778, eq. 9 and 12",
    order=2,
    rough_order=1,  # the weights are those of equal steps
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: steps + 1,
    min_steps=2,
    refuses=infinite_s,
)
def plms(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Pseudo linear multistep method that starts with a pseudo improved Euler step.

    That step costs two calls, and only the first of them goes into the history.
    """
    history: list[Tensor] = []
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        history = [eps, *history[:3]]
        if b.sigma == 0:
            x = b.alpha * x0
        elif len(history) == 1:
            _, eps_b = denoise(_transfer(x, eps, a, b), b)
            x = _transfer(x, 0.5 * (eps + eps_b), a, b)
        else:
            x = _transfer(x, _multistep(history), a, b)
    return x


@sampler(
    "ipndm",
    family="pseudo-numerical",
    paper="Zhang and Chen 2022, arXiv:2204.13902, iPNDM",
    order=2,
    rough_order=1,  # the weights are those of equal steps
    stochastic=False,
)
def ipndm(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Pseudo linear multistep method whose first steps use as many eps as there are."""
    history: list[Tensor] = []
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        history = [eps, *history[:3]]
        if b.sigma == 0 or a.alpha == 0:
            x = b.alpha * x0 + b.sigma * eps
        else:
            x = _transfer(x, _multistep(history), a, b)
    return x
