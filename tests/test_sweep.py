import json
from pathlib import Path
from typing import Any

import pytest

from bench import results, samplers, sweep, yaml_lines
from bench.diffusion.spacing import SPACINGS
from bench.errors import SweepError
from bench.metrics.registry import METRICS
from bench.sweep import Cell, Sweep
from bench.sweep_file import Row
from tests.models.test_diffusers import write_folder

SWEEPS = Path(__file__).parents[1] / "sweeps"

HEAD = """\
# Which one?
model: cifar10-mixture
samples: 100
metrics: [fd_cifar]
reference: cifar10-mixture
"""
ROW = "grid: [{sampler: ddim, steps: 5}]\n"


def of(row: str) -> list[Cell]:
    """The cells of one grid row, without the exact draws."""
    return sweep.parse(f"{HEAD}grid:\n  - {row}\n").cells()[1:]


def labels(row: str) -> list[str]:
    return [cell.label for cell in of(row)]


def message(text: str, file: str = "a.yaml") -> str:
    with pytest.raises(SweepError) as raised:
        sweep.parse(text, file)
    return str(raised.value)


def row_message(row: str) -> str:
    return message(f"{HEAD}grid:\n  - {row}\n")


# What a file says, and its defaults.


def test_everything_that_a_file_says() -> None:
    found = sweep.parse(
        """\
# Which one?
name: first
model: cifar10-mixture
samples: 5000
seed: 3
metrics: [fd_cifar, fid]
reference: stats/mine.npz
batch: 100
chunk: 400
grid:
  - {sampler: ddim, eta: 0.5, spacing: trailing, final: sigma-min, steps: 10}
launch: {executor: local, workers: 2, threads: 4, device: cpu}
""",
        "x/a.yaml",
    )
    assert (found.name, found.file, found.question) == ("first", "x/a.yaml", "Which one?")
    assert (found.samples, found.batch, found.chunk) == (5000, 100, 400)
    assert (found.metrics, found.reference) == (("fd_cifar", "fid"), "stats/mine.npz")
    launch = found.launch
    assert (launch.executor, launch.workers, launch.threads, launch.device) == (
        "local",
        2,
        4,
        "cpu",
    )
    model = {"kind": "mixture", "name": "cifar10-mixture", "schedule": "vp-linear"}
    exact, cell = found.cells()
    assert exact.canonical() == {
        "model": model,
        "sampler": "exact",
        "params": {},
        "spacing": None,
        "spacing_params": {},
        "steps": None,
        "final": None,
        "seed": 3,
        "samples": 5000,
    }
    assert cell.canonical() == {
        "model": model,
        "sampler": "ddim",
        "params": {"eta": 0.5},
        "spacing": "trailing",
        "spacing_params": {},
        "steps": 10,
        "final": "sigma-min",
        "seed": 3,
        "samples": 5000,
    }


def test_defaults() -> None:
    found = sweep.parse(HEAD + ROW, "x/coarse-grid.yaml")
    assert (found.name, found.batch, found.chunk) == ("coarse-grid", 500, 1000)
    launch = found.launch
    assert (launch.executor, launch.workers, launch.threads) == ("inline", 1, 1)
    cell = found.cells()[1]
    assert (cell.seed, cell.spacing, cell.final, cell.params) == (0, "uniform", "zero", {"eta": 0})


@pytest.mark.parametrize(
    ("given", "batch", "chunk"),
    [
        ("batch: 64", 64, 1024),
        ("batch: 2000", 2000, 2000),
        ("chunk: 1500", 500, 1500),
        ("chunk: 300", 300, 300),
        ("batch: 50\nchunk: 150", 50, 150),
    ],
)
def test_default_of_batch_and_chunk(given: str, batch: int, chunk: int) -> None:
    found = sweep.parse(f"{HEAD}{given}\n{ROW}")
    assert (found.batch, found.chunk) == (batch, chunk)


def test_slurm_keys() -> None:
    launch = sweep.parse(
        f"{HEAD}{ROW}launch: {{executor: slurm, workers: 8, time: 1-02:30:01, mem: 16GB, "
        "gres: gpu:1, cpus: 4, array-parallelism: 2, setup: [module load cuda]}\n"
    ).launch
    assert launch.time == (24 + 2) * 60 + 31
    assert (launch.mem, launch.gres, launch.cpus) == ("16GB", "gpu:1", 4)
    assert (launch.array_parallelism, launch.setup) == (2, ("module load cuda",))


def test_further_options_of_sbatch() -> None:
    text = "{executor: slurm, mail: a@b.c, additional: {reservation: r, nice: 5, exclusive: true}}"
    launch = sweep.parse(f"{HEAD}{ROW}launch: {text}\n").launch
    assert launch.mail == "a@b.c"
    assert launch.additional == {"reservation": "r", "nice": 5, "exclusive": True}


@pytest.mark.parametrize(
    "given", ["{job-name: x}", "{cpus_per_task: 2}", "{nodes: 2}", "{x: false}", "{x: [1]}", "x"]
)
def test_options_of_sbatch_that_are_not_for_additional(given: str) -> None:
    text = f"{HEAD}{ROW}launch: {{executor: slurm, additional: {given}}}\n"
    with pytest.raises(SweepError, match="expected a mapping of further sbatch options, like"):
        sweep.parse(text)


