"""Presets: what each stands for, what a row beside it changes, and what goes wrong."""

import re

import pytest

from bench import presets, sweep
from bench.diffusion.spacing import SPACINGS
from bench.errors import SweepError
from bench.presets import PRESETS
from bench.samplers import REGISTRY
from bench.sweep import Cell
from bench.yaml_lines import one_line

HEAD = """\
# Which one?
model: {kind: mixture, name: cifar10-mixture, schedule: SCHEDULE}
samples: 100
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
"""

# The calls an image that the tables of the papers count, and the schedule of their networks.
PUBLISHED = {
    # At S = 50 and 100 without the duplicates of quadratic, which are calls without effect.
    "ddim-paper": ([10, 20, 49, 96], "vp-linear"),
    "ddpm-small": ([1000], "vp-linear"),
    "ddpm-large": ([1000], "vp-linear"),
    "sde-paper-ancestral": ([1000], "vp-linear"),
    "sde-paper-reverse-diffusion": ([1000], "vp-linear"),
    "sde-paper-pc": ([2000], "vp-linear"),
    "edm-paper": ([35], "edm"),
    "edm-paper-churn-vp": ([35, 63, 127, 255, 511, 1023], "edm"),
    "edm-paper-churn-ve": ([35, 63, 127, 255, 511, 1023], "edm"),
    "restart-paper": ([43], "edm"),
    "dpm-solver-paper": ([10, 12, 15, 20], "vp-linear"),
    "dpm-solver-pp-paper": ([5, 6, 8, 10, 12, 15, 20, 25], "edm"),
    "deis-paper": ([5, 10, 15, 20, 50], "vp-linear"),
    "unipc-paper": ([5, 6, 8, 10], "vp-linear"),
    "pndm-paper": ([19, 29, 59, 109, 259], "vp-linear"),
    "diff-sampler-euler": ([3, 4, 5, 6, 7, 8, 9, 10], "edm"),
    "diff-sampler-heun": ([4, 6, 8, 10], "edm"),
    "diff-sampler-dpm-solver-2": ([4, 6, 8, 10], "edm"),
    "diff-sampler-dpm-solver-pp": ([3, 4, 5, 6, 7, 8, 9, 10], "edm"),
    "diff-sampler-unipc": ([3, 4, 5, 6, 7, 8, 9, 10], "edm"),
    "diff-sampler-ipndm": ([3, 4, 5, 6, 7, 8, 9, 10], "edm"),
    "consistency-paper": ([2], "edm"),
}


def parse(*rows: str, schedule: str = "vp-linear") -> sweep.Sweep:
    lines = "".join(f"  - {row}\n" for row in rows)
    return sweep.parse(HEAD.replace("SCHEDULE", schedule) + lines, "a.yaml")


def of(*rows: str, schedule: str = "vp-linear") -> list[Cell]:
    return parse(*rows, schedule=schedule).cells()[1:]


def message(*rows: str, schedule: str = "vp-linear") -> str:
    with pytest.raises(SweepError) as caught:
        parse(*rows, schedule=schedule)
    return str(caught.value)


def test_every_preset_is_held_against_its_table() -> None:
    assert PUBLISHED.keys() == PRESETS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_makes_the_calls_that_its_paper_counts(name: str) -> None:
    calls, schedule = PUBLISHED[name]
    cells = of(f"preset: {name}", schedule=schedule)
    assert sorted(cell.nfe or 0 for cell in cells) == calls


@pytest.mark.parametrize("name", PRESETS)
def test_names_what_there_is_and_cites_where_it_is_from(name: str) -> None:
    preset = PRESETS[name]
    assert preset.name == name
    assert re.search(r"20\d\d, arXiv:\d{4}\.\d{5}, .*(table|section)", preset.paper)
    assert preset.summary.endswith(".")
    sampler, *params = preset.sampler
    assert sampler == "sampler"
    assert set(params) <= set(REGISTRY[str(preset.sampler["sampler"])].params)
    spacing, *params = preset.spacing
    assert spacing == "spacing"
    assert set(params) <= set(SPACINGS[str(preset.spacing["spacing"])].params)
    assert set(preset.rest) <= {"final", "steps", "nfe", "unreachable"}


def test_no_name_is_taken_twice() -> None:
    assert len(presets._ALL) == len(PRESETS)
    assert not any("preset" in rule.params for rule in (*REGISTRY.values(), *SPACINGS.values()))


@pytest.mark.parametrize("name", PRESETS)
def test_its_plain_keys_are_the_same_cells(name: str) -> None:
    _, schedule = PUBLISHED[name]
    cells = of(f"preset: {name}", schedule=schedule)
    again = of(one_line(PRESETS[name].keys), schedule=schedule)
    assert [cell.key for cell in again] == [cell.key for cell in cells]
    assert [cell.nfe_asked for cell in again] == [cell.nfe_asked for cell in cells]


