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


def of_values(values: dict[tuple[str, int], float]) -> list[Cell]:
    return [Cell(sampler, steps) for sampler, steps in values]


def test_who_is_best_at_each_budget(tmp_path: Path) -> None:
    values = {
        ("a", 5): 9.0, ("b", 5): 4.5, ("a", 10): 3.0, ("b", 12): 3.005,
        ("a", 50): 0.15, ("b", 50): 0.15, ("c", 50): 0.9,
    }  # fmt: skip
    found = points(tmp_path, of_values(values), of=valued(values))
    (best,) = tables.best(found, frame.Pooled(0.15, float("nan"), 1, ""), Scale())
    assert best.title == "Best at each budget"
    assert best.text.splitlines() == [
        "| NFE | Lowest | Next | Value | Next: times as high | Times the floor |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
        "| 5 to 9 | b | a | 4.50 | 2.0 | 30 |",
        "| 10 to 49 | a | b, 12 NFE | 3.00 | 1.00 | 20 |",
        "| from 50 | a and b | c | 0.150 | 6.0 | 1.00 |",
        "",
        "Lowest: no cell with as many calls or fewer has a lower value. Next: the lowest value of "
        "the other configurations within the NFE of the row. A single run has no error bar: where "
        "the next is hardly higher, which of the two is better is open.",
    ]


def test_the_best_without_a_floor_a_rival_or_whole_calls(tmp_path: Path) -> None:
    cells = [Cell("rk45", 2, {"rtol": 0.1}, counted=33.4), Cell("ddim", 34), Cell("ddim", 36)]
    values = [3.0, 2.0, 0.0]
    found = points(
        tmp_path, cells, of=lambda cell: records.record(cell, value=values[cells.index(cell)])
    )
    (best,) = tables.best(found, None, Scale())
    assert best.text.splitlines()[2:5] == [
        "| 33.4 | rk45 | — | 3.00 | — | — |",
        "| 34 to 35 | ddim | rk45, 33.4 NFE | 2.00 | 1.50 | — |",
        "| from 36 | ddim | rk45, 33.4 NFE | 0 | — | — |",
    ]


def test_one_configuration_is_not_compared(tmp_path: Path) -> None:
    found = points(tmp_path, [Cell("ddim", 5), Cell("ddim", 10)])
    assert not list(tables.best(found, None, Scale()))


def test_several_seeds_have_their_spread_and_no_caution(tmp_path: Path) -> None:
    cells = [Cell(name, 5, seed=seed) for name in ("ddim", "heun") for seed in (0, 1)]
    found = points(tmp_path, cells, of=lambda cell: records.record(cell, value=1.0 + cell.seed))
    (best,) = tables.best(found, None, Scale())
    assert "| 1.50 ± 0.71 |" in best.text
    assert "error bar" not in best.text


def test_many_configurations_are_rows(tmp_path: Path) -> None:
    cells = [cell for cell in records.zoo((5, 10)) if (cell.sampler, cell.steps) != ("ddpm", 5)]
    cells += [Cell("heun", 8, {}, "karras", nfe=15, nfe_asked=16)]
    found = points(
        tmp_path, cells, of=lambda cell: records.record(cell, value=float(cell.steps or 1))
    )
    (table,) = tables.by_nfe(found, frame.Pooled(1.0, float("nan"), 1, ""), Scale())
    lines = table.text.splitlines()
    assert table.title == ""
    assert lines[0] == "| Configuration | NFE 5 | NFE 10 | NFE 16 (15 NFE) |"
    assert "| ddim | 5.00 | 10.0 |  |" in lines
    assert "| ddpm |  | 10.0 |  |" in lines
    assert "| heun (karras) |  |  | 8.00 |" in lines
    assert "| exact draws | 1.00 | 1.00 | 1.00 |" in lines
    assert "rk45" not in table.text  # has no budget
    assert not list(tables.by_eta(found, None, Scale()))  # its rows stand here already


def test_tolerances_have_a_table_of_their_own(tmp_path: Path) -> None:
    tolerances = ((0.1, 33.4), (0.01, 61.0), (0.001, 1234.56))
    cells = [Cell("rk45", 2, {"rtol": rtol}, counted=counted) for rtol, counted in tolerances]
    found = points(
        tmp_path, cells, of=lambda cell: None if cell is cells[1] else records.record(cell, value=2)
    )
    (table,) = tables.by_tolerance(found, Scale())
    assert table.title == "Samplers that choose their own steps"
    assert table.text.splitlines() == [
        "| Configuration | Tolerance | NFE | Value |",
        "| :--- | :--- | ---: | ---: |",
        "| rk45 | rtol 0.1 | 33.4 (25 to 41) | 2.00 |",
        "| rk45 | rtol 0.001 | 1234.6 (1227 to 1243) | 2.00 |",
        "| rk45 | rtol 0.01 | — | —<sup>1</sup> |",
        "",
        "<sup>1</sup> not computed yet",
        "",
        "NFE is the mean over images; in brackets the least and the most that one took.",
    ]
    assert not list(tables.by_nfe(found, None, Scale()))
    assert not list(tables.by_tolerance(points(tmp_path / "no", [Cell("ddim", 5)]), Scale()))


def test_references_are_listed_with_the_floor(tmp_path: Path) -> None:
    study = frame.read(records.make(tmp_path, records.zoo((5,))))
    (setting,) = study.settings
    exact, flows = frame.floor(setting, "fd_cifar"), frame.flows(setting, "fd_cifar")
    (table,) = tables.references(exact, flows, Scale(-6))
    assert table.title == "References"
    assert table.text.splitlines()[:5] == [
        "| Reference | Value | Times the floor |",
        "| :--- | ---: | ---: |",
        "| exact draws | 13.0 | 1.00 |",
        "| exact flow (logsnr, S = 10) | 14.3 | 1.10 |",
        "| exact flow (uniform, S = 10) | 19.5 | 1.50 |",
    ]
    assert "the two ends of the grid lose" in table.text
    assert not list(tables.references(exact, [], Scale()))
    (alone,) = tables.references(None, flows, Scale(-6))
    assert "| exact flow (logsnr, S = 10) | 14.3 | — |" in alone.text
