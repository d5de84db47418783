import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import influences
from bench.errors import ResultError
from bench.report import build
from tests.report import records
from tests.report.records import Cell


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("cells", [records.quickstart((5, 10)), records.zoo((5, 10))])
def test_the_whole_report_is_the_same_in_another_process_and_without_torch(
    tmp_path: Path, cells: list[Cell]
) -> None:
    folder = records.make(tmp_path / "quickstart", cells, families=records.FAMILIES)
    records.keep_samples(folder, cells)
    (folder / "notes.md").write_text("Größer: *nothing*.\n", encoding="utf-8")
    path = build(folder, tmp_path / "here")
    assert path == tmp_path / "here" / "report.md"
    here = contents(tmp_path / "here")
    pictures = ["quality-vs-nfe", "quality-vs-seconds", *["eta-by-steps"] * (len(cells) < 20)]
    assert set(here) == {
        *(f"{picture}.{kind}" for picture in pictures for kind in ("svg", "png", "pdf")),
        *("report.html", "report.md", "samples.png", "table.csv", "table.tex"),
    }
    assert b"\r" not in b"".join(here[name] for name in here if not name.endswith((".png", ".pdf")))
    # The other process has another hash seed and folder, and the samples are gone, as in a clone.
    shutil.rmtree(folder / "work")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    code = (
        "import sys; from pathlib import Path; from bench.report import build;"
        "build(Path(sys.argv[1]), Path(sys.argv[2]));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "there")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
    )
    assert contents(tmp_path / "there") == here


def test_notes_survive_a_rebuild_and_go_when_they_go(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "results", [Cell("ddim", 5)])
    without = build(folder, tmp_path / "out").read_text(encoding="utf-8")
    notes = folder / "notes.md"
    notes.write_text("\nFirst, größer.\n\nSecond.\n\n", encoding="utf-8")
    for _ in range(2):
        found = build(folder, tmp_path / "out").read_text(encoding="utf-8")
        assert "\n\nFirst, größer.\n\nSecond.\n\n## fd_cifar\n" in found
    notes.write_text(" \n")
    assert build(folder, tmp_path / "out").read_text(encoding="utf-8") == without


