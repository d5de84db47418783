import math
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from PIL import Image

from bench.report import frame, ink, layout, lines, plots
from bench.report.content import Picture
from bench.report.panels import Panel
from bench.report.yardstick import Yardstick
from bench.results import Result
from tests.report import records
from tests.report.records import Cell
from tests.report.test_panels import panels


def draw(folder: Path, out: Path) -> dict[str, Picture]:
    out.mkdir(exist_ok=True)
    return {name: made.nfe for name, made in plots.write(frame.read(folder), out).items()}


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


def test_a_hole_is_a_gap(tmp_path: Path) -> None:
    cells = [Cell("ddim", n) for n in (5, 10, 20, 50, 100)]
    found = panels(
        tmp_path, cells, of=lambda cell: None if cell.steps == 20 else records.record(cell)
    )
    with ink.style():
        axes = lines.figure(found, "fd_cifar").axes[0]
    drawn = [line for line in axes.lines if line.get_transform() == axes.transData]
    found_lines = [[round(float(x), 6) for x in line.get_xdata()] for line in drawn]
    assert [5.0, 10.0] in found_lines
    assert [50.0, 100.0] in found_lines
    assert not any(20.0 in line for line in found_lines)


def flat_lines(axes: Axes) -> list[float]:
    """Heights of the lines across the panel."""
    return [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]


def test_the_floor_is_drawn_and_labelled(tmp_path: Path) -> None:
    found = panels(tmp_path, records.quickstart((5, 10)))
    with ink.style():
        axes = lines.figure(found, "fd_cifar").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert "exact draws  0.0130" in texts
    assert texts.count("dpm-solver++ 2 (logsnr)") == 1
    assert flat_lines(axes) == [pytest.approx(records.FLOOR * 1e3)]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "fd_cifar × 10⁻³"


def test_seeds_get_bars(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, seed=seed) for n in (5, 10) for seed in (0, 1, 2)]
    found = panels(tmp_path, cells)
    with ink.style():
        axes = lines.figure(found, "fd_cifar").axes[0]
    (bars,) = axes.containers
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    value = found[0].points["value"].iloc[0]
    assert (high - low) / 2 == pytest.approx(1.96 * value.error * 1e3)
    said = "Bars: 95 % intervals, 1.96 standard errors to either side."
    assert said in plots._caption(found, Yardstick())
    assert said not in plots._caption(panels(tmp_path / "one", cells[:1]), Yardstick())


def test_a_bar_that_reaches_below_zero_ends_at_the_edge(tmp_path: Path) -> None:
    cells = [Cell("ddim", n) for n in (5, 10, 20)]
    values = {5: (9.0, 1.0), 10: (1.0, 0.8), 20: (2.0, None)}

    def of(cell: Cell) -> Result:
        value, error = values[cell.steps or 0]
        return records.record(cell, value=value, error=error)

    (axes,) = axes_of(panels(tmp_path, cells, of=of))
    (bars,) = axes.containers
    segments = [segment[:, 1].tolist() for segment in bars.lines[2][0].get_segments()]
    low, high = axes.get_ylim()
    assert segments[0] == pytest.approx([9 - 1.96, 9 + 1.96])
    assert segments[1] == pytest.approx([low, 1 + 1.96 * 0.8])
    assert segments[2] == [2, 2]
    assert high > 9 + 1.96


def test_values_that_the_axis_cannot_show_are_counted(tmp_path: Path) -> None:
    cells = [records.exact(), *(Cell(name, n) for name in ("ddim", "heun") for n in (5, 10, 20))]
    values = {("exact", None): -0.001, ("ddim", 20): -0.002, ("heun", 20): 0.0}
    of = lambda cell: records.record(  # noqa: E731
        cell, value=values.get((cell.sampler, cell.steps), 1.0), error=0.01
    )
    (tmp_path / "out").mkdir()
    folder = records.make(tmp_path / "r", cells, of=of)
    caption = draw(folder, tmp_path / "out")["fd_cifar"].caption
    assert caption.endswith(" 3 values at or below zero, which the axis cannot show, are left out.")
    one = records.make(tmp_path / "one", cells[1:4], of=of)
    caption = draw(one, tmp_path / "out")["fd_cifar"].caption
    assert caption.endswith(" 1 value at or below zero, which the axis cannot show, is left out.")


def test_the_caption_knows_which_way_is_better(tmp_path: Path) -> None:
    cells = [records.exact(), *(Cell(name, n) for name in ("ddim", "heun") for n in (5, 10))]
    of = lambda cell: records.record(cell, entry={"better": "higher"})  # noqa: E731
    folder = records.make(tmp_path / "r", cells, of=of)
    caption = draw(folder, tmp_path / "out")["fd_cifar"].caption
    assert "no value at as many calls or fewer is higher." in caption
    assert "exact draws of the model: the ceiling." in caption