@pytest.mark.parametrize(
    ("row", "plain"),
    [
        (
            "{preset: ddim-paper, eta: [0, 1], steps: 5}",
            "{sampler: ddim, eta: [0, 1], spacing: quadratic, final: zero, steps: 5}",
        ),
        (
            "{eta: 0.5, preset: ddim-paper, nfe: [5, 10], final: denoise}",
            "{sampler: ddim, eta: 0.5, spacing: quadratic, final: denoise, nfe: [5, 10]}",
        ),
        (
            "{preset: ddpm-large, spacing: trailing, steps: 7}",
            "{sampler: ddpm, variance: large, clip: true, spacing: trailing, steps: 7}",
        ),
        (  # another sampler has parameters of its own
            "{preset: ddim-paper, sampler: heun}",
            "{sampler: heun, spacing: quadratic, final: zero, steps: [10, 20, 50, 100]}",
        ),
        (
            "{preset: ddim-paper, sampler: ddim}",
            "{sampler: ddim, eta: 0, spacing: quadratic, final: zero, steps: [10, 20, 50, 100]}",
        ),
        (
            "{preset: ddim-paper, spacing: karras, rho: 5}",
            "{sampler: ddim, eta: 0, spacing: karras, rho: 5, final: zero, "
            "steps: [10, 20, 50, 100]}",
        ),
    ],
)
def test_keys_beside_it_take_the_place_of_its_own(row: str, plain: str) -> None:
    found = parse(row)
    assert {cell.key for cell in found.cells()[1:]} == {cell.key for cell in of(plain)}
    [expansion] = found.presets
    assert {cell.key for cell in of(one_line(expansion.row))} == {cell.key for cell in of(plain)}


def test_a_sweep_tells_what_became_of_its_presets() -> None:
    rows = (
        "sampler: heun\n    steps: 5",
        "{preset: ddim-paper, eta: 1, nfe: 10}",
        "preset: ddpm-large",
    )
    second, third = parse(*rows).presets
    assert second.place == "line 9, grid[1]"
    assert second.preset is PRESETS["ddim-paper"]
    assert one_line(second.row) == (
        "{sampler: ddim, eta: 1, spacing: quadratic, final: zero, nfe: 10}"
    )
    assert second.replaced == {"eta": 0, "steps": [10, 20, 50, 100]}
    assert third.place == "line 10, grid[2]"
    assert third.replaced == {}


def test_its_keys_vary_faster_than_those_of_the_row() -> None:
    cells = of("{eta: [0, 1], preset: ddim-paper}")
    assert [(cell.params["eta"], cell.steps) for cell in cells] == [
        (eta, steps) for eta in (0, 1) for steps in (10, 20, 50, 100)
    ]


def test_a_preset_is_left_as_it_is_by_the_sweeps_that_use_it() -> None:
    before = PRESETS["ddim-paper"].keys
    parse("preset: ddim-paper", "{preset: ddim-paper, steps: [3]}")
    assert PRESETS["ddim-paper"].keys == before


SHOWS = f'"bench list presets" shows all {len(PRESETS)}.'


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (
            "{preset: ddim-papr}",
            f'there is no preset "ddim-papr". Did you mean "ddim-paper"? {SHOWS}',
        ),
        ("{preset: zebra, steps: 5}", f'there is no preset "zebra". {SHOWS}'),
        ("{preset: }", "grid[0].preset is empty; expected the name of a preset."),
        ("{preset: 5}", "grid[0].preset is 5; expected the name of a preset."),
        (
            "{preset: [ddim-paper, ddpm-large]}",
            "grid[0].preset is a list; expected the name of a preset. Write a row for each.",
        ),
        (
            "{preset: ddim-paper, etta: 1}",
            'there is no key "etta" in grid[0]. Did you mean "eta"? Parameters: ddim takes eta; '
            "quadratic takes none.",
        ),
        (
            "{preset: ddim-paper, spacing: all, steps: [1000, 10]}",
            "grid[0].steps[1] is 10; spacing all has 1000 steps here. Leave steps out, or write "
            "1000.",
        ),
        (
            "{sampler: ddim, persets: ddim-paper, steps: 5}",
            'there is no key "persets" in grid[0]. Did you mean "preset"? Parameters: ddim takes '
            "eta; uniform takes none.",
        ),
    ],
)
def test_what_a_person_can_get_wrong(row: str, complaint: str) -> None:
    assert message(row) == f"a.yaml, line 7: {complaint}"


def test_a_misspelt_key_without_a_sampler() -> None:
    assert message("{presett: ddim-paper}") == (
        'a.yaml, line 7: there is no key "presett" in grid[0]. Did you mean "preset"?\n'
        'a.yaml, line 7: the key "sampler" is missing in grid[0]: the name of a sampler.'
    )


def test_a_problem_with_its_own_keys_names_it() -> None:
    assert message(
        "sampler: ddim\n    steps: 5", "{preset: ddim-paper, spacing: all}"
    ) == "\n".join(
        f'a.yaml, line 9: grid[1].steps[{k}] is {steps} (of preset "ddim-paper"); spacing all has '
        "1000 steps here. Leave steps out, or write 1000."
        for k, steps in enumerate([10, 20, 50, 100])
    )
    assert message("preset: ddim-paper", schedule="edm").startswith(
        'a.yaml, line 7: grid[0].spacing: Spacing "quadratic" speaks of trained indices, and edm '
        "has none. Spacings that work: "
    )
