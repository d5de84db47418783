from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench import influences
from bench.report import frame, plots, sections, text
from bench.report.content import Picture
from bench.report.markdown import Scale
from bench.report.pooled import Pooled
from bench.report.summary import summary
from bench.report.yardstick import Yardstick
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

NOTHING = Picture(None, "No picture.")


def said(folder: Path, values: dict[tuple[str, int], float], floor: float | None) -> list[str]:
    cells = [Cell(sampler, steps) for sampler, steps in values]
    records.make(
        folder, cells, of=lambda cell: records.record(cell, value=values[cell.sampler, cell.steps])
    )
    exact = None if floor is None else Pooled(floor, 1)
    points = frame.points(frame.read(folder).cells, "fd_cifar")
    return list(summary(points, exact, Scale(), Yardstick()))


def report(folder: Path) -> str:
    study = frame.read(folder)
    made = dict.fromkeys(study.metrics, plots.Pictures(NOTHING, NOTHING, NOTHING))
    return text.report(study, sections.every(study), made, NOTHING)


def test_summary_names_the_lowest_and_the_first_near_the_floor(tmp_path: Path) -> None:
    values = {("ddim", 5): 13.4, ("heun", 5): 4.0, ("ddim", 10): 2.5, ("heun", 10): 1.9}
    assert said(tmp_path, {**values, ("euler", 20): 1.0}, 1.0) == [
        "At 5 NFE, **heun** has the lowest value, 4.00 (ddim needs 10 NFE for that); next is ddim, "
        "13.4, 3.4 times as high.",
        "At 10 NFE, **heun** has the lowest value, 1.90; next is ddim, 2.50, 1.32 times as high.",
        "At 20 NFE, **euler** has the only value, 1.00.",
        "The floor is 1.00, the value of exact draws of the model. At most 2 times that: "
        "heun, first at 10 NFE; euler, first at 20 NFE; no other.",
        "Every value is a single run without an error bar: small differences may be noise.",
    ]


def test_summary_says_how_many_calls_the_baseline_needs_for_the_best(tmp_path: Path) -> None:
    values = {("heun", 5): 4.0, ("ddim", 5): 9.0, ("ddim", 20): 5.0}
    (first, *_) = said(tmp_path / "never", values, None)
    assert "4.00 (ddim does not come there by 20 NFE); next is ddim" in first
    (first, *_) = said(tmp_path / "there", {**values, ("ddim", 50): 4.0}, None)
    assert "4.00 (ddim needs 50 NFE for that); next is ddim" in first
    alone = {("heun", 5): 4.0, ("ddim", 5): 9.0}
    (first, *_) = said(tmp_path / "alone", alone, None)
    assert "(" not in first


def test_summary_makes_no_claim_that_it_cannot_hold(tmp_path: Path) -> None:
    sentences = said(tmp_path, {("ddim", 5): 4.0, ("heun", 5): 4.001}, 1.0)
    assert sentences[0] == "At 5 NFE, **ddim** has the lowest value, 4.00; next is heun, 4.00."
    assert sentences[1].endswith("No configuration comes below 2 times that.")
    together = " ".join(sentences)
    assert not any(word in together for word in ("better", "best", "significant", "wins"))


def test_summary_says_what_really_ran(tmp_path: Path) -> None:
    cell = Cell("heun", 5, nfe=9, nfe_asked=10)
    points = frame.points(frame.read(records.make(tmp_path, [cell])).cells, "fd_cifar")
    assert next(summary(points, None, Scale(-3), Yardstick())).startswith(
        "At 10 NFE, **heun** (with 9)"
    )