@pytest.mark.parametrize(("written", "minutes"), [("90", 90), ("1:30:00", 90), ("0:00:01", 1)])
def test_time_in_minutes_or_as_a_clock_shows_it(written: str, minutes: int) -> None:
    launch = f"launch: {{executor: slurm, time: {written}}}\n"
    assert sweep.parse(HEAD + ROW + launch).launch.time == minutes


# Axes.


def test_a_list_is_an_axis_and_the_last_one_varies_fastest() -> None:
    assert labels("{sampler: ddim, eta: [0, 1], spacing: [uniform, trailing], steps: [5, 10]}") == [
        "ddim eta=0 spacing=uniform steps=5",
        "ddim eta=0 spacing=uniform steps=10",
        "ddim eta=0 spacing=trailing steps=5",
        "ddim eta=0 spacing=trailing steps=10",
        "ddim eta=1 spacing=uniform steps=5",
        "ddim eta=1 spacing=uniform steps=10",
        "ddim eta=1 spacing=trailing steps=5",
        "ddim eta=1 spacing=trailing steps=10",
    ]
    assert labels("{steps: [5, 10], sampler: [euler, heun], final: [zero, denoise]}") == [
        "euler spacing=uniform steps=5",
        "euler spacing=uniform steps=5 final=denoise",
        "heun spacing=uniform steps=5",
        "heun spacing=uniform steps=5 final=denoise",
        "euler spacing=uniform steps=10",
        "euler spacing=uniform steps=10 final=denoise",
        "heun spacing=uniform steps=10",
        "heun spacing=uniform steps=10 final=denoise",
    ]


def test_seeds_and_models_are_axes() -> None:
    text = HEAD.replace(
        "model: cifar10-mixture",
        "model: [cifar10-mixture, {kind: mixture, name: cifar10-mixture, schedule: vp-cosine}]",
    )
    cells = sweep.parse(text + "seed: [0, 7]\n" + ROW).cells()
    assert [(cell.sampler, cell.model["schedule"], cell.seed) for cell in cells] == [
        ("exact", "vp-linear", 0),
        ("exact", "vp-linear", 7),
        ("exact", "vp-cosine", 0),
        ("exact", "vp-cosine", 7),
        ("ddim", "vp-linear", 0),
        ("ddim", "vp-linear", 7),
        ("ddim", "vp-cosine", 0),
        ("ddim", "vp-cosine", 7),
    ]
    assert cells[1].label == "exact seed=7"


def test_parameters_of_the_spacing() -> None:
    cells = of("{sampler: ddim, spacing: karras, rho: [1, 7], steps: 5}")
    assert [cell.spacing_params["rho"] for cell in cells] == [1.0, 7.0]
    assert cells[0].label == "ddim eta=0 spacing=karras rho=1 steps=5"


def test_times_are_a_list_and_their_axis_is_a_list_of_lists() -> None:
    one = of("{sampler: ddim, spacing: explicit, times: [900, 500, 100]}")
    assert [(cell.spacing_params["times"], cell.steps) for cell in one] == [((900, 500, 100), 3)]
    assert one[0].label == "ddim eta=0 spacing=explicit times=900,500,100 steps=3"
    two = of("{sampler: ddim, spacing: explicit, times: [[900, 500], [800.5]]}")
    assert [(cell.spacing_params["times"], cell.steps) for cell in two] == [
        ((900, 500), 2),
        ((800.5,), 1),
    ]


def test_spacings_that_fix_the_number_of_steps() -> None:
    assert [(cell.steps, cell.nfe) for cell in of("{sampler: ddim, spacing: all}")] == [
        (1000, 1000)
    ]
    assert of("{sampler: ddim, spacing: all, steps: 1000}") == of("{sampler: ddim, spacing: all}")
    assert of("{sampler: ddim, spacing: all, final: sigma-min}")[0].steps == 999
    explicit = of("{sampler: ddim, spacing: explicit, times: [900, 100], final: sigma-min}")
    assert explicit[0].steps == 1


@pytest.mark.parametrize(
    "same",
    [
        "{sampler: ddim, steps: 10, eta: 0}",
        "{sampler: ddim, steps: 10, eta: 0.0}",
        "{sampler: ddim, steps: 10, eta: 0e3}",
        "{sampler: [ddim, ddim], steps: [10, 10], spacing: uniform, final: zero}",
        "{sampler: ddim, nfe: 10}",
    ],
)
def test_identical_cells_are_one(same: str) -> None:
    assert of(same) == of("{sampler: ddim, steps: 10}")


def test_a_cell_that_comes_again_in_another_row_is_left_out() -> None:
    rows = "grid:\n  - {sampler: ddim, steps: [5, 10]}\n  - {sampler: ddim, nfe: [10, 20]}\n"
    cells = sweep.parse(HEAD + rows).cells()
    assert [(cell.steps, cell.nfe_asked) for cell in cells[1:]] == [(5, None), (10, None), (20, 20)]


# Budgets.


