"""Why samplers cannot run on a grid, where several have the same reason."""

from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import Params


def infinite_start(grid: TimeGrid, what: str, or_else: str = "") -> str | None:
    """Why a sampler cannot start at alpha = 0.

    Args:
        grid: where it is to run.
        what: what it does, up to the quantity that is infinite there: "works in s".
        or_else: another remedy than a grid that starts below: "set variable: t".
    """
    start = grid.points[0]
    if start.alpha > 0:
        return None
    also = f", or {or_else}" if or_else else ""
    return (
        f"{what}, which is infinite where this grid starts (t = {start.t:g}, alpha = 0). "
        f"Start the grid below it{also}."
    )


def infinite_s(grid: TimeGrid, params: Params) -> str | None:
    """Why a sampler in s cannot start at alpha = 0."""
    return infinite_start(grid, "works in s = sigma / alpha")
