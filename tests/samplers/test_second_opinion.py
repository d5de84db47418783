"""diffusers' schedulers where their conventions are ours: float32, 1e-4, integer indices.

Differences that are known, and kept out by the settings below: diffusers' DDIM clips x0 but keeps
the network's eps; its 2M lowers the last order below 15 steps by itself; its DDPM rounds
t = prev_t of uneven grids to what `timesteps` lists, as ours.
"""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from bench.certify.problems import SHAPE, Blobs, GivenNoise
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.schedule import vp_linear
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.samplers.registry import get, sample

# diffusers reads tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VP = vp_linear()
LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
LINEAR |= {"beta_schedule": "linear"}


def eps_at(x: Tensor, t: float) -> Tensor:
    return Blobs().pair(x, VP.at(t=float(t)))[1]


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, *SHAPE, generator=generator) for _ in range(count)]


def ours(name: str, grid: TimeGrid, noise: list[Tensor], **given: object) -> Tensor:
    sampler = get(name)
    params = sampler.complete({key.replace("_", "-"): value for key, value in given.items()})
    return sample(
        sampler, Denoiser(Blobs().pair), grid, GivenNoise(noise), final="zero", params=params
    )


def assert_close(found: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


def indices(grid: TimeGrid) -> list[int]:
    return [int(point.t) for point in grid.points[:-1]]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n", [5, 10, 50])
def test_ddim(n: int, eta: float) -> None:
    theirs = DDIMScheduler(
        **LINEAR, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading"
    )
    theirs.set_timesteps(n)
    grid = make_grid(VP, "uniform", n)
    assert theirs.timesteps.tolist() == indices(grid)
    start, *noise = draws(n + 1)
    x = start
    for t, z in zip(theirs.timesteps, noise, strict=True):
        step = theirs.step(eps_at(x, t), t, x, eta=eta, variance_noise=z if eta > 0 else None)
        x = step.prev_sample
    assert_close(ours("ddim", grid, [start, *noise], eta=eta), x)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("variance", "theirs_name"), [("small", "fixed_small"), ("large", "fixed_large")]
)
@pytest.mark.parametrize("n", [5, 10, 50])
def test_ddpm(n: int, variance: str, theirs_name: str, clip: bool) -> None:
    theirs = DDPMScheduler(
        **LINEAR, clip_sample=clip, variance_type=theirs_name, timestep_spacing="leading"
    )
    theirs.set_timesteps(n)
    grid = make_grid(VP, "uniform", n)
    assert theirs.timesteps.tolist() == indices(grid)
    start, *_ = draws(1)
    generator = torch.Generator().manual_seed(4)
    x = start
    for t in theirs.timesteps:
        x = theirs.step(eps_at(x, t), t, x, generator=generator).prev_sample
    generator = torch.Generator().manual_seed(4)
    noise = [torch.randn(start.shape, generator=generator) for _ in range(n)]
    assert_close(ours("ddpm", grid, [start, *noise], variance=variance, clip=clip), x)


@pytest.mark.parametrize(("order", "n"), [(1, 10), (2, 2), (2, 5), (2, 20)])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic-full"])
def test_dpm_solver_pp(spacing: str, order: int, n: int) -> None:
    theirs = DPMSolverMultistepScheduler(
        **LINEAR,
        algorithm_type="dpmsolver++",
        solver_order=order,
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    grid = make_grid(VP, spacing, n)
    theirs.set_timesteps(timesteps=indices(grid))
    start, *_ = draws(1)
    x = start
    for t in theirs.timesteps:
        x = theirs.step(eps_at(x, t), t, x).prev_sample
    assert_close(ours("dpm-solver++", grid, [start], order=order), x)


@pytest.mark.parametrize(
    ("name", "scheduler"), [("euler", EulerDiscreteScheduler), ("heun", HeunDiscreteScheduler)]
)
@pytest.mark.parametrize("n", [5, 20])
def test_euler_and_heun(n: int, name: str, scheduler: type) -> None:
    """Their state is x / alpha, which starts at s."""
    theirs = scheduler(**LINEAR)
    grid = make_grid(VP, "uniform", n)
    theirs.set_timesteps(timesteps=indices(grid))
    start, *_ = draws(1)
    x = start / grid.points[0].alpha
    for t in theirs.timesteps:
        x = theirs.step(eps_at(theirs.scale_model_input(x, t), t), t, x).prev_sample
    assert_close(ours(name, grid, [start]), x)