def test_a_budget_becomes_the_steps_that_cost_it() -> None:
    cells = of("{sampler: heun, nfe: [9, 19], spacing: trailing}")
    assert [(cell.steps, cell.nfe, cell.nfe_asked) for cell in cells] == [(5, 9, 9), (10, 19, 19)]
    cells = of("{sampler: heun, nfe: [10, 11], final: [sigma-min, denoise], unreachable: skip}")
    assert [(cell.steps, cell.final, cell.nfe) for cell in cells] == [
        (5, "sigma-min", 10),
        (5, "denoise", 11),
    ]


def test_a_budget_counts_what_duplicates_leave() -> None:
    [cell] = of("{sampler: ddim, spacing: quadratic, nfe: 30}")
    assert (cell.steps, cell.steps_effective, cell.nfe, cell.nfe_asked) == (31, 30, 30, 30)
    assert len(cell.grid()) == 30
    [asked] = of("{sampler: ddim, spacing: quadratic, steps: 30}")
    assert (asked.steps, asked.steps_effective, asked.nfe, asked.nfe_asked) == (30, 29, 29, None)


@pytest.mark.parametrize("spacing", ["quadratic", "quadratic-full"])
def test_no_budget_is_missed_between_duplicates(spacing: str) -> None:
    """Against the lengths of all grids, one by one."""
    schedule = of("{sampler: ddim, steps: 5}")[0].grid().schedule
    left = [len(SPACINGS[spacing].times(schedule, steps)) for steps in range(1, 1001)]
    budgets = [20, 29, 56, 57, 300, 500, max(left)]
    cells = of(f"{{sampler: ddim, spacing: {spacing}, nfe: {budgets}}}")
    assert [cell.steps for cell in cells] == [left.index(budget) + 1 for budget in budgets]


def test_unreachable_below() -> None:
    cells = of("{sampler: heun, nfe: [5, 10, 5000], unreachable: below}")
    assert [(cell.steps, cell.nfe, cell.nfe_asked) for cell in cells] == [
        (3, 5, 5),
        (5, 9, 10),
        (1000, 1999, 5000),
    ]


def test_unreachable_skip() -> None:
    assert [cell.nfe for cell in of("{sampler: heun, nfe: [5, 10, 11], unreachable: skip}")] == [
        5,
        11,
    ]


# Cells.


def test_key_is_the_digest_of_the_canonical_json() -> None:
    [cell] = of("{sampler: ddim, steps: 10}")
    # sha256sum of this text, by the command line.
    assert json.dumps(cell.canonical(), sort_keys=True, separators=(",", ":")) == (
        '{"final":"zero","model":{"kind":"mixture","name":"cifar10-mixture",'
        '"schedule":"vp-linear"},"params":{"eta":0.0},"sampler":"ddim","samples":100,"seed":0,'
        '"spacing":"uniform","spacing_params":{},"steps":10}'
    )
    assert cell.key == "652396f09cf9d898"
    assert cell.short == "652396f0"


@pytest.mark.parametrize(
    "row",
    [
        "{sampler: ddim, eta: sigma-hat, steps: 10}",
        "{sampler: dpm-solver++, nfe: 10, spacing: karras, sigma-max: 50}",
        "{sampler: ddim, spacing: explicit, times: [900, 500.5]}",
    ],
)
def test_a_cell_survives_json(row: str) -> None:
    [cell] = of(row)
    again = Cell(**json.loads(json.dumps(cell.canonical())))
    assert again == cell
    assert again.key == cell.key
    assert (again.label, again.nfe) == (cell.label, cell.nfe)
    assert again.grid().points == cell.grid().points
    assert again.nfe_asked is None


def test_exact_draws_cost_no_call_and_come_first() -> None:
    exact = sweep.parse(HEAD + ROW).cells()[0]
    assert (exact.sampler, exact.nfe, exact.steps_effective, exact.label) == (
        "exact",
        0,
        None,
        "exact",
    )


def test_a_cell_knows_its_grid_and_cost() -> None:
    [cell] = of("{sampler: heun, steps: 10, spacing: trailing}")
    assert (len(cell.grid()), cell.steps_effective, cell.nfe) == (10, 10, 19)
    assert cell.grid().points[0].t == 999


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 1), ("samples", 99), ("steps", 11), ("final", "denoise"), ("params", {"eta": 1.0})],
)
def test_everything_that_changes_the_images_changes_the_key(name: str, value: Any) -> None:
    [cell] = of("{sampler: ddim, steps: 10}")
    assert Cell(**{**cell.canonical(), name: value}).key != cell.key


def test_the_digest_of_a_file_is_of_what_a_person_wrote() -> None:
    text = f"{HEAD}grid: [{{preset: ddim-paper, steps: 5}}]\n"
    written = results.digest(yaml_lines.parse(text, "a.yaml").data)
    assert sweep.parse(text).plan()["file_digest"] == written


def test_the_digest_of_a_file_is_of_its_data() -> None:
    digest = sweep.parse(f"{HEAD}grid: [{{sampler: ddim, steps: 5}}]\n").file_digest
    same = f"{HEAD}grid:\n  - steps: 5\n    sampler: ddim\n".replace("100", "1_00")
    assert sweep.parse(f"# In other words\n{same}", "b.yaml").file_digest == digest
    assert sweep.parse(f"{HEAD}grid: [{{sampler: ddim, steps: 6}}]\n").file_digest != digest


