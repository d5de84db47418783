"""PNDM, PLMS and iPNDM: orders, where they are classical methods, and diffusers' schedulers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import IPNDMScheduler, PNDMScheduler

from bench.certify.orders import observed_order, rough, smooth
from bench.certify.problems import SHAPE, Gaussian
from bench.diffusion.schedule import Point, make_schedule, vp_linear
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.samplers.registry import get
from tests.samplers.solving import MIXTURE, assert_same, order_of, solve, start_of, ve_twin

NAMES = ("pndm", "plms", "ipndm")


# Orders.


@pytest.mark.parametrize(("layout", "order"), [(smooth, 2), (rough, 1)])
@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize("name", NAMES)
def test_order_2_where_steps_change_smoothly_and_1_where_they_do_not(
    name: str,
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
    order: int,
) -> None:
    """The weights are those of equal steps, whatever the steps."""
    found = order_of(name, "vp-linear", problem, layout, [100, 140, 200])
    assert found == pytest.approx(order, abs=0.15)
    assert get(name).order({}) == get(name).formula_order({}) == 2


# With equal steps in s the weights are exact: the classical methods, in EDM's time.


def equal_steps(n: int) -> TimeGrid:
    schedule = make_schedule("edm")
    return TimeGrid(schedule, tuple(schedule.at(t=t) for t in np.linspace(4.0, 1.0, n + 1)))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
def test_ipndm_is_adams_bashforth_where_steps_are_equal_in_s(n: int) -> None:
    grid = equal_steps(n)
    x = start_of(grid)
    assert_same(solve("ipndm", grid, x), solve("ab", grid, x, order=4))


def test_pndm_starts_with_runge_kutta_where_steps_are_equal_in_s() -> None:
    grid = equal_steps(4)
    x = start_of(grid)
    states, slopes = [x], []
    for a, b in grid.steps():
        slopes.append(MIXTURE(states[-1], a)[1])
        states.append(solve("rk4", TimeGrid(grid.schedule, (a, b)), states[-1]))
    a, b = grid.points[-2:]
    combined = (55 * slopes[3] - 59 * slopes[2] + 37 * slopes[1] - 9 * slopes[0]) / 24
    assert_same(solve("pndm", grid, x), states[3] + (b.s - a.s) * combined)


def test_plms_starts_with_heun() -> None:
    grid = equal_steps(2)
    x = start_of(grid)
    a, middle, b = grid.points
    state = solve("heun", TimeGrid(grid.schedule, (a, middle)), x)
    combined = 1.5 * MIXTURE(state, middle)[1] - 0.5 * MIXTURE(x, a)[1]
    assert_same(solve("plms", grid, x), state + (b.s - middle.s) * combined)


def test_pndm_is_of_order_4_where_steps_are_equal_in_s() -> None:
    errors, steps = [], [80, 112, 160]
    for n in steps:
        grid = equal_steps(n)
        x = start_of(grid)
        exact = Gaussian().flow(x, grid.points[0], grid.points[-1])
        errors.append(float((solve("pndm", grid, x, Gaussian().pair) - exact).norm()))
    assert observed_order(errors, steps) == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("spacing", ["quadratic", "logsnr"])
@pytest.mark.parametrize("name", ["plms", "ipndm"])
def test_a_vp_model_and_its_ve_rescaling_give_the_same_images(name: str, spacing: str) -> None:
    """Not pndm, whose middle is one of time."""
    for final in ("zero", "sigma-min"):
        vp = make_grid(vp_linear(), spacing, 9, final=final)
        x = start_of(vp)
        found = solve(name, ve_twin(vp, make_schedule("edm")), x / vp.points[0].alpha)
        assert_same(vp.points[-1].alpha * found, solve(name, vp, x))


# Ends and refusals.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm"])
def test_the_last_step_to_sigma_zero_lands_on_x0(schedule: str, name: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 6)
    before = TimeGrid(grid.schedule, grid.points[:-1])
    x = start_of(grid)
    x0, _ = MIXTURE(solve(name, before, x), before.points[-1])
    assert_same(solve(name, grid, x), x0)


@pytest.mark.parametrize(("name", "fewest"), [("pndm", 4), ("plms", 2)])
def test_takes_as_many_steps_as_its_start_up_needs(name: str, fewest: int) -> None:
    grid = make_grid(vp_linear(), "linspace", fewest - 1)
    with pytest.raises(ScheduleError) as caught:
        get(name).check(grid, {})
    assert str(caught.value) == (
        f"{name} takes at least {fewest} steps; this grid has {fewest - 1}."
    )
    get(name).check(make_grid(vp_linear(), "linspace", fewest), {})


@pytest.mark.parametrize("name", ["pndm", "plms"])
def test_refuses_to_start_at_pure_noise(name: str) -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 6)
    with pytest.raises(ScheduleError) as caught:
        get(name).check(grid, {})
    assert str(caught.value) == (
        f"{name} works in s = sigma / alpha, which is infinite where this grid starts (t = 1, "
        "alpha = 0). Start the grid below it."
    )
    get(name).check(TimeGrid(grid.schedule, grid.points[1:]), {})


def test_ipndm_starts_at_pure_noise_with_ddim_s_step() -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 1, final="sigma-min")
    x = start_of(grid)
    assert_same(solve("ipndm", grid, x), solve("ddim", grid, x, eta=0.0))


# Second opinions. Their last step to sigma = 0 keeps the order of the others; it is left out.

diffusers_reads = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@diffusers_reads
@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize("name", ["pndm", "plms"])
def test_pndm_of_diffusers(name: str, n: int) -> None:
    """With the middle of a Runge-Kutta step at an index: theirs rounds it down."""
    theirs = PNDMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        set_alpha_to_one=True,
        skip_prk_steps=name == "plms",
        timestep_spacing="leading",
    )
    theirs.set_timesteps(n)
    grid = make_grid(vp_linear(), "uniform", n)
    grid = TimeGrid(grid.schedule, grid.points[:-1])
    start = start_of(grid).float()
    x = start
    for t in theirs.timesteps[:-1]:
        _, eps = MIXTURE(x, grid.schedule.at(t=float(t)))
        x = theirs.step(eps, t, x).prev_sample
    torch.testing.assert_close(solve(name, grid, start), x, rtol=1e-4, atol=1e-4)


@diffusers_reads
@pytest.mark.parametrize("n", [4, 10, 30])
def test_ipndm_of_diffusers(n: int) -> None:
    """Their schedule is sigma = sin^2, their model gives v. They start at alpha = 0, where they
    drop the model's x0 and keep eps; so the comparison starts one point below.
    """
    theirs = IPNDMScheduler()
    theirs.set_timesteps(n)
    theirs.set_begin_index(1)
    levels = zip(theirs.alphas[1:n].tolist(), theirs.betas[1:n].tolist(), strict=True)
    points = [
        Point(float(t), alpha, sigma, float(np.log(alpha / sigma)))
        for t, (alpha, sigma) in zip(theirs.timesteps[1:], levels, strict=True)
    ]
    grid = TimeGrid(vp_linear(), tuple(points))
    generator = torch.Generator().manual_seed(3)
    start = x = torch.randn(6, *SHAPE, generator=generator)
    for point, t in zip(points[:-1], theirs.timesteps[1:], strict=False):
        x0, eps = MIXTURE(x, point)
        x = theirs.step(point.alpha * eps - point.sigma * x0, t, x).prev_sample
    torch.testing.assert_close(solve("ipndm", grid, start), x, rtol=1e-4, atol=1e-4)
