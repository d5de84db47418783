"""Restart: the ODE in s, with jumps back up in noise that are integrated down again.

Xu et al. 2023, arXiv:2306.14878, section 3.1, with settings in tables 3 and 5. Stochastic. NFE
2n - 1 to sigma = 0 or 2n to sigma-min for the main steps, and 2 K (N - 1) for an interval of N
points and K repeats. Every step is Heun's, of order 2; with fixed intervals the whole has order 0
in n, as their own error stays. A jump adds at once the noise that churn spreads over many steps,
which contracts the errors made so far. A good choice from some 40 calls on.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point
from bench.diffusion.spacing import TimeGrid
from bench.parameters import Value
from bench.samplers.edm import heun_step, renoise
from bench.samplers.refusals import infinite_s
from bench.samplers.registry import Params, sampler

Interval = tuple[float, float, float, float]
"""Points N, repeats K, s-min and s-max."""


def _intervals(*columns: Value) -> Iterator[Interval]:
    """One interval for each value of a list; a single one where there are numbers."""
    # `_refuses` says where lists differ in length.
    return zip(*(c if isinstance(c, tuple) else (c,) for c in columns), strict=False)


def _intervals_of(params: Params) -> list[Interval]:
    return list(_intervals(*(params[name] for name in ("points", "repeats", "s-min", "s-max"))))


def _bottom(grid: TimeGrid, s_min: float) -> Point:
    """The point of the grid, after the first, that is nearest to s_min."""
    return min((p for p in grid.points[1:] if p.sigma > 0), key=lambda p: abs(p.s - s_min))


def _levels(grid: TimeGrid, bottom: Point, s_max: float, points: int, rho: float) -> list[Point]:
    """From s_max to the bottom, even in s^(1 / rho)."""
    ramp = np.linspace(s_max ** (1 / rho), bottom.s ** (1 / rho), points)[:-1] ** rho
    return [*(grid.schedule.at(s=float(s)) for s in ramp), bottom]


def _refuses(grid: TimeGrid, params: Params) -> str | None:
    if reason := infinite_s(grid, params):
        return reason
    counts = {
        name: len(value) if isinstance(value := params[name], tuple) else 1
        for name in ("points", "repeats", "s-min", "s-max")
    }
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{count} of {name}" for name, count in counts.items())
        return f"needs as many values of each for its intervals; there are {given}."
    if grid.ends_at_zero and len(grid) == 1:
        return "restarts from a point between the ends of its grid; this grid has none."
    top = grid.schedule.at(t=grid.schedule.t_max).s
    for points, repeats, s_min, s_max in _intervals_of(params):
        interval = f"an interval from s-min = {s_min:g} to s-max = {s_max:g}"
        if points < 2 or repeats < 1 or points % 1 or repeats % 1:
            return (
                f"has {interval} with points = {points:g} and repeats = {repeats:g}; these are "
                "whole numbers of at least 2 and 1."
            )
        if s_max > top:
            return f"has {interval}; {grid.schedule.name} ends at s = {top:g}."
        if (bottom := _bottom(grid, s_min)).s >= s_max:
            return (
                f"has {interval}; the point of this grid nearest to s-min is s = {bottom.s:g}. "
                "Take more steps."
            )
    return None


@sampler(
    "restart",
    family="SDE",
    paper="Xu et al. 2023, arXiv:2306.14878, section 3.1",
    order=0,
    formula_order=2,
    stochastic=True,
    calls=lambda steps, ends_at_zero, params: (
        2 * steps - ends_at_zero + sum(2 * int(k * (n - 1)) for n, k, *_ in _intervals_of(params))
    ),
    refuses=_refuses,
)
def restart(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    points: Annotated[int, Ge(2)] | tuple[float, ...] = 3,
    repeats: Annotated[int, Ge(1)] | tuple[float, ...] = 2,
    s_min: Annotated[float, Gt(0)] | tuple[float, ...] = 0.06,
    s_max: Annotated[float, Gt(0)] | tuple[float, ...] = 0.30,
    interval_rho: Annotated[float, Gt(0)] = 7.0,
    s_noise: Annotated[float, Gt(0)] = 1.0,
) -> Tensor:
    """Heun's method in s that jumps back from s-min to s-max, repeats times, and comes down again.

    At the grid's point nearest to s-min (its first point and sigma = 0 excepted) noise brings x
    up to s-max, and Heun's method back through `points` levels, even in s^(1 / interval-rho).
    Lists are several intervals, one value each of points, repeats, s-min and s-max; those that
    fall on the same point run in their order. The defaults are the paper's for CIFAR-10 at 43
    calls (18 steps, table 3), which has repeats up to 20.
    """
    restarts: dict[Point, list[tuple[int, list[Point]]]] = {}
    for n, k, low, high in _intervals(points, repeats, s_min, s_max):
        bottom = _bottom(grid, low)
        levels = _levels(grid, bottom, high, int(n), interval_rho)
        restarts.setdefault(bottom, []).append((int(k), levels))
    for a, b in grid.steps():
        x = heun_step(denoise, x, a, b)
        for k, levels in restarts.get(b, []):
            for _ in range(k):
                x = renoise(x, b, levels[0], s_noise * noise())
                for c, d in pairwise(levels):
                    x = heun_step(denoise, x, c, d)
    return x
