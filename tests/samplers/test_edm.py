"""EDM with churn: Heun without it, the exact recursion on a Gaussian, orders, diffusers' steps."""

import itertools
import math

import pytest
import torch
from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import FINALS, TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.parameters import as_keywords
from bench.samplers.registry import get, sample
from tests.samplers.stochastic import Given, gaussian_error, mixture_error, response

GRIDS = [
    ("vp-linear", "uniform"),
    ("vp-linear", "karras"),
    ("vp-cosine", "logsnr"),
    ("edm", "karras"),
]


def asked(grid: TimeGrid, given: Given) -> list[float]:
    """The levels s at which the model is called."""
    levels = []

    def pair(x: Tensor, point: Point) -> Pair:
        levels.append(point.s)
        return Blobs().pair(x, point)

    sampler = get("edm")
    noise = Noise(1, range(2), SHAPE, dtype=torch.float64)
    params = as_keywords(sampler.complete(given))
    sampler.function(Denoiser(pair), noise(), grid, noise, **params)
    return levels


@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_without_churn_it_is_heun(schedule: str, spacing: str) -> None:
    for n, final in itertools.product((1, 2, 7, 18), FINALS):
        grid = make_grid(make_schedule(schedule), spacing, n, final=final)
        ends = []
        for name in ("heun", "edm"):
            noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
            denoise = Denoiser(Blobs().pair)
            params = get(name).complete({})
            ends.append(sample(get(name), denoise, grid, noise, final=final, params=params))
            assert noise.draws == 1
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-9, atol=1e-9)


CHURNS: list[Given] = [
    {"s-churn": 0.5},
    {"s-churn": 1000},
    {"s-churn": 3, "s-min": 0.1, "s-max": 5, "s-noise": 1.007},
]


@pytest.mark.parametrize("given", CHURNS, ids=str)
@pytest.mark.parametrize("final", ["zero", "sigma-min"])
@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_follows_the_exact_recursion_on_a_gaussian(
    schedule: str, spacing: str, final: str, given: Given
) -> None:
    """On u = xbar - mean the ODE is du/ds = s u / (c + s^2), and Heun multiplies u by a number."""
    for n in (1, 2, 5, 18):
        grid = make_grid(make_schedule(schedule), spacing, n, final=final)  # type: ignore[arg-type]
        found = response("edm", grid, given)
        top = grid.schedule.at(t=grid.schedule.t_max).s
        first, last = grid.points[0], grid.points[-1]
        for channel, (mean, c) in enumerate(zip(Gaussian().mean, Gaussian().variance, strict=True)):
            memory, variance = 1.0, 0.0
            for a, b in grid.steps():
                s = a.s
                if float(given.get("s-min", 0)) <= s <= float(given.get("s-max", math.inf)):  # type: ignore[arg-type]
                    s = min(s * (1 + min(float(given["s-churn"]) / n, 2**0.5 - 1)), top)  # type: ignore[arg-type]
                    variance += float(given.get("s-noise", 1)) ** 2 * (s**2 - a.s**2)  # type: ignore[arg-type]
                slope = s / (c + s**2)
                gain = 1 + (b.s - s) * slope
                if b.s > 0:
                    gain = 1 + (b.s - s) / 2 * (slope + b.s / (c + b.s**2) * gain)
                memory, variance = memory * gain, variance * gain**2
            scale = last.alpha / first.alpha
            assert float(found.memory[channel]) == pytest.approx(scale * memory, abs=1e-9)
            added = float(found.gains.square().sum(0)[channel])
            assert added == pytest.approx(last.alpha**2 * variance, rel=1e-9, abs=1e-10)
            shift = last.alpha * mean - scale * memory * first.alpha * mean
            assert float(found.shift[channel]) == pytest.approx(shift, abs=1e-9)


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
@pytest.mark.parametrize(
    "given",
    [{"s-churn": 0}, {"s-churn": 3}, {"s-churn": 8, "s-min": 0.5, "s-max": 3}],
    ids=str,
)
def test_is_of_weak_order_2_with_churn_and_without(
    given: Given, schedule: str, layout: object
) -> None:
    steps = [100, 140, 200]
    grids = [grid_at(make_schedule(schedule), layout(-2, 1.5, n)) for n in steps]  # type: ignore[operator]
    errors = [gaussian_error("edm", grid, given) for grid in grids]
    assert observed_order(errors, steps) == pytest.approx(2, abs=0.15)
    assert get("edm").order(get("edm").complete(given)) == 2


