from pathlib import Path

import pandas as pd

from bench.report import frame
from bench.report.markdown import Scale
from bench.report.methods import accelerated, quality
from bench.report.pooled import Pooled
from bench.report.spacings import by_spacing
from bench.report.yardstick import Yardstick
from tests.report import records
from tests.report.records import Cell


def points(folder: Path, cells: list[Cell], values: object = None) -> pd.DataFrame:
    study = frame.read(records.make(folder, cells, of=values))  # type: ignore[arg-type]
    return frame.points(frame.serve_all(study.cells), "fd_cifar")


def test_the_table_of_the_text_has_the_paper_beside_it_and_marks_what_is_wrong(
    tmp_path: Path,
) -> None:
    found = points(tmp_path, records.ddim_table())
    (table,) = quality(found, Scale(-3), comparable=False)
    assert table.title.endswith("spacing quadratic")
    assert [row[0].text for row in table.rows] == ["1000", "100", "50", "20", "10"]
    texts = [[place.text for place in row[4:]] for row in table.rows]
    assert texts == [
        ["3.17", "4.04", "4.73", "3.17"],
        ["9.99", "4.16", "5.78", "6.84"],
        ["32.72", "4.67", "8.01", "13.36"],
        ["133.37", "6.84", "18.36", "32.55"],
        ["367.43", "13.36", "41.07", "72.61"],
    ]
    assert all(row[7].struck and row[7].text != row[6].text for row in table.rows)
    assert not any(place.struck for row in table.rows for place in row[:7])
    assert "Another model or metric than the paper's" in table.legend
    (same,) = quality(found, Scale(-3), comparable=True)
    assert "Model and metric are those of the paper." in same.legend


def test_a_sweep_without_both_etas_has_no_such_table(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, {"eta": eta}) for eta in (0.0, 0.5) for n in (10, 20)]
    assert list(quality(points(tmp_path, cells), Scale(), comparable=False)) == []


def test_methods_have_their_best_value_within_their_steps(tmp_path: Path) -> None:
    solver = {"order": 2, "eta": 0.0}
    values = {("ddim", 5): 1.0, ("ddim", 50): 4.0, ("ddim", 100): 5.0, ("dpm-solver++", 10): 2.0}
    cells = [Cell("ddim", n, {"eta": 0.0}) for n in (5, 50, 100)]
    cells.append(Cell("dpm-solver++", 10, solver))
    found = points(
        tmp_path, cells, lambda cell: records.record(cell, value=values[cell.sampler, cell.steps])
    )
    (table,) = accelerated(found, Pooled(0.5, 1), Scale(), Yardstick())
    rows = {row[0].text: [place.text for place in row[1:]] for row in table.rows}
    assert rows["DDIM"] == ["No", "Good", "10–100", "ddim, 50 NFE", "4.00", "8.0", "20"]
    assert rows["DPM-Solver++"][3:] == ["dpm-solver++ 2, 10 NFE", "2.00", "4.0", "100"]
    assert rows["Consistency models"][3:] == ["not measured", "—", "—", "—"]
    one = found[found["sampler"] == "ddim"]
    assert list(accelerated(one, None, Scale(), Yardstick())) == []


def test_spacings_beside_each_other(tmp_path: Path) -> None:
    values = {("uniform", 10): 3.0, ("quadratic", 10): 2.0, ("uniform", 20): 1.0}
    cells = [Cell("ddim", n, {"eta": 0.0}, spacing) for spacing, n in values]
    cells.append(Cell("heun", 10, {}, "logsnr"))
    found = points(
        tmp_path,
        cells,
        lambda cell: records.record(
            cell, value=values.get((str(cell.spacing), cell.steps or 0), 9.0), error=0.1
        ),
    )
    (table,) = by_spacing(found, Scale(), Yardstick())
    assert table.header == ["Configuration", "NFE", "uniform", "quadratic"]
    assert [[place.text for place in row] for row in table.rows] == [
        ["ddim", "10", "3.00 ± 0.10", "2.00 ± 0.10"]
    ]
    assert [place.sign for place in table.rows[0]] == ["", "", "", "bold"]
    alone = found[found["grid"] == "uniform"]
    assert list(by_spacing(alone, Scale(), Yardstick())) == []