def test_notes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "results", [Cell("ddim", 5)])
    (folder / "notes.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ResultError) as caught:
        build(folder, tmp_path / "out")
    assert str(caught.value) == (
        f"{folder}/notes.md cannot be read ('utf-8' codec can't decode byte 0xff in position 0: "
        "invalid start byte). It is shown in the report: make it a text in UTF-8, or move it away."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_results_is_refused(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "results"
    if exists:
        folder.mkdir()
    with pytest.raises(ResultError) as caught:
        build(folder, tmp_path / "out")
    assert str(caught.value) == f'{folder} holds no results. "bench run SWEEP.yaml" makes some.'
    assert not (tmp_path / "out").exists()


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "results", [Cell("ddim", 5)])
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ResultError, match="out"):
        build(folder, tmp_path / "out")


SAMPLED = records.quickstart((5, 10))


@pytest.mark.parametrize(
    ("cells", "of", "expected"),
    [
        ([], None, "0 of 0 cells done"),
        ([records.exact()], None, "1 of 1 cell done"),
        ([Cell("ddim", 10)], None, "At 10 NFE, **ddim** has the only value, 1.21."),
        (SAMPLED, lambda cell: records.failure(cell, "boom"), "<sup>1</sup> failed: boom"),
        (SAMPLED, lambda _: None, "13 not computed yet"),
        (SAMPLED, lambda cell: records.record(cell, value=0.0), "has the lowest value, 0"),
        (SAMPLED, lambda cell: records.record(cell, value=-1e-9), "has the lowest value, -1.00"),
    ],
    ids=["no cells", "exact only", "one cell", "all failed", "none run", "zero", "negative"],
)
def test_any_state_of_a_sweep_has_a_report(
    tmp_path: Path, cells: list[Cell], of: object, expected: str
) -> None:
    folder = records.make(tmp_path / "results", cells, of=of)  # type: ignore[arg-type]
    assert expected in build(folder, tmp_path / "out").read_text()


def test_records_without_a_plan_are_reported(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "loose", records.quickstart((5, 10)), plan=False)
    found = build(folder, tmp_path / "out").read_text()
    assert found.startswith("# loose\n")
    assert "reference cifar10-mixture" in found
    assert "bench run" not in found  # no file is known to run


def test_a_section_a_metric(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "r", [Cell("ddim", n) for n in (5, 10)], metrics=("fid", "fd"))
    found = build(folder, tmp_path / "out").read_text()
    headings = [line for line in found.splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## fid", "## fd"]
    assert found.index("(quality-vs-nfe.svg)") < found.index("(quality-vs-nfe-fd.svg)")


def test_seeds_and_settings_together(tmp_path: Path) -> None:
    cells = [
        replace(cell, seed=seed, samples=samples)
        for cell in records.quickstart((5,))
        for seed in (0, 1)
        for samples in (1000, 5000)
    ]
    found = build(records.make(tmp_path / "r", cells), tmp_path / "out").read_text()
    assert "seeds 0, 1" in found
    assert " ± " in found
    assert "fd_cifar, for 1,000 samples; 5,000 samples, as said below." in found


IMAGES = 1000
PAIR = [Cell(name, 5, samples=IMAGES) for name in ("ddim", "heun")]


def with_influences(folder: Path, metrics: tuple[str, ...] = ("fid",)) -> Path:
    """Two cells whose images do nearly the same to the metrics, with values 0.5 errors apart."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=IMAGES)
    images = {"near_constant": 1, "duplicates": 0, "saturated": 0.0}
    made = {
        cell.key: records.record(
            cell,
            metrics,
            value=3.0 + place / 2 / math.sqrt(IMAGES),
            error=1 / math.sqrt(IMAGES),
            images=images,
        )
        for place, cell in enumerate(PAIR)
    }
    records.make(folder, PAIR, metrics=metrics, of=lambda cell: made[cell.key])
    for result in made.values():
        influence = shared + 0.01 * rng.normal(size=IMAGES)
        influences.write(folder, result, dict.fromkeys(metrics, influence))
    return folder


def test_influences_sharpen_a_report_and_it_says_whether_they_did(tmp_path: Path) -> None:
    folder = with_influences(tmp_path / "results", ("fid", "fid_inf"))
    found = build(folder, tmp_path / "out").read_text()
    assert found.count("| 5 | **3.000 ± 0.032** | 3.016 ± 0.032 |") == 1
    assert "At 5 NFE, **ddim** is best, 3.000 ± 0.032; next is heun, 3.016 ± 0.032" in found
    assert "| fid: differences | paired by seed |" in found
    shutil.rmtree(folder / "influences")  # as in a clone
    found = build(folder, tmp_path / "out").read_text()
    assert "| 5 | 3.000 ± 0.032 ≈ | 3.016 ± 0.032 ≈ |" in found
    assert "At 5 NFE, ddim and heun cannot be told apart: 3.000 ± 0.032 to 3.016 ± 0.032." in found
    assert "| fid: differences | unpaired: no influences beside the records |" in found


def test_a_report_with_errors_is_the_same_twice_and_without_torch(tmp_path: Path) -> None:
    folder = with_influences(tmp_path / "results")
    build(folder, tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; from bench.report import build;"
        "build(Path(sys.argv[1]), Path(sys.argv[2]));"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder), str(tmp_path / "there")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
    )
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_damaged_influences_stop_a_report_before_it_is_written(tmp_path: Path) -> None:
    folder = with_influences(tmp_path / "results")
    path = influences.path_of(folder, PAIR[0].key)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ResultError, match=r"is damaged or cut short .* Remove the file"):
        build(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
