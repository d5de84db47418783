import math
from pathlib import Path

import pytest

from bench.report import frame
from bench.report.pooled import Pooled
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

VALUES = {0: 1.0, 1: 2.0, 2: 4.0}
ERRORS = {0: 0.3, 1: 0.4, 2: 1.2}


def value_of(
    folder: Path, seeds: tuple[int, ...], sure: tuple[int, ...] = (), failed: tuple[int, ...] = ()
) -> Pooled:
    cells = [Cell("ddim", 10, seed=seed) for seed in seeds]

    def of(cell: Cell) -> Result:
        if cell.seed in failed:
            return records.failure(cell, "no luck")
        error = ERRORS[cell.seed] if cell.seed in sure else None
        return records.record(cell, value=VALUES[cell.seed], error=error)

    (value,) = frame.points(frame.read(records.make(folder, cells, of=of)).cells, "fd_cifar")[
        "value"
    ]
    assert isinstance(value, Pooled)
    return value


def test_one_seed_has_the_error_of_its_record(tmp_path: Path) -> None:
    value = value_of(tmp_path, (1,), sure=(1,))
    assert (value.mean, value.seeds, value.error, value.freedom) == (2.0, 1, 0.4, math.inf)
    assert value.sure
    assert value.keys == (Cell("ddim", 10, seed=1).key,)


def test_the_error_of_a_mean_is_that_of_the_records_if_every_one_has_one(tmp_path: Path) -> None:
    value = value_of(tmp_path, (2, 0, 1), sure=(0, 1, 2))
    assert value.mean == pytest.approx(7 / 3)
    assert value.error == pytest.approx(1.3 / 3)  # 0.09 + 0.16 + 1.44 = 1.69
    assert math.isinf(value.freedom)
    assert value.keys == tuple(Cell("ddim", 10, seed=seed).key for seed in (0, 1, 2))


def test_else_it_is_that_of_the_spread_over_seeds(tmp_path: Path) -> None:
    value = value_of(tmp_path, (0, 1, 2), sure=(0, 1))
    assert value.error == pytest.approx(math.sqrt(7 / 3) / math.sqrt(3))
    assert value.freedom == 2


def test_one_seed_of_an_old_record_has_none(tmp_path: Path) -> None:
    value = value_of(tmp_path, (0,))
    assert math.isnan(value.error)
    assert not value.sure


def test_a_seed_that_failed_is_left_out_and_noted(tmp_path: Path) -> None:
    value = value_of(tmp_path, (0, 1), sure=(0, 1), failed=(1,))
    assert (value.mean, value.error, value.seeds) == (1.0, 0.3, 1)
    assert value.note == "1 of 2 seeds: failed: no luck"
    assert value.keys == (Cell("ddim", 10, seed=0).key,)


def test_a_hole(tmp_path: Path) -> None:
    value = value_of(tmp_path, (0, 1), failed=(0, 1))
    assert (value.hole, value.sure, value.keys, value.note) == (True, False, (), "failed: no luck")
