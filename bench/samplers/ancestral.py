"""DDPM: ancestral sampling from the learned reverse chain.

Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 6-7 and algorithm 2; on sub-sequences as Nichol and
Dhariwal 2021, arXiv:2102.09672, section 4. NFE n; stochastic. The baseline at many steps; needs
hundreds of them.
"""

import math
from typing import Literal

from torch import Tensor

from bench.diffusion.denoiser import Denoiser, clip_x0
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler


@sampler(
    "ddpm",
    family="ancestral",
    paper="Ho, Jain and Abbeel 2020, arXiv:2006.11239, eq. 6-7, algorithm 2",
    order=1,
    stochastic=True,
)
def ddpm(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    variance: Literal["small", "large"],
    clip: bool = False,
) -> Tensor:
    """Ancestral sampler with the posterior's variance (small) or beta (large).

    The posterior q(x_b | x_a, x0) has mean alpha_b x0 + sigma_b (s_b / s_a) eps and variance
    beta-tilde = sigma_b^2 r with r = 1 - s_b^2 / s_a^2; beta = sigma_a^2 r. No noise is added at
    the last step to sigma = 0. Ho et al. clip x0 to [-1, 1] (`clip: true`), and their FID of 3.17
    is `variance: large` with the clip.
    """
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        if clip:
            x0, eps = clip_x0(x, x0, a)
        x = b.alpha * x0 + b.sigma * math.exp(a.lam - b.lam) * eps
        if b.sigma > 0:
            r = -math.expm1(2 * (a.lam - b.lam))
            sigma = b.sigma if variance == "small" else a.sigma
            x = x + sigma * math.sqrt(r) * noise()
    return x
