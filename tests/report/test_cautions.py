from dataclasses import replace
from pathlib import Path

from bench.report import frame
from bench.report.cautions import cautions
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

FINE = {"near_constant": 0, "duplicates": 0, "saturated": 0.01}


def said(
    folder: Path, cells: list[Cell], facts: dict[tuple[str, int], dict[str, object]]
) -> list[str]:
    def of(cell: Cell) -> Result:
        found = facts.get((cell.sampler, cell.steps or 0), {})
        notes = found.get("notes")
        entry = {} if notes is None else {"notes": notes}
        images = {**FINE, **{name: fact for name, fact in found.items() if name != "notes"}}
        return records.record(cell, value=1.0, entry=entry, images=images)

    study = frame.read(records.make(folder, cells, of=of))
    return list(cautions(study, study.settings[0], "fd_cifar"))


def many(*samplers: str) -> list[Cell]:
    return [Cell(name, n, samples=10_000) for name in samplers for n in (5, 10, 20)]


def test_images_that_are_fine_need_none(tmp_path: Path) -> None:
    assert said(tmp_path, many("ddim"), {}) == []


def test_each_stands_once_with_the_cells_concerned(tmp_path: Path) -> None:
    note = "n < d: the covariance is singular | <b>"
    found = said(
        tmp_path,
        [records.exact(samples=10_000), *many("ddim", "heun")],
        {
            ("ddim", 5): {"near_constant": 12, "notes": [note, "other"]},
            ("ddim", 10): {"near_constant": 3, "notes": [note]},
            ("heun", 20): {"near_constant": 1, "duplicates": 4, "saturated": 0.41},
            ("heun", 5): {"saturated": 0.2},  # not above
            ("exact", 0): {"notes": [note]},
        },
    )
    assert found == [
        "Near-constant images (up to 12 of 10,000): ddim at 5 and 10 NFE; heun at 20 NFE.",
        "Duplicates (up to 4 of 10,000): heun at 20 NFE.",
        "Saturated images (up to 41 % of all bytes are 0 or 255): heun at 20 NFE.",
        "n &lt; d: the covariance is singular \\| &lt;b&gt;: exact draws; ddim at 5 and 10 NFE.",
        "other: ddim at 5 NFE.",
    ]


def test_what_holds_for_all(tmp_path: Path) -> None:
    cells = many("ddim")
    facts = {("ddim", n): {"notes": ["the reference is small"]} for n in (5, 10, 20)}
    assert said(tmp_path, cells, facts) == ["the reference is small: every cell."]


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    names = [f"s{n}" for n in range(9)]
    facts = {(name, 5): {"duplicates": 1} for name in names}
    assert said(tmp_path, many(*names), facts) == [
        "Duplicates (up to 1 of 10,000): s0 at 5 NFE; s1 at 5 NFE; s2 at 5 NFE; s3 at 5 NFE; "
        "s4 at 5 NFE; s5 at 5 NFE; 3 more."
    ]


def test_tolerances_are_named(tmp_path: Path) -> None:
    cells = [Cell("rk45", 2, {"rtol": rtol}, counted=33.4, samples=10_000) for rtol in (0.1, 0.01)]

    def of(cell: Cell) -> Result:
        images = {**FINE, "duplicates": 2 if cell.params["rtol"] == 0.1 else 0}
        return records.record(cell, images=images)

    study = frame.read(records.make(tmp_path, cells, of=of))
    assert list(cautions(study, study.settings[0], "fd_cifar")) == [
        "Duplicates (up to 2 of 10,000): rk45 (rtol 0.1)."
    ]


def test_old_records_and_failures_have_no_facts(tmp_path: Path) -> None:
    cells = many("ddim")

    def of(cell: Cell) -> Result | None:
        if cell.steps == 10:
            return replace(records.failure(cell, "boom"), images=None)
        return records.record(cell) if cell.steps == 5 else None

    study = frame.read(records.make(tmp_path, cells, of=of))
    assert list(cautions(study, study.settings[0], "fd_cifar")) == []
    nothing = frame.read(records.make(tmp_path / "none", cells, of=lambda _: None))
    assert list(cautions(nothing, nothing.settings[0], "fd_cifar")) == []