@pytest.mark.parametrize("heights", [[0.1, 0.1, 0.1], [0.0, 0.5, 0.99, 1.0], [1.0] * 5, []])
def test_labels_keep_their_distance_and_stay_inside(heights: list[float]) -> None:
    placed = layout.spread(heights, gap=0.05)
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
    assert {path.name for path in out.iterdir()} == {
        f"quality-vs-{what}{metric}.{kind}"
        for what in ("nfe", "seconds")
        for metric in ("", "-fid-50k")
        for kind in ("svg", "png", "pdf")
    }
    failed = records.make(tmp_path / "failed", cells, of=lambda cell: records.failure(cell, "boom"))
    assert draw(failed, out)["fd_cifar"].file is None
    assert list(out.iterdir()) == []


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    # A lone dollar would be a mathematical formula, and the last sign is in no font here.
    cells = [Cell(name, n) for name in ("pay $5_$6", "雪" * 60) for n in (5, 10)]
    found = panels(tmp_path, cells)
    with ink.style():
        figure = lines.figure(found, "fd_cifar")
        assert len(ink.encode(figure, "svg", "a title")) > 1000
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(texts) == ["best at each budget", "pay $5_$6", "雪" * 39 + "…"]


def test_one_point_fills_no_axis_but_is_drawn(tmp_path: Path) -> None:
    found = panels(tmp_path, [Cell("ddim", 10)])
    with ink.style():
        axes = lines.figure(found, "fd_cifar").axes[0]
    low, high = axes.get_ylim()
    assert 0 < low < records.quality(Cell("ddim", 10)) * 1e3 < high
    assert math.isfinite(high)


def axes_of(found: list[Panel]) -> list[Axes]:
    with ink.style():
        return list(lines.figure(found, "fd_cifar").axes)


def test_the_front_is_drawn_below_the_lines(tmp_path: Path) -> None:
    values = {("ddim", 5): 9.0, ("heun", 5): 8.0, ("ddim", 20): 1.0, ("heun", 20): 2.0}
    cells = [Cell(sampler, steps) for sampler, steps in values]
    found = panels(
        tmp_path,
        cells,
        of=lambda cell: records.record(cell, value=values[cell.sampler, cell.steps or 0]),
    )
    (axes,) = axes_of(found)
    (band,) = (line for line in axes.lines if line.get_zorder() == 0.9)
    assert list(band.get_xdata()) == [5, 20]
    assert list(band.get_ydata()) == [8, 1]
    assert [text.get_text() for text in axes.texts].count("best at each budget") == 1
    assert (
        "The pale band joins the best at each budget: no value at as many calls or fewer is lower."
        in plots._caption(found, Yardstick())
    )
    alone = panels(tmp_path / "alone", [Cell("ddim", n) for n in (5, 10)])
    assert "best" not in " ".join(text.get_text() for text in axes_of(alone)[0].texts)


def test_exact_flows_are_drawn_and_named(tmp_path: Path) -> None:
    cells = [records.exact(), *(Cell("ddim", n) for n in (5, 10))]
    cells += [Cell("exact-flow", 10, {"tolerance": 1e-4}, counted=52.5)]
    found = panels(tmp_path, cells)
    (axes,) = axes_of(found)
    flow = records.FLOOR * 1.5e3
    assert sorted(flat_lines(axes)) == [pytest.approx(records.FLOOR * 1e3), pytest.approx(flow)]
    assert "exact flow (uniform, S = 10)" in [text.get_text() for text in axes.texts]
    assert "Dotted: the exact flow between the ends of that grid" in plots._caption(
        found, Yardstick()
    )


def test_an_overview_has_a_row_of_its_own_and_greys_what_is_never_best(tmp_path: Path) -> None:
    found = panels(tmp_path, records.zoo((5, 10)), families=records.FAMILIES)
    axes = axes_of(found)
    assert len(axes) == len(found) == 5
    places = [panel.get_position() for panel in axes]
    assert places[0].x1 == pytest.approx(places[2].x1)
    assert places[1].y0 == places[2].y0 < places[0].y0
    assert [bool(panel.get_xlabel()) for panel in axes] == [False, False, False, True, True]
    grey = [line for line in axes[0].lines if line.get_color() == ink.GREY]
    assert len(grey) == found[0].quiet["rank"].nunique() > 10
    coloured = {line.get_color() for line in axes[0].lines} - {ink.GREY}
    assert len(coloured) > 2
    caption = plots._caption(found, Yardstick())
    assert "The first panel has what is best at some budget in colour, the rest in grey." in caption
    assert "Samplers that choose their own steps stand at their mean NFE." in caption


def test_the_lines_of_a_panel_differ_in_colour_and_marker(tmp_path: Path) -> None:
    found = panels(tmp_path, records.zoo((5, 10)), families=records.FAMILIES)
    looks = lines._looks(found)
    for panel in found:
        names = panel.points["line"].unique()
        assert len({looks[line].color for line in names}) == min(len(names), 7)
        assert len({looks[line].marker for line in names}) == len(names)


def test_only_tolerances_make_a_plot_too(tmp_path: Path) -> None:
    cells = [Cell("rk45", 2, {"rtol": rtol}, counted=33.4 / rtol) for rtol in (1.0, 0.1)]
    (axes,) = axes_of(panels(tmp_path, cells))
    assert list(axes.get_xticks()) == [33, 334]