def test_summary_of_many_samplers_stays_short(tmp_path: Path) -> None:
    near = {(f"s{n}", 10 + n // 4): 1.5 for n in range(12)}
    last = said(tmp_path, {**near, ("bad", 5): 9.0}, 1.0)[-2]
    assert last == (
        "The floor is 1.00, the value of exact draws of the model. At most 2 times that: "
        "s0, s1, s2 and s3, first at 10 NFE; s4 and s5, first at 11 NFE; 6 more by 12 NFE; "
        "no other."
    )


def test_who_chooses_its_own_steps_wins_no_budget_but_may_come_near_the_floor(
    tmp_path: Path,
) -> None:
    cells = [Cell("ddim", 33), Cell("rk45", 2, {"rtol": 0.1}, counted=33.4)]
    cells.append(Cell("exact-flow", 10, {"tolerance": 1e-4}, counted=33.0))
    values = {"ddim": 4.0, "rk45": 1.5, "exact-flow": 1.0}
    records.make(tmp_path, cells, of=lambda cell: records.record(cell, value=values[cell.sampler]))
    points = frame.points(frame.read(tmp_path).cells, "fd_cifar")
    assert list(summary(points, Pooled(1.0, 1), Scale(), Yardstick()))[:2] == [
        "At 33 NFE, **ddim** has the only value, 4.00.",
        "The floor is 1.00, the value of exact draws of the model. At most 2 times that: "
        "rk45, first at 33.4 NFE; no other.",
    ]


def test_summary_of_nothing(tmp_path: Path) -> None:
    records.make(tmp_path, [Cell("ddim", 5)], of=lambda _: None)
    points = frame.points(frame.read(tmp_path).cells, "fd_cifar")
    assert list(summary(points, None, Scale(), Yardstick())) == [
        "No cell of a sampler has a value yet."
    ]


def test_a_caption_holds_what_makes_numbers_comparable(tmp_path: Path) -> None:
    cells = [Cell("ddim", 5, {}, "trailing", seed=seed) for seed in (0, 3)]

    def of(cell: Cell) -> Result:
        done = records.record(cell)
        dirty = {"commit": "f" * 40, "dirty": True}
        return replace(done, provenance=done.provenance | (dirty if cell.seed else {}))

    study = frame.read(records.make(tmp_path, cells, of=of))
    assert text.caption(study, study.settings[0], "fd_cifar", Scale(-3)) == (
        "fd_cifar × 10⁻³, mean over seeds ± one standard error, from the spread over seeds; lower "
        "is better. 5,000 samples a cell; reference cifar10-mixture; model cifar10-mixture "
        "(schedule vp-linear); spacing trailing; seeds 0, 3; commits 0123456789, ffffffffff "
        "(with uncommitted changes)."
    )


def test_a_caption_names_the_spacing_that_names_leave_out(tmp_path: Path) -> None:
    study = frame.read(records.make(tmp_path, records.zoo((5,))))
    found = text.caption(study, study.settings[0], "fd_cifar", Scale())
    assert "; spacing logsnr where none is named; " in found


def test_references_are_no_samplers(tmp_path: Path) -> None:
    found = report(records.make(tmp_path, records.zoo((5,))))
    assert "Sweep **quickstart**: 10 samplers in 21 configurations; 25 of 25 cells done." in found
    assert "**exact-flow" not in found
    assert "| rk45 (linspace) | rk45 | atol=0.01, rtol=0.1 or 0.001 | linspace | zero |" in found
    assert "| exact-flow (uniform) | exact-flow | tolerance=0.0001 | uniform | zero |" in found


def test_an_author_s_notes_stand_as_written_before_the_numbers(tmp_path: Path) -> None:
    study = frame.read(records.make(tmp_path, [Cell("ddim", 5)]))
    notes = "One | two.\n\n*Three* and <b>four</b>."
    made = dict.fromkeys(study.metrics, plots.Pictures(NOTHING, NOTHING, NOTHING))
    said = "## Notes\n\n*By an author; all below is made from the records.*\n\n" + notes
    parts = sections.every(study)
    found = text.report(study, parts, made, NOTHING, notes)
    assert f"(table.csv).\n\n{said}\n\n## fd_cifar\n" in found
    assert found.replace(f"{said}\n\n", "") == text.report(
        study, sections.every(study), made, NOTHING
    )
    assert "Notes" not in text.report(study, parts, made, NOTHING)


def test_the_report_opens_with_the_question_and_the_state(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, {"eta": 0.0}) for n in (5, 10, 20)]
    outcomes = {5: records.record(cells[0]), 10: records.failure(cells[1], "boom"), 20: None}
    records.make(tmp_path, cells, of=lambda cell: outcomes[cell.steps or 0])
    assert report(tmp_path).splitlines()[:3] == [
        "# Does DDIM's deterministic limit still win on a coarse grid?",
        "",
        "Sweep **quickstart**: 1 sampler in 1 configuration; 1 of 3 cells done, 1 failed, "
        "1 not computed yet. Every cell at full precision: [table.csv](table.csv).",
    ]


def test_every_parameter_stands_in_the_list_of_configurations(tmp_path: Path) -> None:
    params = {"order": 2, "lower-order-final": "lt10", "thresholding": False}
    cells = [Cell("dpm-solver++", 5, params, "karras", {"rho": 7.0}, final="denoise")]
    assert (
        "| dpm-solver++ 2 | dpm-solver++ | lower-order-final=lt10, order=2, thresholding=false "
        "| karras rho=7 | denoise |"
    ) in report(records.make(tmp_path, cells))


def test_provenance(tmp_path: Path) -> None:
    found = report(records.make(tmp_path, records.quickstart()))
    for line in (
        "| Results | 25 records: 87.5 s sampling, 31.2 s features, 125 s in all |",
        "| Numerics | cpu, float32, batches of 500, 1 thread (25 cells) |",
        "| Hosts | node1 |",
        "| Versions | bench 0.1.0, python 3.11.9, torch 2.9.0, numpy 2.3.0 |",
        "| Commits | 0123456789 |",
        "| Model digest | 77aa |",
        "| fd_cifar: extractor digest | 9a70 |",
        "| fd_cifar: reference digest | 4e1d |",
        "bench run sweeps/quickstart.yaml",
    ):
        assert line in found.splitlines()


def test_numbers_that_only_repeat_are_folded(tmp_path: Path) -> None:
    table = report(records.make(tmp_path / "table", records.ddim_table()))
    assert table.index("| η |") < table.index("<details>") < table.index("| NFE | ddim")
    quick = report(records.make(tmp_path / "quick", records.quickstart()))
    assert "<details>" not in quick
    assert quick.index("| NFE | ddim") < quick.index("| η |")


def test_different_sample_counts_never_share_a_table(tmp_path: Path) -> None:
    cells = [replace(cell, samples=n) for n in (1000, 5000) for cell in records.quickstart((5,))]
    found = report(records.make(tmp_path, cells))
    first, second = found.split("### ")[1:3]
    assert first.startswith("1,000 samples\n")
    assert second.startswith("5,000 samples\n")
    assert "5,000" not in first
    assert first.count("\n| 5 |") == second.count("\n| 5 |") == 1


def test_text_of_people_stays_text(tmp_path: Path) -> None:
    evil = "Ünï, <script>alert(1)</script> | `c`\n```\n## x"
    cells = [
        Cell(evil, n, {"eta": evil}, model={"kind": "diffusers", "path": evil}) for n in (5, 10)
    ]
    records.make(
        tmp_path,
        cells,
        question=evil,
        name=evil,
        of=lambda cell: records.record(
            cell,
            value=1.0,
            **({"status": "failed", "error": evil, "metrics": {}} if cell.steps == 5 else {}),
        ),
    )
    found = report(tmp_path)
    fences = [number for number, line in enumerate(found.splitlines()) if line.startswith("```")]
    assert len(fences) == 2  # one block, of the commands, in which nothing needs escaping
    assert "<script" not in "\n".join(found.splitlines()[: fences[0]])
    outside = found.splitlines()[: fences[0]]
    headings = [line for line in outside if line.startswith("#")]
    assert [line.split()[0] for line in headings] == ["#", "##", "##", "##", "##"]
    shown = "Ünï, &lt;script&gt;alert(1)&lt;/script&gt; \\| \\`c\\` \\`\\`\\` \\#\\# x"
    assert headings[0] == f"# {shown}"
    rows = [line for line in found.splitlines() if line.startswith("| Ünï")]
    assert [len(line.replace("\\|", "").split("|")) for line in rows] == [7]


@pytest.mark.parametrize(
    ("sure", "seeds", "told"),
    [
        ((), (0,), "; "),
        ((0,), (0,), " ± one standard error, from the images; "),
        ((0, 1), (0, 1), ", mean over seeds ± one standard error, from the images; "),
        ((0,), (0, 1), ", mean over seeds ± one standard error, from the spread over seeds; "),
    ],
)
def test_a_caption_says_what_the_error_is(
    tmp_path: Path, sure: tuple[int, ...], seeds: tuple[int, ...], told: str
) -> None:
    cells = [Cell("ddim", 5, seed=seed) for seed in seeds]
    records.make(
        tmp_path,
        cells,
        of=lambda cell: records.record(
            cell, error=0.1 if cell.seed in sure else None, entry={"better": "higher"}
        ),
    )
    study = frame.read(tmp_path)
    found = text.caption(study, study.settings[0], "fd_cifar", Scale())
    assert found.startswith(f"fd_cifar{told}higher is better. 5,000 samples a cell; ")


def test_cautions_stand_below_the_caption(tmp_path: Path) -> None:
    note = "the reference is of only 100 images"
    cells = [Cell("ddim", 5, samples=10_000), Cell("ddim", 10, samples=10_000)]

    def of(cell: Cell) -> Result:
        return records.record(cell, entry={"notes": [note] if cell.steps == 5 else []})

    found = report(records.make(tmp_path, cells, of=of))
    assert f"commit 0123456789.*\n\nCautions:\n\n- {note}: ddim at 5 NFE.\n\n| NFE |" in found
    assert found.count(note) == 1
    without = report(records.make(tmp_path / "none", cells, of=records.record))
    assert "Cautions" not in without


def with_errors(
    folder: Path,
    values: dict[tuple[str, int], tuple[float, float | None]],
    exact: Pooled | None = None,
    *,
    higher: bool = False,
) -> list[str]:
    cells = [Cell(sampler, steps) for sampler, steps in values]

    def of(cell: Cell) -> Result:
        value, error = values[cell.sampler, cell.steps or 0]
        return records.record(cell, value=value, error=error)

    points = frame.points(frame.read(records.make(folder, cells, of=of)).cells, "fd_cifar")
    return list(summary(points, exact, Scale(), Yardstick(higher)))


def test_the_best_is_called_so_only_beyond_the_noise(tmp_path: Path) -> None:
    values = {
        ("ddim", 5): (13.4, 0.12), ("heun", 5): (4.0, 0.11),
        ("ddim", 10): (2.5, 0.2), ("heun", 10): (2.4, 0.2), ("euler", 10): (2.6, 0.2),
        ("plms", 10): (9.0, 0.2),
        ("ddim", 20): (1.5, 0.1), ("heun", 20): (1.2, None),
        ("ddim", 50): (1.1, 0.1),
    }  # fmt: skip
    assert with_errors(tmp_path, values) == [
        "At 5 NFE, **heun** is best, 4.00 ± 0.11 (ddim needs 10 NFE for that); next is ddim, "
        "13.40 ± 0.12, 3.4 times as high.",
        "At 10 NFE, heun, ddim and euler cannot be told apart: 2.40 ± 0.20 to 2.60 ± 0.20.",
        "At 20 NFE, **heun** has the lowest value, 1.20 (ddim needs 50 NFE for that); next is "
        "ddim, 1.50 ± 0.10, 1.25 times as high.",
        "At 50 NFE, **ddim** has the only value, 1.10 ± 0.10.",
        "1 of 9 values has no error bar: where one of them is compared, small differences may be "
        "noise.",
    ]


def test_many_that_cannot_be_told_apart_are_cut(tmp_path: Path) -> None:
    values = {(f"s{n}", 5): (1.0 + n / 100, 0.2) for n in range(9)}
    assert with_errors(tmp_path, values)[0] == (
        "At 5 NFE, s0, s1, s2, s3, s4, s5 and 3 more cannot be told apart: 1.00 ± 0.20 to "
        "1.08 ± 0.20."
    )


def test_where_higher_is_better(tmp_path: Path) -> None:
    values = {
        ("ddim", 5): (3.2, 0.1), ("heun", 5): (4.5, 0.1), ("ddim", 10): (7.8, 0.1),
        ("heun", 10): (7.9, 0.1),
    }  # fmt: skip
    found = with_errors(tmp_path / "a", values, Pooled(9.2, 1, error=0.1), higher=True)
    assert found == [
        "At 5 NFE, **heun** is best, 4.50 ± 0.10 (ddim needs 10 NFE for that); next is ddim, "
        "3.20 ± 0.10, 0.71 times as high.",
        "At 10 NFE, heun and ddim cannot be told apart: 7.90 ± 0.10 to 7.80 ± 0.10.",
        "The ceiling is 9.20 ± 0.10, the value of exact draws of the model. At least 0.5 times "
        "that: ddim and heun, first at 10 NFE.",
    ]
    low = with_errors(tmp_path / "b", values, Pooled(99.0, 1), higher=True)
    assert low[-1].endswith("No configuration comes above 0.5 times that.")


@pytest.mark.parametrize("floor", [-0.01, 0.0])
def test_a_floor_that_is_no_multiple_of_anything(tmp_path: Path, floor: float) -> None:
    found = with_errors(tmp_path, {("ddim", 5): (-0.02, 0.05)}, Pooled(floor, 1, error=0.05))
    assert found == [
        "At 5 NFE, **ddim** has the only value, -0.020 ± 0.050.",
        f"The floor is {floor:.3f} ± 0.050, the value of exact draws of the model.",
    ]


def test_provenance_says_how_differences_were_judged(tmp_path: Path) -> None:
    cells = [Cell(name, 5, samples=4) for name in ("ddim", "heun")]
    folder = records.make(tmp_path, cells, of=lambda cell: records.record(cell, error=0.1))
    line = "| fd_cifar: differences | {} |"
    assert line.format("unpaired: no influences beside the records") in report(folder)
    for cell in cells:
        influences.write(folder, records.record(cell), {"fd_cifar": np.array([1.0, -1, 1, -1])})
    assert line.format("paired by seed") in report(folder)
    assert "fd_cifar: differences" not in report(records.make(tmp_path / "old", cells))
