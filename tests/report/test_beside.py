from pathlib import Path
from typing import Any

import pytest

from bench.report import frame, ink, lines
from bench.report.beside import Pair, beside, model_id, pairs
from bench.report.markdown import Scale
from bench.report.panels import SECONDS, arrange
from bench.report.yardstick import Yardstick
from tests.report import records
from tests.report.records import Cell

MODEL = {"kind": "diffusers", "path": "google/ddpm-cifar10-32"}
PAPER = "Denoising Diffusion Implicit Models (Song, Meng, Ermon)"


def read(
    folder: Path, cells: list[Cell], value: float, error: float | None = 0.05, **entry: Any
) -> frame.Study:
    reference = {"reference": "cifar10-train", **entry}
    records.make(
        folder,
        cells,
        metrics=("fid",),
        of=lambda cell: records.record(cell, ("fid",), value=value, error=error, entry=reference),
    )
    return frame.read(folder)


def cell(steps: int = 10, **changes: Any) -> Cell:
    params = changes.pop("params", {"eta": 0.0})
    spacing = changes.pop("spacing", "quadratic")
    return Cell("ddim", steps, params, spacing, samples=changes.pop("samples", 50_000), model=MODEL)


def of_the_paper(study: frame.Study) -> Pair:
    """What the DDIM paper's Table 1 is held against."""
    (pair,) = [
        pair
        for pair in pairs(study.settings[0], "fid")
        if pair.row["paper"] == PAPER and pair.row["eta"] == "0.0"
    ]
    return pair


@pytest.mark.parametrize(
    ("value", "error", "verdict"),
    [
        (13.40, 0.05, "agrees: +0.04 (+0.3 %), within ± 0.144"),
        (13.89, 0.05, "differs by +0.53 (+4.0 %), outside the combined uncertainty ± 0.144"),
        (12.36, 0.05, "differs by -1 (-7.5 %), outside the combined uncertainty ± 0.144"),
        (
            13.40,
            None,
            "differs by +0.04 (+0.3 %); without an error bar it is open whether that is noise",
        ),
    ],
)
def test_a_verdict(tmp_path: Path, value: float, error: float | None, verdict: str) -> None:
    # 1.96 * hypot(0.05, 0.05) + 0.005, half a unit of the last digit of 13.36
    pair = of_the_paper(read(tmp_path, [cell()], value, error))
    assert pair.against == ()
    assert pair.verdict == verdict


@pytest.mark.parametrize(
    ("changed", "entry", "reason"),
    [
        ({"spacing": "uniform"}, {}, "spacing quadratic, here uniform"),
        ({"params": {"eta": 0.5}}, {}, "eta 0.0, here 0.5"),
        ({"samples": 5000}, {}, "5,000 images here, not 50,000"),
        ({}, {"reference": "cifar10-test"}, "reference cifar10-test here, not cifar10-train"),
    ],
)
def test_what_is_not_comparable_says_why(
    tmp_path: Path, changed: dict[str, Any], entry: dict[str, Any], reason: str
) -> None:
    study = read(tmp_path, [cell(**changed)], 13.4, **entry)
    held = [p for p in pairs(study.settings[0], "fid") if p.row["paper"] == PAPER]
    (pair,) = [p for p in held if p.row["eta"] == "0.0"]
    assert pair.verdict == f"not comparable: {reason}"


def test_the_last_point_of_the_paper_is_every_index(tmp_path: Path) -> None:
    cells = [cell(10), cell(1000, spacing="all")]
    found = pairs(read(tmp_path, cells, 4.04).settings[0], "fid")
    comparable = [p for p in found if p.row["paper"] == PAPER and not p.against]
    assert [(p.row["steps"], p.row["fid"]) for p in comparable] == [
        ("10", "13.36"),
        ("1000", "4.04"),
    ]


def test_sigma_hat_is_a_row_of_ancestral_sampling(tmp_path: Path) -> None:
    study = read(tmp_path, [cell(params={"eta": "sigma-hat"})], 367.0)
    found = [p for p in pairs(study.settings[0], "fid") if not p.against]
    assert [(p.row["sampler_family"], p.row["fid"]) for p in found] == [
        ("ddpm-ancestral", "367.43")
    ]


def test_another_network_or_metric_has_nothing_beside_it(tmp_path: Path) -> None:
    own = frame.read(records.make(tmp_path / "own", records.quickstart((5, 10))))
    assert model_id(own.settings[0]) == ""
    assert list(beside(own.settings[0], "fd_cifar", Scale())) == []
    study = read(tmp_path / "fid", [cell()], 13.4)
    assert model_id(study.settings[0]) == "ddpm-cifar10-32"
    assert pairs(study.settings[0], "kid") == []


def test_the_table_has_comparable_rows_first_and_says_what_it_assumes(tmp_path: Path) -> None:
    study = read(tmp_path, [cell(10), cell(20)], 10.0)
    (table,) = beside(study.settings[0], "fid", Scale())
    verdicts = [row[3].text for row in table.rows]
    split = [verdict.startswith("not comparable") for verdict in verdicts]
    assert split == sorted(split)
    assert {True, False} == set(split)
    assert "50,000 where it says nothing" in table.legend


def test_comparable_rows_are_rings_in_the_plot_against_nfe(tmp_path: Path) -> None:
    study = read(tmp_path, [cell(10), cell(20)], 10.0)
    (panel,) = arrange(study, "fid", Yardstick())
    assert sorted(pair.value for pair in panel.published) == [6.84, 13.36]
    with ink.style():
        (axes,) = lines.figure([panel], "fid").axes
    (rings,) = [line for line in axes.lines if line.get_zorder() == 4]
    assert list(zip(rings.get_xdata(), rings.get_ydata(), strict=True)) == [(10, 13.36), (20, 6.84)]
    assert [text.get_text() for text in axes.texts].count("published") == 1
    (timed,) = arrange(study, "fid", Yardstick(), SECONDS)
    assert timed.published == []
