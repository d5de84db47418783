import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import results
from bench.report import frame, samples
from bench.report.content import Picture
from tests.report import records
from tests.report.records import Cell

CELLS = records.quickstart((5, 50))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = records.make(tmp_path / "results", CELLS)
    records.keep_samples(made, CELLS)
    return made


def draw(folder: Path, out: Path) -> Picture:
    out.mkdir(exist_ok=True)
    return samples.write(frame.read(folder), [folder], out)


def test_rows_are_configurations_and_blocks_are_nfe(folder: Path) -> None:
    sheet = samples._sheet(frame.read(folder))
    assert sheet is not None
    assert sheet.budgets == (5, 50)
    assert [row.label for row in sheet.rows] == [
        "exact draws",
        "ddim eta=0 (uniform)",
        "ddim eta=0 (quadratic)",
        "ddim eta=1 (uniform)",
        "ddim eta=1 (quadratic)",
        "heun (logsnr)",
        "dpm-solver++ 2 (logsnr)",
    ]
    assert "Some rows ran a little less" in samples._caption(sheet)  # heun has 49, quadratic 46
    by_key = {cell.key: cell for cell in CELLS}
    for row in sheet.rows[1:]:
        shown = [by_key[key].planned for key in row.cells if key]
        assert [cell["nfe_asked"] or cell["cell"]["steps"] for cell in shown] == [5, 50]


def test_the_images_are_in_the_picture_pixel_by_pixel(folder: Path, tmp_path: Path) -> None:
    assert draw(folder, tmp_path / "out").file == "samples.png"
    with Image.open(tmp_path / "out" / "samples.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    ddim = next(cell for cell in CELLS if cell.sampler == "ddim" and cell.steps == 5)
    first = np.load(folder / "work" / ddim.key / "samples.npy")[0].transpose(1, 2, 0)
    large = first.repeat(2, axis=0).repeat(2, axis=1)
    rows = np.lib.stride_tricks.sliding_window_view(pixels[:, :, 0], 64, axis=1)
    y, x = np.argwhere((rows == large[0, :, 0]).all(axis=2))[0]
    np.testing.assert_array_equal(pixels[y : y + 64, x : x + 64], large)


def test_all_is_the_last_row_of_every_spacing(tmp_path: Path) -> None:
    sheet = samples._sheet(frame.read(records.make(tmp_path, records.ddim_table())))
    assert sheet is not None
    assert sheet.budgets == (10, 1000)
    assert len(sheet.rows) == 11
    assert all(None not in row.cells for row in sheet.rows)


def test_the_picture_of_a_clone_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = draw(folder, out)
    drawn = (out / "samples.png").read_bytes()
    shutil.rmtree(folder / "work")
    assert draw(folder, out) == before
    assert (out / "samples.png").read_bytes() == drawn


@pytest.mark.parametrize("change", ["fingerprint", "model_digest"])
def test_a_picture_of_other_results_goes(folder: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out"
    draw(folder, out)
    shutil.rmtree(folder / "work")
    record = results.read_all(folder)[CELLS[1].key]
    results.write(folder, replace(record, provenance=record.provenance | {change: ["other"]}))
    found = draw(folder, out)
    assert found.file is None
    assert found.caption.startswith("No samples: they lie beside the results, in work/")
    assert not (out / "samples.png").exists()


def test_an_incomplete_picture_is_drawn_with_gaps_and_not_kept(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.rmtree(folder / "work" / CELLS[1].key)
    (folder / "work" / CELLS[4].key / "samples.npy").write_bytes(b"torn")
    assert draw(folder, out).file == "samples.png"
    shutil.rmtree(folder / "work")
    assert draw(folder, out).file is None


def test_a_complete_picture_is_better_than_one_with_gaps(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    draw(folder, out)
    drawn = (out / "samples.png").read_bytes()
    shutil.rmtree(folder / "work" / CELLS[1].key)
    draw(folder, out)
    assert (out / "samples.png").read_bytes() == drawn


def test_nothing_done_nothing_shown(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "results", CELLS, of=lambda _: None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "samples.png").write_bytes(b"of another sweep")
    assert draw(folder, out) == Picture(None, "No samples: no cell is done yet.")
    assert not (out / "samples.png").exists()


def test_only_the_first_rows_of_very_many(tmp_path: Path) -> None:
    cells = [Cell(f"s{n:02}", 5) for n in range(30)]
    sheet = samples._sheet(frame.read(records.make(tmp_path, cells)))
    assert sheet is not None
    assert [row.label for row in sheet.rows] == [f"s{n:02}" for n in range(24)]
    assert samples._caption(sheet).endswith("The first 24 of 30 rows.")
