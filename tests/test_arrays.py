from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench import arrays, results
from bench.arrays import Array

HOUR = 3600.0


@dataclass(frozen=True)
class Spec:
    keys: tuple[str, ...]


def specs(keys: str) -> list[Spec]:
    """A job for each letter."""
    return [Spec((key,)) for key in keys]


def test_arrays_keep_to_the_size_of_the_site_and_to_one_time_limit() -> None:
    a, b, c, d, e = jobs = specs("abcde")
    seconds = {"a": 5 * HOUR, "b": 0.4 * HOUR, "c": 0.2 * HOUR, "d": 0.1 * HOUR}
    assert arrays.grouped(jobs, seconds, size=2) == [
        Array(12 * 60, (a,), None),
        Array(60, (b, c), None),
        Array(60, (d, e), None),
    ]


def test_the_time_of_the_sweep_wins() -> None:
    jobs = specs("ab")
    (one,) = arrays.grouped(jobs, {"a": 5 * HOUR}, size=1000, minutes=30)
    assert (one.minutes, one.jobs) == (30, tuple(jobs))


def test_arrays_share_what_may_run_at_a_time() -> None:
    jobs = specs("abcdefghijklmnopqrst")
    found = arrays.grouped(jobs, {}, size=15, at_a_time=8)
    assert [(len(one.jobs), one.at_a_time) for one in found] == [(15, 6), (5, 2)]
    found = arrays.grouped(jobs, {}, size=15, at_a_time=1)
    assert [one.at_a_time for one in found] == [1, 1]


@pytest.mark.parametrize(
    ("hours", "limit"), [(0.0, 1), (0.5, 1), (0.51, 2), (3.9, 8), (11.0, 24), (100.0, 24)]
)
def test_limit_is_twice_what_is_expected_between_an_hour_and_a_day(
    hours: float, limit: int
) -> None:
    assert arrays.limit(["a", "b"], {"a": hours * HOUR / 2, "b": hours * HOUR / 2}) == limit * 60


def test_expectation_comes_from_the_slowest_finished_cell_of_the_model() -> None:
    folder = Path(__file__).parents[1] / "results" / "ddim-table"
    plan = results.read_plan(folder)
    ten, fifty = plan["cells"][1], plan["cells"][3]
    record = next(one for one in results.read_all(folder).values() if one.nfe["declared"] == 10)
    made = replace(
        record,
        samples=100,
        nfe={"declared": 10, "counted": {"mean": 10.0, "min": 10, "max": 10}},
        seconds={"sampling": 50.0, "features": 10.0, "total": 61.0},
    )
    slower = replace(made, seconds={"sampling": 70.0, "features": 10.0, "total": 80.0})
    rows = [row | {"cell": row["cell"] | {"samples": 1000}} for row in (ten, fifty)]
    found = arrays.expected(rows, [made, slower, replace(made, status="failed")])
    assert [found[row["key"]] for row in rows] == pytest.approx(
        [1000 * (results.calls(row) * 70 / 1000 + 0.1) for row in rows]
    )
    assert arrays.expected(rows, []) == {}
