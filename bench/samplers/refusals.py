"""Why samplers cannot run on a grid, where several have the same reason."""

from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import Params


def infinite_s(grid: TimeGrid, params: Params) -> str | None:
    """Why a sampler in s cannot start at alpha = 0."""
    start = grid.points[0]
    if start.alpha > 0:
        return None
    return (
        f"works in s = sigma / alpha, which is infinite where this grid starts (t = {start.t:g}, "
        "alpha = 0). Start the grid below it."
    )
