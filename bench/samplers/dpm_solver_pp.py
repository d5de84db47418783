"""DPM-Solver++: exponential integrators for the PF-ODE in lambda, on the x0 prediction.

Lu et al. 2022, arXiv:2211.01095, eq. 9 and algorithm 2 (2M). NFE n; order 1 or 2; deterministic.
2M is the usual choice at 5 to 20 calls.
"""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler

# Below how many steps the last step is of order 1: the paper's algorithm, the authors' code,
# diffusers' code, and always.
_LOWER_ORDER_FINAL = {"never": 0.0, "lt10": 10.0, "lt15": 15.0, "always": math.inf}


@sampler(
    "dpm-solver++",
    family="exponential integrators",
    paper="Lu et al. 2022, arXiv:2211.01095, algorithm 2",
    order=lambda params: int(params["order"]),  # type: ignore[arg-type]
    stochastic=False,
)
def dpm_solver_pp(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(2)] = 2,
    method: Literal["multistep"] = "multistep",
    lower_order_final: Literal["never", "lt10", "lt15", "always"] = "never",
) -> Tensor:
    """Multistep DPM-Solver++ of order 1 or 2; the first step is of order 1.

    With h = lam_b - lam_a and r0 = h_previous / h a step is
    x_b = (sigma_b / sigma_a) x_a - alpha_b (e^-h - 1) D, where D = D0 at order 1 and
    D = D0 + (D0 - D_previous) / (2 r0) at order 2. A step to sigma = 0 has h = infinity and is of
    order 1 (it lands on D0).
    """
    previous: Tensor | None = None
    h_previous = math.inf
    for i, (a, b) in enumerate(grid.steps()):
        x0, _ = denoise(x, a)
        h = b.lam - a.lam
        last = i == len(grid) - 1
        lowered = b.sigma == 0 or (last and len(grid) < _LOWER_ORDER_FINAL[lower_order_final])
        d = x0
        if order == 2 and previous is not None and not lowered:
            d = x0 + h / (2 * h_previous) * (x0 - previous)
        x = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * d
        previous, h_previous = x0, h
    return x
