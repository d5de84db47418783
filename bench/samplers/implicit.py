"""DDIM: denoising diffusion implicit models.

Song, Meng and Ermon 2021, arXiv:2010.02502, eq. 12 and 16. NFE n; order 1 at eta = 0;
deterministic at eta = 0, the ancestral sampler's posterior at eta = 1. The reference point of
every comparison, and robust at few steps.
"""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, clip_x0
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler


@sampler(
    "ddim",
    family="implicit",
    paper="Song, Meng and Ermon 2021, arXiv:2010.02502, eq. 12 and 16",
    order=1,
    stochastic=lambda params: params["eta"] != 0,
)
def ddim(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    eta: Annotated[float, Ge(0), Le(1)] | Literal["sigma-hat"] = 0.0,
) -> Tensor:
    """Implicit sampler; eta scales the injected noise, sigma-hat is the paper's last row.

    With r = 1 - s_b^2 / s_a^2 the injected variance is eta^2 sigma_b^2 r, on VP the paper's
    eta^2 (1 - abar_a / abar_b) (1 - abar_b) / (1 - abar_a). At sigma-hat the direction keeps its
    value of eta = 1, the injected noise is sqrt(1 - abar_a / abar_b) (none at the last step) and
    x0 is clipped to [-1, 1].
    """
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        r = -math.expm1(2 * (a.lam - b.lam))
        if eta == "sigma-hat":
            x0, eps = clip_x0(x, x0, a)
            variance, injected = b.sigma**2 * r, a.sigma**2 * r if b.sigma > 0 else 0.0
        else:
            variance = injected = eta**2 * b.sigma**2 * r
        x = b.alpha * x0 + math.sqrt(b.sigma**2 - variance) * eps
        if injected > 0:
            x = x + math.sqrt(injected) * noise()
    return x
