from pathlib import Path

from bench.report import frame, yardstick
from bench.report.panels import Panel, arrange
from tests.report import records
from tests.report.records import Cell


def panels(folder: Path, cells: list[Cell], **made: object) -> list[Panel]:
    study = frame.read(records.make(folder, cells, **made))  # type: ignore[arg-type]
    return arrange(study, study.metrics[0], yardstick.of(study, study.metrics[0]))


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
        "configurations (1 of 2)",
        "configurations (2 of 2)",
    ]
    assert [len(panel.points) for panel in many] == [5, 5]


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


def test_many_lines_of_one_spacing_are_split_by_family_under_an_overview(tmp_path: Path) -> None:
    overview, *found = panels(tmp_path, records.zoo((5, 10)), families=records.FAMILIES)
    assert [(panel.title, panel.points["rank"].nunique()) for panel in found] == [
        ("implicit and ancestral", 6),
        ("classical", 6),
        ("exponential (1 of 2)", 4),
        ("exponential (2 of 2)", 5),
    ]
    assert all(panel.quiet.empty for panel in found)
    assert all(panel.names == "label" for panel in [overview, *found])
    assert overview.title == "all configurations"
    best = {rank for place in overview.front for rank in place.points["rank"]}
    assert set(overview.points["rank"]) == best
    together = {*overview.points["rank"], *overview.quiet["rank"]}
    assert together == {rank for panel in found for rank in panel.points["rank"]}
    assert not best & set(overview.quiet["rank"])


def test_records_from_before_families_are_split_in_the_order_of_the_sweep(tmp_path: Path) -> None:
    found = panels(tmp_path, records.zoo((5, 10)))
    assert [panel.title for panel in found] == [
        "all configurations",
        *(f"configurations ({number} of 3)" for number in (1, 2, 3)),
    ]


def test_the_front_is_that_of_the_setting_in_each_of_its_panels(tmp_path: Path) -> None:
    found = panels(tmp_path / "table", records.ddim_table())
    fronts = [[place.nfe for place in panel.front] for panel in found]
    assert fronts[0] == fronts[1]
    assert fronts[0][-1] == 1000
    (alone,) = panels(tmp_path / "alone", [Cell("ddim", n) for n in (5, 10)])
    assert alone.front == []  # of one line, the front is the line


def test_a_flow_stands_where_its_spacing_does(tmp_path: Path) -> None:
    found = panels(tmp_path, records.zoo((5, 10)), families=records.FAMILIES)
    flows = {panel.title: [flow.grid for flow in panel.flows] for panel in found}
    assert flows["all configurations"] == ["logsnr", "uniform"]
    assert flows["implicit and ancestral"] == ["logsnr", "uniform"]
    assert flows["classical"] == ["logsnr"]


def test_values_without_a_place_on_a_logarithmic_axis_leave_the_front(tmp_path: Path) -> None:
    cells = [Cell(f"s{n}", steps) for n in range(20) for steps in (5, 10)]
    found = panels(
        tmp_path, cells, of=lambda cell: records.record(cell, value=5.0 - (cell.steps or 0))
    )
    assert found == []
    found = panels(
        tmp_path, cells, of=lambda cell: records.record(cell, value=6.0 - (cell.steps or 0))
    )
    assert [place.nfe for place in found[0].front] == [5]
