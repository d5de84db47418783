"""`bench report` of several sweeps, and `bench published`."""

import json
from pathlib import Path

import pytest

from tests.report import records
from tests.test_cli import bench


def test_published_values_are_found_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(capsys, "published", "Implicit", "spacing=quadratic", "eta=1", "steps=10")
    assert said.code == 0
    assert "41.07" in said.out
    assert "1 of 564 published values." in said.out
    found = json.loads(bench(capsys, "published", "model=bao-linear", "--json").out)
    assert len(found) == 39
    assert {row["model"] for row in found} == {"bao-linear"}
    wrong = bench(capsys, "published", "stepps=10")
    assert wrong.code == 1
    assert 'no column "stepps". Did you mean "steps"?' in wrong.err


def test_report_of_several_sweeps_has_a_folder_named_after_all(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        records.make(tmp_path / name, [records.Cell("ddim", 5)], name=name)
    said = bench(capsys, "report", tmp_path / "one", tmp_path / "two", "--reports", tmp_path / "p")
    assert said.out == f"Report: {tmp_path}/p/one+two/report.md\n"
    assert "<title>one + two</title>" in (tmp_path / "p" / "one+two" / "report.html").read_text()
