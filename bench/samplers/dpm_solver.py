"""DPM-Solver: singlestep exponential integrators for the PF-ODE in lambda, on the noise prediction.

Lu et al. 2022, arXiv:2206.00927, eq. 3.7 (order 1, the ddim step), algorithms 1 and 2 (orders 2
and 3) and appendix D.3 ("fast"). A step of order k costs k calls, at points even in lambda: NFE
k n to sigma-min, k (n - 1) + 1 to sigma = 0. Deterministic. A good choice at 10 to 30 calls on
steps that are even in lambda (`logsnr`), and a reference of order 3 at many.
"""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.parameters import Value
from bench.samplers.refusals import infinite_start
from bench.samplers.registry import Params, sampler

# The orders that "fast" ends with, after steps of order 3.
_FAST_ENDS = {"fast-0": [2, 1], "fast-1": [1], "fast-2": [2]}


def _orders(order: Value, steps: int, ends_at_zero: bool) -> list[int]:
    """The order of each step, which is the number of its calls."""
    if isinstance(order, str):
        ends = _FAST_ENDS[order]
        return [3] * (steps - len(ends)) + ends
    assert isinstance(order, int)
    return [order] * (steps - 1) + [1 if ends_at_zero else order]


def _global_order(params: Params) -> int:
    """That of all steps but the last, or of the error that the last alone makes."""
    orders = _orders(params["order"], 3, ends_at_zero=False)
    return min(orders[0], orders[-1] + 1)


def _refuses(grid: TimeGrid, params: Params) -> str | None:
    orders = _orders(params["order"], len(grid), grid.ends_at_zero)
    inside = "puts points inside its steps by lambda = log(alpha / sigma)"
    if orders[0] > 1 and (reason := infinite_start(grid, inside)):
        return reason
    if grid.ends_at_zero and orders[-1] > 1:
        return (
            "with order: fast-2 ends in a step of order 2, and lambda = log(alpha / sigma) is "
            "infinite at sigma = 0. Use final: sigma-min."
        )
    return None


@sampler(
    "dpm-solver",
    family="exponential integrators",
    paper="Lu et al. 2022, arXiv:2206.00927, eq. 3.7, algorithms 1 and 2, appendix D.3",
    order=_global_order,
    formula_order=lambda params: _orders(params["order"], 3, ends_at_zero=False)[0],
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: sum(_orders(params["order"], steps, ends_at_zero)),
    min_steps=lambda params: 2 if params["order"] == "fast-0" else 1,
    refuses=_refuses,
)
def dpm_solver(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(3)] | Literal["fast-0", "fast-1", "fast-2"] = 3,
) -> Tensor:
    """Singlestep DPM-Solver of order 1, 2 or 3, or "fast" for NFE = 0, 1 or 2 mod 3.

    With h = lam_b - lam_a and D = eps(s_i) - eps(a) at lam_i = lam_a + i h / order, a step is
    x_b = (alpha_b / alpha_a) x_a - sigma_b (e^h - 1) eps(a), less sigma_b (e^h - 1) D_1 at order 2
    and 3/2 sigma_b ((e^h - 1) / h - 1) D_2 at order 3; the first two terms are
    alpha_b x0 + sigma_b eps. A step to sigma = 0 is of order 1 (it lands on x0).

    From a budget N, "fast" takes K = N // 3 + 1 steps, all of order 3 but the last: orders 2, 1
    where N = 3 (K - 1) (`fast-0`), 1 where N = 3 K - 2 (`fast-1`), 2 where N = 3 K - 1 (`fast-2`,
    which does not reach sigma = 0).
    """
    orders = _orders(order, len(grid), grid.ends_at_zero)
    for (a, b), k in zip(grid.steps(), orders, strict=True):
        x0, eps = denoise(x, a)
        x = b.alpha * x0 + b.sigma * eps
        h = b.lam - a.lam
        if k == 2:
            s = grid.schedule.at(lam=a.lam + h / 2)
            _, eps_s = denoise(s.alpha * x0 + s.sigma * eps, s)
            x = x - b.sigma * math.expm1(h) * (eps_s - eps)
        elif k == 3:
            s1, s2 = (grid.schedule.at(lam=a.lam + r * h) for r in (1 / 3, 2 / 3))
            _, eps_1 = denoise(s1.alpha * x0 + s1.sigma * eps, s1)
            u = s2.alpha * x0 + s2.sigma * (eps - 2 * _phi(2 / 3 * h) * (eps_1 - eps))
            _, eps_2 = denoise(u, s2)
            x = x - b.sigma * 1.5 * _phi(h) * (eps_2 - eps)
    return x


def _phi(h: float) -> float:
    """(e^h - 1) / h - 1, which weighs a slope over a step of length h."""
    return math.expm1(h) / h - 1
