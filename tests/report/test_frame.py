from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import influences
from bench.report import frame
from bench.results import Result
from tests.report import records
from tests.report.records import Cell


def test_counted_calls_are_known_once_the_cell_has_run(tmp_path: Path) -> None:
    cells = [Cell("ddim", 10), Cell("rk45", 2, counted=137.4), Cell("rk45", 2, counted=1.0, seed=1)]
    folder = records.make(
        tmp_path, cells, of=lambda cell: None if cell.seed else records.record(cell)
    )
    study = frame.read(folder)
    assert study.cells["nfe"].fillna(-1).tolist() == [10, 137, -1]
    assert study.cells["budget"].fillna(-1).tolist() == [10, 137, -1]
    assert len(frame.points(study.cells, "fd_cifar")) == 2


@pytest.mark.parametrize(
    ("cell", "budget"),
    [
        (Cell("ddim", 50), 50),
        (Cell("ddim", 50, effective=46), 50),  # duplicates dropped: still beside 50
        (Cell("heun", 5, nfe=9, nfe_asked=10), 10),  # the budget that was asked for
        (Cell("heun", 50, effective=46, nfe=91), 91),  # two calls a step: its own NFE
        (Cell("ddim", 50, effective=46, nfe=47, final="denoise"), 51),
    ],
)
def test_the_budget_is_what_was_asked_for(tmp_path: Path, cell: Cell, budget: int) -> None:
    assert list(frame.read(records.make(tmp_path, [cell])).cells["budget"]) == [budget]


def test_a_study_has_the_influences_beside_its_records(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, samples=3) for n in (5, 10)]
    folder = records.make(tmp_path, cells)
    assert frame.read(folder).influences == {cell.key: {} for cell in cells}
    influences.write(folder, records.record(cells[0]), {"fd_cifar": np.array([1.0, -2.0, 1.0])})
    found = frame.read(folder).influences[cells[0].key]
    assert found["fd_cifar"].tolist() == pytest.approx([1, -2, 1], rel=1e-2)


def test_one_metric_of_two_is_shown_although_the_cell_is_not_done(tmp_path: Path) -> None:
    cell = Cell("ddim", 10)
    records.make(
        tmp_path, [cell], metrics=("fd_cifar", "fid"), of=lambda cell: records.record(cell)
    )
    study = frame.read(tmp_path)
    values = [frame.points(study.cells, name)["value"].iloc[0] for name in study.metrics]
    assert values[0].mean == records.quality(cell)
    assert values[1].hole
    assert values[1].note == "fid not computed yet"


def test_all_serves_every_spacing(tmp_path: Path) -> None:
    cells = frame.serve_all(frame.read(records.make(tmp_path, records.ddim_table())).cells)
    last = cells[cells["steps"] == 1000]
    assert sorted(last["grid"].unique()) == ["quadratic", "uniform"]
    assert last["served"].all()
    assert len(last) == 10  # five values of eta on two spacings, from five cells
    assert not cells.loc[cells["steps"] != 1000, "served"].any()
    assert (cells["sampler"] == "exact").sum() == 1


def test_all_stays_alone_where_a_sister_has_its_own_value(tmp_path: Path) -> None:
    cells = [Cell("ddim", 1000, {}, spacing) for spacing in ("uniform", "all")]
    served = frame.serve_all(frame.read(records.make(tmp_path / "both", cells)).cells)
    assert sorted(served["grid"]) == ["all", "uniform"]
    alone = frame.serve_all(frame.read(records.make(tmp_path / "one", cells[1:])).cells)
    assert list(alone["grid"]) == ["all"]


def test_settings_part_what_must_not_be_compared(tmp_path: Path) -> None:
    cosine = {**records.MODEL, "schedule": "vp-cosine"}
    base = Cell("ddim", 10)
    cells = [base, replace(base, samples=1000), replace(base, model=cosine), replace(base, seed=1)]
    study = frame.read(records.make(tmp_path, cells))
    assert [setting.name for setting in study.settings] == [
        "model cifar10-mixture (schedule vp-linear), 5,000 samples",
        "model cifar10-mixture (schedule vp-linear), 1,000 samples",
        "model cifar10-mixture (schedule vp-cosine), 5,000 samples",
    ]
    assert [len(setting.cells) for setting in study.settings] == [2, 1, 1]


def test_descriptions_of_networks_are_told_in_words(tmp_path: Path) -> None:
    edm = {"kind": "edm", "path": "net.pkl", "trust": True, "schedule": "edm", "dtype": "float32"}
    torch = {
        "kind": "torch",
        "path": "nets:make",
        "target": "eps",
        "schedule": {"name": "vp-linear", "T": 400, "beta-max": 0.02},
        "shape": [3, 32, 32],
    }
    cells = [replace(Cell("ddim", 10), model=model) for model in (edm, torch)]
    study = frame.read(records.make(tmp_path, cells))
    assert [setting.model for setting in study.settings] == [
        "net.pkl (dtype float32, schedule edm)",
        "nets:make (schedule vp-linear T 400 beta-max 0.02, shape 3 x 32 x 32, target eps)",
    ]


