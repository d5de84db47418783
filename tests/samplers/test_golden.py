"""Samplers against golden values: from the papers in mpmath, and from the authors' own code.

`golden/make.py` and `golden/authors/make.py` make them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import TimeGrid
from bench.samplers.registry import REGISTRY, get, sample
from tests.samplers.exact import Blobs, GivenNoise

FILES = sorted((Path(__file__).parents[2] / "bench/certify/golden").glob("*.json"))
VALUES = [json.loads(path.read_text("utf-8")) for path in FILES if path.stem != "grids"]
CASES = [(values, case) for values in VALUES for case in values["cases"]]


def label(case: dict[str, Any]) -> str:
    return " ".join(map(str, [case["sampler"], *case["params"].values(), case["schedule"]]))


@pytest.mark.parametrize(("values", "case"), CASES, ids=[label(case) for _, case in CASES])
def test_reproduces_the_independent_derivation(
    values: dict[str, Any], case: dict[str, Any]
) -> None:
    schedule = make_schedule(case["schedule"])

    def point(t: float) -> Point:
        return schedule.clean if t == schedule.clean.t else schedule.at(t=t)

    grid = TimeGrid(schedule, tuple(point(t) for t in case["times"]))
    model = values["model"]
    blobs = Blobs(
        weights=tuple(map(float, model["weights"])),
        centres=tuple((float(m),) for m in model["means"]),
        variances=tuple(map(float, model["variances"])),
    )
    rows = [values["starts"], *values["noise"]]
    draws = [
        torch.tensor([float(v) for v in row], dtype=torch.float64).view(-1, 1, 1, 1) for row in rows
    ]
    sampler = get(case["sampler"])
    params = sampler.complete(case["params"])
    final = "zero" if grid.ends_at_zero else "sigma-min"
    found = sample(
        sampler, Denoiser(blobs.pair), grid, GivenNoise(draws), final=final, params=params
    )
    expected = [float(v) for v in case["ends"]]
    within = case.get("within", 1e-10)
    assert found.flatten().tolist() == pytest.approx(expected, rel=within, abs=within)


def test_every_sampler_has_golden_values() -> None:
    assert {case["sampler"] for _, case in CASES} == set(REGISTRY)
