import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import influences
from bench.report import frame, yardstick
from bench.report.frame import Study
from bench.report.pooled import Pooled
from bench.report.ties import Verdict
from bench.report.yardstick import Yardstick
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

IMAGES = 2000
SHARED = np.random.default_rng(0).normal(size=IMAGES)


def influence(cell: Cell) -> NDArray[np.float64]:
    """Nearly that of every other cell at the same seed."""
    own = np.random.default_rng(int(cell.key[:8], 16)).normal(size=IMAGES)
    return np.roll(SHARED, 17 * cell.seed) + 0.1 * own


def study(
    folder: Path, cells: list[Cell], kept: list[Cell], entries: dict[str, object] | None = None
) -> Study:
    def of(cell: Cell) -> Result:
        error = float(influence(cell).std()) / math.sqrt(IMAGES)
        value = 3.0 + 0.02 * cells.index(cell)
        entry = entries if cell == cells[-1] else None
        return records.record(cell, value=value, error=error, entry=entry)

    records.make(folder, cells, of=of)
    for cell in kept:
        influences.write(folder, of(cell), {"fd_cifar": influence(cell)})
    return frame.read(folder)


def error(study: Study) -> tuple[float, float]:
    """The error of the difference of the two configurations: found, and without pairs."""
    a, b = frame.points(study.cells, "fd_cifar")["value"]
    return yardstick.of(study, "fd_cifar").difference(a, b), yardstick.unpaired(a, b)


def pair(**changes: object) -> list[Cell]:
    cells = [Cell("ddim", 5, samples=IMAGES), Cell("heun", 5, samples=IMAGES)]
    return [cells[0], replace(cells[1], **changes)]  # type: ignore[arg-type]


def test_cells_at_equal_seeds_are_compared_image_by_image(tmp_path: Path) -> None:
    cells = pair()
    found, unpaired = error(study(tmp_path, cells, cells))
    difference = influence(cells[0]) - influence(cells[1])
    assert found == pytest.approx(difference.std() / math.sqrt(IMAGES), rel=0.01)
    assert found < unpaired / 8


def test_seeds_are_paired_one_by_one(tmp_path: Path) -> None:
    cells = [
        Cell(name, 5, seed=seed, samples=IMAGES) for name in ("ddim", "heun") for seed in (0, 3)
    ]
    found, unpaired = error(study(tmp_path, cells, cells))
    each = [(influence(cells[s]) - influence(cells[2 + s])).std() for s in (0, 1)]
    assert found == pytest.approx(math.hypot(*each) / 2 / math.sqrt(IMAGES), rel=0.01)
    assert found < unpaired / 8


@pytest.mark.parametrize(
    ("cells", "kept", "entry"),
    [
        (pair(), [], None),
        (pair(), pair()[:1], None),
        (pair(seed=1), pair(seed=1), None),
        (pair(), pair(), {"extractor_digest": "another"}),
        (pair(), pair(), {"reference_digest": "another"}),
        ([*pair(), pair(seed=1)[1]], [*pair(), pair(seed=1)[1]], None),
    ],
    ids=["none", "one", "seed", "extractor", "reference", "more seeds"],
)
def test_what_cannot_be_paired_counts_as_independent(
    tmp_path: Path, cells: list[Cell], kept: list[Cell], entry: dict[str, object] | None
) -> None:
    found, unpaired = error(study(tmp_path, cells, kept, entry))
    assert found == unpaired > 0


def test_nothing_is_told_apart_by_less_than_the_influences_resolve(tmp_path: Path) -> None:
    cells = pair()
    made = study(tmp_path, cells, [])
    same = {cell.key: {"fd_cifar": influence(cells[0]).astype(np.float32)} for cell in cells}
    found, unpaired = error(replace(made, influences=same))
    assert found == pytest.approx(unpaired / math.sqrt(2) / 512, rel=0.01)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (0, "unpaired: no influences beside the records"),
        (1, "paired by seed between the 1 of 2 cells with influences beside them"),
        (2, "paired by seed"),
    ],
)
def test_it_is_said_how_differences_were_judged(tmp_path: Path, kept: int, words: str) -> None:
    made = study(tmp_path, pair(), pair()[:kept])
    assert yardstick.pairing(made, "fd_cifar") == words


def test_nothing_is_said_where_there_are_no_errors(tmp_path: Path) -> None:
    made = frame.read(records.make(tmp_path, pair()))
    assert yardstick.pairing(made, "fd_cifar") == ""
    assert yardstick.of(made, "fd_cifar").judge([Pooled(1.0, 1), Pooled(2.0, 1)]) is None


def test_which_way_is_better_stands_in_the_records(tmp_path: Path) -> None:
    for better, words in ((None, "lower"), ("lower", "lower"), ("higher", "higher")):
        entry = None if better is None else {"better": better}
        made = study(tmp_path / words / str(better), pair(), [], entry)
        assert yardstick.of(made, "fd_cifar").better == words


def test_holes_are_no_candidates_and_what_stands_twice_is_one() -> None:
    twice = Pooled(1.0, 1, error=0.1, keys=("a",))
    other = Pooled(9.0, 1, error=0.1, keys=("b",))
    hole = Pooled(math.nan, 0)
    assert Yardstick().judge([hole, twice, other, twice]) == Verdict(True, (1, 3))
    assert Yardstick(higher=True).judge([hole, twice, other, twice]) == Verdict(True, (2,))
    assert Yardstick().judge([twice, hole, twice]) is None


def test_few_seeds_decide_less() -> None:
    values = [Pooled(0.0, 2, error=1.0), Pooled(4.0, 2, error=1.0)]
    assert Yardstick().judge(values) == Verdict(True, (0,))
    few = [replace(value, freedom=1.0) for value in values]
    assert Yardstick().judge(few) == Verdict(False, (0, 1))
    one = [replace(values[0], freedom=1.0), values[1]]
    assert Yardstick().judge(one) == Verdict(False, (0, 1))