def test_a_hole_stands_with_the_values_whatever_the_plan_calls_the_reference(
    tmp_path: Path,
) -> None:
    cells = [Cell("ddim", n) for n in (5, 10)]

    def of(cell: Cell) -> Result | None:
        done = records.record(cell)
        entry = {**done.metrics["fd_cifar"], "reference": "the name inside the file"}
        return replace(done, metrics={"fd_cifar": entry}) if cell.steps == 5 else None

    (setting,) = frame.read(records.make(tmp_path, cells, of=of)).settings
    assert setting.reference == "the name inside the file"
    assert len(setting.cells) == 2


def test_the_csv_has_a_row_a_cell_at_full_precision(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    cells = [Cell("ddim", 10, {"eta": 0.0}), Cell("ddim", 20, {"eta": 0.0})]
    records.make(
        tmp_path,
        cells,
        of=lambda cell: records.record(cell, value=value) if cell.steps == 10 else None,
    )
    table = frame.tidy(frame.read(tmp_path))
    assert list(table["key"]) == [cell.key for cell in cells]
    assert list(table["status"]) == ["done", "missing"]
    assert table["metric.fd_cifar"][0] == value
    assert list(table["label"]) == ["ddim 10", "ddim 20"]
    assert list(table["configuration"]) == ["ddim", "ddim"]
    assert "nfe_asked" not in table  # nothing in it
    assert repr(value) in table.to_csv()


def test_order_is_that_of_the_sweep_not_of_the_names(tmp_path: Path) -> None:
    cells = [Cell(name, 5) for name in ("heun", "ddim", "euler")]
    study = frame.read(records.make(tmp_path, cells))
    points = frame.points(study.cells, "fd_cifar")
    assert isinstance(points, pd.DataFrame)
    assert list(points["sampler"]) == ["heun", "ddim", "euler"]


def test_a_line_over_tolerances_is_at_the_calls_that_were_counted(tmp_path: Path) -> None:
    cells = [
        Cell("rk45", 2, {"rtol": rtol}, counted=counted + seed, seed=seed)
        for rtol, counted in ((0.1, 33.4), (0.01, 61.0), (0.001, 123.0))
        for seed in (0, 1)
    ]

    def of(cell: Cell) -> Result:
        fails = cell.params["rtol"] == 0.001
        return records.failure(cell, "boom") if fails else records.record(cell)

    study = frame.read(records.make(tmp_path, cells, of=of))
    found = frame.points(study.cells, "fd_cifar").sort_values("nfe")
    assert found["rank"].tolist() == [0, 0, 0]
    assert found["nfe"].fillna(-1).tolist() == [pytest.approx(33.9), 61.5, -1]
    assert found["tolerance"].tolist() == ["rtol 0.1", "rtol 0.01", "rtol 0.001"]
    assert (found["least"].iloc[0], found["most"].iloc[0]) == (25, 42)  # of either seed
    assert found["value"].iloc[2].note == "failed: boom"


def test_the_exact_flow_is_a_reference_like_exact_draws(tmp_path: Path) -> None:
    cells = records.zoo((5,))
    cells += [Cell("exact-flow", 50, {"tolerance": 1e-4}, "uniform", counted=52.5)]
    study = frame.read(records.make(tmp_path, cells))
    (setting,) = study.settings
    assert not set(frame.points(study.cells, "fd_cifar")["sampler"]) & {"exact", "exact-flow"}
    found = {flow.name: flow for flow in frame.flows(setting, "fd_cifar")}
    assert list(found) == [
        "exact flow (logsnr, S = 10)",
        "exact flow (uniform, S = 10)",
        "exact flow (uniform, S = 50)",
    ]
    assert found["exact flow (uniform, S = 10)"].grid == "uniform"
    assert found["exact flow (logsnr, S = 10)"].value.mean == 1.1 * records.FLOOR


def test_parts_have_room(tmp_path: Path) -> None:
    def names(folder: str, cells: list[Cell]) -> list[str] | None:
        study = frame.read(records.make(tmp_path / folder, cells))
        found = frame.parts(frame.points(study.cells, "fd_cifar"))
        return None if found is None else [name for name, _ in found]

    two = [Cell(f"s{n}", 5, {}, spacing) for n in range(8) for spacing in ("uniform", "karras")]
    assert names("few", two[:8]) == [""]
    assert names("two", two) == ["uniform", "karras"]
    assert names("many", [*two, Cell("s8", 5, {}, "karras")]) is None
