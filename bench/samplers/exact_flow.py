"""The probability-flow ODE itself, for models whose score is exact: the limit of its solvers.

A grid's start and end lose something that no solver can get back (a start below T keeps the
N(0, I) noise, an end above zero keeps some); what a solver loses beyond that is its own. This
sampler shows the first part: it solves the flow from the grid's first point to its last, to a
tolerance far below what a metric sees (`bench.diffusion.probability_flow`). NFE is counted;
deterministic.
"""

from typing import Annotated

from annotated_types import Gt
from torch import Tensor

from bench.diffusion import probability_flow
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import sampler


@sampler(
    "exact-flow",
    family="reference",
    paper="Salimans and Ho 2022, arXiv:2202.00512, section 4; Dormand and Prince 1980",
    order=5,
    stochastic=False,
    calls=None,
    exact=True,
)
def exact_flow(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    tolerance: Annotated[float, Gt(0)] = 1e-4,
) -> Tensor:
    """The exact flow from a grid's first point to its last; the points between do not matter."""
    start, end = grid.points[0], grid.points[-1]
    return probability_flow.solve(denoise, x, start, end, tolerance=tolerance)
