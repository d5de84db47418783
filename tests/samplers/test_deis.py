"""DEIS: orders, the formula with exact history, identities, and diffusers' log-rho relative."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DEISMultistepScheduler
from torch import Tensor

from bench.certify.orders import observed_order, rough, smooth
from bench.certify.problems import SHAPE
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import Point, make_schedule, vp_from_betas, vp_linear
from bench.diffusion.spacing import Final, TimeGrid, make_grid
from bench.samplers.registry import get
from tests.samplers.solving import MIXTURE, assert_same, long_start, order_of, solve, start_of

METHODS = ("tab", "rhoab")
GRIDS = [
    *(("vp-linear", spacing) for spacing in ("uniform", "quadratic", "trailing", "logsnr")),
    ("vp-cosine", "linspace"),
    ("vp-scaled-linear", "karras"),
    ("edm", "karras"),
    ("edm", "linspace"),
    ("flow", "linspace"),
    ("flow", "trailing"),
]


# Orders.

ORDERS = [
    ("tab", "vp-linear", 0, 1, [200, 280, 400]),
    ("tab", "vp-linear", 1, 2, [100, 140, 200]),
    ("tab", "flow", 1, 2, [100, 140, 200]),
    # Euler's first step is all that is left of the error where the steps are many.
    ("tab", "flow", 3, 2, [400, 560, 800]),
    ("rhoab", "vp-linear", 1, 2, [100, 140, 200]),
]


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize(("method", "schedule", "degree", "order", "steps"), ORDERS)
def test_converges_at_its_order(
    method: str,
    schedule: str,
    degree: int,
    order: int,
    steps: list[int],
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
) -> None:
    found = order_of("deis", schedule, problem, layout, steps, method=method, order=degree)
    assert found == pytest.approx(order, abs=0.15)
    assert get("deis").order(get("deis").complete({"order": degree})) == order


@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_start_leaves_order_2(method: str, degree: int, problem: str) -> None:
    given = {"method": method, "order": degree}
    found = order_of("deis", "vp-linear", problem, long_start, [100, 140, 200], **given)
    assert found == pytest.approx(2, abs=0.15)
    assert get("deis").order(get("deis").complete(given)) == 2


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_formula_has_its_order_with_exact_history(
    method: str, degree: int, ratio: float
) -> None:
    """Where eps depends on t (tab) or on s (rhoab) alone, the exact step is an integral.

    Steps grow by `ratio` from one to the next; what the start-up lost is in both ends.
    """
    schedule = make_schedule("flow")

    def value(u: float) -> float:
        return math.sin(1.3 * u) + 0.4 * u**2

    def place(point: Point) -> float:
        return point.t if method == "tab" else point.s

    def pair(x: Tensor, point: Point) -> Pair:
        eps = torch.full_like(x, value(place(point)))
        return (x - point.sigma * eps) / point.alpha, eps

    def local_error(h: float) -> float:
        back = [0.0, *np.cumsum([ratio**-k for k in range(1, degree + 1)])]
        points = [schedule.at(t=0.5 + h * v) for v in back[::-1]] + [schedule.at(t=0.5 - h)]
        x = torch.zeros(1, *SHAPE, dtype=torch.float64)
        given = {"method": method, "order": degree}
        end = solve("deis", TimeGrid(schedule, tuple(points)), x, pair, **given)
        middle = x
        if degree > 0:
            middle = solve("deis", TimeGrid(schedule, tuple(points[:-1])), x, pair, **given)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        times = 0.5 - 0.5 * h * (1 + nodes)
        levels = [schedule.at(t=float(t)) for t in times]
        # ds = dt / (1 - t)^2
        values = np.array([value(place(p)) / p.alpha**2 for p in levels])
        a, b = points[-2:]
        exact = b.alpha * (middle / a.alpha - 0.5 * h * float(weights @ values))
        return float((end - exact).abs().max())

    inverse = [16, 24, 36]
    errors = [local_error(0.3 * min(1.0, ratio) ** 2 / n) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(degree + 2, abs=0.2)
    assert get("deis").formula_order(get("deis").complete({"order": degree})) == degree + 1


# Identities.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_degree_0_is_ddim(schedule: str, spacing: str, method: str) -> None:
    finals: tuple[Final, ...] = ("zero", "sigma-min")
    for n in (1, 2, 11):
        for final in finals:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            x = start_of(grid)
            found = solve("deis", grid, x, method=method, order=0)
            assert_same(found, solve("ddim", grid, x, eta=0.0))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_rho_ab_is_adams_bashforth_in_s(schedule: str, spacing: str, degree: int) -> None:
    for final in ("zero", "sigma-min"):
        grid = make_grid(make_schedule(schedule), spacing, 9, final=final)
        x = start_of(grid)
        found = solve("deis", grid, x, method="rhoab", order=degree)
        assert_same(found, solve("ab", grid, x, order=degree + 1))


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("spacing", ["karras", "linspace"])
def test_t_is_rho_on_edm(spacing: str, degree: int) -> None:
    grid = make_grid(make_schedule("edm"), spacing, 9)
    x = start_of(grid)
    found = solve("deis", grid, x, method="tab", order=degree)
    assert_same(found, solve("deis", grid, x, method="rhoab", order=degree))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm", "flow"])
def test_a_constant_eps_is_integrated_exactly(schedule: str, method: str) -> None:
    """The coefficients of a step sum to alpha_b (s_b - s_a)."""

    def pair(x: Tensor, point: Point) -> Pair:
        eps = torch.full_like(x, 0.7)
        x0 = torch.zeros_like(x) if point.alpha == 0 else (x - point.sigma * eps) / point.alpha
        return x0, eps

    grid = make_grid(make_schedule(schedule), "linspace", 9, final="sigma-min")
    grid = TimeGrid(grid.schedule, grid.points[1:])
    a, b = grid.points[0], grid.points[-1]
    x = start_of(grid)
    exact = b.alpha * (x / a.alpha + (b.s - a.s) * 0.7)
    assert_same(solve("deis", grid, x, pair, method=method), exact)


@pytest.mark.parametrize("method", METHODS)
def test_the_degree_grows_with_the_history(method: str) -> None:
    for n in (1, 2, 3):
        grid = make_grid(vp_linear(), "quadratic", n, final="sigma-min")
        x = start_of(grid)
        full = solve("deis", grid, x, method=method, order=3)
        assert_same(full, solve("deis", grid, x, method=method, order=n - 1))


# Ends.


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm", "flow"])
def test_the_last_step_to_sigma_zero_lands_on_x0(schedule: str, method: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 6)
    before = TimeGrid(grid.schedule, grid.points[:-1])
    x = start_of(grid)
    x0, _ = MIXTURE(solve("deis", before, x, method=method), before.points[-1])
    assert_same(solve("deis", grid, x, method=method), x0)


def test_an_eps_at_pure_noise_is_forgotten_in_rho_and_remembered_in_t() -> None:
    """There rho is infinite and t is 1."""
    grid = make_grid(make_schedule("flow"), "linspace", 6, final="sigma-min")
    x = start_of(grid)
    after = solve("ddim", TimeGrid(grid.schedule, grid.points[:2]), x, eta=0.0)
    rest = TimeGrid(grid.schedule, grid.points[1:])
    forgotten = solve("deis", grid, x, method="rhoab")
    assert_same(forgotten, solve("deis", rest, after, method="rhoab"))
    remembered = solve("deis", grid, x, method="tab")
    assert (remembered - solve("deis", rest, after, method="tab")).abs().max() > 1e-4


# A second opinion.


# diffusers reads tensors in ways that numpy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
@pytest.mark.parametrize("degree", [0, 1, 2])
@pytest.mark.parametrize("n", [5, 20])
def test_deis_of_diffusers(n: int, degree: int) -> None:
    """Theirs is neither of the paper's two: its polynomial is in log rho.

    That is tAB on a schedule whose lambda is linear in t, as the one here is at its indices.
    """
    lams = np.linspace(5.0, -5.0, 1000)
    abar = 1 / (1 + np.exp(-2 * lams))
    betas = 1 - abar / np.concatenate([[1.0], abar[:-1]])
    theirs = DEISMultistepScheduler(
        trained_betas=betas.tolist(), solver_order=degree + 1, lower_order_final=False
    )
    theirs.set_timesteps(n)
    grid = make_grid(vp_from_betas(betas.tolist()), "linspace", n, final="sigma-min")
    assert theirs.timesteps.tolist() == [point.t for point in grid.points[:-1]]
    start = x = start_of(grid).float()
    for point, t in zip(grid.points, theirs.timesteps, strict=False):
        x = theirs.step(MIXTURE(x, point)[1], t, x).prev_sample
    found = solve("deis", grid, start, order=degree)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
