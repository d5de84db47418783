from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import frame, names
from tests.report import records
from tests.report.records import Cell


def labels(folder: Path, cells: list[Cell]) -> list[str]:
    study = frame.read(records.make(folder, cells))
    return list(study.cells["label"].unique())


def test_a_label_says_only_what_varies(tmp_path: Path) -> None:
    alone = [Cell("ddim", n, {"eta": 0.0}) for n in (5, 10)]
    assert labels(tmp_path / "alone", alone) == ["ddim"]
    solver = {"order": 2, "lower-order-final": "lt10"}
    cells = [
        records.exact(),
        *(Cell("ddim", 5, {"eta": eta}) for eta in (0.0, 0.2, "sigma-hat")),
        Cell("dpm-solver++", 5, solver, "logsnr"),
    ]
    assert labels(tmp_path / "two", cells) == [
        "exact",
        "ddim eta=0 (uniform)",
        "ddim eta=0.2 (uniform)",
        "ddim eta=sigma-hat (uniform)",
        "dpm-solver++ 2 (logsnr)",
    ]


def test_a_label_says_how_grids_differ(tmp_path: Path) -> None:
    cells = [
        Cell("euler", 5, {}, "karras", {"rho": 7.0}),
        Cell("euler", 5, {}, "karras", {"rho": 3.5}),
        Cell("euler", 5, {}, "karras", {"rho": 7.0}, final="denoise"),
    ]
    assert labels(tmp_path, cells) == [
        "euler final=zero (karras rho=7)",
        "euler final=zero (karras rho=3.5)",
        "euler final=denoise (karras rho=7)",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), ("0.0", "0"), ("sigma-hat", "sigma-hat"), (None, ""), (pd.NA, "")),
        *((True, "true"), (np.bool_(False), "false")),
    ],
)
def test_plain_writes_a_parameter_as_people_do(value: object, text: str) -> None:
    assert names.plain(value) == text


def test_many_names_leave_out_what_most_share(tmp_path: Path) -> None:
    assert labels(tmp_path, records.zoo((5,))) == [
        "exact",
        *("ddim", "ddim eta=0.5", "ddim eta=1", "ddpm", "euler", "heun"),
        *(
            "ab 2",
            "ab 3",
            "ab 4",
            "deis",
            "unipc variant=bh1",
            "unipc variant=bh2",
            "dpm-solver 2",
            "dpm-solver 3",
        ),
        *("dpm-solver++ 2", "dpm-solver++ 3", "dpm-solver++ 2 eta=1"),
        *("dpm-solver++ 2 method=singlestep", "ddim (uniform)", "ddim (quadratic)"),
        *("rk45 (linspace)", "exact-flow", "exact-flow (uniform)"),
    ]
    assert names.usual_grid(frame.read(tmp_path).cells) == "logsnr"


def test_what_half_have_is_not_usual_and_an_absent_value_takes_no_other_s_name(
    tmp_path: Path,
) -> None:
    half = [Cell(f"s{n}", 5, {"p": n % 2}, f"grid{n % 2}") for n in range(10)]
    half += [Cell("s0", 5, {"p": 1}, "grid0"), Cell("s1", 5, {"p": 0}, "grid1")]
    found = labels(tmp_path / "half", half)
    assert {"s0 p=0 (grid0)", "s0 p=1 (grid0)", "s1 p=1 (grid1)", "s1 p=0 (grid1)"} <= set(found)
    assert names.usual_grid(frame.read(tmp_path / "half").cells) is None
    absent = [*(Cell("edm", 5, {"s-max": 9.0, "n": n}) for n in range(9)), Cell("edm", 5, {"n": 0})]
    assert len(set(labels(tmp_path / "absent", absent))) == 10


def test_tolerances_make_one_configuration_only_where_calls_are_counted(tmp_path: Path) -> None:
    tolerances = [{"rtol": rtol, "atol": 0.01, "kind": "a"} for rtol in (0.1, 0.001)]
    free = [
        Cell("rk45", 2, params, counted=50.0 + place) for place, params in enumerate(tolerances)
    ]
    other = Cell("rk45", 2, {**tolerances[0], "kind": "b"}, counted=60.0)
    fixed = [Cell("newton", 5, params) for params in tolerances]
    records.make(
        tmp_path,
        [*free, other, *fixed],
        of=lambda cell: None if cell is free[1] else records.record(cell),
    )
    cells = frame.read(tmp_path).cells
    assert list(cells["rank"]) == [0, 0, 1, 2, 3]
    assert list(cells["line"]) == [
        *("rk45 kind=a", "rk45 kind=a", "rk45 kind=b"),
        *("newton rtol=0.1", "newton rtol=0.001"),
    ]
    words = "rtol 0.1, atol 0.01"
    assert cells["tolerance"].fillna("").tolist() == [words, "rtol 0.001, atol 0.01", words, "", ""]
    assert cells["budget"].fillna(-1).tolist() == [-1, -1, -1, 5, 5]
