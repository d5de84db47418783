"""Solvers of the probability-flow ODE that choose their steps by an estimate of their error.

`rk45` is the black-box solver of Song et al. 2021, arXiv:2011.13456, appendix D.4 (there in t).
`dpm-solver-adaptive` is algorithm 3 of Lu et al. 2022, arXiv:2206.00927, appendix C. Every sample
has its own steps, so neither its image nor its number of calls depends on who shares the batch.
NFE is counted, as it is not known before; deterministic. References for the other solvers rather
than rivals at few calls.
"""

from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, per_sample
from bench.diffusion.march import Floats, States, dormand_prince, march, rms, spread
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.classical import growth_in_lam
from bench.samplers.refusals import infinite_s
from bench.samplers.registry import Params, sampler, whole


def _refuses(grid: TimeGrid, params: Params) -> str | None:
    if reason := infinite_s(grid, params):
        return reason
    steps = 1 + grid.ends_at_zero
    if len(grid) == steps:
        return None
    return (
        "chooses its own steps from the first to the last noise level of a grid; this grid has "
        f"{len(grid)} steps. Write steps: {steps} with spacing: linspace or explicit."
    )


def _ends(grid: TimeGrid) -> tuple[Point, Point]:
    """The first and the last noise level; one more call takes the last to x0 if the grid does."""
    return grid.points[0], grid.points[-2] if grid.ends_at_zero else grid.points[-1]


@sampler(
    "rk45",
    family="PF-ODE, classical",
    paper="Song et al. 2021, arXiv:2011.13456, appendix D.4",
    order=5,
    stochastic=False,
    calls=None,
    refuses=_refuses,
)
def rk45(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    variable: Literal["s", "lam"] = "s",
    rtol: Annotated[float, Gt(0)] = 1e-5,
    atol: Annotated[float, Gt(0)] = 1e-5,
) -> Tensor:
    """Runge-Kutta of orders 5 and 4 (Dormand and Prince) in s or lam, as euler has them.

    A step is taken where the root mean square over an image of error / (atol + rtol |y|) is at
    most 1, for y = x / alpha in s and y = x in lam.
    """
    first, last = _ends(grid)

    def slope(y: Tensor, u: Floats, rows: Tensor) -> Tensor:
        points = [grid.schedule.at(**{variable: float(v)}) for v in u]
        point = per_sample(points, y)
        if variable == "s":
            return denoise(point.alpha * y, point, rows)[1]
        growth = np.array([growth_in_lam(grid.schedule, p) for p in points])
        return spread(growth, y) * y - point.sigma * denoise(y, point, rows)[1]

    of_first, of_last = (first.alpha, last.alpha) if variable == "s" else (1.0, 1.0)
    start, end = getattr(first, variable), getattr(last, variable)
    x = of_last * dormand_prince(slope, x / of_first, start, end, rtol=rtol, atol=atol)
    return denoise(x, last)[0] if grid.ends_at_zero else x


@sampler(
    "dpm-solver-adaptive",
    family="exponential integrators",
    paper="Lu et al. 2022, arXiv:2206.00927, appendix C, algorithm 3",
    order=lambda params: whole(params, "order"),
    stochastic=False,
    calls=None,
    refuses=_refuses,
)
def dpm_solver_adaptive(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(2), Le(3)] = 3,
    rtol: Annotated[float, Gt(0)] = 0.05,
    atol: Annotated[float, Gt(0)] = 0.0078,
) -> Tensor:
    """DPM-Solver-12 (order 2) or DPM-Solver-23 (order 3): steps in lambda by their difference.

    A step is taken where the root mean square over an image of (higher - lower) / max(atol, rtol
    max(|lower|, |lower before|)) is at most 1; the next is 0.9 E^(-1/order) times as long. The
    paper's E is the largest of a batch; here each sample has its own. Every attempt costs `order`
    calls, a repeated one too, as in the authors' code.
    """
    first, last = _ends(grid)

    def attempt(states: States, lam: Floats, h: Floats, rows: Tensor) -> tuple[States, Floats]:
        x, before = states
        step = _Exponential(denoise, grid.schedule, x, lam, h, rows)
        lower, higher = step.orders_1_2() if order == 2 else step.orders_2_3()
        allowed = (rtol * torch.maximum(lower.abs(), before.abs())).clamp(min=atol)
        return (higher, lower), rms((higher - lower) / allowed)

    h = np.full(len(x), _FIRST_STEP)
    x, _ = march(
        *(attempt, (x, x), first.lam, last.lam, h),
        order=order,
        limits=(0.0, np.inf),
        cautious=False,
    )
    return denoise(x, last)[0] if grid.ends_at_zero else x


_FIRST_STEP = 0.05  # in lambda, the paper's


class _Exponential:
    """DPM-Solver's steps of orders 1 to 3 from lam to lam + h, each sample with its own (n,).

    Algorithms 1, 4 and 5 of arXiv:2206.00927: with phi(r) = e^(r h) - 1 the state at lam + r h is
    (alpha_r / alpha_0) x - sigma_r phi(r) eps, and a correction in the difference of two eps.
    """

    def __init__(
        self,
        denoise: Denoiser,
        schedule: NoiseSchedule,
        x: Tensor,
        lam: Floats,
        h: Floats,
        rows: Tensor,
    ) -> None:
        self._denoise, self._schedule, self._rows = denoise, schedule, rows
        self._x, self._lam, self._h = x, lam, h
        self._here = self._point(0.0)
        self._eps = self._eps_at(self._here, x)

    def orders_1_2(self) -> tuple[Tensor, Tensor]:
        """The results of DPM-Solver-1 and of DPM-Solver-2 with r1 = 1/2."""
        (p1, x1), (end, x) = (self._plain(r) for r in (1 / 2, 1.0))
        difference = self._eps_at(p1, x1) - self._eps
        return x, x - end.sigma * self._second(1 / 2) * difference

    def orders_2_3(self) -> tuple[Tensor, Tensor]:
        """The results of DPM-Solver-2 with r1 = 1/3 and of DPM-Solver-3 with r1, r2 = 1/3, 2/3."""
        (p1, x1), (p2, x2), (end, x) = (self._plain(r) for r in (1 / 3, 2 / 3, 1.0))
        one = self._eps_at(p1, x1) - self._eps
        two = self._eps_at(p2, x2 - p2.sigma * self._third(2 / 3, 1 / 3) * one) - self._eps
        lower = x - end.sigma * self._second(1 / 3) * one
        return lower, x - end.sigma * self._third(1.0, 2 / 3) * two

    def _plain(self, r: float) -> tuple[Point, Tensor]:
        """The noise level at lam + r h, and the state there without a correction."""
        point = self._point(r)
        grown = spread(np.expm1(r * self._h), self._x)
        return point, point.alpha / self._here.alpha * self._x - point.sigma * grown * self._eps

    def _second(self, r1: float) -> Tensor:
        """Weight of the difference at r1 in algorithm 4: phi(1) / (2 r1)."""
        return spread(np.expm1(self._h) / (2 * r1), self._x)

    def _third(self, r: float, r1: float) -> Tensor:
        """Weight of the difference at r1 in algorithm 5: (r / r1) (phi(r) / (r h) - 1)."""
        return spread(r / r1 * (np.expm1(r * self._h) / (r * self._h) - 1), self._x)

    def _eps_at(self, point: Point, x: Tensor) -> Tensor:
        return self._denoise(x, point, self._rows)[1]

    def _point(self, r: float) -> Point:
        return per_sample([self._schedule.at(lam=v) for v in self._lam + r * self._h], self._x)
