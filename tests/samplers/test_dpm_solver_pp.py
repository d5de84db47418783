"""DPM-Solver++ beyond 2M: 3M, 2S and the SDE versions, against exact problems and diffusers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler
from torch import Tensor

from bench.certify.moments import marginal
from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE, Gaussian, GivenNoise, integrate
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import EDM, Point, make_schedule
from bench.diffusion.spacing import FINALS, Final, TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.parameters import as_keywords
from bench.samplers.registry import get
from tests.samplers.solving import MIXTURE, PROBLEMS, assert_same, order_of, solve, ve_twin
from tests.samplers.stochastic import response

# diffusers reads tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VP = make_schedule("vp-linear")
SOLVER = get("dpm-solver++")
Layout = Callable[[float, float, int], np.ndarray]


def draws(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def run(
    grid: TimeGrid,
    noise: list[Tensor],
    pair: Callable[[Tensor, Point], Pair] = MIXTURE,
    **given: object,
) -> Tensor:
    """The sampler from the first of `noise`, with the others as its draws."""
    params = SOLVER.complete({key.replace("_", "-"): value for key, value in given.items()})
    SOLVER.check(grid, params)
    x, *rest = noise
    return SOLVER.function(Denoiser(pair), x, grid, GivenNoise(rest or [x]), **as_keywords(params))


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({"order": 1, "method": "singlestep"}, 1),
        ({"order": 2, "method": "singlestep"}, 2),
        ({"order": 3, "lower-order-final": "always"}, 2),
    ],
)
def test_converges_at_its_order(
    given: dict[str, object], order: int, problem: str, layout: Layout
) -> None:
    steps = [100, 140, 200] if order == 2 else [200, 280, 400]
    found = order_of("dpm-solver++", "vp-linear", problem, layout, steps, **given)
    assert found == pytest.approx(order, abs=0.15)
    assert SOLVER.order(SOLVER.complete(given)) == order


# Where D changes fastest: further up, the first step's error hides behind the others'.
LOW, HIGH = 0.0, 2.0


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_3m_is_of_order_2_by_its_first_step(problem: str, layout: Layout) -> None:
    a, b = VP.at(lam=LOW), VP.at(lam=HIGH)
    x = draws(1)[0]
    exact = Gaussian().flow(x, a, b)
    if problem == "mixture":
        exact = integrate(MIXTURE, x, VP, a, b)
    steps, errors = [200, 280, 400], []
    for n in steps:
        grid = grid_at(VP, layout(LOW, HIGH, n))
        end = solve("dpm-solver++", grid, x, PROBLEMS[problem], order=3)
        errors.append(float((end - exact).norm()))
    assert observed_order(errors, steps) == pytest.approx(2, abs=0.15)
    assert SOLVER.order(SOLVER.complete({"order": 3})) == 2


def curve(lam: float) -> float:
    return float(np.sin(1.3 * lam) + 0.4 * lam**2)


def curved(x: Tensor, point: Point) -> Pair:
    """A model whose x0 depends on lambda alone: the exact step is an integral of it."""
    x0 = torch.full_like(x, curve(point.lam))
    return x0, (x - point.alpha * x0) / point.sigma


def local_error(h: float, before: list[float], eta: float, **given: object) -> float:
    """Of the last step's drift, after steps of h times `before`; its noise is left out."""
    zeros = [torch.zeros(1, *SHAPE, dtype=torch.float64)] * (len(before) + 2)
    lams = np.cumsum([0.3, *(ratio * h for ratio in before), h])
    grid = grid_at(VP, lams)
    x = zeros[0]
    if before:
        x = run(grid_at(VP, lams[:-1]), zeros, curved, eta=eta, **given)
    a, b = grid.points[-2:]
    nodes, weights = np.polynomial.legendre.leggauss(20)
    lam = a.lam + h / 2 * (nodes + 1)
    kernel = (1 + eta) * np.exp((1 + eta) * (lam - b.lam))
    drift = float((weights * h / 2 * kernel * [curve(v) for v in lam]).sum())
    exact = b.sigma / a.sigma * math.exp(-eta * h) * x + b.alpha * drift
    return float((run(grid, zeros, curved, eta=eta, **given) - exact).abs().max())


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("before", [[1.0, 1.0], [1 / 3, 3.0], [3.0, 1 / 3], [1 / 3, 1 / 9]])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_multistep_formulas_have_their_order_with_exact_history(
    order: int, before: list[float], eta: float
) -> None:
    inverse = [20, 40, 80] if order == 3 else [200, 400, 800]
    errors = [local_error(1 / n, before, eta, order=order) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(order + 1, abs=0.15)
    assert SOLVER.formula_order(SOLVER.complete({"order": order})) == order


def test_2s_has_the_formula_s_local_error() -> None:
    inverse = [20, 40, 80]
    errors = [local_error(1 / n, [], 0.0, method="singlestep") for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(3, abs=0.15)


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
    """At eta 1 too: e^-2h is the posterior's s_b^2 / s_a^2."""
    for n in (1, 2, 7, 23):
        for final in FINALS:
            grid = make_grid(make_schedule(schedule), spacing, n, final=final)
            x, *rest = draws(n + 1)
            found = solve("dpm-solver++", grid, x, order=1, method="singlestep")
            assert_same(found, solve("ddim", grid, x))
            posterior = get("ddim").function(Denoiser(MIXTURE), x, grid, GivenNoise(rest), eta=1)
            assert_same(run(grid, [x, *rest], order=1, eta=1), posterior)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_sde_tends_to_the_ode_as_eta_tends_to_0(order: int) -> None:
    grid = make_grid(VP, "quadratic", 8)
    ode = run(grid, draws(9), order=order)
    assert torch.equal(run(grid, draws(9), order=order, eta=0), ode)
    tiny = run(grid, draws(9), order=order, eta=1e-20)  # its noise is of size 1e-10
    assert_same(tiny, ode)


@pytest.mark.parametrize(
    "given",
    [{"method": "singlestep"}, {"order": 3}, {"order": 2, "eta": 1}, {"order": 3, "eta": 0.5}],
)
def test_a_vp_model_and_its_ve_rescaling_give_the_same_images(given: dict[str, object]) -> None:
    grid = make_grid(VP, "logsnr", 9)
    x, *rest = draws(10)
    ve = run(ve_twin(grid, EDM(t_max=200.0)), [x / grid.points[0].alpha, *rest], **given)
    assert_same(ve, run(grid, [x, *rest], **given))


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_orders_rise_from_the_first_step_that_has_a_slope(eta: float) -> None:
    """After a start at alpha = 0 the second step is of order 1 as well, and the third of 2."""

    def end(order: int, n: int) -> Tensor:
        grid = make_grid(make_schedule("flow"), "linspace", n, final="sigma-min")
        return run(grid, draws(n + 1), order=order, eta=eta)

    assert torch.equal(end(2, 2), end(1, 2))
    assert torch.equal(end(3, 3), end(2, 3))
    assert (end(2, 3) - end(1, 3)).abs().max() > 1e-4
    assert (end(3, 4) - end(2, 4)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("rule", "below"), [("never", 0), ("lt10", 10), ("lt15", 15), ("always", 10**9)]
)
def test_lower_order_final_ends_3m_with_orders_2_and_1(rule: str, below: int) -> None:
    """The last two steps by hand, from what the run saw."""
    for n in (4, 9, 10, 14, 15, 20):
        grid = make_grid(VP, "logsnr", n, final="sigma-min")
        seen: list[tuple[Tensor, Tensor]] = []

        def pair(x: Tensor, point: Point, seen: list[tuple[Tensor, Tensor]] = seen) -> Pair:
            x0, eps = MIXTURE(x, point)
            seen.append((x, x0))
            return x0, eps

        end = run(grid, draws(1), pair, order=3, lower_order_final=rule)
        p, q, r, s = grid.points[-4:]
        (_, d_p), (x_q, d_q), (x_r, d_r) = seen[-3:]
        halfway = d_q + (r.lam - q.lam) / 2 * (d_q - d_p) / (q.lam - p.lam)
        second = r.sigma / q.sigma * x_q + r.alpha * (1 - math.exp(q.lam - r.lam)) * halfway
        first = s.sigma / r.sigma * x_r + s.alpha * (1 - math.exp(r.lam - s.lam)) * d_r
        assert ((x_r - second).abs().max() < 1e-10) == (n < below), n
        assert ((end - first).abs().max() < 1e-10) == (n < below), n


def data_weights(a: Point, b: Point, lams: list[float], rate: float) -> list[float]:
    """Of the D's at `lams`: Lagrange's polynomials under the SDE's kernel, by quadrature.

    The paper's second order takes their value halfway in lambda instead.
    """
    nodes, quadrature = np.polynomial.legendre.leggauss(30)
    h = b.lam - a.lam
    lam = a.lam + h / 2 * (nodes + 1)
    kernel = quadrature * h / 2 * rate * np.exp(rate * (lam - b.lam))
    if len(lams) == 2:
        lam = np.full_like(lam, a.lam + h / 2)
    return [
        float((kernel * math.prod((lam - o) / (own - o) for o in lams if o != own)).sum())
        for own in lams
    ]


def expected(
    grid: TimeGrid, order: int, eta: float, mean: float, c: float
) -> tuple[float, float, float]:
    """Mean, variance and covariance with the start of one channel, by the exact recursion.

    Of (x, D of the step before, D of the one before that, first draw).
    """
    std = grid.schedule.prior_std(grid.points[0])
    centre, cov = np.zeros(4), np.zeros((4, 4))
    cov[np.ix_([0, 3], [0, 3])] = [[std**2, std], [std, 1.0]]
    known: list[float] = []  # lambda of the D's that have a slope, the last first
    for a, b in grid.steps():
        gain = a.alpha * c / (a.alpha**2 * c + a.sigma**2)
        if b.sigma == 0 or a.alpha == 0:
            weights, kept = [1.0], b.sigma / a.sigma * (eta == 0)
        else:
            weights = data_weights(a, b, [a.lam, *known][:order], 1 + eta)
            kept = b.sigma / a.sigma * (b.s / a.s) ** eta
        step = np.diag([kept + b.alpha * weights[0] * gain, 0.0, 0.0, 1.0])
        step[0, 1 : len(weights)] = b.alpha * np.array(weights[1:])
        step[1, 0], step[2, 1] = gain, 1.0
        offset = mean - gain * a.alpha * mean
        centre = step @ centre + [b.alpha * weights[0] * offset, offset, 0.0, 0.0]
        cov = step @ cov @ step.T
        if eta > 0:
            cov[0, 0] += b.sigma**2 * (1 - (b.s / a.s) ** (2 * eta))
        known = [a.lam, *known] if a.alpha > 0 else []
    return centre[0], cov[0, 0], cov[0, 3]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize(
    ("schedule", "spacing", "n", "final"),
    [
        ("vp-linear", "uniform", 2, "zero"),
        ("vp-linear", "uniform", 2, "sigma-min"),
        ("vp-linear", "quadratic", 5, "zero"),
        ("vp-linear", "logsnr", 10, "sigma-min"),
        ("edm", "karras", 6, "sigma-min"),
        ("flow", "linspace", 6, "sigma-min"),
    ],
)
def test_moments_on_a_gaussian_are_those_of_the_exact_recursion(
    schedule: str, spacing: str, n: int, final: Final, order: int, eta: float
) -> None:
    grid = make_grid(make_schedule(schedule), spacing, n, final=final)
    std = grid.schedule.prior_std(grid.points[0])
    end = response("dpm-solver++", grid, {"order": order, "eta": eta})
    of_start = torch.full((SHAPE[0],), std**2)
    moments = torch.stack([end.shift, end.variance(of_start), end.memory * std], 1)
    for channel, (mean, c) in enumerate(zip(Gaussian().mean, Gaussian().variance, strict=True)):
        want = expected(grid, order, eta, mean, c)
        assert moments[channel].tolist() == pytest.approx(want, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("eta", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("order", "weak"), [(1, 1), (2, 2), (3, 2)])
def test_weak_order_on_a_gaussian(order: int, weak: int, eta: float, layout: Layout) -> None:
    """Variance and memory of the start against the SDE's own; the mean is exact at any order.

    From the marginal at a: the variance at b is the marginal's, and the memory of x / alpha falls
    by the power (1 + eta) / 2 of the ratio of its variances.
    """
    a, b = VP.at(lam=LOW), VP.at(lam=HIGH)
    (mean_a, before), (mean_b, after) = marginal(a), marginal(b)
    ratio = (after / b.alpha**2) / (before / a.alpha**2)
    memory = b.alpha / a.alpha * ratio ** ((1 + eta) / 2)
    steps, errors = [100, 140, 200], []
    for n in steps:
        grid = grid_at(VP, layout(LOW, HIGH, n))
        end = response("dpm-solver++", grid, {"order": order, "eta": eta})
        assert_same(end.mean(mean_a), mean_b)
        off = (end.variance(before) - after, end.memory - memory)
        errors.append([float(v.norm()) for v in off])
    for found in zip(*errors, strict=True):
        if max(found) > 1e-12:  # at eta 1 the memory is exact
            assert observed_order(found, steps) == pytest.approx(weak, abs=0.15)
    assert SOLVER.order(SOLVER.complete({"order": order, "eta": eta})) == weak


@pytest.mark.parametrize(
    ("given", "to_zero", "to_min"),
    [
        ({"order": 3}, 5, 5),
        ({"order": 2, "method": "singlestep"}, 9, 10),
        ({"order": 1, "method": "singlestep"}, 5, 5),
    ],
)
def test_calls_of_five_steps(given: dict[str, object], to_zero: int, to_min: int) -> None:
    params = SOLVER.complete(given)
    assert [SOLVER.nfe(5, final, params) for final in FINALS] == [to_zero, to_min, to_min + 1]


@pytest.mark.parametrize(
    ("given", "schedule", "reason"),
    [
        (
            {},
            "flow",
            "dpm-solver++ with method: singlestep puts a point inside each step by lambda = "
            "log(alpha / sigma), which is infinite where this grid starts (t = 1, alpha = 0). "
            "Start the grid below it, or use method: multistep.",
        ),
        (
            {"order": 3},
            "vp-linear",
            "dpm-solver++ is published as a singlestep method up to order 2. Use method: "
            "multistep, or dpm-solver of order 3.",
        ),
        *(
            (
                extra,
                "vp-linear",
                "dpm-solver++ has eta and lower-order-final only with method: multistep. Leave "
                "both out.",
            )
            for extra in ({"eta": 0.5}, {"lower-order-final": "lt15"})
        ),
    ],
)
def test_says_what_it_refuses_as_a_singlestep_method(
    given: dict[str, object], schedule: str, reason: str
) -> None:
    grid = make_grid(make_schedule(schedule), "linspace", 4)
    with pytest.raises(ScheduleError) as caught:
        SOLVER.check(grid, SOLVER.complete({**given, "method": "singlestep"}))
    assert str(caught.value) == reason


def theirs(scheduler: object, levels: list[Point], noise: list[Tensor]) -> Tensor:
    """diffusers' scheduler through these noise levels, one call at each but the last."""
    scheduler.set_timesteps(len(levels) - 1)  # type: ignore[attr-defined]
    scheduler.sigmas = torch.tensor([p.s for p in levels], dtype=torch.float64)  # type: ignore[attr-defined]
    x, *rest = noise
    for i, t in enumerate(scheduler.timesteps):  # type: ignore[attr-defined]
        given = {"variance_noise": rest[i]} if rest else {}
        x = scheduler.step(MIXTURE(x, levels[i])[1], t, x, **given).prev_sample  # type: ignore[attr-defined]
    return x


def assert_close(found: Tensor, other: Tensor) -> None:
    """Their multistep scheduler works in float32."""
    torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("n", [3, 10, 20])
def test_the_sde_versions_are_those_of_diffusers(n: int, order: int) -> None:
    """Order 3 is left out: in theirs the curvature's weight has - 1/2 where + 1/2 belongs."""
    grid = make_grid(VP, "logsnr", n)
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++", solver_order=order, solver_type="midpoint"
    )
    found = run(grid, draws(n + 1), order=order, eta=1, lower_order_final="lt15")
    assert_close(found, theirs(scheduler, list(grid.points), draws(n + 1)))


def test_3m_is_that_of_diffusers_but_for_half_the_curvature() -> None:
    """They, the authors' code and k-diffusion give h^2 D'' / 2 the weight phi_3; it is 2 phi_3.

    So their third order is of order 2. Here are three steps, and what the third leaves out.
    """
    grid = make_grid(VP, "logsnr", 3, final="sigma-min")
    seen: list[Tensor] = []

    def pair(x: Tensor, point: Point) -> Pair:
        x0, eps = MIXTURE(x, point)
        seen.append(x0)
        return x0, eps

    found = run(grid, draws(1), pair, order=3)
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=3,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    lams = [p.lam for p in grid.points]
    h = lams[3] - lams[2]
    slopes = [(seen[i + 1] - seen[i]) / (lams[i + 1] - lams[i]) for i in (0, 1)]
    half = (slopes[1] - slopes[0]) / (lams[2] - lams[0]) * h**2
    phi_3 = (math.expm1(-h) / h + 1) / h - 0.5
    left_out = -grid.points[3].alpha * phi_3 * half
    assert left_out.abs().max() > 1e-2
    assert_close(found - left_out, theirs(scheduler, list(grid.points), draws(1)))


@pytest.mark.parametrize("n", [2, 5, 10])
def test_2s_is_that_of_diffusers(n: int) -> None:
    """Their grid holds the points inside our steps."""
    grid = make_grid(VP, "quadratic-full", n, final="sigma-min")
    scheduler = DPMSolverSinglestepScheduler(
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=False,
        final_sigmas_type="sigma_min",
    )
    levels = [grid.points[0]]
    for a, b in grid.steps():
        levels += [VP.at(lam=(a.lam + b.lam) / 2), b]
    found = solve("dpm-solver++", grid, draws(1)[0], method="singlestep")
    assert_same(found, theirs(scheduler, levels, draws(1)))
