"""UniPC: a unified predictor-corrector for the PF-ODE in lambda, on the x0 prediction.

Zhao, Bai, Rao, Zhou and Lu 2023, arXiv:2302.04867, algorithms 1 (UniC) and 2 (UniP) with the
authors' choices of B(h). The corrector of a step takes the evaluation that the next step needs
anyway, so NFE is n. UniP-p has order p, UniPC-p order p + 1 with an exact history; the start-up
and the lowered last steps leave 2 or 3 of it. Deterministic. Made for 5 to 10 calls; the authors'
CIFAR-10 setting is order 3, bh1 on `logsnr`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import Params, sampler, whole

Variant = Literal["bh1", "bh2"]
Evaluation = tuple[float, Tensor]
"""lambda, and the x0 prediction D there."""

_GAUSS = np.polynomial.legendre.leggauss(24)
_THETA, _WEIGHT = 0.5 * (1 + _GAUSS[0]), 0.5 * _GAUSS[1]  # on [0, 1]


def _order(params: Params) -> int:
    """The start leaves order 2 (3 where it is corrected), a last step of order 1 leaves 2."""
    corrected = bool(params["corrector"])
    limit = 3 if corrected and params["lower-order-final"] == "never" else 2
    return min(whole(params, "order") + corrected, limit)


@sampler(
    "unipc",
    family="exponential integrators",
    paper="Zhao, Bai, Rao, Zhou and Lu 2023, arXiv:2302.04867, algorithms 1 and 2",
    order=_order,
    formula_order=lambda params: whole(params, "order") + bool(params["corrector"]),
    stochastic=False,
)
def unipc(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(3)] = 3,
    variant: Variant = "bh1",
    corrector: bool = True,
    lower_order_final: Literal["never", "always"] = "always",
) -> Tensor:
    """Multistep UniPC of order 1 to 3: UniP predicts, UniC corrects with the next evaluation.

    The order of a step is at most the number of evaluations so far and, with `lower-order-final:
    always`, at most the number of steps left. A step to sigma = 0 is of order 1: it lands on x0.
    An evaluation at alpha = 0 (lambda = -inf) serves its own step and no other.
    """
    history: list[Evaluation] = []  # newest first
    used: list[Evaluation] = []  # of the step before, where it can be corrected
    before = x  # where that step began
    for i, (a, b) in enumerate(grid.steps()):
        x0, _ = denoise(x, a)
        now = (a.lam, x0)
        if corrector and used:
            x = _step(before, grid.points[i - 1], a, used, [*used[1:], now], variant)
        history = [now, *history[: order - 1]]
        left = len(grid) - i if lower_order_final == "always" else order
        used = history[: 1 if b.sigma == 0 else left]
        before, x = x, _step(x, a, b, used, used[1:], variant)
        if a.alpha == 0:
            history, used = [], []
    return x


def _step(
    x: Tensor,
    a: Point,
    b: Point,
    used: Sequence[Evaluation],
    others: Sequence[Evaluation],
    variant: Variant,
) -> Tensor:
    """The step of both algorithms from `a`, where `used[0]` was made, to `b`.

    x_b = (sigma_b / sigma_a) x_a - alpha_b (e^-h - 1) D0 - alpha_b B(h) sum_m a_m (D_m - D0) / r_m,
    r_m = (lam_m - lam_a) / h, with `others` for m = 1, 2, ...: UniP has the earlier evaluations
    there, UniC also the one at b (r = 1).
    """
    (_, d0) = used[0]
    h = b.lam - a.lam
    x_b = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * d0
    r = [(lam - a.lam) / h for lam, _ in others]
    for weight, (_, d) in zip(_weights(r, h, variant), others, strict=True):
        x_b = x_b + b.alpha * weight * (d - d0)
    return x_b


def _weights(r: Sequence[float], h: float, variant: Variant) -> list[float]:
    """-B(h) a_m / r_m. B(h) is -h (bh1) or e^-h - 1 (bh2), and a_1 = 1/2 where it is alone.

    Otherwise the a_m solve R(h) a B(h) = phi(h), from which B(h) drops out: their weights integrate
    h e^(-(1 - theta) h) theta^k over [0, 1] exactly for k = 1, 2, ... The moments come by Gauss
    quadrature; the recursion of the phi would cancel at small h.
    """
    if not r:
        return []
    if len(r) == 1:
        minus_b = h if variant == "bh1" else -math.expm1(-h)
        return [0.5 * minus_b / r[0]]
    k = np.arange(1, len(r) + 1)[:, None]
    moments = h * (np.exp(-(1 - _THETA) * h) * _WEIGHT * _THETA**k).sum(1)
    return [float(w) for w in np.linalg.solve(np.array(r) ** k, moments)]
