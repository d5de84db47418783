"""Samplers against golden/values.json, made by golden/make.py from the papers in mpmath."""

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

VALUES = json.loads((Path(__file__).parent / "golden" / "values.json").read_text("utf-8"))


def label(case: dict[str, Any]) -> str:
    return " ".join(map(str, [case["sampler"], *case["params"].values(), case["schedule"]]))


@pytest.mark.parametrize("case", VALUES["cases"], ids=label)
def test_reproduces_the_independent_derivation(case: dict[str, Any]) -> None:
    schedule = make_schedule(case["schedule"])

    def point(t: float) -> Point:
        return schedule.clean if t == schedule.clean.t else schedule.at(t=t)

    grid = TimeGrid(schedule, tuple(point(t) for t in case["times"]))
    model = VALUES["model"]
    blobs = Blobs(
        weights=tuple(map(float, model["weights"])),
        centres=tuple((float(m),) for m in model["means"]),
        variances=tuple(map(float, model["variances"])),
    )
    rows = [VALUES["starts"], *VALUES["noise"]]
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
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_every_sampler_has_golden_values() -> None:
    assert {case["sampler"] for case in VALUES["cases"]} == set(REGISTRY)
