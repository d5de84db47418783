"""Other people's samplers: a function by its module, diffusers' schedulers by their class."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import samplers, sweep
from bench.certify.problems import SHAPE, Blobs
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ScheduleError, SweepError
from bench.fingerprint import fingerprint
from bench.samplers import REGISTRY, outside
from bench.samplers.registry import Sampler, sample

# diffusers reads tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MODULE = '''
from typing import Annotated
from annotated_types import Gt
from bench.samplers.registry import sampler


def halving(denoise, x, grid, noise, *, by: Annotated[float, Gt(1)] = 2.0):
    """Divides the image every step."""
    for a, b in grid.steps():
        denoise(x, a)
        x = x / by
    return x


@sampler("their-euler", family="theirs", paper="nobody", order=1, stochastic=False)
def euler(denoise, x, grid, noise):
    """Euler's method, theirs."""
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x = b.alpha * x0 + b.sigma * eps
    return x


def no_sampler(x, steps=5):
    return x


number = 5
'''


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "their_samplers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("their_samplers", None)
    REGISTRY.pop("their-euler", None)
    outside.load.cache_clear()


def run(
    chosen: Sampler, grid: TimeGrid, *, dtype: torch.dtype = torch.float32, **given: object
) -> tuple[Tensor, list[int]]:
    denoise = Denoiser(Blobs().pair)
    noise = Noise(4, range(3), SHAPE, dtype=dtype)
    params = chosen.complete({key.replace("_", "-"): v for key, v in given.items()})
    return sample(chosen, denoise, grid, noise, final="zero", params=params), denoise.nfe_of(3)


def grid_of(spacing: str, n: int = 10) -> TimeGrid:
    return make_grid(make_schedule("vp-linear"), spacing, n)


def message(name: str) -> str:
    with pytest.raises(SweepError) as caught:
        samplers.get(name)
    return str(caught.value)


@pytest.mark.usefixtures("theirs")
def test_a_function_brings_its_parameters_and_its_calls_are_counted() -> None:
    found = samplers.get("their_samplers:halving")
    assert found.summary == "Divides the image every step."
    assert found.complete({}) == {"by": 2.0}
    with pytest.raises(SweepError, match=r"^by is 1; expected a number above 1\.$"):
        found.complete({"by": 1})
    assert found.calls is None
    x, calls = run(found, grid_of("uniform", 3), by=4.0)
    assert torch.equal(x, Noise(4, range(3), SHAPE)() / 4 / 4 / 4)
    assert calls == [3, 3, 3]


@pytest.mark.usefixtures("theirs")
def test_a_decorated_function_brings_its_facts() -> None:
    found = samplers.get("their_samplers:euler")
    assert (found.name, found.family) == ("their_samplers:euler", "theirs")
    assert found.nfe(5, "zero", {}) == 5
    ours, _ = run(samplers.get("euler"), grid_of("uniform"), dtype=torch.float64)
    x, _ = run(found, grid_of("uniform"), dtype=torch.float64)
    torch.testing.assert_close(x, ours, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("theirs")
def test_they_run_in_sweeps_beside_ours() -> None:
    text = """
model: cifar10-mixture
samples: 10
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
  - {sampler: [euler, "their_samplers:euler"], steps: 3}
  - {sampler: "their_samplers:halving", by: [2, 3], steps: 3}
  - {sampler: "diffusers:EulerDiscreteScheduler", timestep-spacing: leading, steps: 3}
"""
    _, ours, theirs, *halving, scheduler = sweep.parse(text).cells()
    assert theirs.label == "their_samplers:euler spacing=uniform steps=3"
    assert fingerprint(theirs) == pytest.approx(fingerprint(ours), abs=1e-12)
    assert [cell.params for cell in halving] == [{"by": 2.0}, {"by": 3.0}]
    assert fingerprint(scheduler) == pytest.approx(fingerprint(ours), abs=1e-4)
    assert sweep.Cell(**scheduler.canonical()) == scheduler


@pytest.mark.usefixtures("theirs")
def test_what_is_no_sampler() -> None:
    assert message("nowhere:halving") == (
        'There is no sampler "nowhere:halving": the module nowhere cannot be imported (No module '
        "named 'nowhere'). It must be installed, or on PYTHONPATH, here and where the cells run."
    )
    path = sys.modules.get("their_samplers") or __import__("their_samplers")
    assert message("their_samplers:halvin") == (
        f'There is no sampler "their_samplers:halvin": {path.__file__} has no function "halvin". '
        'Did you mean "halving"?'
    )
    assert 'has no function "number"' in message("their_samplers:number")
    assert message("their_samplers:no_sampler") == (
        '"their_samplers:no_sampler" is no sampler: it takes (x, steps), and a sampler takes '
        "(denoise, x, grid, noise) and its parameters as keyword-only arguments."
    )
    assert 'has no scheduler "DDIMSchedule". Did you mean "DDIMScheduler"?' in message(
        "diffusers:DDIMSchedule"
    )
    assert message("diffusers:FlowMatchEulerDiscreteScheduler") == (
        '"diffusers:FlowMatchEulerDiscreteScheduler" does not take trained betas, so it cannot '
        "follow the model of a sweep. Schedulers of VP networks do."
    )


@pytest.mark.usefixtures("theirs")
def test_a_sweep_says_so_with_its_line() -> None:
    text = (
        "model: cifar10-mixture\nsamples: 10\nmetrics: [fd_cifar]\nreference: cifar10-mixture\n"
        'grid: [{sampler: "nowhere:f", steps: 3}]\n'
    )
    with pytest.raises(SweepError, match=r'^a.yaml, line 5: There is no sampler "nowhere:f": the'):
        sweep.parse(text, "a.yaml")


@pytest.mark.parametrize(
    ("scheduler", "given", "ours", "params", "spacing"),
    [
        ("DDIMScheduler", {"clip-sample": False}, "ddim", {}, "uniform"),
        (
            "DDPMScheduler",
            {"clip-sample": False, "variance-type": "fixed_small"},
            "ddpm",
            {"variance": "small"},
            "trailing",
        ),
        ("EulerDiscreteScheduler", {}, "euler", {}, "uniform"),
        ("HeunDiscreteScheduler", {}, "heun", {}, "linspace"),
        (
            "DPMSolverMultistepScheduler",
            {"lower-order-final": False, "final-sigmas-type": "zero"},
            "dpm-solver++",
            {},
            "linspace",
        ),
    ],
)
def test_schedulers_of_diffusers_give_our_images_from_our_noise(
    scheduler: str, given: dict[str, object], ours: str, params: dict[str, object], spacing: str
) -> None:
    grid = grid_of(spacing)
    start = 1.0
    if scheduler in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        # With their timestep-spacing linspace, the default, they start from sigma x_T.
        start = grid.points[0].sigma
    x, calls = run(samplers.get(f"diffusers:{scheduler}"), grid, **given)
    chosen = samplers.get(ours)
    expected = chosen.function(
        Denoiser(Blobs().pair),
        start * Noise(4, range(3), SHAPE)(),
        grid,
        _after_the_first(Noise(4, range(3), SHAPE)),
        **{key.replace("-", "_"): v for key, v in chosen.complete(params).items()},
    )
    torch.testing.assert_close(x, expected, rtol=2e-4, atol=2e-4)
    assert set(calls) == {chosen.nfe(10, "zero", chosen.complete(params))}


def _after_the_first(noise: Noise) -> Noise:
    noise()
    return noise


def test_parameters_are_the_plain_ones_of_the_constructor() -> None:
    params = samplers.get("diffusers:DPMSolverMultistepScheduler").params
    assert {"solver-order", "algorithm-type", "lower-order-final"} <= params.keys()
    assert not {"trained-betas", "num-train-timesteps", "prediction-type"} & params.keys()
    assert "lambda-min-clipped" not in params  # its default, an infinity, cannot be written


def test_a_grid_that_a_scheduler_would_not_step_over_is_refused() -> None:
    ddim = samplers.get("diffusers:DDIMScheduler")
    params = ddim.complete({})
    with pytest.raises(ScheduleError) as caught:
        ddim.check(grid_of("linspace"), params)
    assert str(caught.value) == (
        "diffusers:DDIMScheduler chooses its indices itself, 900, 800, ..., 0, and the grid has "
        "999, 888, ..., 0. Choose its timestep-spacing and steps-offset so that they agree, or the "
        "grid."
    )
    ddim.check(grid_of("linspace"), {**params, "timestep-spacing": "linspace"})
    with pytest.raises(ScheduleError, match=r"takes whole indices only; use an index spacing\.$"):
        ddim.check(grid_of("logsnr"), params)
    edm = make_grid(make_schedule("edm"), "karras", 5)
    with pytest.raises(ScheduleError, match=r"steps over the trained indices of a VP model and to"):
        ddim.check(edm, params)
