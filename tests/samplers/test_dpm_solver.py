"""DPM-Solver: orders, its identities, the "fast" schedule, refusals, and diffusers beside it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DPMSolverSinglestepScheduler
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import GivenNoise
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import EDM, Point, make_schedule
from bench.diffusion.spacing import FINALS, Final, make_grid
from bench.errors import ScheduleError
from bench.samplers.registry import get, sample
from tests.samplers.solving import (
    MIXTURE,
    PROBLEMS,
    assert_same,
    order_of,
    solve,
    start_of,
    ve_twin,
)

VP = make_schedule("vp-linear")
SOLVER = get("dpm-solver")
STEPS = {1: [200, 280, 400], 2: [100, 140, 200], 3: [100, 140, 200]}


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("order", "observed"),
    # "fast" ends in one step of order 1 or 2, which alone is off by h^2 or h^3.
    [(1, 1), (2, 2), (3, 3), ("fast-0", 2), ("fast-1", 2), ("fast-2", 3)],
)
def test_converges_at_its_order(
    order: object,
    observed: int,
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
) -> None:
    found = order_of("dpm-solver", "vp-linear", problem, layout, STEPS[observed], order=order)
    assert found == pytest.approx(observed, abs=0.15)
    assert SOLVER.order(SOLVER.complete({"order": order})) == observed


@pytest.mark.parametrize("order", [1, 2, 3])
def test_one_step_has_the_formula_s_local_error(order: int) -> None:
    """Where eps depends on lambda alone, the exact step is an integral of it."""

    def curve(lam: float) -> float:
        return float(np.sin(1.3 * lam) + 0.4 * lam**2)

    def pair(x: Tensor, point: Point) -> Pair:
        eps = torch.full_like(x, curve(point.lam))
        return (x - point.sigma * eps) / point.alpha, eps

    def local_error(h: float) -> float:
        grid = grid_at(VP, [0.3, 0.3 + h])
        x, (a, b) = start_of(grid), grid.points
        nodes, weights = np.polynomial.legendre.leggauss(20)
        lams = a.lam + h / 2 * (nodes + 1)
        integral = float((weights * h / 2 * np.exp(-lams) * [curve(v) for v in lams]).sum())
        exact = b.alpha / a.alpha * x - b.alpha * integral
        return float((solve("dpm-solver", grid, x, pair, order=order) - exact).abs().max())

    inverse = [20, 40, 80]
    observed = observed_order([local_error(1 / n) for n in inverse], inverse)
    assert observed == pytest.approx(order + 1, abs=0.15)
    assert SOLVER.formula_order(SOLVER.complete({"order": order})) == order


@pytest.mark.parametrize(
    ("schedule", "spacing"),
    [
        ("vp-linear", "uniform"),
        ("vp-linear", "quadratic"),
        ("vp-cosine", "logsnr"),
        ("edm", "karras"),
        ("flow", "linspace"),
    ],
)
def test_first_order_is_ddim(schedule: str, spacing: str) -> None:
    for n in (1, 2, 7, 23):
        for final in FINALS:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            x = start_of(grid)
            assert_same(solve("dpm-solver", grid, x, order=1), solve("ddim", grid, x))


@pytest.mark.parametrize("order", [1, 2, 3, "fast-0", "fast-1"])
def test_a_vp_model_and_its_ve_rescaling_give_the_same_images(order: object) -> None:
    grid = make_grid(VP, "logsnr", 9)
    x = start_of(grid)
    twin = ve_twin(grid, EDM(t_max=200.0))
    found = solve("dpm-solver", twin, x / grid.points[0].alpha, order=order)
    assert_same(found, solve("dpm-solver", grid, x, order=order))


def test_fast_spends_every_budget() -> None:
    """Appendix D.3: N calls in K = N // 3 + 1 steps; N % 3 = 2 does not end at sigma = 0."""
    for budget in range(1, 31):
        params = SOLVER.complete({"order": f"fast-{budget % 3}"})
        finals: list[Final] = ["zero", "sigma-min"] if budget % 3 < 2 else ["sigma-min"]
        for final in finals:
            steps = SOLVER.steps_for(budget, final, params)
            assert steps == budget // 3 + 1
            grid = make_grid(VP, "logsnr", steps, final=final)
            denoise = Denoiser(MIXTURE)
            noise = GivenNoise([start_of(grid)])
            sample(SOLVER, denoise, grid, noise, final=final, params=params)
            assert denoise.nfe == budget


