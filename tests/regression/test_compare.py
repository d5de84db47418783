"""Two folders: what is found, what is said, and what is wrong with them."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import influences, results
from bench.errors import ResultError
from bench.regression import text
from bench.regression.compare import Comparison, compare
from bench.regression.verdicts import BETTER, SAME, UNDECIDED, WORSE
from bench.results import Result
from tests.report import records
from tests.report.records import Cell, exact

IMAGES = 2000
CELLS = [
    exact(samples=IMAGES),
    *(Cell(name, 10, {}, samples=IMAGES) for name in ("ddim", "heun", "deis")),
]
FLOOR, VALUE = 0.1, 4.0


def influence(cell: Cell, salt: int = 0, own: float = 0.0) -> NDArray[np.float64]:
    """That of the images of a cell; `own` of it is another for each salt."""
    key = int(cell.key[:8], 16)
    shared, mine = np.random.default_rng(key), np.random.default_rng([key, salt])
    of = shared.normal(size=IMAGES) + own * mine.normal(size=IMAGES)
    scale = 0.02 * (FLOOR if cell.sampler == "exact" else VALUE) * math.sqrt(IMAGES)
    return np.asarray(scale * of)


def make(
    folder: Path,
    *,
    cells: list[Cell] | None = None,
    times: dict[str, float] | None = None,
    own: float = 0.02,
    salt: int = 0,
    kept: bool = True,
    change: Callable[[Cell, Result], Result | None] = lambda cell, result: result,
) -> Path:
    """A folder in which values are `times` what they should be, by sampler."""

    def of(cell: Cell) -> Result | None:
        value = FLOOR if cell.sampler == "exact" else VALUE
        infl = influence(cell, salt, own if cell.sampler in (times or {}) else 0.0)
        value *= (times or {}).get(cell.sampler, 1.0)
        error = float(infl.std()) / math.sqrt(IMAGES)
        result = change(cell, records.record(cell, value=value, error=error))
        if result is not None and kept and result.status == "done":
            folder.mkdir(parents=True, exist_ok=True)
            influences.write(folder, result, {"fd_cifar": infl})
        return result

    return records.make(folder, cells or CELLS, of=of)


def words(found: Comparison) -> dict[str, str]:
    return {row.label: row.verdict.word for row in found.rows}


def entry(**changes: Any) -> Callable[[Cell, Result], Result]:
    def change(cell: Cell, result: Result) -> Result:
        metrics = {name: {**found, **changes} for name, found in result.metrics.items()}
        return replace(result, metrics=metrics)

    return change


def test_pairs_find_what_independent_cells_hide(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(tmp_path / "b", times={"heun": 1.02, "deis": 0.97}, salt=1)
    found = compare(a, b)
    label = dict(zip(("exact", "ddim", "heun", "deis"), words(found), strict=True))
    assert list(words(found).values()) == [SAME, SAME, WORSE, BETTER]
    assert label["exact"] == "exact draws"
    assert "heun" in label["heun"]
    assert [row.label for row in found.regressions] == [label["heun"]]
    assert found.failed
    assert {row.how for row in found.rows} == {"paired"}
    worse = found.regressions[0]
    assert worse.relative == pytest.approx(0.02)
    assert worse.of_excess == pytest.approx(0.02 * VALUE / (VALUE - FLOOR))
    assert worse.times_floor == pytest.approx(VALUE / FLOOR)
    assert worse.moved is not None
    assert worse.moved.correlation == pytest.approx(1 / math.sqrt(1 + 0.02**2), abs=1e-3)

    # The same values without their influences: the noise of independent cells is larger.
    make(tmp_path / "c", times={"heun": 1.02, "deis": 0.97}, salt=1, kept=False)
    found = compare(a, tmp_path / "c")
    assert list(words(found).values()) == [SAME, SAME, UNDECIDED, UNDECIDED]
    assert not found.failed
    (said,) = (line for line in found.said if "unpaired" in line)
    assert said.startswith(
        f"4 of 4 differences are unpaired: no influences beside the records in {tmp_path / 'c'}."
    )


def test_a_small_change_is_told_and_fails_nothing(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(tmp_path / "b", times={"heun": 1.006}, own=0.005)
    found = compare(a, b)
    assert WORSE in words(found).values()
    assert not found.failed
    assert "worse, below the threshold" in text.markdown(found)
    assert compare(a, b, threshold=0.005).failed


def test_other_seeds_are_independent_cells(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(
        tmp_path / "b",
        cells=[replace(cell, seed=1) for cell in CELLS],
        times={"heun": 1.02, "ddim": 2.0},
    )
    found = compare(a, b)
    by_name = {row.label.split(",")[0].split()[0]: row for row in found.rows}
    assert by_name["ddim"].verdict.word == WORSE
    assert by_name["heun"].verdict.word == UNDECIDED
    assert {row.how for row in found.rows} == {"unpaired: no seed in common"}
    assert {row.moved for row in found.rows} == {None}


def test_seeds_in_common_are_compared_with_each_other(tmp_path: Path) -> None:
    both = [*CELLS, *(replace(cell, seed=1) for cell in CELLS)]
    more = [*both, *(replace(cell, seed=2) for cell in CELLS)]
    a = make(tmp_path / "a", cells=more)
    b = make(tmp_path / "b", cells=both, times={"heun": 1.02})
    found = compare(a, b)
    assert {row.how for row in found.rows} == {"paired"}
    assert {row.seeds for row in found.rows} == {2}
    (worse,) = found.regressions
    alone = compare(make(tmp_path / "c"), make(tmp_path / "d", times={"heun": 1.02}))
    assert worse.error == pytest.approx(alone.regressions[0].error / math.sqrt(2), rel=0.1)


def test_seeds_are_matched_whatever_their_order(tmp_path: Path) -> None:
    both = [*CELLS, *(replace(cell, seed=1) for cell in CELLS)]
    a = make(tmp_path / "a", cells=both)
    found = compare(a, make(tmp_path / "b", cells=both[::-1], times={"heun": 1.02}))
    assert {row.how for row in found.rows} == {"paired"}
    assert [row.label.split()[0] for row in found.regressions] == ["heun"]

    def without(seed: int) -> Callable[[Cell, Result], Result | None]:
        return lambda cell, result: None if cell.seed == seed else result

    # One seed each, but not the same one: neither pairs nor a mean over equal seeds.
    c, d = (make(tmp_path / f"{n}", cells=both, change=without(n)) for n in (0, 1))
    found = compare(c, d)
    assert found.rows == ()
    assert {why.split(":")[0] for _, why in found.left_out} == {"not the same seeds have a value"}


def test_identical_images_need_no_statistics(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    for folder in (a, b):
        records.keep_samples(folder, CELLS)
    found = compare(a, b)
    assert {text.verdict(row) for row in found.rows} == {"identical"}
    assert {str(row.moved) for row in found.rows} == {"16 of 16 kept images the same"}
    said = text.markdown(found)
    assert "**No regression** beyond noise and beyond 1.0 %." in said
    assert "Of 4 differences: 4 identical." in said
    assert "|" not in said

    # Equal values of images that moved are not identical.
    path = b / "work" / CELLS[1].key / "samples.npy"
    np.save(path, np.load(path)[:, :, ::-1])
    row = compare(a, b).rows[1]
    assert row.verdict.word == SAME
    assert text.verdict(row) != "identical"
    assert row.moved is not None
    assert row.moved.share == 1.0
    assert row.moved.levels > 1


def test_kept_images_tell_how_far_they_moved(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", times={"heun": 1.02})
    for folder in (a, b):
        records.keep_samples(folder, CELLS)
    path = b / "work" / CELLS[2].key / "samples.npy"
    images = np.load(path)
    images[:4] ^= 1  # a level up or down, in a quarter of the images
    np.save(path, images)
    (row,) = compare(a, b).regressions
    assert row.moved is not None
    assert (row.moved.images, row.moved.share, row.moved.levels) == (16, 0.25, 0.25)
    assert "4 of 16 kept images moved, by 0.25 of 255" in text.markdown(compare(a, b))


def test_a_cell_that_fails_now_fails_the_build(tmp_path: Path) -> None:
    def change(cell: Cell, result: Result) -> Result | None:
        if cell.sampler == "heun":
            return records.failure(cell, "37 images are not finite")
        return None if cell.sampler == "deis" else result

    a, b = make(tmp_path / "a"), make(tmp_path / "b", change=change)
    found = compare(a, b)
    assert found.failed
    assert not found.regressions
    ((label, why),) = found.broken
    assert "heun" in label
    assert why == f"{b}: failed: 37 images are not finite"
    ((label, why),) = found.left_out
    assert "deis" in label
    assert why == f"{b}: not computed yet"
    assert "**1 cell failed** that had a value" in text.headline(found)
    # The other way round it is repaired, and nothing to compare with.
    assert not compare(b, a).failed


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"reference_digest": "beef"}, "another reference: 4e1d and beef"),
        ({"extractor_digest": "beef"}, "another extractor: 9a70 and beef"),
        ({"n": 1000}, "another number of images: 2000 and 1000"),
    ],
)
def test_values_of_another_kind_are_not_compared(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", kept=False, change=entry(**changes))
    found = compare(a, b)
    assert found.rows == ()
    assert {why for _, why in found.left_out} == {what}
    assert text.markdown(found).count(what) == 1  # one line for all cells


def test_what_else_changed_is_said(tmp_path: Path) -> None:
    def change(cell: Cell, result: Result) -> Result:
        made = result.provenance
        numerics = {**made["numerics"], "batch": 250}
        other = {**made, "numerics": numerics, "model_digest": "88bb"}
        if cell.sampler == "heun":
            other["fingerprint"] = [0.1, 0.2 + 1e-6]
        return replace(result, provenance=other)

    found = compare(make(tmp_path / "a"), make(tmp_path / "b", change=change))
    notes = {row.label.split(",")[0].split()[0]: row.notes for row in found.rows}
    assert notes["ddim"] == ("another model", "batch 250, was 500")
    assert notes["heun"] == ("the sampler's arithmetic changed", *notes["ddim"])
    assert "- The sampler's arithmetic changed: heun" in text.markdown(found)


def test_values_at_the_floor_are_told(tmp_path: Path) -> None:
    found = compare(
        make(tmp_path / "a", times={"ddim": 0.03}), make(tmp_path / "b", times={"ddim": 0.03})
    )
    (said,) = (line for line in found.said if "floor" in line)
    assert said.startswith("1 of 4 values lie below 1.5 times their floor")


def test_a_metric_where_higher_is_better(tmp_path: Path) -> None:
    higher = entry(better="higher")
    a = make(tmp_path / "a", change=higher)
    b = make(tmp_path / "b", times={"heun": 1.02, "deis": 0.97}, change=higher)
    found = compare(a, b)
    assert [row.label.split()[0] for row in found.regressions] == ["deis"]
    assert all(math.isnan(row.times_floor) for row in found.rows)


def test_records_without_errors_decide_nothing(tmp_path: Path) -> None:
    folders = [
        records.make(
            tmp_path / name, CELLS, of=lambda cell, value=value: records.record(cell, value=value)
        )
        for name, value in (("a", 4.0), ("b", 8.0))
    ]
    found = compare(*folders)
    assert not found.failed
    assert {text.verdict(row) for row in found.rows} == {
        "undecided: no standard error in the records"
    }
    json.dumps(text.data(found), allow_nan=False)


def test_json_says_the_same(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", times={"heun": 1.02})
    found = json.loads(json.dumps(text.data(compare(a, b)), allow_nan=False))
    assert found["failed"] is True
    (worse,) = (cell for cell in found["cells"] if cell["regression"])
    assert worse["verdict"] == "worse"
    assert worse["paired"] is True
    assert worse["relative"] == pytest.approx(0.02)
    assert worse["head"] - worse["base"] == pytest.approx(worse["difference"])
    assert worse["p"] < 0.05
    assert found["cells"][0]["of_excess"] is None  # exact draws have nothing above their floor


def test_markdown_is_safe_whatever_names_say(tmp_path: Path) -> None:
    evil = {"kind": "mixture", "name": "<script>alert(1)</script>|a,b", "schedule": "vp-linear"}
    cells = [*CELLS, *(replace(cell, model=evil) for cell in CELLS)]
    a, b = (make(tmp_path / n, cells=cells, times={"heun": t}) for n, t in (("a", 1.0), ("b", 2.0)))
    said = text.markdown(compare(a, b, names=("<b>a</b>|", "ü")))
    assert "<script" not in said
    assert "<b>" not in said
    assert "ü" in said
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    bars = {line.replace("\\|", "").count("|") for line in rows}
    assert len(bars) == 1


# What is wrong with folders.


def test_folders_with_nothing_in_common(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = make(tmp_path / "b", cells=[replace(cell, samples=1000) for cell in CELLS], kept=False)
    with pytest.raises(ResultError) as caught:
        compare(a, b)
    assert str(caught.value) == (
        f"{a} and {b} have no cell in common: of 4 and 4, none has the same model, sampler, "
        "parameters, spacing, steps and number of samples. Run both with one sweep file."
    )


def test_cells_of_one_side_are_counted(tmp_path: Path) -> None:
    a = make(tmp_path / "a", cells=[*CELLS, Cell("ab", 5, samples=IMAGES)])
    found = compare(a, make(tmp_path / "b"))
    assert found.only == (1, 0)
    assert f"1 cell only in {a}." in text.markdown(found).replace("\\_", "_")


def test_no_metric_in_common(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    b = records.make(tmp_path / "b", CELLS, metrics=("fid",))
    with pytest.raises(ResultError) as caught:
        compare(a, b)
    assert f"{a} has the metrics fd_cifar, {b} has fid: none is in both." in str(caught.value)
    assert "bench rescore" in str(caught.value)


def test_results_of_a_newer_format(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    path = results.path_of(b, CELLS[1].key)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(ResultError) as caught:
        compare(a, b)
    assert str(caught.value).startswith(
        f"{path} has format 2; this version of bench reads format 1. Upgrade bench"
    )


def test_a_record_that_was_edited(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    path = results.path_of(b, CELLS[1].key)
    record = json.loads(path.read_text())
    said = record["digest"]
    path.write_text(json.dumps(record))  # laid out otherwise, the same
    compare(a, b)
    record["metrics"]["fd_cifar"]["value"] = 1.0
    path.write_text(json.dumps(record))
    with pytest.raises(ResultError) as caught:
        compare(a, b)
    assert str(caught.value).startswith(f"{path} was edited: its digest is ")
    assert f"and the record says {said}. Restore it from version control" in str(caught.value)


def test_records_from_before_there_were_digests(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b")
    path = results.path_of(b, CELLS[1].key)
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(record))
    assert len(compare(a, b).rows) == 4


def test_folders_without_results(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "none"):
        with pytest.raises(ResultError, match="holds no results"):
            compare(a, folder)
