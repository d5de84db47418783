"""Samplers of the reverse SDE, and Langevin dynamics: predictors, correctors and both.

Song et al. 2021, arXiv:2011.13456, for `reverse-sde` (Euler-Maruyama), `reverse-diffusion`
(appendix E) and `pc` (appendix G); Song and Ermon 2019, arXiv:1907.05600, for
`annealed-langevin`. All stochastic, but reverse-sde at kappa = 0. NFE n, n, n (1 + m) and T calls
a noise level. The first two are of weak order 1; the others have order 0: their Langevin steps
have a size that does not fall as n rises, and the bias of it stays.

To sigma = 0 all of them return x0 without noise: Tweedie's formula, the denoising step with which
Song et al. end, and Jolicoeur-Martineau et al. 2020, arXiv:2009.05475, annealed Langevin.

References of what was there before: these need hundreds of calls or more, and show what the
solvers of the ODE save.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Lt
from torch import Tensor, linalg

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.refusals import infinite_s, infinite_start
from bench.samplers.registry import Params, sampler, whole

Predictor = Callable[[Tensor, Tensor, Tensor, Point, Point], tuple[Tensor, float]]
"""(x_a, x0, eps, a, b) -> mean and standard deviation of x_b."""


def _infinite_drift(grid: TimeGrid, params: Params) -> str | None:
    return infinite_start(grid, "needs the drift d log alpha / dt")


@sampler(
    "reverse-sde",
    family="SDE",
    paper="Song et al. 2021, arXiv:2011.13456, eq. 6 and 13, Euler-Maruyama",
    order=1,
    stochastic=lambda params: params["kappa"] != 0,
    refuses=_infinite_drift,
)
def reverse_sde(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    kappa: Annotated[float, Ge(0)] = 1.0,
) -> Tensor:
    """Euler-Maruyama in t on the reverse SDE; kappa scales its noise, 0 is the ODE by Euler.

    Backwards, dx = [f x - (1 + kappa^2) / 2 g^2 score] dt + kappa g dw with score = -eps / sigma
    has the forward SDE's marginals at every kappa: 1 is the reverse SDE (eq. 6), 0 the
    probability-flow ODE (eq. 13).
    """
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        if b.sigma == 0:
            return x0
        dt = a.t - b.t
        f, g2 = grid.schedule.rates(a.t)
        x = (1 - f * dt) * x - 0.5 * (1 + kappa**2) * g2 * dt / a.sigma * eps
        if kappa > 0:
            x = x + kappa * math.sqrt(g2 * dt) * noise()
    return x


def _reverse_diffusion(
    x: Tensor, x0: Tensor, eps: Tensor, a: Point, b: Point
) -> tuple[Tensor, float]:
    """Appendix E: x_b = x_a - f(x_a) + G^2 score + G z, where x_a = x_b + f(x_b) + G z forwards."""
    if b.sigma == 0:
        return x0, 0.0
    # x_a = (alpha_a / alpha_b) x_b + G z: beta on VP, sigma_a^2 - sigma_b^2 on VE.
    g2 = _forward_variance(a, b)
    return (2 - a.alpha / b.alpha) * x - g2 / a.sigma * eps, math.sqrt(g2)


def _ancestral_small(
    x: Tensor, x0: Tensor, eps: Tensor, a: Point, b: Point
) -> tuple[Tensor, float]:
    """The posterior q(x_b | x_a, x0); on VE the ancestral sampler of appendix F."""
    ratio = math.exp(a.lam - b.lam)  # s_b / s_a
    return b.alpha * x0 + b.sigma * ratio * eps, b.sigma * math.sqrt(1 - ratio**2)


def _ancestral_large(
    x: Tensor, x0: Tensor, eps: Tensor, a: Point, b: Point
) -> tuple[Tensor, float]:
    """The posterior's mean with the forward variance; on VP the ancestral sampler of eq. 4."""
    mean, _ = _ancestral_small(x, x0, eps, a, b)
    return mean, math.sqrt(_forward_variance(a, b)) if b.sigma > 0 else 0.0


def _forward_variance(a: Point, b: Point) -> float:
    """Of x_a given x_b: sigma_a^2 - (alpha_a / alpha_b)^2 sigma_b^2."""
    return a.sigma**2 * -math.expm1(2 * (a.lam - b.lam))


