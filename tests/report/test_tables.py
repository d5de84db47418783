from pathlib import Path

from bench.report import frame, tables
from bench.report.markdown import Scale
from bench.results import Result
from tests.report import records
from tests.report.records import Cell


def points(folder: Path, cells: list[Cell], **made: object) -> frame.pd.DataFrame:
    study = frame.read(records.make(folder, cells, **made))  # type: ignore[arg-type]
    return frame.points(frame.serve_all(study.cells), "fd_cifar")


def valued(values: dict[tuple[str, int], float]) -> object:
    """Gives records of set values; a missing pair is a cell that failed, a missing name not run."""

    def of(cell: Cell) -> Result | None:
        if (cell.sampler, cell.steps) in values:
            return records.record(cell, value=values[cell.sampler, cell.steps or 0])
        return records.failure(cell, "NaN | at step 3") if cell.sampler == "heun" else None

    return of


def test_nfe_down_a_column_a_configuration(tmp_path: Path) -> None:
    cells = [
        *(Cell("ddim", n) for n in (5, 10, 50)),
        Cell("ddim", 20),
        Cell("heun", 3, nfe=5),
        Cell("heun", 5, nfe=9, nfe_asked=10),
    ]
    values = {("ddim", 5): 13.357, ("ddim", 10): 6.84, ("ddim", 50): 4.0, ("heun", 5): 2.0}
    found = list(
        tables.by_nfe(
            points(tmp_path, cells, of=valued(values)),
            frame.Pooled(0.013, 0.002, 3, ""),
            Scale(),
        )
    )
    assert [part.title for part in found] == [""]
    assert found[0].text.splitlines() == [
        "| NFE | ddim | heun |",
        "| :--- | ---: | ---: |",
        "| 5 | 13.4 | —<sup>1</sup> |",
        "| 10 | 6.84 | 2.00 (9 NFE) |",
        "| 20 | —<sup>2</sup> |  |",
        "| 50 | 4.00 |  |",
        "| exact draws | 0.0130 ± 0.0020 | 0.0130 ± 0.0020 |",
        "",
        "<sup>1</sup> failed: NaN \\| at step 3  ",
        "<sup>2</sup> not computed yet",
        "",
        "In brackets: what really ran, where duplicates on the grid were dropped or no number of "
        "steps costs what was asked. Empty: not asked for in this sweep.",
    ]


def test_the_layout_of_the_ddim_paper(tmp_path: Path) -> None:
    found = list(tables.by_eta(points(tmp_path, records.ddim_table()), None, Scale(-3)))
    assert [part.title for part in found] == ["ddim, spacing quadratic", "ddim, spacing uniform"]
    quadratic, uniform = (part.text.splitlines() for part in found)
    assert quadratic[0] == (
        "| η | S = 10 | S = 20 | S = 50 (46 steps) | S = 100 (88 steps) | S = 1000 |"
    )
    assert uniform[0] == "| η | S = 10 | S = 20 | S = 50 | S = 100 | S = 1000 |"
    for lines in (quadratic, uniform):
        rows = [line.split(" | ") for line in lines[2:7]]
        assert [row[0] for row in rows] == ["| 0", "| 0.2", "| 0.5", "| 1", "| sigma-hat"]
        assert all(len(row) == 6 for row in rows)
        assert lines[-1].endswith("At 1000 steps: the spacing all, every index once.")
    # `all` stands in both, the rest is each spacing's own.
    assert [line.split(" | ")[-1] for line in quadratic[2:7]] == [
        line.split(" | ")[-1] for line in uniform[2:7]
    ]
    assert quadratic[2] != uniform[2]


def test_no_eta_table_where_eta_or_steps_do_not_vary(tmp_path: Path) -> None:
    one_eta = [Cell("ddim", n, {"eta": 0.0}) for n in (5, 10)]
    one_step = [Cell("ddim", 5, {"eta": eta}) for eta in (0.0, 1.0)]
    no_eta = [Cell("heun", n) for n in (5, 10)]
    for place, cells in enumerate((one_eta, one_step, no_eta)):
        found = points(tmp_path / str(place), cells)
        assert not list(tables.by_eta(found, None, Scale()))
        assert not tables.only_eta(found)


def test_only_eta_needs_every_point_in_an_eta_table(tmp_path: Path) -> None:
    table = records.ddim_table()
    assert tables.only_eta(points(tmp_path / "table", table))
    assert not tables.only_eta(points(tmp_path / "more", [*table, Cell("heun", 5)]))


def test_other_parameters_make_their_own_eta_table(tmp_path: Path) -> None:
    cells = [
        Cell("ddim", n, {"eta": eta, "clip": clip})
        for clip in (False, True)
        for eta in (0.0, 1.0)
        for n in (5, 10)
    ]
    found = list(tables.by_eta(points(tmp_path, cells), None, Scale()))
    assert [part.title for part in found] == [
        "ddim clip=false, spacing uniform",
        "ddim clip=true, spacing uniform",
    ]


def test_too_many_columns_make_a_table_a_spacing(tmp_path: Path) -> None:
    found = list(tables.by_nfe(points(tmp_path, records.ddim_table()), None, Scale()))
    assert [part.title for part in found] == ["Spacing quadratic", "Spacing uniform"]
    header = found[0].text.splitlines()[0]
    assert header == (
        "| NFE | ddim eta=0 | ddim eta=0.2 | ddim eta=0.5 | ddim eta=1 | ddim eta=sigma-hat |"
    )
    assert "| 50 (46 NFE) |" in found[0].text
    assert "(46 NFE)" not in found[1].text