def test_plan(tmp_path: Path) -> None:
    text = f"{HEAD}grid:\n  - {{sampler: heun, nfe: 10, unreachable: below}}\n"
    found = sweep.parse(text, "a/b.yaml")
    results.write_plan(tmp_path, found.plan())
    plan = results.read_plan(tmp_path)
    exact, cell = found.cells()
    assert plan["cells"] == [
        {
            "key": exact.key,
            "label": "exact",
            "cell": exact.canonical(),
            "nfe": 0,
            "nfe_asked": None,
            "steps_effective": None,
        },
        {
            "key": cell.key,
            "label": "heun spacing=uniform steps=5",
            "cell": cell.canonical(),
            "nfe": 9,
            "nfe_asked": 10,
            "steps_effective": 5,
        },
    ]
    assert {name: value for name, value in plan.items() if name != "cells"} == {
        "format": results.FORMAT,
        "name": "b",
        "file": "a/b.yaml",
        "file_digest": results.digest(yaml_lines.parse(text, "a/b.yaml").data),
        "question": "Which one?",
        "families": {"heun": "PF-ODE, classical"},
        "metrics": ["fd_cifar"],
        "reference": "cifar10-mixture",
        "batch": 500,
        "chunk": 1000,
        "keep": "nothing",
        "launch": {
            "executor": "inline",
            "workers": 1,
            "threads": 1,
            "device": "auto",
            "compile": False,
            "setup": [],
        },
    }
    assert [Cell(**row["cell"]) for row in plan["cells"]] == found.cells()
    assert len(results.load(tmp_path)) == 2


def test_no_parameter_hides_another_or_a_key_of_the_row() -> None:
    """A row holds the parameters of samplers and spacings side by side."""
    keys = set(Row.model_fields)
    of_spacings = {name for spacing in SPACINGS.values() for name in spacing.params}
    of_samplers = {name for spec in samplers.REGISTRY.values() for name in spec.params}
    assert not keys & (of_spacings | of_samplers)
    assert not of_spacings & of_samplers


# The sweeps that ship.


def read(name: str, folder: Path) -> Sweep:
    """A shipped sweep; in place of the checkpoint, which needs the hub, the mixture."""
    text = (SWEEPS / name).read_text()
    text = text.replace("{kind: diffusers, path: google/ddpm-cifar10-32}", "cifar10-mixture")
    return sweep.parse(text, name)


@pytest.mark.parametrize("name", sorted(path.name for path in SWEEPS.glob("*.yaml")))
def test_shipped_sweeps_are_valid_and_ask_a_question(name: str, tmp_path: Path) -> None:
    found = read(name, tmp_path)
    assert found.name == Path(name).stem
    assert found.question.endswith("?")
    assert len((SWEEPS / name).read_text().splitlines()) <= 40


def test_quickstart_fits_its_three_minutes(tmp_path: Path) -> None:
    found = read("quickstart.yaml", tmp_path)
    cells = found.cells()
    assert len({cell.sampler for cell in cells} - {"exact"}) >= 4
    assert min(cell.nfe for cell in cells[1:]) == 5
    assert max(cell.nfe for cell in cells) == 50
    # On two cores: 24,000 model calls and 3,500 feature extractions of one image a second.
    calls = sum(cell.nfe for cell in cells) * found.samples
    seconds = calls / 24_000 + len(cells) * found.samples / 3_500
    assert seconds < 150


@pytest.mark.parametrize("name", ["ddim-table.yaml", "cifar10-fid.yaml"])
def test_both_tables_have_the_papers_layout(name: str, tmp_path: Path) -> None:
    cells = [cell for cell in read(name, tmp_path).cells() if cell.sampler != "exact"]
    assert {(cell.spacing, cell.steps) for cell in cells} == {
        *((spacing, s) for spacing in ("quadratic", "uniform") for s in (10, 20, 50, 100)),
        ("all", 1000),
    }
    assert {cell.params["eta"] for cell in cells} == {0.0, 0.2, 0.5, 1.0, "sigma-hat"}
    assert len(cells) == 45


# What a person can get wrong, with the whole message.

NO_ARGUMENTS = "Parameters: ddim takes eta; uniform takes none."


def having(key: str) -> str:
    """The samplers and spacings with this parameter."""
    everywhere = [*samplers.REGISTRY.values(), *SPACINGS.values()]
    return ", ".join(rule.name for rule in everywhere if key in rule.params)


