"""Euler, Heun, Runge-Kutta and Adams-Bashforth in s, lam and t."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import LMSDiscreteScheduler
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE, Gaussian
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import EDM, Point, make_schedule, vp_linear
from bench.diffusion.spacing import Final, TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.samplers.classical import adams_bashforth
from bench.samplers.registry import get, sample
from tests.samplers.solving import (
    MIXTURE,
    assert_same,
    long_start,
    order_of,
    solve,
    start_of,
    ve_twin,
)

VARIABLES = ("s", "lam", "t")
METHODS = ("euler", "heun", "rk4", "ab")


# Orders. In t the continuous schedule is flow: a discrete one has its kinks, see below.

ORDERS = [
    ("euler", "lam", {}, 1, [200, 280, 400]),
    ("euler", "t", {}, 1, [200, 280, 400]),
    ("heun", "lam", {}, 2, [100, 140, 200]),
    ("heun", "t", {}, 2, [100, 140, 200]),
    ("rk4", "s", {}, 4, [20, 28, 40]),
    ("rk4", "lam", {}, 4, [60, 84, 120]),
    ("rk4", "t", {}, 4, [20, 28, 40]),
    ("ab", "s", {"order": 1}, 1, [200, 280, 400]),
    ("ab", "s", {"order": 2}, 2, [100, 140, 200]),
    ("ab", "lam", {"order": 2}, 2, [100, 140, 200]),
    ("ab", "t", {"order": 2}, 2, [100, 140, 200]),
    # Euler's first step is all that is left of the error where the steps are many.
    ("ab", "lam", {"order": 4}, 2, [400, 560, 800]),
    ("ab", "t", {"order": 4}, 2, [400, 560, 800]),
]


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize(("name", "variable", "given", "order", "steps"), ORDERS)
def test_converges_at_its_order(
    name: str,
    variable: str,
    given: dict[str, object],
    order: int,
    steps: list[int],
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
) -> None:
    schedule = "flow" if variable == "t" else "vp-linear"
    found = order_of(name, schedule, problem, layout, steps, variable=variable, **given)
    assert found == pytest.approx(order, abs=0.15)
    sampler = get(name)
    assert sampler.order(sampler.complete({"variable": variable, **given})) == order


@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("variable", VARIABLES)
def test_the_start_leaves_adams_bashforth_order_2(variable: str, order: int, problem: str) -> None:
    schedule = "flow" if variable == "t" else "vp-linear"
    given = {"variable": variable, "order": order}
    found = order_of("ab", schedule, problem, long_start, [100, 140, 200], **given)
    assert found == pytest.approx(2, abs=0.15)
    assert get("ab").order(get("ab").complete(given)) == 2


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("variable", VARIABLES)
def test_the_adams_bashforth_formula_has_its_order_with_exact_history(
    variable: str, order: int, ratio: float
) -> None:
    """Where the slope depends on the variable alone, the exact step is an integral.

    Steps grow by `ratio` from one to the next; what the start-up lost is in both ends.
    """
    schedule = make_schedule("flow" if variable == "t" else "vp-linear")

    def slope(u: float) -> float:
        return math.sin(1.3 * u) + 0.4 * u**2

    def pair(x: Tensor, p: Point) -> Pair:
        """The pair with x = alpha x0 + sigma eps whose slope is that of u."""
        of_x0, of_eps = {
            "s": (0.0, 1.0),
            "lam": (p.alpha * p.sigma**2, -(p.alpha**2) * p.sigma),
            "t": (-1.0, 1.0),
        }[variable]
        g = slope(getattr(p, variable))
        total = of_eps * p.alpha - of_x0 * p.sigma
        return (of_eps * x - g * p.sigma) / total, (g * p.alpha - of_x0 * x) / total

    def local_error(h: float) -> float:
        sign, at = (1.0 if variable == "lam" else -1.0), 0.5  # the newest node, and where it goes
        back = [0.0, *np.cumsum([ratio**-k for k in range(1, order)])]
        u = [at - sign * h * b for b in back[::-1]] + [at + sign * h]
        points = [schedule.at(**{variable: v}) for v in u]
        x = torch.zeros(1, *SHAPE, dtype=torch.float64)
        given = {"order": order, "variable": variable}
        end = solve("ab", TimeGrid(schedule, tuple(points)), x, pair, **given)
        middle = x
        if order > 1:
            middle = solve("ab", TimeGrid(schedule, tuple(points[:-1])), x, pair, **given)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        integral = (
            0.5
            * sign
            * h
            * sum(
                w * slope(at + 0.5 * sign * h * (1 + v))
                for v, w in zip(nodes, weights, strict=True)
            )
        )
        a, b = points[-2:]
        exact = middle + integral
        if variable == "s":
            exact = b.alpha * (middle / a.alpha + integral)
        return float((end - exact).abs().max())

    inverse = [16, 24, 36]
    scale = 0.3 if variable == "t" else 1.0
    scale *= min(1.0, ratio) ** 2  # the history is within the schedule
    errors = [local_error(scale / n) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(order + 1, abs=0.2)
    sampler = get("ab")
    assert sampler.formula_order(sampler.complete({"order": order})) == order


# What t means on a discrete schedule.


@pytest.mark.parametrize(("name", "given"), [("heun", {}), ("ab", {"order": 2})])
def test_in_t_a_discrete_schedule_converges_on_its_indices(
    name: str, given: dict[str, object]
) -> None:
    """With the slope of one side alone the error stays at 2e-3 however many the steps."""
    schedule = vp_linear()
    errors, strides = [], [8, 4, 2]
    for stride in (*strides, 1):
        grid = TimeGrid(schedule, tuple(schedule.at(t=t) for t in range(800, 95, -stride)))
        x = start_of(grid)
        exact = Gaussian().flow(x, grid.points[0], grid.points[-1])
        end = solve(name, grid, x, Gaussian().pair, variable="t", **given)
        errors.append(float((end - exact).abs().max()))
    assert observed_order(errors[:3], [1 / s for s in strides]) == pytest.approx(2, abs=0.15)
    assert errors[3] < 2e-5


# Identities.


@pytest.mark.parametrize("final", ["zero", "sigma-min"])
@pytest.mark.parametrize("schedule", ["edm", "flow"])
def test_euler_in_t_is_ddim_where_alpha_and_sigma_are_linear_in_t(
    schedule: str, final: Final
) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 7, final=final)
    x = start_of(grid)
    assert_same(solve("euler", grid, x, variable="t"), solve("ddim", grid, x, eta=0))


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm"])
def test_adams_bashforth_of_order_1_is_euler(schedule: str, variable: str) -> None:
    for n in (1, 2, 9):
        grid = make_grid(make_schedule(schedule), "linspace", n)
        x = start_of(grid)
        one = solve("ab", grid, x, order=1, variable=variable)
        assert_same(one, solve("euler", grid, x, variable=variable))


@pytest.mark.parametrize("name", METHODS)
def test_t_is_s_on_edm(name: str) -> None:
    grid = make_grid(make_schedule("edm"), "karras", 8)
    x = start_of(grid)
    assert_same(solve(name, grid, x, variable="t"), solve(name, grid, x, variable="s"))


FIXED = {
    1: [1],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_equal_steps_have_the_fixed_coefficients(order: int) -> None:
    nodes = [-2.0 * k for k in range(order)]
    found = adams_bashforth(nodes, 0.0, 2.0)
    assert found == pytest.approx([2 * c for c in FIXED[order]], abs=1e-13)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_equal_steps_in_s_are_taken_with_the_fixed_coefficients(order: int) -> None:
    grid = make_grid(make_schedule("edm"), "linspace", 12, final="sigma-min")
    x = end = start_of(grid)
    slopes: list[Tensor] = []
    for a, b in grid.steps():
        slopes = [MIXTURE(end, a)[1], *slopes][:order]
        change = sum(c * k for c, k in zip(FIXED[len(slopes)], slopes, strict=True))
        end = end + (b.s - a.s) * change
    assert_same(solve("ab", grid, x, order=order), end)


@pytest.mark.parametrize("spacing", ["quadratic", "logsnr"])
@pytest.mark.parametrize(
    ("name", "given"),
    [("rk4", {}), ("heun", {"corrected-last": False}), *[("ab", {"order": k}) for k in (2, 3, 4)]],
)
def test_in_s_a_vp_model_and_its_ve_rescaling_give_the_same_images(
    name: str, given: dict[str, object], spacing: str
) -> None:
    for final in ("zero", "sigma-min"):
        vp = make_grid(make_schedule("vp-linear"), spacing, 9, final=final)
        ve = ve_twin(vp, EDM(t_max=200.0))
        a, b = vp.points[0], vp.points[-1]
        x = start_of(vp)
        assert_same(solve(name, ve, x / a.alpha, **given), solve(name, vp, x, **given) / b.alpha)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_no_length_changes_nothing(name: str, variable: str) -> None:
    for lam in (-4.0, 0.0, 4.0):
        grid = grid_at(make_schedule("vp-linear"), [lam, lam + 1e-9])
        x = start_of(grid)
        found = solve(name, grid, x, variable=variable)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-7)


# Ends.


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm"])
def test_the_last_step_to_sigma_zero_lands_on_x0(schedule: str, name: str, variable: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 4)
    before = TimeGrid(grid.schedule, grid.points[:-1])
    x = start_of(grid)
    last = solve(name, before, x, variable=variable)
    x0, _ = MIXTURE(last, before.points[-1])
    assert_same(solve(name, grid, x, variable=variable), x0)


@pytest.mark.parametrize("variable", VARIABLES)
def test_heun_leaves_the_last_step_to_euler_where_it_is_asked_to(variable: str) -> None:
    grid = make_grid(make_schedule("vp-linear"), "logsnr", 5, final="sigma-min")
    before, last = (TimeGrid(grid.schedule, p) for p in (grid.points[:-1], grid.points[-2:]))
    x = start_of(grid)
    middle = solve("heun", before, x, variable=variable)
    euler = solve("euler", last, middle, variable=variable)
    assert_same(solve("heun", grid, x, variable=variable, corrected_last=False), euler)
    corrected = solve("heun", grid, x, variable=variable)
    assert_same(corrected, solve("heun", last, middle, variable=variable))
    assert (corrected - euler).abs().max() > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_in_t_pure_noise_is_a_point_like_any_other(name: str) -> None:
    """All four follow the flow of a Gaussian from alpha = 0; the velocity is eps - x0."""
    schedule = make_schedule("flow")
    grid = TimeGrid(schedule, tuple(schedule.at(t=t) for t in np.linspace(1.0, 0.1, 51)))
    x = start_of(grid)
    exact = Gaussian().flow(x, grid.points[0], grid.points[-1])
    end = solve(name, grid, x, Gaussian().pair, variable="t")
    assert (end - exact).abs().max() < {"euler": 0.1, "heun": 2e-3, "rk4": 1e-5, "ab": 2e-3}[name]


def test_in_s_adams_bashforth_forgets_a_slope_at_infinity() -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 6, final="sigma-min")
    assert math.isinf(grid.points[0].s)
    x = start_of(grid)
    after = solve("euler", TimeGrid(grid.schedule, grid.points[:2]), x)
    rest = TimeGrid(grid.schedule, grid.points[1:])
    assert_same(solve("ab", grid, x), solve("ab", rest, after))


# Refusals.


@pytest.mark.parametrize(
    ("name", "variable", "works_in"),
    [
        ("euler", "lam", "lam = log(alpha / sigma)"),
        ("heun", "s", "s = sigma / alpha"),
        ("heun", "lam", "lam = log(alpha / sigma)"),
        ("rk4", "s", "s = sigma / alpha"),
        ("rk4", "lam", "lam = log(alpha / sigma)"),
        ("ab", "lam", "lam = log(alpha / sigma)"),
    ],
)
def test_refuses_to_start_where_its_variable_is_infinite(
    name: str, variable: str, works_in: str
) -> None:
    sampler = get(name)
    params = sampler.complete({"variable": variable})
    grid = make_grid(make_schedule("flow"), "linspace", 4)
    with pytest.raises(ScheduleError) as caught:
        sampler.check(grid, params)
    assert str(caught.value) == (
        f"{name} works in {works_in}, which is infinite where this grid starts (t = 1, alpha = 0). "
        "Start the grid below it, or set variable: t."
    )
    sampler.check(TimeGrid(grid.schedule, grid.points[1:]), params)
    sampler.check(make_grid(make_schedule("vp-linear"), "linspace", 4), params)


@pytest.mark.parametrize(
    ("name", "variable"), [*((name, "t") for name in METHODS), ("euler", "s"), ("ab", "s")]
)
def test_starts_at_pure_noise_elsewhere(name: str, variable: str) -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 4)
    sampler = get(name)
    params = sampler.complete({"variable": variable})
    noise = Noise(1, range(3), SHAPE, dtype=torch.float64)
    x = sample(sampler, Denoiser(MIXTURE), grid, noise, final="zero", params=params)
    assert x.isfinite().all()


# A second opinion.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [5, 20])
def test_lms_of_diffusers(n: int, order: int) -> None:
    """Their state is x / alpha. Theirs keeps its order in the step to sigma = 0, which is left out.

    At their settings of 1e-4 the quadrature of the coefficients is exact: the integrands are
    polynomials.
    """
    theirs = LMSDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        timestep_spacing="leading",
    )
    theirs.set_timesteps(n)
    grid = make_grid(vp_linear(), "uniform", n)
    assert theirs.timesteps.tolist() == [point.t for point in grid.points[:-1]]
    grid = TimeGrid(grid.schedule, grid.points[:-1])
    start = start_of(grid).float()
    x = start / grid.points[0].alpha
    for point, t in zip(grid.points, theirs.timesteps[:-1], strict=False):
        _, eps = MIXTURE(theirs.scale_model_input(x, t), point)
        x = theirs.step(eps, t, x, order=order).prev_sample
    found = solve("ab", grid, start, order=order)
    torch.testing.assert_close(found, grid.points[-1].alpha * x, rtol=1e-4, atol=1e-4)
