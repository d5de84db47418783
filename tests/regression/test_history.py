"""Records in the history of a repository, and what is said of them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import results
from bench.errors import ResultError
from bench.regression import history, history_text
from tests.regression.repository import commit, git
from tests.report import records
from tests.report.records import Cell

CELL = Cell("ddim", 10, {})
OTHER = Cell("heun", 10, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "results" / "tiny").mkdir(parents=True)
    return tmp_path / "results" / "tiny"


def put(
    folder: Path, value: float, cell: Cell = CELL, error: float | None = 0.05, **entry: Any
) -> None:
    results.write(folder, records.record(cell, value=value, error=error, entry=entry))


def put_all(folder: Path, values: Sequence[float], cell: Cell = CELL) -> None:
    for place, value in enumerate(values):
        put(folder, value, cell)
        commit(folder, f"Results, {place}", day=f"2026-01-{place + 1:02d}")


def values(found: history.History) -> list[list[float]]:
    return [[point.value for point in series.points] for series in found.series]


def test_a_commit_that_changes_a_record_is_a_point(folder: Path) -> None:
    put(folder, 4.0)
    first = commit(folder, "First", day="2026-01-02")
    (folder / "notes.md").write_text("Nothing")
    commit(folder, "Notes")
    put(folder, 3.0, OTHER)
    commit(folder, "Another cell")
    put(folder, 4.1)
    last = commit(folder, "Last: 5 | <b>", day="2026-01-05")
    found = history.read(folder)
    assert [each.key for each in found.commits][::2] == [first, last]
    assert found.commits[0] == history.Commit(first, "2026-01-02", "First")
    assert values(found) == [[4.0, 4.1], [3.0]]
    assert [point.place for point in found.series[0].points] == [0, 2]
    assert found.name == "tiny"


def test_a_merge_is_the_commit_that_brought_its_results(folder: Path) -> None:
    put(folder, 4.0)
    commit(folder, "First")
    git(folder, "checkout", "--quiet", "-b", "side")
    put(folder, 5.0)
    commit(folder, "On the side")
    put(folder, 4.2)
    commit(folder, "Corrected")
    git(folder, "checkout", "--quiet", "main")
    (folder / "notes.md").write_text("Meanwhile")
    commit(folder, "Meanwhile")
    git(folder, "merge", "--quiet", "--no-ff", "-m", "Merge side", "side")
    found = history.read(folder)
    assert [each.subject for each in found.commits] == ["First", "Merge side"]
    assert values(found) == [[4.0, 4.2]]


def test_only_what_can_be_compared_with_the_last_is_a_series(folder: Path) -> None:
    put(folder, 9.0, reference_digest="old")
    commit(folder, "Another reference")
    put_all(folder, [4.0, 4.1])
    (series,) = history.read(folder).series
    assert [point.value for point in series.points] == [4.0, 4.1]
    assert series.left_out == 1


def test_cells_that_were_removed_are_gone(folder: Path) -> None:
    put(folder, 3.0, OTHER)
    put_all(folder, [4.0, 4.1])
    results.path_of(folder, OTHER.key).unlink()
    commit(folder, "Not asked any more")
    assert values(history.read(folder)) == [[4.0, 4.1]]


def test_other_arithmetic_is_told(folder: Path) -> None:
    put_all(folder, [4.0, 4.1])
    made = records.record(CELL, value=4.2, error=0.05)
    provenance = {**made.provenance, "fingerprint": [0.1, 0.3]}
    results.write(folder, replace(made, provenance=provenance))
    commit(folder, "A new step", day="2026-01-09")
    found = history.read(folder)
    assert [point.other for point in found.series[0].points] == [False, False, True]
    said = history_text.markdown(found)
    short = found.commits[-1].short
    assert f"- {short} (2026-01-09, A new step): ddim 10" in said


def test_records_from_before_there_were_errors_borrow_one(folder: Path) -> None:
    put(folder, 8.0, error=None)
    commit(folder, "Old")
    put_all(folder, [4.0, 4.001])
    (series,) = history.read(folder).series
    assert [point.error for point in series.points] == pytest.approx([0.1, 0.05, 0.05], rel=1e-3)
    assert series.eventful

    put(folder, 1.0, OTHER, error=None)
    commit(folder, "Another, old")
    unknown = history.read(folder).series[1]
    assert unknown.story is None
    assert history_text.happened(unknown, ()) == "not tested: no record has a standard error"


SCENES = {
    "flat noise": (np.zeros(20), "nothing"),
    "a step": (np.where(np.arange(20) < 8, 0.0, 0.5), "step at"),
    "a slow drift": (np.linspace(0, 0.5, 20), "drift from"),
    "an outlier": (np.where(np.arange(20) == 8, 0.6, 0.0), "outlier at"),
}


@pytest.mark.parametrize("scene", SCENES)
def test_what_happened_is_said(folder: Path, scene: str) -> None:
    shape, words = SCENES[scene]
    noise = 0.05 * np.random.default_rng(1).normal(size=20)
    put_all(folder, (4 + shape + noise).tolist())
    found = history.read(folder)
    (series,) = found.series
    said = history_text.happened(series, found.commits)
    assert said.startswith(words)
    assert ";" not in said  # one thing happened
    if words != "nothing":
        place = 0 if "drift" in words else 8
        assert f"{words} {found.commits[place].short} (2026-01-{place + 1:02d}, " in said
        assert "| ddim 10 | fd\\_cifar |" in history_text.markdown(found).replace("fd_", "fd\\_")
    if words == "step at":
        assert "(+12 %)" in said or "(+13 %)" in said


def test_data_are_json(folder: Path) -> None:
    put_all(folder, [4.0, 4.01, 5.0, 5.01])
    data = json.loads(json.dumps(history_text.data(history.read(folder)), allow_nan=False))
    assert data["series"][0]["eventful"] is True
    assert [point["value"] for point in data["series"][0]["points"]] == [4.0, 4.01, 5.0, 5.01]


def test_names_are_safe(folder: Path) -> None:
    evil = replace(CELL, sampler="<script>|x")
    for place, value in enumerate([4.0, 9.0]):
        put(folder, value, evil)
        commit(folder, f"<script>alert({place})</script> | cut")
    said = history_text.markdown(history.read(folder))
    assert "<script" not in said
    (row,) = (line for line in said.splitlines() if line.startswith("| &lt;"))
    assert row.replace("\\|", "").count("|") == 6


def test_what_has_no_history_says_so(folder: Path, tmp_path: Path) -> None:
    put(folder, 4.0)
    with pytest.raises(ResultError):
        history.read(folder)  # no commit at all
    (tmp_path / "file").write_text("")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "-m", "Without results")
    with pytest.raises(ResultError, match="has no history: no commit has records in it"):
        history.read(folder)
    with pytest.raises(ResultError, match="is not there"):
        history.read(folder / "none")


def test_a_broken_record_is_named_with_its_commit(folder: Path) -> None:
    put(folder, 4.0)
    path = results.path_of(folder, CELL.key)
    path.write_text(path.read_text()[:50])
    broken = commit(folder, "Broken")
    with pytest.raises(ResultError, match=f"^{broken[:8]}:tiny/{path.name} is not valid JSON"):
        history.read(folder)
