"""Samplers of networks that were trained to need few steps.

Song et al. 2023, arXiv:2303.01469, algorithm 1, for `consistency`. NFE n; no order: how many
steps are best is a property of the network. Students of progressive distillation are run by
`ddim`, rectified flows by Euler's or Heun's method in t. A model of kind `consistency` is the exact
function, without a network's error.
"""

import math

from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler


@sampler(
    "consistency",
    family="few-step",
    paper="Song et al. 2023, arXiv:2303.01469, algorithm 1",
    order=0,
    stochastic=True,
)
def consistency(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Multistep consistency sampling: denoise in one call, noise again to the next level.

    The model's x0 is f(x, t), where the flow from x ends at the least noise s_min of the schedule
    (the paper's epsilon), in xbar = x / alpha. So noise of variance s_b^2 - s_min^2 brings it to
    the next level: xbar_b = f + sqrt(s_b^2 - s_min^2) z. f is called at every point of the grid
    but the last; the last call's f is the sample, whether the grid ends at sigma = 0 or at s_min,
    where it has no noise to add. Spacings that reach s_min should end there (final: sigma-min):
    to call f at s_min, where it is the identity, would be a call without effect.
    """
    s_min = grid.schedule.at(t=grid.schedule.t_min).s
    for a, b in grid.steps():
        x0, _ = denoise(x, a)
        x = b.alpha * x0
        if b.s > s_min:
            x = x + b.alpha * math.sqrt(b.s**2 - s_min**2) * noise()
    return x
