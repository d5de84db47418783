import math
from pathlib import Path

from bench.report import frame
from bench.report.front import Best, front
from bench.report.yardstick import Yardstick
from tests.report import records
from tests.report.records import Cell


def places(folder: Path, values: dict[tuple[str, int], float]) -> list[Best]:
    cells = [Cell(sampler, steps) for sampler, steps in values]
    records.make(
        folder,
        cells,
        of=lambda cell: (
            records.record(cell, value=values[cell.sampler, cell.steps or 0])
            if math.isfinite(values[cell.sampler, cell.steps or 0])
            else None
        ),
    )
    return front(frame.points(frame.read(folder).cells, "fd_cifar"), Yardstick())


def words(best: Best) -> tuple[float, float, list[str], str | None]:
    following = (
        None if best.following is None else f"{best.following['label']} {best.following['nfe']:g}"
    )
    return best.nfe, best.until, list(best.points["label"]), following


def test_the_front_is_what_no_cell_beats_at_as_many_calls_or_fewer(tmp_path: Path) -> None:
    values = {
        ("a", 5): 9.0, ("a", 10): 3.0, ("a", 20): 1.0,
        ("b", 5): 8.0, ("b", 9): 4.0, ("b", 20): 2.0,
        ("c", 10): 3.5, ("c", 15): math.nan, ("c", 30): 1.0,
    }  # fmt: skip
    assert [words(best) for best in places(tmp_path, values)] == [
        (5, 9, ["b"], "a 5"),
        (9, 10, ["b"], "a 5"),
        (10, 20, ["a"], "c 10"),
        (20, math.inf, ["a"], "c 30"),  # equal, but at more calls: next, not on the front
    ]


def test_what_is_next_may_take_more_calls_while_the_place_holds(tmp_path: Path) -> None:
    values = {("heun", 9): 1.0, ("ddim", 5): 7.0, ("ddim", 10): 1.01, ("ddim", 20): 0.5}
    assert [words(best) for best in places(tmp_path, values)] == [
        (5, 9, ["ddim"], None),
        (9, 20, ["heun"], "ddim 10"),
        (20, math.inf, ["ddim"], "heun 9"),
    ]


def test_equal_values_at_equal_calls_share_a_place(tmp_path: Path) -> None:
    values = {("ddim", 5): 2.0, ("euler", 5): 2.0, ("heun", 5): 3.0}
    (best,) = places(tmp_path, values)
    assert words(best) == (5, math.inf, ["ddim", "euler"], "heun 5")


def test_nothing_has_no_front(tmp_path: Path) -> None:
    assert places(tmp_path, {("ddim", 5): math.nan}) == []


def test_counted_calls_have_their_place_and_references_have_none(tmp_path: Path) -> None:
    cells = [
        records.exact(),
        *(Cell("ddim", n) for n in (20, 50)),
        Cell("rk45", 2, {"rtol": 0.1}, counted=33.4),
        Cell("exact-flow", 10, {"tolerance": 1e-4}, counted=15.0),
    ]
    values = {"exact": 0.1, "ddim": 3.0, "rk45": 2.0, "exact-flow": 0.2}
    records.make(tmp_path, cells, of=lambda cell: records.record(cell, value=values[cell.sampler]))
    found = front(frame.points(frame.read(tmp_path).cells, "fd_cifar"), Yardstick())
    assert [words(best)[:3] for best in found] == [
        (20, 33.4, ["ddim"]),
        (33.4, math.inf, ["rk45"]),
    ]


def test_where_higher_is_better_the_front_climbs(tmp_path: Path) -> None:
    values = {("a", 5): 2.0, ("b", 5): 3.0, ("a", 10): 2.5, ("b", 20): 9.0, ("a", 20): 8.0}
    cells = [Cell(sampler, steps) for sampler, steps in values]
    records.make(
        tmp_path,
        cells,
        of=lambda cell: records.record(cell, value=values[cell.sampler, cell.steps or 0]),
    )
    points = frame.points(frame.read(tmp_path).cells, "fd_cifar")
    assert [words(best) for best in front(points, Yardstick(higher=True))] == [
        (5, 20, ["b"], "a 10"),
        (20, math.inf, ["b"], "a 20"),
    ]


def test_values_below_zero_are_values(tmp_path: Path) -> None:
    values = {("a", 5): 0.1, ("b", 5): -0.1, ("a", 10): -0.2}
    assert [words(best) for best in places(tmp_path, values)] == [
        (5, 10, ["b"], "a 5"),
        (10, math.inf, ["a"], "b 5"),
    ]
