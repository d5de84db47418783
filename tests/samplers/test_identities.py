"""Samplers that are the same map by theory are the same numbers in float64."""

import math

import pytest
import torch
from torch import Tensor

from bench.certify.orders import grid_at
from bench.certify.problems import SHAPE, Blobs, Gaussian
from bench.diffusion.denoiser import Denoiser, Pair, from_network
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import FINALS, Final, TimeGrid, make_grid
from bench.samplers.registry import get, sample
from tests.samplers.target import target

# Spacings by schedule: all that are defined there.
GRIDS = [
    (schedule, spacing)
    for schedule in ("vp-linear", "vp-cosine", "vp-scaled-linear")
    for spacing in (
        *("uniform", "linspace", "trailing", "quadratic", "quadratic-full", "logsnr", "karras"),
    )
] + [
    ("edm", "linspace"),
    ("edm", "trailing"),
    ("edm", "logsnr"),
    ("edm", "karras"),
    ("flow", "linspace"),
    ("flow", "trailing"),
]


def run(
    name: str, grid: TimeGrid, final: Final = "zero", *, seed: int = 1, **given: object
) -> Tensor:
    sampler = get(name)
    params = sampler.complete({key.replace("_", "-"): value for key, value in given.items()})
    noise = Noise(seed, range(5), SHAPE, dtype=torch.float64)
    return sample(sampler, Denoiser(Blobs().pair), grid, noise, final=final, params=params)


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_ddim_is_euler_in_s_is_first_order_dpm_solver_pp(schedule: str, spacing: str) -> None:
    for n in (1, 2, 7, 23):
        for final in FINALS:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            ddim = run("ddim", grid, final, eta=0)
            assert ddim.isfinite().all()
            assert_same(run("euler", grid, final), ddim)
            assert_same(run("dpm-solver++", grid, final, order=1), ddim)


@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_ddpm_small_is_ddim_with_eta_1(schedule: str, spacing: str) -> None:
    for n in (1, 2, 7, 23):
        for final in FINALS:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            small = run("ddpm", grid, final, variance="small")
            assert_same(small, run("ddim", grid, final, eta=1))


def test_ddpm_small_at_all_steps_is_ddim_with_eta_1() -> None:
    grid = make_grid(make_schedule("vp-linear"), "all", 1000)
    assert len(grid) == 1000
    assert_same(run("ddpm", grid, variance="small"), run("ddim", grid, eta=1))


@pytest.mark.parametrize(("schedule", "spacing"), [g for g in GRIDS if g[0] != "edm"])
def test_sigma_hat_is_clipped_ddpm_with_large_variance(schedule: str, spacing: str) -> None:
    """The DDIM paper, after eq. 16: its last row is the sampler of Ho et al."""
    for n in (1, 2, 7, 23):
        grid = make_grid(make_schedule(schedule), spacing, n)
        large = run("ddpm", grid, variance="large", clip=True)
        assert_same(large, run("ddim", grid, eta="sigma-hat"))


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_ddim_is_the_ancestral_step_in_s(schedule: str, eta: float) -> None:
    """An Euler step down to s_down and s_up of fresh noise, s_up^2 + s_down^2 = s_b^2."""
    grid = make_grid(make_schedule(schedule), "logsnr", 12, final="sigma-min")
    noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
    x = noise() * grid.schedule.prior_std(grid.points[0])
    for a, b in grid.steps():
        _, eps = Blobs().pair(x, a)
        s_up = eta * math.sqrt(b.s**2 * (a.s**2 - b.s**2) / a.s**2)
        s_down = math.sqrt(b.s**2 - s_up**2)
        bar = x / a.alpha + (s_down - a.s) * eps
        x = b.alpha * (bar + (s_up * noise() if eta > 0 else 0.0))
    assert_same(run("ddim", grid, "sigma-min", eta=eta), x)


def ve_twin(grid: TimeGrid) -> TimeGrid:
    """The same noise levels s in a VE schedule."""
    return TimeGrid(
        make_schedule("edm"),
        tuple(
            Point(p.s, 1.0, p.s, p.lam) if p.sigma > 0 else make_schedule("edm").clean
            for p in grid.points
        ),
    )


@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "logsnr", "karras"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("euler", {}),
        ("heun", {}),
        ("ddim", {"eta": 0}),
        ("ddim", {"eta": 0.5}),
        ("ddpm", {"variance": "small"}),
        ("dpm-solver++", {"order": 1}),
        ("dpm-solver++", {"order": 2}),
    ],
)
def test_a_vp_model_and_its_ve_rescaling_give_the_same_images(
    name: str, given: dict[str, object], spacing: str
) -> None:
    """ddpm large is left out: beta = sigma_a^2 r depends on which of the two it is read in."""
    vp = make_grid(make_schedule("vp-linear"), spacing, 15)
    ve = ve_twin(vp)
    # N(0, I) of a VP start is N(0, alpha^-2) in VE, where `sample` would draw N(0, s^2).
    sampler = get(name)
    params = sampler.complete(given)
    keywords = {key.replace("-", "_"): value for key, value in params.items()}
    images = []
    for grid, scale in [(vp, 1.0), (ve, 1.0 / vp.points[0].alpha)]:
        noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
        x = scale * noise()
        images.append(sampler.function(Denoiser(Blobs().pair), x, grid, noise, **keywords))
    assert_same(*images)


