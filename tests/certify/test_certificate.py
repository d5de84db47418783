"""Certificates: ours are clean, and an outside author learns what is right and what is not."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from bench.certify import GRIDS, findings, golden, names
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid
from bench.errors import SweepError
from bench.samplers import REGISTRY

# They cost a dozen seconds and more each.
DEAR = {"er-sde", "unipc", "dpm-solver", "dpm-solver++", "edm", "deis", "restart"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in DEAR else n for n in names()],
)
def test_nothing_of_ours_is_wrong(name: str) -> None:
    found = list(findings(name))
    assert [finding for finding in found if finding.ok is False] == []
    checks = {finding.check for finding in found if finding.ok}
    assert {"golden values"} <= checks if name == GRIDS else {"golden values", "NFE"} <= checks


def test_every_sampler_has_golden_values_at_its_base() -> None:
    assert {case.sampler for case in golden.cases()} == set(REGISTRY)


# Other people's samplers: right, wrong in one place, and broken.


def right_ddim(
    denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """DDIM in alpha-bar."""
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        added = eta**2 * b.sigma**2 * (1 - math.exp(2 * (a.lam - b.lam)))
        x = b.alpha * x0 + math.sqrt(b.sigma**2 - added) * eps
        if added > 0:
            x = x + math.sqrt(added) * noise()
    return x


def wrong_ddim(
    denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """DDIM whose direction keeps its full length."""
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x = b.alpha * x0 + b.sigma * eps
        if eta > 0 and b.sigma > 0:
            x = x + eta * b.sigma * math.sqrt(1 - math.exp(2 * (a.lam - b.lam))) * noise()
    return x


def broken(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Divides by the last sigma."""
    return (1 / grid.points[-1].sigma) * x


HERE = "tests.certify.test_certificate"


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_outside_sampler_that_is_right(eta: float) -> None:
    found = {f.check: f for f in findings(f"{HERE}:right_ddim", {"eta": eta}, like="ddim")}
    assert all(finding.ok for finding in found.values())
    assert found["identity"].settings.startswith("= ddim eta=")
    assert found["golden values"].found.startswith("2 cases")
    assert ("order, smooth grid" in found) == (eta == 0)
    assert ("weak order, smooth grid" in found) == (eta > 0)


def test_an_outside_sampler_that_is_wrong() -> None:
    found = list(findings(f"{HERE}:wrong_ddim", {"eta": 0.5}, like="ddim"))
    wrong = {finding.check for finding in found if finding.ok is False}
    assert {"golden values", "identity", "weak order, smooth grid"} <= wrong


def test_without_a_claim_what_is_found_is_shown_and_not_judged() -> None:
    found = {f.check: f for f in findings(f"{HERE}:right_ddim")}
    assert found["golden values"].ok is None
    assert [f for f in found.values() if f.ok is False] == []
    assert found["order, smooth grid"].ok is None
    assert found["order, smooth grid"].found == "1.00 on gaussian, 1.00 on mixture"


def test_what_a_sampler_raises_is_a_finding() -> None:
    found = list(findings(f"{HERE}:broken", like="ddim"))
    assert any(f.ok is False and f.found.startswith("ZeroDivisionError: ") for f in found)


def test_a_scheduler_of_diffusers_is_ddim() -> None:
    found = {
        f.check: f for f in findings("diffusers:DDIMScheduler", {"clip-sample": False}, like="ddim")
    }
    assert found["identity"].ok, found["identity"]


def test_a_claim_at_parameters_that_it_does_not_have() -> None:
    with pytest.raises(SweepError) as caught:
        list(findings(f"{HERE}:right_ddim", {"eta": 2}, like="ddim"))
    assert str(caught.value) == (
        f"{HERE}:right_ddim cannot be ddim at these parameters: eta is 2; expected a number at "
        'least 0 and at most 1 or "sigma-hat".'
    )


# The command.


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from bench.cli import main; main()", "certify", *words]
    root = Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_command_prints_a_table() -> None:
    run = bench("consistency")
    assert run.returncode == 0, run.stderr
    assert "golden values" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("consistency: ")


def test_the_command_exits_with_1_where_something_is_wrong_and_writes_json() -> None:
    run = bench(f"{HERE}:broken", "--like", "euler", "--json")
    assert run.returncode == 1, run.stderr
    found = json.loads(run.stdout)[f"{HERE}:broken"]
    assert {"settings", "check", "expected", "found", "ok"} == set(found[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--like", "ddim"), "needs the name of a sampler"),
        (("ddim", "--set", "eta"), '"eta" is not KEY=VALUE.'),
    ],
)
def test_the_command_says_what_is_wrong_with_its_words(
    words: tuple[str, ...], message: str
) -> None:
    run = bench(*words)
    assert run.returncode == 2
    assert message in run.stderr