ETA = 'a number at least 0 and at most 1 or "sigma-hat"'


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # Names.
        (
            "{sampler: dpm-solver+, steps: 10}",
            'there is no sampler "dpm-solver+". Did you mean "dpm-solver++"? "bench list samplers" '
            f"shows all {len(samplers.REGISTRY)}.",
        ),
        (
            "{sampler: ddim, steps: 10, spacing: quadratik}",
            'there is no spacing "quadratik". Did you mean "quadratic"? "bench list spacings" '
            f"shows all {len(SPACINGS)}.",
        ),
        (
            "{sampler: ddim, steps: 10, final: sigmamin}",
            'grid[0].final is the text "sigmamin"; expected where a grid ends: "zero", '
            '"sigma-min" or "denoise". Did you mean "sigma-min"?',
        ),
        (
            "{sampler: ddim, step: 10}",
            f'there is no key "step" in grid[0]. Did you mean "steps"? {NO_ARGUMENTS}',
        ),
        (
            "{sampler: ddim, order: 2, steps: 10}",
            f'there is no key "order" in grid[0]. It is a parameter of {having("order")}. '
            f"{NO_ARGUMENTS}",
        ),
        (
            "{sampler: dpm-solver++, lower_order_final: never, steps: 10}",
            'there is no key "lower_order_final" in grid[0]. Did you mean "lower-order-final"? '
            "Parameters: dpm-solver++ takes "
            f"{', '.join(samplers.REGISTRY['dpm-solver++'].params)}; uniform takes none.",
        ),
        (
            "{sampler: ddim, rho: 7, steps: 10}",
            f'there is no key "rho" in grid[0]. It is a parameter of {having("rho")}. '
            f"{NO_ARGUMENTS}",
        ),
        (
            "{sampler: [ddim, euler], eta: 1, steps: 10}",
            "grid[0].eta is a parameter of ddim but not of euler; write a row for each.",
        ),
        (
            "{sampler: ddim, spacing: [uniform, karras], rho: 5, steps: 10}",
            "grid[0].rho is a parameter of karras but not of uniform; write a row for each.",
        ),
        (
            "{sampler: exact}",
            'grid[0].sampler is the text "exact"; exact draws are added by themselves where a '
            "model has them. Leave this out.",
        ),
        (
            "{steps: 5}",
            'the key "sampler" is missing in grid[0]: the name of a sampler.',
        ),
        (
            "{samplr: ddim, steps: 5}",
            'the key "sampler" is missing in grid[0]: the name of a sampler. Is "samplr" meant to '
            "be it?",
        ),
        (
            "{sampler: ddpm, steps: 5}",
            'the key "variance" is missing in grid[0]; ddpm needs it: "small" or "large".',
        ),
        (
            "{sampler: ddim, spacing: explicit}",
            'the key "times" is missing in grid[0]; explicit needs it: a list of numbers.',
        ),
        # Values.
        (
            "{sampler: ddim, steps: [5, twenty]}",
            'grid[0].steps[1] is the text "twenty"; expected a whole number of at least 1.',
        ),
        (
            "{sampler: ddim, steps: 0}",
            "grid[0].steps is 0; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, steps: [5, -3]}",
            "grid[0].steps[1] is -3; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, nfe: 5.5}",
            "grid[0].nfe is 5.5; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, steps: true}",
            "grid[0].steps is true; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, steps: []}",
            "grid[0].steps is an empty list; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, steps: }",
            "grid[0].steps is empty; expected a whole number of at least 1.",
        ),
        (
            "{sampler: ddim, steps: [[5, 10]]}",
            "grid[0].steps[0] is a list; expected a whole number of at least 1.",
        ),
        (
            "{sampler: {name: ddim}, steps: 5}",
            "grid[0].sampler is a mapping; expected the name of a sampler.",
        ),
        (
            "{sampler: ddim, eta: [0, 1.5], steps: 10}",
            f"grid[0].eta[1] is 1.5; expected {ETA}.",
        ),
        (
            "{sampler: ddim, eta: -1e-3, steps: 10}",
            f"grid[0].eta is -1e-3; expected {ETA}.",
        ),
        (
            "{sampler: ddim, eta: sigmahat, steps: 10}",
            f'grid[0].eta is the text "sigmahat"; expected {ETA}. Did you mean "sigma-hat"?',
        ),
        ("{sampler: ddim, eta: , steps: 10}", f"grid[0].eta is empty; expected {ETA}."),
        ("{sampler: ddim, eta: [], steps: 10}", f"grid[0].eta is an empty list; expected {ETA}."),
        (
            "{sampler: ddpm, variance: small, clip: yes, steps: 5}",
            'grid[0].clip is the text "yes"; expected true or false.',
        ),
        (
            "{sampler: ddim, spacing: karras, rho: 0, steps: 5}",
            "grid[0].rho is 0; expected a number above 0.",
        ),
        (
            "{sampler: ddim, spacing: explicit, times: 5}",
            "grid[0].times is 5; expected a list of numbers.",
        ),
        (
            "{sampler: ddim, spacing: explicit, times: [[900], [500, soon]]}",
            "grid[0].times[1] is a list; expected a list of numbers.",
        ),
        # Steps that a schedule or a spacing does not have.
        (
            "{sampler: ddim, steps: [10, 2000]}",
            "grid[0].steps[1] is 2000; vp-linear has 1000 trained steps: expected at most 1000 "
            "with final: zero.",
        ),
        (
            "{sampler: ddim, steps: 1000, final: sigma-min}",
            "grid[0].steps is 1000; vp-linear has 1000 trained steps: expected at most 999 with "
            "final: sigma-min.",
        ),
        (
            "{sampler: ddim}",
            "grid[0] gives neither steps nor nfe; spacing uniform needs one of them.",
        ),
        (
            "{sampler: ddim, steps: 5, nfe: 5}",
            "grid[0] gives both steps and nfe, and one follows from the other; keep one.",
        ),
        (
            "{sampler: ddim, spacing: all, steps: [10, 1000]}",
            "grid[0].steps[0] is 10; spacing all has 1000 steps here. Leave steps out, or write "
            "1000.",
        ),
        (
            "{sampler: ddim, spacing: explicit, times: [900, 500], steps: 3}",
            "grid[0].steps is 3; spacing explicit has 2 steps here. Leave steps out, or write 2.",
        ),
        (
            "{sampler: ddim, spacing: explicit, times: [100, 500]}",
            "grid[0].times: A time grid runs strictly from noise to data; t = 100 is followed by "
            "t = 500.",
        ),
        # Budgets.
        (
            "{sampler: heun, nfe: [9, 10]}",
            "grid[0].nfe[1] is 10; heun with spacing: uniform and final: zero makes 9 or 11 calls, "
            "not 10. Write one of these, or unreachable: below, or unreachable: skip.",
        ),
        (
            "{sampler: heun, final: denoise, nfe: 2, unreachable: below}",
            "grid[0].nfe is 2; heun with spacing: uniform and final: denoise makes at least 3 "
            "calls. Write 3, or unreachable: skip.",
        ),
        (
            "{sampler: ddim, nfe: 2000}",
            "grid[0].nfe is 2000; ddim with spacing: uniform and final: zero makes at most 1000 "
            "calls. Write 1000, or unreachable: below.",
        ),
        (
            "{sampler: ddim, spacing: all, nfe: 100}",
            "grid[0].nfe is 100; ddim with spacing: all and final: zero makes at least 1000 "
            "calls. Write 1000, or unreachable: skip.",
        ),
        (
            "{sampler: ddim, steps: 5, unreachable: skip}",
            "grid[0].unreachable is about nfe, which this row does not give; remove it.",
        ),
        (
            "{sampler: heun, nfe: 10, unreachable: blow}",
            'grid[0].unreachable is the text "blow"; expected what becomes of an NFE that no '
            'number of steps costs: "refuse", "below" or "skip". Did you mean "below"?',
        ),
        (
            "{sampler: rk45, spacing: linspace, nfe: 50}",
            "grid[0].nfe is 50; rk45 chooses its own steps, and its calls are counted when it "
            "runs. Give steps, and its tolerances in place of a budget.",
        ),
        # Grids that a sampler refuses.
        (
            "{sampler: rk45, spacing: linspace, steps: 5}",
            "grid[0].spacing: rk45 chooses its own steps from the first to the last noise level "
            "of a grid; this grid has 5 steps. Write steps: 2 with spacing: linspace or explicit.",
        ),
        # Not a row.
        (
            "ddim",
            'grid[0] is the text "ddim"; expected a list of rows like "- {sampler: ddim, '
            'steps: 10}".',
        ),
    ],
)
def test_wrong_rows(row: str, expected: str) -> None:
    assert row_message(row) == f"a.yaml, line 7: {expected}"


