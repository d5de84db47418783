"""Golden values: what a sampler gives by a second derivation, made without its code.

A file of `golden/` holds a scalar mixture of two Gaussians, five starts, the noise of each draw,
and cases: a sampler at its parameters on a grid, with the ends. tests/samplers/golden/make.py made
them from the papers in mpmath with 50 digits, grids.py those of the spacings.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from bench.certify.problems import Blobs, GivenNoise
from bench.certify.variants import Variant
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import TimeGrid
from bench.parameters import Value

FOLDER = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One golden run.

    Attributes:
        sampler: name in the registry.
        params: parameters by YAML name; others at their defaults.
        schedule: name of the schedule.
        times: from noise to data; the schedule's clean image by its own time.
        model: the mixture.
        rows: the start, and then the noise of each draw: a number for each sample.
        ends: where the samples end.
        within: how far a float64 computation may be off, relative to 1 or to the value.
        source: what made the values.
    """

    sampler: str
    params: Mapping[str, Value]
    schedule: str
    times: tuple[float, ...]
    model: Blobs
    rows: tuple[tuple[float, ...], ...]
    ends: tuple[float, ...]
    within: float
    source: str

    def __str__(self) -> str:
        return " ".join([self.sampler, *map(str, self.params.values()), self.schedule, self.source])

    def grid(self) -> TimeGrid:
        """The grid through the times."""
        schedule = make_schedule(self.schedule)

        def point(t: float) -> Point:
            return schedule.clean if t == schedule.clean.t else schedule.at(t=t)

        return TimeGrid(schedule, tuple(map(point, self.times)))

    def deviation(self, variant: Variant) -> float:
        """How far `variant` ends from the golden values at most, relative to 1 or to the value."""
        draws = [torch.tensor(row, dtype=torch.float64).view(-1, 1, 1, 1) for row in self.rows]
        grid, noise = self.grid(), GivenNoise(draws)
        start = grid.schedule.prior_std(grid.points[0]) * noise()
        found = variant.run(Denoiser(self.model.pair), start, grid, noise).flatten()
        ends = torch.tensor(self.ends, dtype=torch.float64)
        return float(((found - ends).abs() / ends.abs().clamp(min=1.0)).max())


@cache
def cases() -> tuple[Case, ...]:
    """All golden runs of samplers on file."""
    return tuple(case for path in sorted(FOLDER.glob("*.json")) for case in _read(path))


def _read(path: Path) -> Iterator[Case]:
    values = json.loads(path.read_text("utf-8"))
    if "model" not in values:  # the grids
        return
    model = values["model"]
    blobs = Blobs(
        weights=tuple(map(float, model["weights"])),
        centres=tuple((float(mean),) for mean in model["means"]),
        variances=tuple(map(float, model["variances"])),
    )
    rows = tuple(tuple(map(float, row)) for row in [values["starts"], *values["noise"]])
    for case in values["cases"]:
        yield Case(
            sampler=case["sampler"],
            params=case["params"],
            schedule=case["schedule"],
            times=tuple(case["times"]),
            model=blobs,
            rows=rows,
            ends=tuple(map(float, case["ends"])),
            within=case.get("within", 1e-10),
            source=case.get("source", path.stem),
        )
