"""DEIS: an exponential integrator on the eps prediction, extrapolated by a polynomial.

Zhang and Chen 2022, arXiv:2204.13902, eq. 14-15 and algorithm 1: the linear part of the flow is
solved exactly, and eps is replaced by the polynomial of degree r through the last r + 1 values, in
the time t (tAB) or in rho = sigma / alpha (rhoAB, the Adams-Bashforth method `ab` in s). NFE n;
order r + 1 with an exact history and at most 2 with the paper's start-up; deterministic. tAB3 is a
good choice from 5 calls on.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from numpy.polynomial import Polynomial
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.classical import adams_bashforth
from bench.samplers.registry import sampler, whole

Method = Literal["tab", "rhoab"]

_GAUSS = np.polynomial.legendre.leggauss(6)
_LONGEST = 0.5  # a piece of the quadrature in lambda, on schedules without kinks


@sampler(
    "deis",
    family="exponential integrators",
    paper="Zhang and Chen 2022, arXiv:2204.13902, eq. 14-15, algorithm 1",
    order=lambda params: min(whole(params, "order") + 1, 2),
    formula_order=lambda params: whole(params, "order") + 1,
    stochastic=False,
)
def deis(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    method: Method = "tab",
    order: Annotated[int, Ge(0), Le(3)] = 3,
) -> Tensor:
    """Exponential integrator with eps extrapolated by a polynomial; `order` is its degree.

    x_b = (alpha_b / alpha_a) x_a + alpha_b sum_j eps_j (integral of L_j ds from a to b), with the
    Lagrange polynomials L_j in t (tab) or in rho = s (rhoab). Order 0 is ddim with eta = 0. The
    first steps have the degree that their history allows; the steps from alpha = 0 and to
    sigma = 0 have degree 0.
    """
    history: list[Tensor] = []
    for (a, b), weights in zip(grid.steps(), _coefficients(grid, method, order), strict=True):
        x0, eps = denoise(x, a)
        history = [eps, *history[:order]]
        if a.alpha == 0 or b.sigma == 0:
            x = b.alpha * x0 + b.sigma * eps
            continue
        x = b.alpha / a.alpha * x
        for weight, before in zip(weights, history, strict=False):
            x = torch.add(x, before, alpha=weight)  # in one pass over memory
    return x


@lru_cache(maxsize=256)
def _coefficients(grid: TimeGrid, method: Method, order: int) -> list[list[float]]:
    """C_ij of eq. 15, a list for each step, newest eps first; empty for the steps of degree 0."""
    rows: list[list[float]] = []
    for i, (a, b) in enumerate(grid.steps()):
        if a.alpha == 0 or b.sigma == 0:
            rows.append([])
            continue
        nodes = grid.points[max(i - order, 0) : i + 1][::-1]
        if method == "rhoab":
            # An eps where rho is infinite says nothing about the others.
            integrals = adams_bashforth([p.s for p in nodes if p.alpha > 0], a.s, b.s)
        else:
            integrals = _integrals_in_t(grid.schedule, a, b, [p.t for p in nodes])
        rows.append([b.alpha * integral for integral in integrals])
    return rows


def _integrals_in_t(
    schedule: NoiseSchedule, a: Point, b: Point, nodes: Sequence[float]
) -> list[float]:
    """Integrals over s from a to b of the Lagrange polynomials in t of the nodes.

    By parts, [L s] - integral of L' s dt, which asks the schedule for nothing but s; on pieces
    where s is smooth in t, with six Gauss points each. Between indices log alpha is linear here,
    alpha^2 in the authors' code.
    """
    edges = np.array(_pieces(schedule, a, b))
    middles, halves = 0.5 * (edges[1:] + edges[:-1]), 0.5 * (edges[1:] - edges[:-1])
    times = (middles[:, None] + halves[:, None] * _GAUSS[0]).ravel()
    s = np.array([schedule.at(t=float(t)).s for t in times])
    # In units of the step, so that the polynomials' coefficients stay of order 1.
    span = b.t - a.t
    u = (times - a.t) / span
    s_du = (halves[:, None] * _GAUSS[1]).ravel() / span * s
    places = [(t - a.t) / span for t in nodes]
    integrals = []
    for place in places:
        others = [v for v in places if v != place]
        lagrange = Polynomial(polyfromroots(others)) / math.prod(place - v for v in others)
        ends = lagrange(1.0) * b.s - lagrange(0.0) * a.s
        integrals.append(float(ends - lagrange.deriv()(u) @ s_du))
    return integrals


def _pieces(schedule: NoiseSchedule, a: Point, b: Point) -> list[float]:
    """Times from a to b between which s is smooth: split at indices, or evenly in lambda."""
    if schedule.num_train is not None:
        return [a.t, *map(float, range(math.ceil(a.t) - 1, math.floor(b.t), -1)), b.t]
    count = math.ceil((b.lam - a.lam) / _LONGEST)
    inside = np.linspace(a.lam, b.lam, count + 1)[1:-1]
    return [a.t, *(schedule.at(lam=float(lam)).t for lam in inside), b.t]
