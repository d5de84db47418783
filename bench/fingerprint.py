"""A fingerprint of a cell: numbers that change when the arithmetic of its sampler does.

The sampler runs on a tiny exact problem (two samples of a Gaussian mixture in three dimensions, in
float64) with the cell's own schedule, spacing, parameters, end and noise. So a record tells whether
it was made by the sampler as it is now, whatever happened to the rest of the code.
"""

from functools import cache, lru_cache

import torch
from torch import Tensor

from bench import samplers
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.errors import CellError
from bench.models.mixture import Mixture
from bench.numerics import pinned
from bench.sweep import EXACT, Cell


@lru_cache(maxsize=100_000)
def fingerprint(cell: Cell) -> tuple[float, ...]:
    """The six numbers of a cell.

    Raises:
        CellError: The sampler does not stay finite on this harmless problem.
    """
    toy = _toy()
    noise = Noise(cell.seed, range(2), toy.shape, dtype=torch.float64)
    with pinned(1), torch.no_grad():  # threads would only wait for each other here
        if cell.sampler == EXACT:
            x = toy.draw(noise(), torch.tensor([0.25, 0.75]))
        else:
            assert cell.final is not None
            chosen = samplers.get(cell.sampler)
            x = samplers.sample(
                chosen, Denoiser(_pair), cell.grid(), noise, final=cell.final, params=cell.params
            )
    if not bool(x.isfinite().all()):
        raise CellError(
            f"Cell {cell.short} ({cell.label}): on a small Gaussian mixture in float64 the sampler "
            "ends at numbers that are not finite. Check its parameters and its grid."
        )
    return tuple(x.flatten().tolist())


@cache
def _toy() -> Mixture:
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    means = torch.tensor([[-0.6, 0.1, 0.3], [0.5, -0.2, 0.4]], dtype=torch.float64)
    spread = torch.tensor(
        [[0.04, 0.01, 0.0], [0.01, 0.09, 0.02], [0.0, 0.02, 0.01]], dtype=torch.float64
    )
    return Mixture.from_moments(weights, means, torch.stack([spread, 0.5 * spread]), (1, 1, 3))


def _pair(x: Tensor, point: Point) -> Pair:
    return _toy().denoise(x, point.alpha, point.sigma)