def test_nothing_left_to_do() -> None:
    assert row_message("{sampler: heun, nfe: [10, 20], unreachable: skip}") == (
        "a.yaml, line 6: the grid has no cells: no nfe in it can be reached, and unreachable: skip "
        "leaves them all out."
    )


def test_a_spacing_that_one_of_the_models_does_not_admit() -> None:
    flow = "{kind: mixture, name: cifar10-mixture, schedule: flow}"
    text = HEAD.replace("model: cifar10-mixture", f"model: [cifar10-mixture, {flow}]")
    assert message(text + ROW).startswith(
        'a.yaml, line 6: grid[0]: Spacing "uniform" speaks of trained indices, and flow '
        "has none. Spacings that work: "
    )


def test_a_sampler_that_a_model_s_schedule_does_not_admit() -> None:
    flow = "{kind: mixture, name: cifar10-mixture, schedule: flow}"
    row = "grid:\n  - {sampler: heun, spacing: linspace, steps: 5}\n"
    text = HEAD.replace("model: cifar10-mixture", f"model: {flow}")
    assert message(text + row) == (
        "a.yaml, line 7: grid[0].spacing: heun works in s = sigma / alpha, which is infinite where "
        "this grid starts (t = 1, alpha = 0). Start the grid below it, or set variable: t."
    )


def test_the_exact_flow_of_a_network_is_not_to_be_had(tmp_path: Path) -> None:
    network = write_folder(tmp_path)
    text = HEAD.replace("model: cifar10-mixture", f"model: {{kind: diffusers, path: {network}}}")
    row = "grid:\n  - {sampler: exact-flow, steps: 5}\n"
    assert message(text + row) == (
        'a.yaml, line 7: grid[0].sampler is the text "exact-flow", which asks for a model whose '
        f"score is exact; that of {network.name} is not. Leave it out, or use a mixture."
    )


def test_cells_whose_calls_are_counted() -> None:
    cells = of("{sampler: rk45, spacing: linspace, steps: 2, rtol: [1.0e-3, 1.0e-4]}")
    assert [cell.nfe for cell in cells] == [None, None]
    assert {cell.work for cell in cells} == {100}
    assert [cell.work for cell in of("{sampler: heun, steps: 5}")] == [9]