@pytest.mark.parametrize(
    ("order", "to_zero", "to_min"), [(1, 5, 5), (2, 9, 10), (3, 13, 15), ("fast-1", 13, 13)]
)
def test_calls_of_five_steps(order: object, to_zero: int, to_min: int) -> None:
    params = SOLVER.complete({"order": order})
    assert [SOLVER.nfe(5, final, params) for final in FINALS] == [to_zero, to_min, to_min + 1]


@pytest.mark.parametrize(
    ("order", "shares"),
    [
        (2, [[0, 1 / 2]] * 3),
        (3, [[0, 1 / 3, 2 / 3]] * 3),
        ("fast-0", [[0, 1 / 3, 2 / 3], [0, 1 / 2], [0]]),
        ("fast-1", [[0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3], [0]]),
        ("fast-2", [[0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3], [0, 1 / 2]]),
    ],
)
def test_calls_the_model_at_points_even_in_lambda(order: object, shares: list[list[float]]) -> None:
    seen: list[float] = []

    def pair(x: Tensor, point: Point) -> Pair:
        seen.append(point.lam)
        return MIXTURE(x, point)

    grid = make_grid(VP, "quadratic", 3, final="sigma-min")
    solve("dpm-solver", grid, start_of(grid), pair, order=order)
    steps = zip(grid.steps(), shares, strict=True)
    expected = [a.lam + share * (b.lam - a.lam) for (a, b), inside in steps for share in inside]
    assert seen == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("order", "schedule", "steps", "reason"),
    [
        (
            3,
            "flow",
            4,
            "dpm-solver puts points inside its steps by lambda = log(alpha / sigma), which is "
            "infinite where this grid starts (t = 1, alpha = 0). Start the grid below it.",
        ),
        (
            "fast-2",
            "vp-linear",
            4,
            "dpm-solver with order: fast-2 ends in a step of order 2, and lambda = "
            "log(alpha / sigma) is infinite at sigma = 0. Use final: sigma-min.",
        ),
        (
            "fast-0",
            "vp-linear",
            1,
            "dpm-solver takes at least 2 steps; this grid has 1.",
        ),
    ],
)
def test_says_which_grids_it_refuses(order: object, schedule: str, steps: int, reason: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", steps)
    with pytest.raises(ScheduleError) as caught:
        SOLVER.check(grid, SOLVER.complete({"order": order}))
    assert str(caught.value) == reason


def test_a_first_order_step_from_pure_noise_to_the_image_is_x0() -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 1)
    x = start_of(grid)
    x0, _ = MIXTURE(x, grid.points[0])
    for order in (1, "fast-1"):
        assert_same(solve("dpm-solver", grid, x, order=order), x0)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("n", [2, 5, 10])
def test_second_order_is_that_of_diffusers(n: int) -> None:
    """Their grid holds the points inside our steps.

    At order 3 they take the point at 2/3 by the midpoint rule, where algorithm 2 has
    (e^(r2 h) - 1) / (r2 h) - 1: another method.
    """
    grid = make_grid(VP, "quadratic-full", n, final="sigma-min")
    theirs = DPMSolverSinglestepScheduler(
        algorithm_type="dpmsolver",
        solver_order=2,
        solver_type="midpoint",
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    levels = [grid.points[0]]
    for a, b in grid.steps():
        levels += [VP.at(lam=(a.lam + b.lam) / 2), b]
    theirs.set_timesteps(2 * n)
    theirs.sigmas = torch.tensor([p.s for p in levels], dtype=torch.float64)
    x = start_of(grid)
    for t, point in zip(theirs.timesteps, levels[:-1], strict=True):
        x = theirs.step(MIXTURE(x, point)[1], t, x).prev_sample
    assert_same(solve("dpm-solver", grid, start_of(grid), order=2), x)
