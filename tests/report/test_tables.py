from pathlib import Path

from bench.report import frame, tables
from bench.report.markdown import Scale, render
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick
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
            Pooled(0.013, 3, error=0.002),
            Scale(),
            Yardstick(),
        )
    )
    assert [part.title for part in found] == [""]
    assert render(found[0]).splitlines() == [
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
    found = list(
        tables.by_eta(points(tmp_path, records.ddim_table()), None, Scale(-3), Yardstick())
    )
    assert [part.title for part in found] == ["ddim, spacing quadratic", "ddim, spacing uniform"]
    quadratic, uniform = (render(part).splitlines() for part in found)
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
        assert not list(tables.by_eta(found, None, Scale(), Yardstick()))
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
    found = list(tables.by_eta(points(tmp_path, cells), None, Scale(), Yardstick()))
    assert [part.title for part in found] == [
        "ddim clip=false, spacing uniform",
        "ddim clip=true, spacing uniform",
    ]


def test_too_many_columns_make_a_table_a_spacing(tmp_path: Path) -> None:
    found = list(tables.by_nfe(points(tmp_path, records.ddim_table()), None, Scale(), Yardstick()))
    assert [part.title for part in found] == ["Spacing quadratic", "Spacing uniform"]
    header = render(found[0]).splitlines()[0]
    assert header == (
        "| NFE | ddim eta=0 | ddim eta=0.2 | ddim eta=0.5 | ddim eta=1 | ddim eta=sigma-hat |"
    )
    assert "| 50 (46 NFE) |" in render(found[0])
    assert "(46 NFE)" not in render(found[1])


def of_values(values: dict[tuple[str, int], float]) -> list[Cell]:
    return [Cell(sampler, steps) for sampler, steps in values]


def test_who_is_best_at_each_budget(tmp_path: Path) -> None:
    values = {
        ("a", 5): 9.0, ("b", 5): 4.5, ("a", 10): 3.0, ("b", 12): 3.005,
        ("a", 50): 0.15, ("b", 50): 0.15, ("c", 50): 0.9,
    }  # fmt: skip
    found = points(tmp_path, of_values(values), of=valued(values))
    (best,) = tables.best(found, Pooled(0.15, 1), Scale(), Yardstick())
    assert best.title == "Best at each budget"
    assert render(best).splitlines() == [
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
    (best,) = tables.best(found, None, Scale(), Yardstick())
    assert render(best).splitlines()[2:5] == [
        "| 33.4 | rk45 | — | 3.00 | — | — |",
        "| 34 to 35 | ddim | rk45, 33.4 NFE | 2.00 | 1.50 | — |",
        "| from 36 | ddim | rk45, 33.4 NFE | 0 | — | — |",
    ]


def test_one_configuration_is_not_compared(tmp_path: Path) -> None:
    found = points(tmp_path, [Cell("ddim", 5), Cell("ddim", 10)])
    assert not list(tables.best(found, None, Scale(), Yardstick()))


def sure(values: dict[tuple[str, int], tuple[float, float | None]]) -> object:
    """Gives records of set values with set errors."""

    def of(cell: Cell) -> Result:
        value, error = values[cell.sampler, cell.steps or 0]
        return records.record(cell, value=value, error=error)

    return of


def both(
    folder: Path,
    values: dict[tuple[str, int], tuple[float, float | None]],
    yardstick: Yardstick,
    exact: Pooled | None = None,
) -> tuple[list[str], list[str]]:
    """The lines of the front and of the table by NFE."""
    found = points(folder, [Cell(*name) for name in values], of=sure(values))
    (front,) = tables.best(found, exact, Scale(), yardstick)
    (table,) = tables.by_nfe(found, exact, Scale(), yardstick)
    return render(front).splitlines(), render(table).splitlines()


LOWEST = (
    "Lowest: no cell with as many calls or fewer has a lower value. Next: the lowest value of the "
    "other configurations within the NFE of the row."
)
TOGETHER = "At 95 %, for all cells within the NFE of a row together."
OF_A_ROW = "At 95 %, for all values of a row together."
NO_BAR = (
    "A single run has no error bar: where the next is hardly higher, which of the two is better "
    "is open."
)


def test_a_clear_winner_is_bold(tmp_path: Path) -> None:
    values = {
        ("a", 5): (9.0, 0.12), ("b", 5): (4.5, 0.034), ("c", 5): (5.0, 0.05),
        ("a", 10): (2.0, 0.02), ("b", 10): (3.0, 0.03), ("c", 10): (3.1, 0.03),
    }  # fmt: skip
    front, table = both(tmp_path, values, Yardstick(), Pooled(1.0, 1, error=0.01))
    assert front == [
        "| NFE | Lowest | Next | Value | Next: times as high | Times the floor |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
        "| 5 to 9 | **b** | c | 4.500 ± 0.034 | 1.11 | 4.5 |",
        "| from 10 | **a** | b | 2.000 ± 0.020 | 1.50 | 2.0 |",
        "",
        f"{LOWEST} Bold: the lowest beyond the noise. {TOGETHER}",
    ]
    assert table == [
        "| NFE | a | b | c |",
        "| :--- | ---: | ---: | ---: |",
        "| 5 | 9.00 ± 0.12 | **4.500 ± 0.034** | 5.000 ± 0.050 |",
        "| 10 | **2.000 ± 0.020** | 3.000 ± 0.030 | 3.100 ± 0.030 |",
        "| exact draws | 1.000 ± 0.010 | 1.000 ± 0.010 | 1.000 ± 0.010 |",
        "",
        f"Bold: the best of its row beyond the noise. {OF_A_ROW}",
    ]


def test_a_tie_is_marked_and_nothing_is_bold(tmp_path: Path) -> None:
    values = {
        ("a", 5): (4.5, 0.2), ("b", 5): (4.6, 0.2), ("c", 5): (9.0, 0.2),
        ("a", 10): (4.4, 0.2), ("b", 10): (5.9, 0.2), ("c", 10): (4.2, 0.2),
    }  # fmt: skip
    front, table = both(tmp_path, values, Yardstick())
    assert front == [
        "| NFE | Lowest | Next | Value | Next: times as high | Times the floor |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
        "| 5 to 9 | a ≈ b | b | 4.50 ± 0.20 | 1.02 | — |",
        "| from 10 | c ≈ a ≈ b, 5 NFE | a | 4.20 ± 0.20 | 1.05 | — |",
        "",
        f"{LOWEST} ≈: cannot be told apart from the lowest, best first. {TOGETHER}",
    ]
    assert table == [
        "| NFE | a | b | c |",
        "| :--- | ---: | ---: | ---: |",
        "| 5 | 4.50 ± 0.20 ≈ | 4.60 ± 0.20 ≈ | 9.00 ± 0.20 |",
        "| 10 | 4.40 ± 0.20 ≈ | 5.90 ± 0.20 | 4.20 ± 0.20 ≈ |",
        "",
        f"≈: the best of its row and what cannot be told apart from it. {OF_A_ROW}",
    ]


def test_a_value_without_an_error_bar_leaves_its_row_open(tmp_path: Path) -> None:
    values = {
        ("a", 5): (4.5, 0.1), ("b", 5): (9.0, 0.1), ("c", 5): (20.0, 0.1),
        ("a", 10): (1.0, 0.1), ("b", 10): (7.0, 0.1), ("c", 10): (8.0, None),
    }  # fmt: skip
    front, table = both(tmp_path, values, Yardstick())
    assert front == [
        "| NFE | Lowest | Next | Value | Next: times as high | Times the floor |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
        "| 5 to 9 | **a** | b | 4.50 ± 0.10 | 2.0 | — |",
        "| from 10 | a | b | 1.00 ± 0.10 | 7.0 | — |",
        "",
        f"{LOWEST} Bold: the lowest beyond the noise. {TOGETHER} {NO_BAR}",
    ]
    assert table == [
        "| NFE | a | b | c |",
        "| :--- | ---: | ---: | ---: |",
        "| 5 | **4.50 ± 0.10** | 9.00 ± 0.10 | 20.00 ± 0.10 |",
        "| 10 | 1.00 ± 0.10 | 7.00 ± 0.10 | 8.00 |",
        "",
        f"Bold: the best of its row beyond the noise. {OF_A_ROW} A row with a value without an "
        "error bar has no marks.",
    ]


def test_where_higher_is_better_the_highest_is_bold(tmp_path: Path) -> None:
    values = {
        ("a", 5): (3.0, 0.05), ("b", 5): (4.0, 0.05),
        ("a", 10): (9.0, 0.05), ("b", 10): (9.02, 0.05),
    }  # fmt: skip
    yardstick = Yardstick(higher=True)
    front, table = both(tmp_path, values, yardstick, Pooled(10.0, 1, error=0.1))
    assert front == [
        "| NFE | Highest | Next | Value | Next: times as high | Times the ceiling |",
        "| :--- | :--- | :--- | ---: | ---: | ---: |",
        "| 5 to 9 | **b** | a | 4.000 ± 0.050 | 0.75 | 0.40 |",
        "| from 10 | b ≈ a | a | 9.020 ± 0.050 | 1.00 | 0.90 |",
        "",
        "Highest: no cell with as many calls or fewer has a higher value. Next: the highest value "
        "of the other configurations within the NFE of the row. Bold: the highest beyond the "
        f"noise. ≈: cannot be told apart from the highest, best first. {TOGETHER}",
    ]
    assert table == [
        "| NFE | a | b |",
        "| :--- | ---: | ---: |",
        "| 5 | 3.000 ± 0.050 | **4.000 ± 0.050** |",
        "| 10 | 9.000 ± 0.050 ≈ | 9.020 ± 0.050 ≈ |",
        "| exact draws | 10.00 ± 0.10 | 10.00 ± 0.10 |",
        "",
        "Bold: the best of its row beyond the noise. ≈: the best of its row and what cannot be "
        f"told apart from it. {OF_A_ROW}",
    ]


def test_values_below_zero_are_shown_and_compared(tmp_path: Path) -> None:
    values = {
        ("a", 5): (-0.5, 0.02), ("b", 5): (-0.1, 0.02), ("a", 10): (-0.51, 0.02),
        ("b", 10): (-0.5, 0.02),
    }  # fmt: skip
    front, table = both(tmp_path, values, Yardstick(), Pooled(-0.001, 1, error=0.02))
    assert front[2:4] == [
        "| 5 to 9 | **a** | b | -0.500 ± 0.020 | — | — |",
        "| from 10 | a ≈ b | b | -0.510 ± 0.020 | — | — |",
    ]
    assert table[2:5] == [
        "| 5 | **-0.500 ± 0.020** | -0.100 ± 0.020 |",
        "| 10 | -0.510 ± 0.020 ≈ | -0.500 ± 0.020 ≈ |",
        "| exact draws | -0.001 ± 0.020 | -0.001 ± 0.020 |",
    ]


def test_pairs_decide_what_errors_alone_cannot(tmp_path: Path) -> None:
    values = {("a", 5): (4.5, 0.2), ("b", 5): (4.6, 0.2)}
    front, table = both(tmp_path, values, Yardstick(difference=lambda a, b: 0.01))
    assert front[2] == "| from 5 | **a** | b | 4.50 ± 0.20 | 1.02 | — |"
    assert table[2] == "| 5 | **4.50 ± 0.20** | 4.60 ± 0.20 |"


def test_several_seeds_have_the_error_of_their_mean(tmp_path: Path) -> None:
    cells = [Cell(name, 5, seed=seed) for name in ("a", "b", "c") for seed in (0, 1)]
    base = {"a": 1.0, "b": 9.0, "c": 1.05}
    for name, error in (("spread", None), ("records", 0.03)):
        found = points(
            tmp_path / name,
            cells,
            of=lambda cell, error=error: records.record(
                cell, value=base[cell.sampler] + 0.1 * cell.seed, error=error
            ),
        )
        (best,) = tables.best(found, None, Scale(), Yardstick())
        (table,) = tables.by_nfe(found, None, Scale(), Yardstick())
        shown = "0.050" if error is None else "0.021"
        assert (
            render(best).splitlines()[2] == f"| from 5 | a ≈ c | c | 1.050 ± {shown} | 1.05 | — |"
        )
        assert render(table).splitlines()[2] == (
            f"| 5 | 1.050 ± {shown} ≈ | 9.050 ± {shown} | 1.100 ± {shown} ≈ |"
        )
        assert "error bar" not in render(best)


def test_one_row_in_the_layout_of_the_paper_is_compared_by_column(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, {"eta": eta}) for eta in (0.0, 1.0) for n in (5, 10)]
    value = {(0.0, 5): 4.0, (1.0, 5): 9.0, (0.0, 10): 3.0, (1.0, 10): 3.1}
    found = points(
        tmp_path,
        cells,
        of=lambda cell: records.record(
            cell, value=value[cell.params["eta"], cell.steps or 0], error=0.1
        ),
    )
    (table,) = tables.by_eta(found, Pooled(1.0, 1), Scale(), Yardstick())
    assert render(table).splitlines() == [
        "| η | S = 5 | S = 10 |",
        "| :--- | ---: | ---: |",
        "| 0 | **4.00 ± 0.10** | 3.00 ± 0.10 ≈ |",
        "| 1 | 9.00 ± 0.10 | 3.10 ± 0.10 ≈ |",
        "| exact draws | 1.00 | 1.00 |",
        "",
        "Bold: the best of its column beyond the noise. ≈: the best of its column and what cannot "
        "be told apart from it. At 95 %, for all values of a column together.",
    ]


def test_many_configurations_are_compared_by_column(tmp_path: Path) -> None:
    cells = [Cell(f"s{n}", 8, nfe=7, nfe_asked=8) for n in range(9)]
    found = points(
        tmp_path,
        cells,
        of=lambda cell: records.record(cell, value=float(cell.sampler[1:]) + 1, error=0.1),
    )
    (table,) = tables.by_nfe(found, None, Scale(), Yardstick())
    lines = render(table).splitlines()
    assert lines[0] == "| Configuration | NFE 8 (7 NFE) |"
    assert lines[2:4] == ["| s0 | **1.00 ± 0.10** |", "| s1 | 2.00 ± 0.10 |"]
    assert "Bold: the best of its column beyond the noise." in lines[-1]


def test_what_ran_and_footnotes_stand_beside_the_mark(tmp_path: Path) -> None:
    cells = [Cell("a", 10), *(Cell("b", 5, nfe=9, nfe_asked=10, seed=seed) for seed in (0, 1))]
    found = points(
        tmp_path,
        cells,
        of=lambda cell: (
            records.failure(cell, "boom")
            if cell.seed
            else records.record(cell, value=1.0 if cell.sampler == "b" else 2.0, error=0.1)
        ),
    )
    (table,) = tables.by_nfe(found, None, Scale(), Yardstick())
    assert (
        render(table).splitlines()[2]
        == "| 10 | 2.00 ± 0.10 | **1.00 ± 0.10**<sup>1</sup> (9 NFE) |"
    )


def test_many_that_tie_are_cut(tmp_path: Path) -> None:
    values = {(f"s{n}", 5): (1.0 + n / 100, 0.5) for n in range(9)}
    found = points(tmp_path, [Cell(*name) for name in values], of=sure(values))
    (best,) = tables.best(found, None, Scale(), Yardstick())
    assert (
        render(best)
        .splitlines()[2]
        .startswith("| from 5 | s0 ≈ s1 ≈ s2 ≈ s3 ≈ s4 ≈ s5 ≈ s6 ≈ 2 more | s1 |")
    )


def test_the_last_point_that_spacings_share_is_one_candidate(tmp_path: Path) -> None:
    cells = [Cell(name, 1000, {}, "all") for name in ("a", "b")]
    cells += [
        Cell(name, 10, {}, spacing) for name in ("a", "b") for spacing in ("uniform", "quadratic")
    ]
    found = points(
        tmp_path,
        cells,
        of=lambda cell: records.record(cell, value=1.0 if cell.sampler == "a" else 2.0, error=0.1),
    )
    (table,) = tables.by_nfe(found, None, Scale(), Yardstick())
    assert render(table).splitlines()[3] == (
        "| 1000 | **1.00 ± 0.10** | **1.00 ± 0.10** | 2.00 ± 0.10 | 2.00 ± 0.10 |"
    )


def test_many_configurations_are_rows(tmp_path: Path) -> None:
    cells = [cell for cell in records.zoo((5, 10)) if (cell.sampler, cell.steps) != ("ddpm", 5)]
    cells += [Cell("heun", 8, {}, "karras", nfe=15, nfe_asked=16)]
    found = points(
        tmp_path, cells, of=lambda cell: records.record(cell, value=float(cell.steps or 1))
    )
    (table,) = tables.by_nfe(found, Pooled(1.0, 1), Scale(), Yardstick())
    lines = render(table).splitlines()
    assert table.title == ""
    assert lines[0] == "| Configuration | NFE 5 | NFE 10 | NFE 16 (15 NFE) |"
    assert "| ddim | 5.00 | 10.0 |  |" in lines
    assert "| ddpm |  | 10.0 |  |" in lines
    assert "| heun (karras) |  |  | 8.00 |" in lines
    assert "| exact draws | 1.00 | 1.00 | 1.00 |" in lines
    assert "rk45" not in render(table)  # has no budget
    assert not list(tables.by_eta(found, None, Scale(), Yardstick()))  # its rows stand here already


def test_tolerances_have_a_table_of_their_own(tmp_path: Path) -> None:
    tolerances = ((0.1, 33.4), (0.01, 61.0), (0.001, 1234.56))
    cells = [Cell("rk45", 2, {"rtol": rtol}, counted=counted) for rtol, counted in tolerances]
    found = points(
        tmp_path, cells, of=lambda cell: None if cell is cells[1] else records.record(cell, value=2)
    )
    (table,) = tables.by_tolerance(found, Scale())
    assert table.title == "Samplers that choose their own steps"
    assert render(table).splitlines() == [
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
    assert not list(tables.by_nfe(found, None, Scale(), Yardstick()))
    assert not list(tables.by_tolerance(points(tmp_path / "no", [Cell("ddim", 5)]), Scale()))


def test_references_are_listed_with_the_floor(tmp_path: Path) -> None:
    study = frame.read(records.make(tmp_path, records.zoo((5,))))
    (setting,) = study.settings
    exact, flows = frame.floor(setting, "fd_cifar"), frame.flows(setting, "fd_cifar")
    (table,) = tables.references(exact, flows, Scale(-6), Yardstick())
    assert table.title == "References"
    assert render(table).splitlines()[:5] == [
        "| Reference | Value | Times the floor |",
        "| :--- | ---: | ---: |",
        "| exact draws | 13.0 | 1.00 |",
        "| exact flow (logsnr, S = 10) | 14.3 | 1.10 |",
        "| exact flow (uniform, S = 10) | 19.5 | 1.50 |",
    ]
    assert "the two ends of the grid lose" in render(table)
    assert not list(tables.references(exact, [], Scale(), Yardstick()))
    (alone,) = tables.references(None, flows, Scale(-6), Yardstick())
    assert "| exact flow (logsnr, S = 10) | 14.3 | — |" in render(alone)