KEYS = "name, model, samples, seed, metrics, reference, batch, chunk, keep, grid, launch"
MODEL = 'the name of a model, or a mapping like "{kind: diffusers, path: FOLDER}"'
LAUNCH_KEYS = (
    "executor, workers, threads, device, compile, split, pack, partition, account, qos, gres, "
    "constraint, "
    "nodelist, exclude, dependency, mem, cpus, time, array-parallelism, setup, comment, mail, "
    "additional"
)
FOLDER_NAME = "a text of letters, digits and . _ - because it names folders"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "samples",
            "sampels: 100",
            'line 1: the key "samples" is missing: a whole number of images, at least 2.\n'
            'line 3: there is no key "sampels" in a sweep. Did you mean "samples"? The keys are '
            f"{KEYS}.",
        ),
        (
            "samples",
            "samples: 1",
            "line 3: samples is 1; expected a whole number of images, at least 2.",
        ),
        (
            "samples",
            "samples: many",
            'line 3: samples is the text "many"; expected a whole number of images, at least 2.',
        ),
        (
            "samples",
            "samples: 5e3",
            "line 3: samples is 5e3; expected a whole number of images, at least 2.",
        ),
        (
            "samples",
            "samples: [100, 200]",
            "line 3: samples is a list; expected a whole number of images, at least 2. Lists stand "
            "only where a key is swept: model, seed and the keys of the grid.",
        ),
        (
            "samples",
            "samples: 5\nsamples: 6",
            'line 4: the key "samples" stands twice in the file, first on line 3; keep one of '
            "them.",
        ),
        ("model", "name: a", f'line 1: the key "model" is missing: {MODEL}.'),
        ("model", "model:", f"line 2: model is empty; expected {MODEL}."),
        ("model", "model: 5", f"line 2: model is 5; expected {MODEL}."),
        (
            "model",
            "model: cifar-mixture",
            'line 2: There is no model "cifar-mixture". Did you mean "cifar10-mixture"? Known are: '
            "cifar10-mixture, cifar10-unet; a network is "
            "{kind: diffusers, path: FOLDER or HUB/NAME}.",
        ),
        (
            "model",
            "model:\n  - cifar10-mixture\n  - {kind: difusers, path: x}",
            'line 4: model.kind is "difusers"; expected mixture or consistency or diffusers or edm '
            'or torch. Did you mean "diffusers"?',
        ),
        (
            "metrics",
            "metrics: [fid, fd_cifr]",
            'line 4: There is no metric "fd_cifr". Did you mean "fd_cifar"? "bench list metrics" '
            f'shows all {len(METRICS)}; in your own features, "fd@package.module:function".',
        ),
        ("metrics", "metrics: []", "line 4: metrics is an empty list; expected a list of metrics."),
        (
            "reference",
            "reference: 10",
            "line 5: reference is 10; expected the name or path of reference statistics. If it is "
            'meant as text, put it in quotes: "10".',
        ),
        (
            "grid",
            "name: a",
            'line 1: the key "grid" is missing: a list of rows like "- {sampler: ddim, '
            'steps: 10}".',
        ),
        (
            "grid",
            "grid: []",
            'line 6: grid is an empty list; expected a list of rows like "- {sampler: ddim, '
            'steps: 10}".',
        ),
        (
            "grid",
            "grid: {sampler: ddim, steps: 5}",
            'line 6: grid is a mapping; expected a list of rows like "- {sampler: ddim, '
            'steps: 10}".',
        ),
        (None, "name: a/b", f'line 7: name is the text "a/b"; expected {FOLDER_NAME}.'),
        (
            None,
            "name: 2024",
            f"line 7: name is 2024; expected {FOLDER_NAME}. If it is meant as text, put it in "
            'quotes: "2024".',
        ),
        (
            None,
            "seed: [0, -1]",
            "line 7: seed[1] is -1; expected a whole number, at least 0 and below 2^63.",
        ),
        (
            None,
            "seed: on",
            'line 7: seed is the text "on"; expected a whole number, at least 0 and below 2^63.',
        ),
        (None, "name:", f"line 7: name is empty; expected {FOLDER_NAME}."),
        (
            None,
            "launch: {executor: slurm, array-parallelism: }",
            "line 7: launch.array-parallelism is empty; expected a number of jobs at a time, at "
            "least 1.",
        ),
        (None, "batch: 0", "line 7: batch is 0; expected a number of images, at least 1."),
        (
            None,
            "batch: 300\nchunk: 1000",
            "line 8: chunk is 1000; expected a multiple of batch, which is 300, for example 900.",
        ),
        (
            None,
            "chunk: 700",
            "line 7: chunk is 700; expected a multiple of batch, which is 500 by default, for "
            "example 500.",
        ),
        (
            None,
            "launch: local",
            'line 7: launch is the text "local"; expected a mapping like "{executor: local, '
            'workers: 2}".',
        ),
        (
            None,
            "launch: {executer: local}",
            'line 7: there is no key "executer" in launch. Did you mean "executor"? The keys are '
            f"{LAUNCH_KEYS}.",
        ),
        (
            None,
            "launch: {executor: slrm, partition: gpu}",
            'line 7: launch.executor is the text "slrm"; expected "inline" (this process), "local" '
            '(workers here) or "slurm". Did you mean "slurm"?',
        ),
        (
            None,
            "launch: {executor: slurm, array_parallelism: 4}",
            'line 7: there is no key "array_parallelism" in launch. Did you mean '
            f'"array-parallelism"? The keys are {LAUNCH_KEYS}.',
        ),
        (
            None,
            "launch: {executor: slurm, time: 2h, mem: 16}",
            'line 7: launch.mem is 16; expected memory with its unit, like "16GB". If it is meant '
            'as text, put it in quotes: "16".\n'
            'line 7: launch.time is the text "2h"; expected whole minutes, or a time like '
            '"HH:MM:SS".',
        ),
        (
            None,
            "launch: {executor: local, partition: gpu}",
            "line 7: launch.partition is for executor: slurm; the executor here is local.",
        ),
        (
            None,
            "launch: {executor: local, pack: 2}",
            "line 7: launch.pack is for executor: slurm; the executor here is local.",
        ),
        (
            None,
            "launch: {executor: slurm, pack: 20, split: 4}",
            "line 7: launch.pack is 20, and launch.split is 4; a job has either many cells (pack) "
            "or a slice of one (split). Leave one of the two out.",
        ),
        (
            None,
            "launch: {split: 0}",
            "line 7: launch.split is 0; expected a number of slices of a cell that different "
            "workers may do, at least 1.",
        ),
        (
            None,
            "launch: {workers: 2}",
            "line 7: launch.workers is 2; executor: inline is this one process. Write executor: "
            "local for several workers.",
        ),
    ],
)
def test_wrong_heads(old: str | None, new: str, expected: str) -> None:
    """`new` in place of the line of the key `old`, or after the last line."""
    lines = (HEAD + ROW).splitlines()
    lines = [new if old is not None and line.startswith(f"{old}:") else line for line in lines]
    text = "\n".join([*lines, *([new] if old is None else [])])
    assert message(text) == "\n".join(f"a.yaml, {line}" for line in expected.split("\n"))


