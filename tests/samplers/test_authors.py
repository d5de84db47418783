"""The authors' own code where it is in error, and its grids; `golden/authors/README.md` says whose.

Where it is right its values are golden ones, in test_golden.py. Here its fault, put into a formula
of ours that is written out once more, gives its number, and without the fault that formula gives
ours: nothing else sets the two apart.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.certify.problems import Blobs, GivenNoise
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.schedule import DiscreteVP, Point, make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.samplers.registry import get, sample

HERE = Path(__file__).parent
FAULTS = json.loads((HERE / "golden/authors/faults.json").read_text("utf-8"))
GOLDEN = json.loads((HERE.parents[1] / "bench/certify/golden/authors.json").read_text("utf-8"))
BLOBS = Blobs(
    weights=tuple(map(float, FAULTS["model"]["weights"])),
    centres=tuple((float(m),) for m in FAULTS["model"]["means"]),
    variances=tuple(map(float, FAULTS["model"]["variances"])),
)
THIRD = [case for case in FAULTS["cases"] if case["sampler"] == "dpm-solver++"]
DEIS = [case for case in FAULTS["cases"] if case["sampler"] == "deis"]


def grid_of(case: dict[str, Any]) -> TimeGrid:
    schedule = make_schedule(case["schedule"])
    return TimeGrid(schedule, tuple(schedule.at(t=t) for t in case["times"]))


def draws() -> GivenNoise:
    """The start, N(0, 1), and the noise of each step."""
    rows = [FAULTS["starts"], *FAULTS["noise"]]
    columns = [torch.tensor([float(v) for v in row], dtype=torch.float64) for row in rows]
    return GivenNoise([column.view(-1, 1, 1, 1) for column in columns])


def ours(case: dict[str, Any]) -> Tensor:
    grid, sampler = grid_of(case), get(case["sampler"])
    params = sampler.complete(case["params"])
    denoise = Denoiser(BLOBS.pair)
    return sample(sampler, denoise, grid, draws(), final="sigma-min", params=params)


def theirs(case: dict[str, Any]) -> Tensor:
    return torch.tensor([float(v) for v in case["ends"]], dtype=torch.float64).view(-1, 1, 1, 1)


def far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def third_order(case: dict[str, Any], *, curvature: float, second_step: str) -> Tensor:
    """DPM-Solver++ 3M by the derivatives of D in lambda, its curvature so many times."""
    grid, eta = grid_of(case), float(case["params"].get("eta", 0))
    noise = draws()
    x = grid.schedule.prior_std(grid.points[0]) * noise()
    ds: list[Tensor] = []
    for i, (a, b) in enumerate(grid.steps()):
        ds.append(BLOBS.pair(x, a)[0])
        h = b.lam - a.lam
        rate = (1 + eta) * h
        phi_2 = math.expm1(-rate) / rate + 1
        phi_3 = phi_2 / rate - 0.5
        x = b.sigma / a.sigma * math.exp(-eta * h) * x - b.alpha * math.expm1(-rate) * ds[i]
        if i > 0:
            gap = a.lam - grid.points[i - 1].lam
            slope = (ds[i] - ds[i - 1]) / gap
        if i == 1:
            weight = {"exact": phi_2, "midpoint": -0.5 * math.expm1(-rate)}[second_step]
            x = x + b.alpha * weight * h * slope
        if i > 1:
            gap_before = grid.points[i - 1].lam - grid.points[i - 2].lam
            slope_before = (ds[i - 1] - ds[i - 2]) / gap_before
            bend = 2 * (slope - slope_before) / (gap + gap_before)  # D''
            x = x + b.alpha * phi_2 * h * (slope + bend * gap / 2)
            x = x - b.alpha * phi_3 * h**2 * bend * curvature
        if eta > 0:
            x = x + b.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise()
    return x


@pytest.mark.parametrize("case", THIRD)
def test_third_order_of_theirs_has_half_the_curvature(case: dict[str, Any]) -> None:
    second_step = "exact" if case["source"].startswith("k-diffusion") else "midpoint"
    assert far(third_order(case, curvature=0.5, second_step=second_step), theirs(case)) < 1e-10
    assert far(third_order(case, curvature=1.0, second_step="midpoint"), ours(case)) < 1e-10
    assert 0.05 < far(theirs(case), ours(case)) < 3


def left_sums(case: dict[str, Any], pieces: int) -> Tensor:
    """DEIS whose integrals are sums over so many equal pieces, each at its left end."""
    grid, order = grid_of(case), case["params"]["order"]
    schedule = grid.schedule
    assert isinstance(schedule, DiscreteVP)
    log_alpha = 0.5 * np.cumsum(np.log1p(-np.array(schedule.betas)))

    def ds_dt(t: np.ndarray) -> np.ndarray:
        below = np.clip(t.astype(int), 0, len(log_alpha) - 2)
        slope = log_alpha[below + 1] - log_alpha[below]
        alpha = np.exp(log_alpha[below] + (t - below) * slope)
        return -slope / (alpha * np.sqrt(1 - alpha**2))

    def place(point: Point) -> float:
        return point.t if case["params"]["method"] == "tab" else point.s

    def weight(j: int, nodes: list[float], end: float) -> float:
        u = np.linspace(nodes[0], end, pieces, endpoint=False)
        rate = ds_dt(u) if case["params"]["method"] == "tab" else np.ones_like(u)
        for m, node in enumerate(nodes):
            if m != j:
                rate = rate * (u - node) / (nodes[j] - node)
        return float(rate.mean()) * (end - nodes[0])

    x = draws()()
    history: list[Tensor] = []
    for i, (a, b) in enumerate(grid.steps()):
        history = [BLOBS.pair(x, a)[1], *history[:order]]
        nodes = [place(point) for point in grid.points[i::-1]][: len(history)]
        x = b.alpha / a.alpha * x
        for j, eps in enumerate(history):
            x = x + b.alpha * weight(j, nodes, place(b)) * eps
    return x


@pytest.mark.parametrize("case", DEIS)
def test_deis_of_theirs_sums_where_it_integrates(case: dict[str, Any]) -> None:
    # In t the rounding of a piece's left end says which side of an index it lies on.
    within = 1e-6 if case["params"]["method"] == "tab" else 1e-10
    assert far(left_sums(case, 10_000), theirs(case)) < within
    gap = far(theirs(case), ours(case))
    assert 1e-5 < gap < 5e-3
    assert far(left_sums(case, 80_000), ours(case)) < gap / 7


@pytest.mark.parametrize("case", [case for case in GOLDEN["cases"] if "spacing" in case])
def test_their_grids_are_ours(case: dict[str, Any]) -> None:
    schedule, spacing = make_schedule(case["schedule"]), case["spacing"]
    final = "zero" if case["times"][-1] == schedule.clean.t else "sigma-min"
    steps = len(case["times"]) - 1
    grid = make_grid(schedule, spacing["name"], steps, final=final, params=spacing["params"])
    assert [point.t for point in grid.points] == pytest.approx(case["times"], rel=1e-9, abs=1e-9)
