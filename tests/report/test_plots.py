import math
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from bench.report import frame, plots
from bench.report.text import Picture
from tests.report import records
from tests.report.records import Cell


def draw(folder: Path, out: Path) -> dict[str, Picture]:
    out.mkdir(exist_ok=True)
    return plots.write(frame.read(folder), out)


def panels(folder: Path, cells: list[Cell], **made: object) -> list[plots._Panel]:
    study = frame.read(records.make(folder, cells, **made))  # type: ignore[arg-type]
    return list(plots._panels(study, study.metrics[0]))


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    folder = records.make(tmp_path / "results", records.quickstart((5, 10)))
    for name in ("a", "b"):
        draw(folder, tmp_path / name)
    for kind in ("svg", "png"):
        name = f"quality-vs-nfe.{kind}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    svg = (tmp_path / "a" / "quality-vs-nfe.svg").read_text()
    assert "<dc:date>" not in svg
    assert "Matplotlib" not in svg.split("</metadata>")[0].split("<metadata>")[1]
    with Image.open(tmp_path / "a" / "quality-vs-nfe.png") as image:
        assert "Software" not in image.info


def test_few_lines_share_a_panel_and_many_are_split(tmp_path: Path) -> None:
    quick = panels(tmp_path / "quick", records.quickstart((5, 10)))
    assert [(panel.title, panel.names) for panel in quick] == [("", "label")]
    table = panels(tmp_path / "table", records.ddim_table())
    assert [(panel.title, panel.names) for panel in table] == [
        ("spacing quadratic", "line"),
        ("spacing uniform", "line"),
    ]
    many = panels(tmp_path / "many", [Cell(f"s{n}", 5) for n in range(10)])
    assert [panel.title for panel in many] == [
        "spacing uniform (1 of 2)",
        "spacing uniform (2 of 2)",
    ]
    assert [len(panel.points) for panel in many] == [8, 2]


def test_a_configuration_without_a_value_has_no_line(tmp_path: Path) -> None:
    cells = [Cell(name, n) for name in ("ddim", "heun", "euler") for n in (5, 10)]
    (panel,) = panels(
        tmp_path,
        cells,
        of=lambda cell: {
            "heun": records.failure(cell, "boom"),
            "euler": records.record(cell, value=0.0),
        }.get(cell.sampler, records.record(cell)),
    )
    assert list(panel.points["sampler"].unique()) == ["ddim"]


def test_a_hole_is_a_gap(tmp_path: Path) -> None:
    cells = [Cell("ddim", n) for n in (5, 10, 20, 50, 100)]
    found = panels(
        tmp_path, cells, of=lambda cell: None if cell.steps == 20 else records.record(cell)
    )
    with plots.style():
        axes = plots._figure(found, "fd_cifar").axes[0]
    drawn = [line for line in axes.lines if line.get_transform() == axes.transData]
    lines = [[round(float(x), 6) for x in line.get_xdata()] for line in drawn]
    assert [5.0, 10.0] in lines
    assert [50.0, 100.0] in lines
    assert not any(20.0 in line for line in lines)


def test_the_floor_is_drawn_and_labelled(tmp_path: Path) -> None:
    found = panels(tmp_path, records.quickstart((5, 10)))
    with plots.style():
        axes = plots._figure(found, "fd_cifar").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert "exact draws  0.0130" in texts
    assert texts.count("dpm-solver++ 2 (logsnr)") == 1
    flat = [line for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert [line.get_ydata()[0] for line in flat] == [pytest.approx(records.FLOOR * 1e3)]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "fd_cifar × 10⁻³"


def test_seeds_get_bars(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, seed=seed) for n in (5, 10) for seed in (0, 1, 2)]
    found = panels(tmp_path, cells)
    with plots.style():
        axes = plots._figure(found, "fd_cifar").axes[0]
    (bars,) = axes.containers
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    value = found[0].points["value"].iloc[0]
    assert (high - low) / 2 == pytest.approx(value.sd * 1e3)
    assert "standard deviation" in plots._caption(found)


@pytest.mark.parametrize("heights", [[0.1, 0.1, 0.1], [0.0, 0.5, 0.99, 1.0], [1.0] * 5, []])
def test_labels_keep_their_distance_and_stay_inside(heights: list[float]) -> None:
    placed = plots._spread(heights, gap=0.05)
    assert all(b - a >= 0.05 - 1e-12 for a, b in pairwise(placed))
    assert all(0 <= height <= 1 for height in placed)


def test_each_metric_has_a_plot_and_old_ones_go(tmp_path: Path) -> None:
    cells = [Cell("ddim", n) for n in (5, 10)]
    two = records.make(tmp_path / "two", cells, metrics=("fd_cifar", "fid/50k"))
    out = tmp_path / "out"
    found = draw(two, out)
    assert {name: picture.file for name, picture in found.items()} == {
        "fd_cifar": "quality-vs-nfe.svg",
        "fid/50k": "quality-vs-nfe-fid-50k.svg",
    }
    assert sorted(path.name for path in out.iterdir()) == [
        "quality-vs-nfe-fid-50k.png",
        "quality-vs-nfe-fid-50k.svg",
        "quality-vs-nfe.png",
        "quality-vs-nfe.svg",
    ]
    failed = records.make(tmp_path / "failed", cells, of=lambda cell: records.failure(cell, "boom"))
    assert draw(failed, out)["fd_cifar"].file is None
    assert list(out.iterdir()) == []


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    # A lone dollar would be a mathematical formula, and the last sign is in no font here.
    cells = [Cell(name, n) for name in ("pay $5_$6", "雪" * 60) for n in (5, 10)]
    found = panels(tmp_path, cells)
    with plots.style():
        figure = plots._figure(found, "fd_cifar")
        assert len(plots.encode(figure, "svg", "a title")) > 1000
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == ["pay $5_$6", "雪" * 39 + "…"]


def test_one_point_fills_no_axis_but_is_drawn(tmp_path: Path) -> None:
    found = panels(tmp_path, [Cell("ddim", 10)])
    with plots.style():
        axes = plots._figure(found, "fd_cifar").axes[0]
    low, high = axes.get_ylim()
    assert 0 < low < records.quality(Cell("ddim", 10)) * 1e3 < high
    assert math.isfinite(high)
