"""Histories as chapters of a report."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.regression import history, history_chapter
from bench.regression.history_chapter import chapter, figure, shown, spots
from bench.report import build, ink
from tests.regression.repository import commit
from tests.regression.test_history import CELL, folder, put, put_all
from tests.report import records

__all__ = ["folder"]


def test_a_report_has_it_in_words_and_drawn(folder: Path, tmp_path: Path) -> None:
    records.make(folder, [CELL])
    put_all(folder, [4.0, 4.01, 5.0, 5.01])
    found = history.read(folder)
    out = tmp_path / "out"
    made = {}
    for time in (1, 2):
        build(folder, out, [chapter(found, out, 1)])
        made[time] = {path.name: path.read_bytes() for path in out.iterdir()}
    assert made[1] == made[2]
    assert {f"history-1.{kind}" for kind in ink.KINDS} <= made[1].keys()
    text, page = made[1]["report.md"].decode(), made[1]["report.html"].decode()
    step = f"step at {found.commits[2].short} (2026-01-03, Results, 2): 4.00 → 5.00 (+25 %)"
    for said in (text, page):
        assert "History of tiny" in said
        assert step in said
        assert "\nbench report sweeps/quickstart.yaml --history\n" in said
    assert "](history-1.svg)" in text
    assert f"{found.commits[3].short} (2026-01-04, Results, 3): 5.010 ± 0.050" in page
    # Without it, the report is as before, and no picture is left.
    build(folder, out)
    assert not list(out.glob("history-*"))
    assert "History of" not in (out / "report.html").read_text("utf-8")


def test_the_picture_has_what_happened_first(folder: Path) -> None:
    cells = [replace(CELL, steps=steps) for steps in (10, 20, 50, 100)]
    for place in range(4):
        for cell in cells:
            step = 1.0 if cell.steps == 50 and place >= 2 else 0.0
            put(folder, 4 + step + 0.001 * place, cell)
        commit(folder, f"Results, {place}")
    found = history.read(folder)
    with ink.style():
        axes = figure(shown(found), found.commits).axes
    assert len(axes) == 4
    assert axes[0].get_title(loc="left") == "ddim 50\nfd_cifar"
    lines = [round(float(line.get_ydata()[0]), 2) for line in axes[0].lines]
    assert {4.0, 5.0} <= set(lines)  # the level before the step and the one after it


def test_there_are_so_many_panels(folder: Path, tmp_path: Path) -> None:
    for place in range(2):
        for steps in range(10, 10 + history_chapter.PANELS + 3):
            put(folder, 4 + 0.001 * place, replace(CELL, steps=steps))
        commit(folder, f"Results, {place}")
    made = chapter(history.read(folder), tmp_path, 2).picture
    assert made.file == "history-2.svg"
    assert "12 of 15 series" in made.caption
    assert made.svg.count('class="spot"') == 2 * 12


def test_marks_stand_on_the_values(folder: Path) -> None:
    put_all(folder, [4.0, 5.0, 4.5])
    put(folder, 0.001, replace(CELL, steps=20), error=1e-5)
    commit(folder, "Another")
    put(folder, 0.002, replace(CELL, steps=20), error=1e-5)
    commit(folder, "Again")
    found = history.read(folder)
    with ink.style():
        drawn = shown(found)
        made = figure(drawn, found.commits)
        marks = spots(made, drawn, found.commits)
        made.canvas.draw()
    width, height = made.canvas.get_width_height()
    wanted = []
    for series, axes in zip(drawn, made.axes, strict=True):
        unit = 1e-3 if series.points[0].value < 0.1 else 1.0
        at = [(point.place, point.value / unit) for point in series.points]
        wanted += [(x / width, 1 - y / height) for x, y in axes.transData.transform(at)]
    assert [each for spot in marks for each in (spot.x, spot.y)] == pytest.approx(
        [each for place in wanted for each in place], abs=1e-3
    )
    assert any("× 10⁻³" in spot.words for spot in marks)


def test_a_single_commit_has_no_picture(folder: Path, tmp_path: Path) -> None:
    put(folder, 4.0)
    commit(folder, "First")
    made = chapter(history.read(folder), tmp_path / "out", 1)
    assert made.picture.file is None
    assert not (tmp_path / "out").exists()
    assert any("1 have one point only" in words for words in made.words)


def test_names_are_safe(folder: Path, tmp_path: Path) -> None:
    evil = replace(CELL, sampler="<script>|x")
    records.make(folder, [evil])
    for place, value in enumerate([4.0, 9.0]):
        put(folder, value, evil)
        commit(folder, f"<script>alert({place})</script> | cut")
    out = tmp_path / "out"
    build(folder, out, [chapter(history.read(folder), out, 1)])
    page = (out / "report.html").read_text("utf-8")
    assert len(re.findall("<script", page)) == 1  # its own
    assert "&lt;script&gt;|x" in page