@pytest.mark.parametrize("layout", [smooth, rough])
def test_is_of_weak_order_2_on_a_mixture(layout: object) -> None:
    """gamma = s-churn / n, and each step is a grid of its own: hence the division."""
    steps = [40, 56, 80]
    grids = [grid_at(make_schedule("vp-linear"), layout(-2, 1.5, n)) for n in steps]  # type: ignore[operator]
    errors = [
        mixture_error("edm", grid, {"s-churn": 3 / n}) for grid, n in zip(grids, steps, strict=True)
    ]
    assert observed_order(errors, steps) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_churn_stays_below_the_schedule_s_noisiest_level(schedule: str) -> None:
    made = make_schedule(schedule)
    top = made.at(t=made.t_max).s
    grid = make_grid(made, "karras", 5, final="sigma-min")
    levels = asked(grid, {"s-churn": 1})
    assert levels[0] == pytest.approx(top, rel=1e-9), "no room for churn at the top"
    assert levels[2] == pytest.approx(1.2 * grid.points[1].s, rel=1e-9)
    below = TimeGrid(made, (made.at(s=0.9 * top), made.at(s=1.0)))
    assert asked(below, {"s-churn": 0.05})[0] == pytest.approx(0.945 * top, rel=1e-9)
    assert asked(below, {"s-churn": 0.4})[0] == pytest.approx(top, rel=1e-9)


def test_churns_only_between_s_min_and_s_max_and_never_more_than_sqrt_2() -> None:
    made = make_schedule("edm")
    grid = TimeGrid(made, tuple(made.at(t=t) for t in (40.0, 10.0, 2.0, 0.5, 0.1)))
    levels = asked(grid, {"s-churn": 0.8, "s-min": 0.5, "s-max": 10})
    assert levels == pytest.approx([40, 10, 12, 2, 2.4, 0.5, 0.6, 0.1])
    levels = asked(grid, {"s-churn": 99, "s-max": 2})
    assert levels == pytest.approx([40, 10, 10, 2, 8**0.5, 0.5, 0.5**0.5, 0.1])


@pytest.mark.parametrize(
    ("given", "schedule", "message"),
    [
        (
            {},
            "flow",
            "edm works in s = sigma / alpha, which is infinite where this grid starts (t = 1, "
            "alpha = 0). Start the grid below it.",
        ),
        (
            {"s-min": 1, "s-max": 0.05},
            "edm",
            "edm churns from s-min = 1 to s-max = 0.05, which is nowhere. Swap them.",
        ),
    ],
)
def test_says_what_it_refuses(given: Given, schedule: str, message: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 4)
    with pytest.raises(ScheduleError) as caught:
        get("edm").check(grid, get("edm").complete(given))
    assert str(caught.value) == message


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("churn", [0.0, 2.0, 60.0])
def test_karras_ve_of_diffusers_takes_the_same_steps(churn: float) -> None:
    """Its own noise levels are squares of the paper's; given ours, its steps are algorithm 2.

    Its network's output is -eps: x0 = x + sigma output. It has no ceiling, so s-max is ours below.
    """
    schedule: NoiseSchedule = make_schedule("edm")
    grid = make_grid(schedule, "karras", 12)
    given: Given = {"s-churn": churn, "s-min": 0.05, "s-max": 50, "s-noise": 1.007}
    theirs = KarrasVeScheduler(s_noise=1.007, s_churn=churn, s_min=0.05, s_max=50)
    theirs.set_timesteps(12)
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(6, *SHAPE, generator=generator)
    x, draws = 80 * start, [start]

    def output(x: Tensor, sigma: float) -> Tensor:
        return -Blobs().pair(x, schedule.at(s=sigma))[1]

    for a, b in grid.steps():
        state = generator.get_state()
        hat, sigma = theirs.add_noise_to_input(x, a.s, generator=generator)
        if churn > 0 and 0.05 <= a.s <= 50:
            generator.set_state(state)
            draws.append(torch.randn(6, *SHAPE, generator=generator))
        first = theirs.step(output(hat, sigma), sigma, b.s, hat)
        x = first.prev_sample
        if b.s > 0:
            x = theirs.step_correct(
                output(x, b.s), sigma, b.s, hat, x, first.derivative
            ).prev_sample
    params = get("edm").complete(given)
    found = sample(
        get("edm"), Denoiser(Blobs().pair), grid, GivenNoise(draws), final="zero", params=params
    )
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
