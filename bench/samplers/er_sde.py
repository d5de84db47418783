"""ER-SDE-Solvers: Taylor steps in s for a family of reverse SDEs with one function for their noise.

Cui, Zhang, Lu and Liao 2023, arXiv:2309.06169, the Taylor solvers of orders 1 to 3 for VP and VE;
phi and its choices from appendix A.8 and the authors' code. NFE n; order 1 or 2, with noise the
weak order; deterministic where phi is that of the ODE. The authors' phi adds nearly the noise of
the reverse SDE at high noise levels and little at low ones: a choice for 20 to 50 calls.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler, whole

Floats = NDArray[np.float64]

_GAUSS = np.polynomial.legendre.leggauss(32)
# log(phi(s) / s) of lambda = -log s; it never falls as s rises, or a variance would be negative.
_LOG_PSI: dict[str, Callable[[Floats], Floats]] = {
    "ode": np.zeros_like,
    "sde": np.negative,
    "er-sde-5": lambda lam: np.logaddexp(np.exp(-0.3 * lam), math.log(10)),
}


@sampler(
    "er-sde",
    family="SDE",
    paper="Cui, Zhang, Lu and Liao 2023, arXiv:2309.06169, Taylor solvers; appendix A.8",
    order=lambda params: min(whole(params, "order"), 2),
    stochastic=lambda params: params["noise-scale"] != "ode",
)
def er_sde(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(3)] = 3,
    noise_scale: Literal["ode", "sde", "er-sde-5"] = "er-sde-5",
) -> Tensor:
    """ER-SDE-Solver 1, 2 or 3; `noise-scale` is phi, whose growth with s says how much noise.

    The solution from a to b is, on x / alpha, r x_a + phi(s_b) (integral of phi' / phi^2 x0 ds) +
    sqrt(s_b^2 - r^2 s_a^2) z with r = phi(s_b) / phi(s_a). The phi are s (ode: no noise), s^2 (sde:
    the reverse SDE) and s (exp(s^0.3) + 10) (er-sde-5, the authors' own setting). For x0 constant
    over a step this is order 1: sde is then the posterior sampler, ode the ddim step.

    Orders 2 and 3 add a slope and a curvature of x0 in s, from differences of the last values. The
    slope is that of the last two also where there are three, as in the authors' code, and not the
    parabola's at a: so order 3 is a formula of order 2, too. The integrals, which their code sums
    over 100 points, are exact here. A step to sigma = 0 is of order 1; a value at alpha = 0, where
    s is infinite, adds nothing to a slope.
    """
    log_psi = _LOG_PSI[noise_scale]
    history: list[tuple[float, Tensor]] = []  # (s, x0), the last first
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        history = [(a.s, x0), *history[: order - 1]]
        at_a, at_b = log_psi(np.array([a.lam, b.lam]))
        log_q = float(at_b - at_a)  # r s_a = q s_b
        x = b.alpha * x0 + b.sigma * math.exp(log_q) * eps
        if b.sigma > 0 and len(history) > 1:
            x = x + b.alpha * _change(history, *_weights(a, b, log_psi))
        if b.sigma > 0 and noise_scale != "ode":
            x = x + b.sigma * math.sqrt(-math.expm1(2 * log_q)) * noise()
    return x


def _weights(a: Point, b: Point, log_psi: Callable[[Floats], Floats]) -> tuple[float, float]:
    """What a slope and a curvature of x0 at a add to x_b / alpha_b.

    By parts, the integrals over s from s_b to s_a of (phi(s_b) / phi(s) - 1) (s - s_a)^k for
    k = 0, 1; by Gauss's rule in lambda.
    """
    h = b.lam - a.lam
    lam = a.lam + 0.5 * h * (1 + _GAUSS[0])
    s = np.exp(-lam)
    ratio = np.expm1(log_psi(np.array(b.lam)) - b.lam - log_psi(lam) + lam)
    parts = 0.5 * h * _GAUSS[1] * s * ratio
    return float(parts.sum()), float(parts @ (s - a.s))


def _change(history: list[tuple[float, Tensor]], first: float, second: float) -> Tensor:
    """The weighted slope, and curvature if there are three values, of x0 in s."""
    (s, d), (s_1, d_1), *older = history
    slope = (d - d_1) / (s - s_1)
    change = first * slope
    for s_2, d_2 in older:
        slope_1 = (d_1 - d_2) / (s_1 - s_2)
        change = change + second * (slope - slope_1) / (0.5 * (s - s_2))
    return change