@sampler(
    "reverse-diffusion",
    family="SDE",
    paper="Song et al. 2021, arXiv:2011.13456, appendix E, eq. 46",
    order=1,
    stochastic=True,
    refuses=_infinite_drift,
)
def reverse_diffusion(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Reverse SDE discretised as the schedule's own forward steps between the grid's points.

    Forwards x_a = (alpha_a / alpha_b) x_b + G z with G^2 = sigma_a^2 (1 - s_b^2 / s_a^2); so
    x_b = (2 - alpha_a / alpha_b) x_a + G^2 score + G z.
    """
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x, std = _reverse_diffusion(x, x0, eps, a, b)
        if std > 0:
            x = x + std * noise()
    return x


_PREDICTORS: dict[str, Predictor] = {
    "reverse-diffusion": _reverse_diffusion,
    "ancestral-small": _ancestral_small,
    "ancestral-large": _ancestral_large,
}


@sampler(
    "pc",
    family="SDE",
    paper="Song et al. 2021, arXiv:2011.13456, algorithms 2-5",
    order=0,
    stochastic=True,
    calls=lambda steps, ends_at_zero, params: steps * (1 + whole(params, "corrector-steps")),
    refuses=lambda grid, params: (
        _infinite_drift(grid, params) if params["predictor"] == "reverse-diffusion" else None
    ),
)
def pc(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    predictor: Literal["reverse-diffusion", "ancestral-small", "ancestral-large"] = (
        "reverse-diffusion"
    ),
    corrector_steps: Annotated[int, Ge(1)] = 1,
    snr: Annotated[float, Gt(0), Lt(1)] = 0.16,
) -> Tensor:
    """Predictor-corrector: Langevin steps at a noise level, then a step to the next one.

    A corrector step is x + e score + sqrt(2 e) z with e = 2 (alpha_a / alpha_b)^2 (snr |z| /
    |score|)^2: the first factor is the paper's 1 - beta on VP, 1 on VE. Norms are of each sample
    by itself (the authors' code averages them over the batch). The predictor is reverse-diffusion
    or the ancestral sampler, which the paper has with the posterior's variance on VE (small) and
    with beta on VP (large). The corrector comes first at each level, as in the authors' code;
    the paper's listings have it after the predictor, one level on. snr is 0.16 in the paper for
    VE and 0.01 for VP; from 1 on the steps would diverge.
    """
    predict = _PREDICTORS[predictor]
    for a, b in grid.steps():
        for _ in range(corrector_steps):
            _, eps = denoise(x, a)
            z = noise()
            ratio = linalg.vector_norm(z, dim=(1, 2, 3), keepdim=True) / linalg.vector_norm(
                eps, dim=(1, 2, 3), keepdim=True
            )
            # score = -eps / sigma, and with root = sqrt(2 e) / sigma:
            root = 2 * a.alpha / b.alpha * snr * ratio
            x = x + a.sigma * root * (z - 0.5 * root * eps)
        x0, eps = denoise(x, a)
        x, std = predict(x, x0, eps, a, b)
        if std > 0:
            x = x + std * noise()
    return x


@sampler(
    "annealed-langevin",
    family="SDE",
    paper="Song and Ermon 2019, arXiv:1907.05600, algorithm 1",
    order=0,
    stochastic=True,
    calls=lambda steps, ends_at_zero, params: (
        whole(params, "steps-per-level") * (steps + (not ends_at_zero)) + ends_at_zero
    ),
    refuses=infinite_s,
)
def annealed_langevin(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    steps_per_level: Annotated[int, Ge(1)],
    step_size: Annotated[float, Gt(0), Lt(4)] = 0.2,
) -> Tensor:
    """Langevin dynamics at one noise level of the grid after another.

    xbar = x / alpha takes T = steps-per-level steps xbar + (e / 2) score + sqrt(e) z at each
    level s, with e = step-size s^2. The paper's epsilon is step-size times the last s^2: 2e-5 at
    s = 0.01 is 0.2 (T = 100). Song and Ermon 2020, arXiv:2006.09011, write e for half of it:
    6.2e-6 at s = 0.01 is 0.124 (T = 5). From 4 on the steps would diverge. A grid that ends at
    sigma = 0 has n levels and one more call, which denoises; others have n + 1 levels and keep
    the last one's noise, as the paper does.
    """
    levels = [point for point in grid.points if point.sigma > 0]
    before = levels[0]
    for level in levels:
        x = level.alpha / before.alpha * x
        for _ in range(steps_per_level):
            _, eps = denoise(x, level)
            x = x + level.sigma * (math.sqrt(step_size) * noise() - 0.5 * step_size * eps)
        before = level
    if grid.ends_at_zero:
        x, _ = denoise(x, before)
    return x
