"""The registry: a dict filled by a decorator, with facts that a suite can check."""

import subprocess
import sys
from typing import Annotated

import pytest
import torch
from annotated_types import Ge
from torch import Tensor

from bench.certify.problems import SHAPE, Blobs
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ScheduleError, SweepError
from bench.samplers.registry import REGISTRY, get, sample, sampler


@pytest.fixture
def halving() -> None:
    """A sampler registered for one test."""

    @sampler(
        "halving",
        family="test",
        paper="nobody",
        order=1,
        stochastic=lambda params: params["churn"] != 0,
        calls=lambda steps, ends_at_zero, params: 3 * steps - ends_at_zero,
        min_steps=2,
    )
    def halving(
        denoise: Denoiser,
        x: Tensor,
        grid: TimeGrid,
        noise: Noise,
        *,
        churn: Annotated[float, Ge(0)] = 0.0,
    ) -> Tensor:
        """Halves the image every step; for tests.

        More words that are no summary.
        """
        for _ in grid.steps():
            x = x / 2
        return x

    yield  # type: ignore[misc]
    del REGISTRY["halving"]


@pytest.mark.usefixtures("halving")
def test_a_decorated_function_is_a_sampler_with_its_facts() -> None:
    found = get("halving")
    assert (found.name, found.family, found.paper) == ("halving", "test", "nobody")
    assert found.summary == "Halves the image every step; for tests."
    assert found.complete({}) == {"churn": 0.0}
    assert found.order({}) == 1
    assert not found.stochastic({"churn": 0.0})
    assert found.stochastic({"churn": 0.5})
    assert [found.nfe(4, final, {}) for final in ("zero", "sigma-min", "denoise")] == [11, 12, 13]
    assert [found.steps_for(nfe, "zero", {}) for nfe in (0, 2, 4, 5, 6, 11)] == [0, 0, 0, 2, 2, 4]


@pytest.mark.usefixtures("halving")
def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match=r'^a sampler "halving" is registered already$'):
        sampler("halving", family="", paper="", order=1, stochastic=False)(lambda: None)  # type: ignore[arg-type, return-value]


@pytest.mark.usefixtures("halving")
def test_sampling_starts_from_the_first_draw_at_the_schedule_s_noise() -> None:
    for schedule, std in [("vp-linear", 1.0), ("edm", 80.0), ("flow", 1.0)]:
        grid = make_grid(make_schedule(schedule), "linspace", 3)
        noise = Noise(2, range(4), SHAPE)
        x = sample(
            get("halving"), Denoiser(Blobs().pair), grid, noise, final="zero", params={"churn": 0.0}
        )
        assert torch.equal(x, std * Noise(2, range(4), SHAPE)() / 8)
        assert noise.draws == 1


@pytest.mark.usefixtures("halving")
def test_a_grid_of_too_few_steps_is_refused() -> None:
    grid = make_grid(make_schedule("vp-linear"), "uniform", 1)
    noise = Noise(2, range(4), SHAPE)
    with pytest.raises(ScheduleError, match=r"^halving takes at least 2 steps; this grid has 1.$"):
        sample(
            get("halving"), Denoiser(Blobs().pair), grid, noise, final="zero", params={"churn": 0.0}
        )


def test_an_unknown_sampler_comes_with_the_nearest() -> None:
    with pytest.raises(SweepError) as caught:
        get("dpm-solver+")
    assert str(caught.value) == (
        'There is no sampler "dpm-solver+". Did you mean "dpm-solver++"? '
        f'"bench list samplers" shows all {len(REGISTRY)}.'
    )


def test_the_first_samplers_are_there_after_one_import() -> None:
    code = "from bench.samplers import REGISTRY; print(*sorted(REGISTRY))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"ddim", "ddpm", "dpm-solver++", "euler", "heun"} <= set(run.stdout.split())


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        (
            "ddim",
            {"eta": 1.5},
            'eta is 1.5; expected a number at least 0 and at most 1 or "sigma-hat".',
        ),
        ("ddpm", {}, 'sampler "ddpm" needs "variance": "small" or "large".'),
        (
            "dpm-solver++",
            {"order": 4},
            "order is 4; expected a whole number at least 1 and at most 3.",
        ),
        ("euler", {"eta": 0}, 'sampler "euler" has no parameter "eta". It has: variable.'),
    ],
)
def test_parameters_are_checked_before_anything_runs(
    name: str, given: dict[str, object], expected: str
) -> None:
    with pytest.raises(SweepError) as caught:
        get(name).complete(given)
    assert str(caught.value) == expected