@pytest.mark.parametrize("text", ["", "# Which one?\n"])
def test_empty_file(text: str) -> None:
    assert message(text) == (
        "a.yaml: the file is empty. A sweep needs at least model, samples, metrics, reference and "
        "grid."
    )


def test_a_file_whose_name_cannot_name_folders() -> None:
    assert message(HEAD + ROW, "my first sweep.yaml") == (
        'my first sweep.yaml, line 1: the file\'s name, "my first sweep", cannot name the folders '
        "of results; give the sweep a name of letters, digits and . _ -"
    )


def test_broken_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(HEAD + "grid: [{sampler: ddim, steps: 5}\nlaunch: {workers: 2}\n")
    with pytest.raises(SweepError) as raised:
        sweep.load(path)
    assert str(raised.value) == (
        f"{path}, line 7, column 1: this is not YAML (while parsing a flow sequence expected ',' "
        "or ']', but got '<scalar>'). Look for an unclosed bracket or quote, a missing colon, or "
        "indentation here or just above."
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SweepError) as raised:
        sweep.load(tmp_path / "a.yaml")
    assert str(raised.value) == f"{tmp_path / 'a.yaml'}: there is no such file."


def test_all_mistakes_of_a_file_show_at_once() -> None:
    assert message("""\
model: cifar-mixture
sample: 100
metrics: [fd_cifar]
reference: cifar10-mixture
batch: x
grid:
  - {sampler: dim, steps: 5}
  - {sampler: ddim, eta: [2], final: nil}
  - sampler: ddim
    eta: 0
    eta: 1
    steps: ten
launch: {executor: local, threads: 0}
""") == (
        'a.yaml, line 1: the key "samples" is missing: a whole number of images, at least 2.\n'
        'a.yaml, line 1: There is no model "cifar-mixture". Did you mean "cifar10-mixture"? Known '
        "are: cifar10-mixture, cifar10-unet; a network is "
        "{kind: diffusers, path: FOLDER or HUB/NAME}.\n"
        'a.yaml, line 2: there is no key "sample" in a sweep. Did you mean "samples"? The keys '
        f"are {KEYS}.\n"
        'a.yaml, line 5: batch is the text "x"; expected a number of images, at least 1.\n'
        'a.yaml, line 7: there is no sampler "dim". Did you mean "ddim"? "bench list samplers" '
        f"shows all {len(samplers.REGISTRY)}.\n"
        'a.yaml, line 8: grid[1].final is the text "nil"; expected where a grid ends: "zero", '
        '"sigma-min" or "denoise".\n'
        f"a.yaml, line 8: grid[1].eta[0] is 2; expected {ETA}.\n"
        'a.yaml, line 11: the key "eta" stands twice in grid[2], first on line 10; keep one of '
        "them.\n"
        'a.yaml, line 12: grid[2].steps is the text "ten"; expected a whole number of at least '
        "1.\n"
        "a.yaml, line 13: launch.threads is 0; expected a number of CPU threads per worker, at "
        "least 1."
    )
