"""Cells that differ in their model alone stand side by side, with paired differences."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import influences
from bench.report import frame, markdown, sections, yardstick
from bench.report.content import Table
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

WIDE = {"kind": "diffusers", "path": "unet", "dtype": "float32"}
NARROW = WIDE | {"dtype": "bfloat16"}
IMAGES = 2000
NOISE = np.random.default_rng(0).normal(size=IMAGES)
VALUES = {("ddim", 5): (70.0, 71.0), ("ddim", 10): (50.0, 50.001), ("heun", 3): (60.0, math.nan)}


def cell(sampler: str, steps: int, model: dict[str, str]) -> Cell:
    nfe = 2 * steps - 1 if sampler == "heun" else steps
    return Cell(sampler, steps, nfe=nfe, model=model, samples=IMAGES)


def study(folder: Path, *models: dict[str, str]) -> frame.Study:
    """Cells whose images nearly agree between models, so that pairs see what single values hide."""
    cells = [cell(*one, model) for model in models for one in VALUES]

    def of(made: Cell) -> Result | None:
        value = VALUES[made.sampler, made.steps or 0][made.model != models[0]]
        if math.isnan(value):
            return None
        return records.record(made, value=value, error=float(NOISE.std()) / math.sqrt(IMAGES))

    records.make(folder, cells, of=of)
    for made in cells:
        if (record := of(made)) is not None:
            own = np.random.default_rng(int(made.key[:8], 16)).normal(size=IMAGES)
            influences.write(folder, record, {"fd_cifar": NOISE + 0.1 * own})
    return frame.read(folder)


def side_by_side(found: frame.Study) -> list[sections.Part]:
    parts = sections.every(found)["fd_cifar"]
    return [part for part in parts if part.name == "Models side by side"]


def rows(table: Table) -> list[str]:
    return markdown.render(table).splitlines()


def test_two_models_have_a_row_where_both_have_a_value_and_the_difference_of_pairs(
    tmp_path: Path,
) -> None:
    found = study(tmp_path, WIDE, NARROW)
    (part,) = side_by_side(found)
    (table,) = part.tables
    at = frame.points(found.settings[0].cells, "fd_cifar")["value"]
    there = frame.points(found.settings[1].cells, "fd_cifar")["value"]
    error = yardstick.of(found, "fd_cifar").difference(at[0], there[0])
    assert error == pytest.approx(0.1 * math.sqrt(2 / IMAGES), rel=0.05)
    assert rows(table) == [
        "| Configuration | NFE | dtype float32 | dtype bfloat16 | Difference |",
        "| :--- | ---: | ---: | ---: | ---: |",
        f"| ddim | 5 | **70.000 ± 0.022** | 71.000 ± 0.022 | +1.0000 ± {error:.4f} |",
        f"| ddim | 10 | 50.000 ± 0.022 ≈ | 50.001 ± 0.022 ≈ | +0.0010 ± {error:.4f} |",
        "",
        "Bold: the best of its row beyond the noise. ≈: the best of its row and what cannot be "
        "told apart from it. At 95 %, for all values of a row together. Difference: dtype "
        "bfloat16 less dtype float32 ± one standard error, paired by seed.",
    ]
    assert part.summary == [
        "In 1 of 2 comparisons one model is best beyond the noise, each at 95 %."
    ]
    assert part.caption == (
        "fd_cifar; lower is better. 2,000 samples a cell; reference cifar10-mixture; models "
        "unet (dtype float32) and unet (dtype bfloat16)."
    )


def test_three_models_have_no_difference(tmp_path: Path) -> None:
    (part,) = side_by_side(study(tmp_path, WIDE, NARROW, {"kind": "mixture", "name": "smooth"}))
    header = rows(part.tables[0])[0]
    assert header == (
        "| Configuration | NFE | unet (dtype float32) | unet (dtype bfloat16) | smooth |"
    )


def test_only_models_at_equal_numbers_of_images_are_compared(tmp_path: Path) -> None:
    few = replace(cell("ddim", 5, NARROW), samples=100)
    found = frame.read(records.make(tmp_path, [cell("ddim", 5, WIDE), few]))
    assert len(found.settings) == 2
    assert side_by_side(found) == []


def test_nothing_in_common_is_not_compared(tmp_path: Path) -> None:
    cells = [cell("ddim", 5, WIDE), cell("ddim", 10, NARROW)]
    assert side_by_side(frame.read(records.make(tmp_path, cells))) == []
