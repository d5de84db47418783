"""Rows of a grid whose times stand in a file; the rest is in test_sweep.py."""

from pathlib import Path

import pytest

from bench import sweep
from bench.errors import SweepError
from bench.sweep import Cell

HEAD = """\
# Which one?
model: cifar10-mixture
samples: 100
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(row: str) -> list[Cell]:
    return sweep.parse(f"{HEAD}  - {row}\n", "a.yaml").cells()[1:]


def message(row: str) -> str:
    with pytest.raises(SweepError) as caught:
        of(row)
    return str(caught.value).removeprefix("a.yaml, line 7: ")


def test_times_in_a_file_become_explicit_times(here: Path) -> None:
    (here / "mine.json").write_text("[900, 500.5, 1e2]")
    [cell] = of("{sampler: ddim, spacing: file, file: mine.json}")
    [listed] = of("{sampler: ddim, spacing: explicit, times: [900, 500.5, 100]}")
    assert cell.canonical() == listed.canonical()
    assert cell.key == listed.key
    assert (cell.spacing, cell.steps, cell.nfe) == ("explicit", 3, 3)


def test_the_key_of_a_cell_is_that_of_the_files_content(here: Path) -> None:
    file = here / "mine.txt"
    file.write_text("900 500")
    row = f"{{sampler: ddim, spacing: file, file: {file}}}"
    [before] = of(row)
    file.write_text("- 900 # the same\n- 5e2")
    assert of(row) == [before]
    file.write_text("900 400")
    assert of(row) != [before]


def test_files_are_an_axis(here: Path) -> None:
    (here / "a.txt").write_text("900 500")
    (here / "b.txt").write_text("800 400 200")
    cells = of("{sampler: [ddim, euler], spacing: file, file: [a.txt, b.txt], final: sigma-min}")
    assert [(cell.sampler, cell.steps) for cell in cells] == [
        ("ddim", 1),
        ("ddim", 2),
        ("euler", 1),
        ("euler", 2),
    ]


def test_what_is_wrong_with_a_file_is_told_at_its_key(here: Path) -> None:
    (here / "rising.txt").write_text("100 500")
    (here / "beyond.txt").write_text("1000 500")
    row = "{{sampler: ddim, spacing: file, file: {}}}".format
    assert message(row("risin.txt")) == (
        'grid[0].file: risin.txt: there is no such file. Did you mean "rising.txt"?'
    )
    assert message(row("[beyond.txt, rising.txt]")) == (
        "grid[0].file[0]: t = 1000.0 is outside vp-linear, which runs from 0.0 to 999.0.\n"
        "a.yaml, line 7: grid[0].file[1]: rising.txt: 100 is followed by 500; times fall from "
        "noise to data. Sort them, highest first, and leave out what comes twice."
    )
    assert message("{sampler: ddim, spacing: file}") == (
        'the key "file" is missing in grid[0]; file needs it: a text.'
    )
