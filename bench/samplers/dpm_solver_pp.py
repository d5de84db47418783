"""DPM-Solver++: exponential integrators for the PF-ODE in lambda, on the x0 prediction.

Lu et al. 2022, arXiv:2211.01095, algorithms 1 (2S) and 2 (2M), and SDE-DPM-Solver++ at eta 1; 3M
takes their Taylor expansion one term further. Multistep: NFE n; order 2 at most, as the first step
is of order 1, and weak order 2 with noise. 2S: order 2, NFE 2n to sigma-min, 2n - 1 to sigma = 0.
Deterministic at eta 0. 2M is the usual choice at 5 to 20 calls, with eta 1 at more.
"""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.refusals import infinite_start
from bench.samplers.registry import Params, sampler, whole

# In runs of how many steps: the paper's algorithm, the authors' code, diffusers' code, and any.
_LOWER_ORDER_FINAL = {"never": 0.0, "lt10": 10.0, "lt15": 15.0, "always": math.inf}


def _calls(steps: int, ends_at_zero: bool, params: Params) -> int:
    each = whole(params, "order") if params["method"] == "singlestep" else 1
    return each * steps - (each - 1) * ends_at_zero


def _refuses(grid: TimeGrid, params: Params) -> str | None:
    if params["method"] == "multistep":
        return None
    if params["order"] == 3:
        return (
            "is published as a singlestep method up to order 2. Use method: multistep, or "
            "dpm-solver of order 3."
        )
    if params["eta"] != 0 or params["lower-order-final"] != "never":
        return "has eta and lower-order-final only with method: multistep. Leave both out."
    if params["order"] == 1:
        return None
    inside = "with method: singlestep puts a point inside each step by lambda = log(alpha / sigma)"
    return infinite_start(grid, inside, "use method: multistep")


@sampler(
    "dpm-solver++",
    family="exponential integrators",
    paper="Lu et al. 2022, arXiv:2211.01095, algorithms 1 and 2",
    order=lambda params: min(whole(params, "order"), 2),
    formula_order=lambda params: whole(params, "order"),
    stochastic=lambda params: params["eta"] != 0,
    calls=_calls,
    refuses=_refuses,
)
def dpm_solver_pp(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(3)] = 2,
    method: Literal["multistep", "singlestep"] = "multistep",
    lower_order_final: Literal["never", "lt10", "lt15", "always"] = "never",
    eta: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> Tensor:
    """DPM-Solver++ 1, 2M, 3M or 2S; eta 1 is SDE-DPM-Solver++.

    The PF-ODE with eta times Langevin dynamics keeps the model's marginals for any eta >= 0:
    d(x / alpha) = -(1 + eta) (x / alpha - D) dlam + sqrt(2 eta) e^-lam dw. Eta is the square of the
    ratio of the injected noise to g(t), so 0 is the ODE and 1 the reverse SDE. But for D this is
    linear, and with h = lam_b - lam_a its exact solution is
    x_b = (sigma_b / sigma_a) e^(-eta h) x_a + alpha_b (1 - e^(-(1 + eta) h)) D
    + sigma_b sqrt(1 - e^(-2 eta h)) z, for D the mean over the step, weighted as e^((1 + eta) lam).

    Order 1 takes D(a) for that mean; 2M goes half a step from D(a) along the last slope; 2S calls
    the model half a step further; 3M takes the exact mean of the parabola through the last three.
    (Published codes give its curvature half the weight, which makes it a formula of order 2.)
    `lower-order-final` has the last two steps of orders 2 and 1: never, in runs of fewer than 10 or
    15 steps, always. A step to sigma = 0 is of order 1 (it lands on D(a)), and so is the step after
    a start at alpha = 0, from where no slope can be told.
    """
    lowered = len(grid) < _LOWER_ORDER_FINAL[lower_order_final]
    history: list[tuple[float, Tensor]] = []  # (lambda, D), the last first
    for i, (a, b) in enumerate(grid.steps()):
        d, _ = denoise(x, a)
        h = b.lam - a.lam
        rate = (1 + eta) * h
        if b.sigma > 0 and method == "singlestep" and order == 2:
            s = grid.schedule.at(lam=a.lam + h / 2)
            d, _ = denoise(s.sigma / a.sigma * x - s.alpha * math.expm1(-h / 2) * d, s)
        elif b.sigma > 0 and a.alpha > 0:
            history = [(a.lam, d), *history[: order - 1]]
            d = _mean(history[: len(grid) - i] if lowered else history, h, rate)
        shrink = math.exp(-eta * h) if eta > 0 else 1.0  # h may be infinite
        x = b.sigma / a.sigma * shrink * x - b.alpha * math.expm1(-rate) * d
        if eta > 0 and b.sigma > 0:
            x = x + b.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise()
    return x


def _mean(history: list[tuple[float, Tensor]], h: float, rate: float) -> Tensor:
    """D's mean over a step of length h, by the polynomial through its history."""
    (lam, d), *older = history
    if not older:
        return d
    gap, first = lam - older[0][0], d - older[0][1]
    if len(older) == 1:
        return d + h / (2 * gap) * first
    gap_before, second = older[0][0] - older[1][0], older[0][1] - older[1][1]
    # The means of u / h and (u / h)^2 for u = 0..h, weighted as e^(rate u / h).
    mean = -1 / math.expm1(-rate) - 1 / rate
    mean_square = -1 / math.expm1(-rate) - 2 * mean / rate
    bend = h * (mean_square * h + mean * gap) / (gap + gap_before)
    return d + (mean * h + bend) / gap * first - bend / gap_before * second
