"""Observed orders of convergence, to 0.15, on a smooth and on a rough grid that end above zero.

On an exact Gaussian (closed-form flow) and on a mixture (the flow by DOP853). The rough grid has
log-steps 1:3, where a two-step method that assumes equal steps falls to order 1.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.schedule import Point, make_schedule
from bench.samplers.registry import get
from tests.samplers.exact import (
    SHAPE,
    Blobs,
    Gaussian,
    GivenNoise,
    grid_at,
    integrate,
    observed_order,
    rough,
    smooth,
)

# (name, parameters, order of the formula and of the method with its published start-up)
METHODS = [
    ("euler", {}, 1),
    ("ddim", {"eta": 0}, 1),
    ("heun", {}, 2),
    ("dpm-solver++", {"order": 1}, 1),
    ("dpm-solver++", {"order": 2}, 2),
    ("dpm-solver++", {"order": 2, "lower-order-final": "always"}, 2),
]
LOW, HIGH = -2.0, 1.5
STEPS = {1: [200, 280, 400], 2: [100, 140, 200]}


def solve(name: str, given: dict[str, object], pair: object, x: Tensor, lams: np.ndarray) -> Tensor:
    sampler = get(name)
    params = {key.replace("-", "_"): v for key, v in sampler.complete(given).items()}
    grid = grid_at(make_schedule("vp-linear"), lams)
    return sampler.function(Denoiser(pair), x, grid, GivenNoise([x]), **params)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def start() -> Tensor:
    return torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def ends(start: Tensor) -> dict[str, Tensor]:
    """Where the exact flow takes the start."""
    schedule = make_schedule("vp-linear")
    a, b = schedule.at(lam=LOW), schedule.at(lam=HIGH)
    return {
        "gaussian": Gaussian().flow(start, a, b),
        "mixture": integrate(Blobs().pair, start, schedule, a, b),
    }


PAIRS = {"gaussian": Gaussian().pair, "mixture": Blobs().pair}


def test_the_integrator_agrees_with_the_closed_form(start: Tensor, ends: dict[str, Tensor]) -> None:
    schedule = make_schedule("vp-linear")
    a, b = schedule.at(lam=LOW), schedule.at(lam=HIGH)
    found = integrate(Gaussian().pair, start, schedule, a, b)
    torch.testing.assert_close(found, ends["gaussian"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("problem", PAIRS)
@pytest.mark.parametrize(("name", "given", "order"), METHODS)
def test_converges_at_its_order(
    name: str,
    given: dict[str, object],
    order: int,
    problem: str,
    layout: Callable[[float, float, int], np.ndarray],
    start: Tensor,
    ends: dict[str, Tensor],
) -> None:
    errors = [
        float(
            (solve(name, given, PAIRS[problem], start, layout(LOW, HIGH, n)) - ends[problem]).norm()
        )
        for n in STEPS[order]
    ]
    assert observed_order(errors, STEPS[order]) == pytest.approx(order, abs=0.15)
    sampler = get(name)
    assert sampler.order(sampler.complete(given)) == order


def test_two_steps_of_second_order_beat_one_of_first() -> None:
    """Orders are asymptotic; at ten steps the constants count, and 2M is the better there."""
    start = torch.randn(3, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    schedule = make_schedule("vp-linear")
    exact = Gaussian().flow(start, schedule.at(lam=LOW), schedule.at(lam=HIGH))
    error = {
        order: (
            solve("dpm-solver++", {"order": order}, Gaussian().pair, start, lams) - exact
        ).norm()
        for order in (1, 2)
        for lams in [smooth(LOW, HIGH, 10)]
    }
    assert error[2] < 0.3 * error[1]


@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 3.0])
def test_the_2m_formula_has_local_order_3_at_any_ratio_of_steps(ratio: float) -> None:
    """With exact history. Global orders cannot tell an inverted r0: its errors telescope.

    The excess weight of step i is (h_{i-1}^2 - h_i^2) / 2, and sums to next to nothing on every
    grid. So the formula itself is measured: where D depends on lambda alone, the exact step is
    an integral, and the error of the second step is its local error.
    """

    def clean(lam: float) -> float:
        return float(np.sin(1.3 * lam) + 0.4 * lam**2)

    def pair(x: Tensor, point: Point) -> Pair:
        x0 = torch.full_like(x, clean(point.lam))
        return x0, (x - point.alpha * x0) / point.sigma

    def local_error(h: float) -> float:
        lams = np.array([-h * ratio, 0.0, h])
        start = torch.zeros(1, *SHAPE, dtype=torch.float64)
        middle = solve("dpm-solver++", {}, pair, start, lams[:2])
        end = solve("dpm-solver++", {}, pair, start, lams)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        lam = h * (nodes + 1) / 2
        integral = float((weights * h / 2 * np.exp(lam) * [clean(v) for v in lam]).sum())
        a, b = (make_schedule("vp-linear").at(lam=v) for v in lams[1:])
        exact = b.sigma / a.sigma * middle + b.sigma * integral
        return float((end - exact).abs().max())

    inverse = [10, 20, 40]
    errors = [local_error(1 / n) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(3, abs=0.2)