@pytest.mark.parametrize("parametrisation", ["eps", "x0", "v", "score", "velocity"])
@pytest.mark.parametrize("name", ["heun", "ddim", "dpm-solver++"])
def test_what_the_network_predicts_does_not_matter(name: str, parametrisation: str) -> None:
    def predict(x: Tensor, point: Point) -> Tensor:
        x0, eps = Blobs().pair(x, point)
        return target(parametrisation, x0, eps, point)

    grid = make_grid(make_schedule("vp-linear"), "logsnr", 12)
    noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
    pair = from_network(predict, parametrisation)  # type: ignore[arg-type]
    sampler = get(name)
    x = sample(sampler, Denoiser(pair), grid, noise, final="zero", params=sampler.complete({}))
    assert_same(x, run(name, grid))


def test_one_step_lands_on_x0_of_the_start() -> None:
    """Every sampler's only step into sigma = 0 is the denoised start."""
    for schedule in ("vp-linear", "edm", "flow"):
        grid = make_grid(make_schedule(schedule), "linspace", 1)
        noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
        start = grid.points[0]
        expected, _ = Blobs().pair(grid.schedule.prior_std(start) * noise(), start)
        for name, given in [("ddim", {"eta": 1}), ("euler", {}), ("ddpm", {"variance": "large"})]:
            assert_same(run(name, grid, **given), expected)
        assert_same(run("dpm-solver++", grid), expected)


def test_second_order_is_first_order_after_a_start_without_signal() -> None:
    """At alpha = 0 the step before has h = infinity: it says nothing about the slope of D."""
    grid = make_grid(make_schedule("flow"), "linspace", 2, final="sigma-min")
    assert grid.points[0].alpha == 0
    assert_same(run("dpm-solver++", grid, "sigma-min"), run("euler", grid, "sigma-min"))
    longer = make_grid(make_schedule("flow"), "linspace", 3, final="sigma-min")
    difference = run("dpm-solver++", longer, "sigma-min") - run("euler", longer, "sigma-min")
    assert difference.abs().max() > 1e-4


class Recorder:
    """An exact model that remembers the calls, to replay them through a formula."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.calls: list[tuple[Tensor, Point, Tensor]] = []
        self.schedule = schedule

    def pair(self, x: Tensor, point: Point) -> Pair:
        x0, eps = Blobs().pair(x, point)
        self.calls.append((x, point, x0))
        return x0, eps


@pytest.mark.parametrize(
    ("rule", "below"), [("never", 0), ("lt10", 10), ("lt15", 15), ("always", 10**9)]
)
def test_lower_order_final_lowers_the_last_step_of_short_runs(rule: str, below: int) -> None:
    for n in (2, 3, 9, 10, 11, 14, 15, 16, 30):
        grid = make_grid(make_schedule("vp-linear"), "logsnr", n, final="sigma-min")
        model = Recorder(grid.schedule)
        sampler = get("dpm-solver++")
        params = sampler.complete({"lower-order-final": rule})
        noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
        end = sample(sampler, Denoiser(model.pair), grid, noise, final="sigma-min", params=params)
        (_, before, d_before), (x, a, d) = model.calls[-2:]
        b = grid.points[-1]
        first = b.sigma / a.sigma * x + b.alpha * (1 - math.exp(a.lam - b.lam)) * d
        slope = (d - d_before) / (a.lam - before.lam)
        second = first + b.alpha * (1 - math.exp(a.lam - b.lam)) * 0.5 * (b.lam - a.lam) * slope
        assert_same(end, first if n < below else second)
        assert (first - second).abs().max() > 1e-7, "the two must differ for this to say anything"


def test_lower_order_final_does_nothing_into_sigma_zero() -> None:
    grid = make_grid(make_schedule("vp-linear"), "logsnr", 6)
    never = run("dpm-solver++", grid, lower_order_final="never")
    assert torch.equal(run("dpm-solver++", grid, lower_order_final="always"), never)


@pytest.mark.parametrize("name", ["euler", "heun", "ddim", "dpm-solver++"])
def test_a_step_of_no_length_changes_nothing(name: str) -> None:
    """As b approaches a the map approaches the identity: no constant is lost anywhere."""
    schedule = make_schedule("vp-linear")
    for lam in (-4.0, 0.0, 4.0):
        grid = grid_at(schedule, [lam, lam + 1e-9])
        noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
        x = noise()
        sampler = get(name)
        end = sample(
            sampler,
            Denoiser(Gaussian().pair),
            grid,
            Noise(1, range(5), SHAPE, dtype=torch.float64),
            final="sigma-min",
            params=sampler.complete({}),
        )
        torch.testing.assert_close(end, x, rtol=0, atol=1e-7)
