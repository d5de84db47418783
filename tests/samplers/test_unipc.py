"""UniPC: orders, both formulas with exact history, identities, and diffusers' scheduler."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import Point, make_schedule, vp_linear
from bench.diffusion.spacing import FINALS, TimeGrid, make_grid
from bench.samplers.registry import get
from tests.samplers.solving import (
    MIXTURE,
    assert_same,
    long_start,
    order_of,
    solve,
    start_of,
    ve_twin,
)

VARIANTS = ("bh1", "bh2")
GRIDS = [
    *(("vp-linear", spacing) for spacing in ("uniform", "quadratic", "trailing", "logsnr")),
    ("vp-cosine", "linspace"),
    ("vp-scaled-linear", "karras"),
    ("edm", "karras"),
    ("flow", "linspace"),
]


# Orders.

ORDERS = [
    (1, "bh1", False, "never", 1, [200, 280, 400]),
    (2, "bh1", False, "never", 2, [100, 140, 200]),
    (2, "bh2", False, "never", 2, [100, 140, 200]),
    (1, "bh1", True, "never", 2, [100, 140, 200]),
    (1, "bh2", True, "never", 2, [100, 140, 200]),
    (2, "bh1", True, "never", 3, [60, 84, 120]),
    (2, "bh2", True, "never", 3, [60, 84, 120]),
    (1, "bh1", True, "always", 2, [100, 140, 200]),
    (2, "bh1", False, "always", 2, [100, 140, 200]),
    # The last step is all that is left of the error where the steps are many.
    (2, "bh1", True, "always", 2, [400, 560, 800]),
    (3, "bh1", True, "always", 2, [400, 560, 800]),
]


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize(("p", "variant", "corrector", "final", "order", "steps"), ORDERS)
def test_converges_at_its_order(
    p: int,
    variant: str,
    corrector: bool,
    final: str,
    order: int,
    steps: list[int],
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
) -> None:
    given = {"order": p, "variant": variant, "corrector": corrector, "lower-order-final": final}
    found = order_of("unipc", "vp-linear", problem, layout, steps, **given)
    assert found == pytest.approx(order, abs=0.15)
    assert get("unipc").order(get("unipc").complete(given)) == order


@pytest.mark.parametrize("problem", ["gaussian", "mixture"])
@pytest.mark.parametrize(("corrector", "order"), [(False, 2), (True, 3)])
@pytest.mark.parametrize("p", [2, 3])
def test_the_start_leaves_order_2_and_3_where_it_is_corrected(
    p: int, corrector: bool, order: int, problem: str
) -> None:
    given = {"order": p, "corrector": corrector, "lower-order-final": "never"}
    found = order_of("unipc", "vp-linear", problem, long_start, [100, 140, 200], **given)
    assert found == pytest.approx(order, abs=0.15)
    assert get("unipc").order(get("unipc").complete(given)) == order


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_formulas_have_their_order_with_exact_history(
    variant: str, p: int, corrector: bool, ratio: float
) -> None:
    """Where D depends on lambda alone, the exact step is an integral.

    Steps grow by `ratio` from one to the next. A corrected state never is an end: a last step of
    next to no length shows it.
    """
    schedule = vp_linear()
    given = {
        "order": p,
        "variant": variant,
        "corrector": corrector,
        "lower-order-final": "never",
    }

    def clean(lam: float) -> float:
        return math.sin(1.3 * lam) + 0.4 * lam**2

    def pair(x: Tensor, point: Point) -> Pair:
        x0 = torch.full_like(x, clean(point.lam))
        return x0, (x - point.alpha * x0) / point.sigma

    def end_of(lams: list[float]) -> Tensor:
        x = torch.zeros(1, *SHAPE, dtype=torch.float64)
        lams = [*lams, lams[-1] + 1e-12] if corrector else lams
        return solve("unipc", grid_at(schedule, lams), x, pair, **given) if lams[1:] else x

    def local_error(h: float) -> float:
        at = 0.4
        back = [0.0, *np.cumsum([ratio**-k for k in range(1, p)])]
        lams = [at - h * v for v in back[::-1]]
        middle, end = end_of(lams), end_of([*lams, at + h])
        nodes, weights = np.polynomial.legendre.leggauss(20)
        lam = at + 0.5 * h * (1 + nodes)
        integral = 0.5 * h * float((weights * np.exp(lam)) @ [clean(v) for v in lam])
        a, b = schedule.at(lam=at), schedule.at(lam=at + h)
        exact = b.sigma / a.sigma * middle + b.sigma * integral
        return float((end - exact).abs().max())

    inverse = [10, 14, 20]
    errors = [local_error(min(1.0, ratio) ** 2 / n) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(p + corrector + 1, abs=0.2)
    params = get("unipc").complete(given)
    assert get("unipc").formula_order(params) == p + corrector


# Identities.


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_order_1_without_corrector_is_ddim(schedule: str, spacing: str, variant: str) -> None:
    for n in (1, 2, 11):
        for final in FINALS:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            x = start_of(grid)
            found = solve("unipc", grid, x, order=1, variant=variant, corrector=False)
            assert_same(found, solve("ddim", grid, x, eta=0))


@pytest.mark.parametrize(("schedule", "spacing"), GRIDS)
def test_order_2_of_bh2_without_corrector_is_2m(schedule: str, spacing: str) -> None:
    for final in FINALS:
        grid = make_grid(make_schedule(schedule), spacing, 9, final=final)
        x = start_of(grid)
        given = {"order": 2, "lower_order_final": "never"}
        found = solve("unipc", grid, x, variant="bh2", corrector=False, **given)
        assert_same(found, solve("dpm-solver++", grid, x, **given))


@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_vp_model_and_its_ve_rescaling_give_the_same_images(
    variant: str, corrector: bool
) -> None:
    for final in ("zero", "sigma-min"):
        vp = make_grid(vp_linear(), "quadratic", 9, final=final)
        ve = ve_twin(vp, make_schedule("edm"))
        x = start_of(vp)
        given = {"variant": variant, "corrector": corrector}
        found = solve("unipc", ve, x / vp.points[0].alpha, **given)
        assert_same(vp.points[-1].alpha * found, solve("unipc", vp, x, **given))


def test_both_variants_are_the_same_where_b_drops_out() -> None:
    """From the step on in which three evaluations make the predictor and two the corrector."""
    lams = [-3.0, -2.0, -1.5, 0.0]

    def pair(x: Tensor, point: Point) -> Pair:
        """D is zero but for the last evaluation, which makes the only step that tells."""
        x0 = torch.full_like(x, float(point.lam > -1.7))
        return x0, (x - point.alpha * x0) / point.sigma

    grid = grid_at(vp_linear(), lams)
    x = start_of(grid)
    given = {"lower_order_final": "never"}
    assert_same(
        solve("unipc", grid, x, pair, variant="bh1", **given),
        solve("unipc", grid, x, pair, variant="bh2", **given),
    )


# Ends.


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm", "flow"])
def test_the_last_step_to_sigma_zero_lands_on_the_last_x0(
    schedule: str, p: int, variant: str
) -> None:
    """That of the predicted state; correcting it would change nothing in a step that drops x."""
    for n in (1, 2, 3, 6):
        grid = make_grid(make_schedule(schedule), "linspace", n)
        seen = []

        def pair(x: Tensor, point: Point, seen: list[Tensor] = seen) -> Pair:
            x0, eps = MIXTURE(x, point)
            seen.append(x0)
            return x0, eps

        end = solve("unipc", grid, start_of(grid), pair, order=p, variant=variant)
        assert end.isfinite().all()
        assert len(seen) == n
        assert_same(end, seen[-1])


def test_the_last_steps_are_lowered_to_the_steps_that_are_left() -> None:
    grid = make_grid(vp_linear(), "logsnr", 8, final="sigma-min")
    seen: list[tuple[Tensor, Tensor, Point]] = []

    def pair(x: Tensor, point: Point) -> Pair:
        x0, eps = MIXTURE(x, point)
        seen.append((x, x0, point))
        return x0, eps

    # Without corrector the states are the predictors' own.
    end = solve("unipc", grid, start_of(grid), pair, corrector=False, variant="bh2")
    states = [x for x, _, _ in seen] + [end]
    for i, order in [(6, 2), (7, 1)]:
        (x, d, a), (_, before, earlier), b = seen[i], seen[i - 1], grid.points[i + 1]
        h = b.lam - a.lam
        slope = 0.5 * h / (a.lam - earlier.lam) * (d - before) if order == 2 else 0.0
        lowered = b.sigma / a.sigma * x - b.alpha * math.expm1(-h) * (d + slope)
        assert_same(states[i + 1], lowered)


def test_an_evaluation_at_pure_noise_is_forgotten() -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 6, final="sigma-min")
    assert grid.points[0].alpha == 0
    x = start_of(grid)
    after = solve("ddim", TimeGrid(grid.schedule, grid.points[:2]), x, eta=0)
    rest = TimeGrid(grid.schedule, grid.points[1:])
    assert_same(solve("unipc", grid, x), solve("unipc", rest, after))


# A second opinion.


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("lowered", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("n", [5, 10, 20])
def test_unipc_of_diffusers(n: int, p: int, variant: str, lowered: bool) -> None:
    """To sigma-min. To zero, theirs is not a number with bh1: it multiplies B = -inf by nothing."""
    theirs = UniPCMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        solver_order=p,
        solver_type=variant,
        lower_order_final=lowered,
        final_sigmas_type="sigma_min",
    )
    theirs.set_timesteps(n)
    grid = make_grid(vp_linear(), "linspace", n, final="sigma-min")
    assert theirs.timesteps.tolist() == [point.t for point in grid.points[:-1]]
    start = x = start_of(grid).float()
    for point, t in zip(grid.points, theirs.timesteps, strict=False):
        x = theirs.step(MIXTURE(x, point)[1], t, x).prev_sample
    final = "always" if lowered else "never"
    found = solve("unipc", grid, start, order=p, variant=variant, lower_order_final=final)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)
