"""Consistency sampling, on the exact consistency function of a Gaussian."""

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler
from torch import Tensor

from bench.certify.moments import marginal
from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import Final, TimeGrid, make_grid
from bench.samplers.registry import get, sample
from tests.samplers.stochastic import response

GRIDS: list[tuple[str, str, int, Final]] = [
    (schedule, spacing, n, final)
    for schedule, spacing in [("vp-linear", "uniform"), ("edm", "karras"), ("flow", "trailing")]
    for n in (1, 2, 5, 18)
    for final in ("zero", "sigma-min")
]


class Exact:
    """f(x, t): where the flow from x ends at s_min, as xbar = x / alpha."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.end = schedule.at(t=schedule.t_min)

    def pair(self, x: Tensor, point: Point) -> Pair:
        f = Gaussian().flow(x, point, self.end) / self.end.alpha
        return f, (x - point.alpha * f) / point.sigma


@pytest.mark.parametrize(("schedule", "spacing", "n", "final"), GRIDS)
def test_with_the_exact_function_the_end_is_exact_at_any_number_of_steps(
    schedule: str, spacing: str, n: int, final: Final
) -> None:
    """From the marginal at the start: that of s_min, or of the grid's end where that is above."""
    made = make_schedule(schedule)
    grid = make_grid(made, spacing, n, final=final)
    end = Exact(made).end
    found = response("consistency", grid, {}, Exact(made).pair)
    mean, variance = marginal(grid.points[0])
    if grid.ends_at_zero:
        want_mean, want_variance = (
            v / end.alpha**power for power, v in enumerate(marginal(end), start=1)
        )
    else:
        want_mean, want_variance = marginal(grid.points[-1])
    torch.testing.assert_close(found.mean(mean), want_mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.variance(variance), want_variance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("schedule", "spacing", "n", "final"), GRIDS)
def test_follows_the_exact_recursion_with_any_linear_function(
    schedule: str, spacing: str, n: int, final: Final
) -> None:
    """The denoiser as f: xbar - mean shrinks by c / (c + s^2), then noise takes it to s_b."""
    made = make_schedule(schedule)
    grid = make_grid(made, spacing, n, final=final)
    least = made.at(t=made.t_min).s
    found = response("consistency", grid, {})
    for channel, (mean, c) in enumerate(zip(Gaussian().mean, Gaussian().variance, strict=True)):
        memory, shift, variance = 1.0, 0.0, 0.0
        for a, b in grid.steps():
            total = a.alpha**2 * c + a.sigma**2
            gain = b.alpha * a.alpha * c / total
            memory *= gain
            shift = gain * shift + (b.alpha - gain * a.alpha) * mean
            added = b.alpha**2 * max(b.s**2 - least**2, 0.0)
            variance = gain**2 * variance + added
        assert float(found.memory[channel]) == pytest.approx(memory, rel=1e-9, abs=1e-15)
        assert float(found.shift[channel]) == pytest.approx(shift, rel=1e-9, abs=1e-12)
        noise = float(found.gains.square().sum(0)[channel]) if len(found.gains) else 0.0
        assert noise == pytest.approx(variance, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
def test_one_step_is_the_function_itself_and_draws_nothing(schedule: str) -> None:
    made = make_schedule(schedule)
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64)
    for final, scale in [("zero", 1.0), ("sigma-min", made.at(t=made.t_min).alpha)]:
        top = made.at(t=made.t_max)
        end = made.clean if final == "zero" else made.at(t=made.t_min)
        noise = GivenNoise([start])
        function = get("consistency").function
        denoise = Denoiser(Exact(made).pair)
        found = function(denoise, noise(), TimeGrid(made, (top, end)), noise)
        expected, _ = Exact(made).pair(start, top)
        torch.testing.assert_close(found, scale * expected, rtol=0, atol=1e-12)
        assert (noise.draws, denoise.nfe) == (1, 1)


def test_two_steps_at_levels_of_cifar10_s_networks() -> None:
    """80 and 0.585: the first and the 12th of the paper's 18 levels. The start is N(0, 80^2)."""
    made = make_schedule("edm")
    times = (80.0, 0.585)
    trained = make_grid(made, "karras", 18).points
    assert [trained[0].t, trained[11].t] == pytest.approx(times, abs=5e-4)
    grid = make_grid(made, "explicit", 2, params={"times": times})
    found = response("consistency", grid, {}, Exact(made).pair)
    mean, c = (torch.tensor(v, dtype=torch.float64) for v in (Gaussian().mean, Gaussian().variance))
    # f takes a deviation from the mean at s to sqrt((c + 0.002^2) / (c + s^2)) of itself.
    first, second = (((c + 0.002**2) / (c + s**2)).sqrt() for s in times)
    kept = second * first
    torch.testing.assert_close(found.memory, kept, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.shift, (1 - kept) * mean, rtol=1e-12, atol=1e-15)
    added = second**2 * (0.585**2 - 0.002**2)
    expected = (kept * 80) ** 2 + added
    start = torch.full_like(mean, 80.0**2)
    torch.testing.assert_close(found.variance(start), expected, rtol=1e-12, atol=0)


def test_cm_stochastic_iterative_of_diffusers_takes_the_same_steps() -> None:
    """Its own `sigmas` end at sigma-min, and its network is wrapped by the boundary's scalings."""
    n = 6
    made = make_schedule("edm")
    theirs = CMStochasticIterativeScheduler(num_train_timesteps=n + 1, clip_denoised=False)
    theirs.set_timesteps(timesteps=list(range(n - 1, -1, -1)))
    grid = make_grid(made, "karras", n, final="sigma-min")
    assert theirs.sigmas.tolist() == pytest.approx([p.s for p in grid.points], rel=1e-5)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(4, *SHAPE, generator=generator)
    state = generator.get_state()
    x = 80 * start
    for t, point in zip(theirs.timesteps, grid.points, strict=False):
        f, _ = Blobs().pair(x, point)
        skip, out = theirs.get_scalings_for_boundary_condition(torch.tensor(point.s))
        theirs.scale_model_input(x, t)
        x = theirs.step((f - skip * x) / out, t, x, generator=generator).prev_sample
    generator.set_state(state)
    draws = [start, *(torch.randn(4, *SHAPE, generator=generator) for _ in range(n))]
    sampler = get("consistency")
    denoise = Denoiser(Blobs().pair)
    found = sample(sampler, denoise, grid, GivenNoise(draws), final="sigma-min", params={})
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
