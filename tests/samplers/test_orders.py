"""What certificates take for granted about orders, and what global orders cannot show.

Observed orders themselves: `bench.certify.orders`, asked for in tests/certify/test_certificate.py.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.certify.orders import HIGH, LOW, grid_at, observed_order, smooth, start_of
from bench.certify.problems import SHAPE, Gaussian, integrate
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import Point, make_schedule
from tests.samplers.solving import solve

VP = make_schedule("vp-linear")


def test_the_integrator_agrees_with_the_closed_form() -> None:
    grid = grid_at(VP, [LOW, HIGH])
    x, (a, b) = start_of(grid), grid.points
    found = integrate(Gaussian().pair, x, VP, a, b)
    torch.testing.assert_close(found, Gaussian().flow(x, a, b), rtol=0, atol=1e-8)


def test_two_steps_of_second_order_beat_one_of_first() -> None:
    """Orders are asymptotic; at ten steps the constants count, and 2M is the better there."""
    grid = grid_at(VP, smooth(LOW, HIGH, 10))
    x = start_of(grid)
    exact = Gaussian().flow(x, grid.points[0], grid.points[-1])
    error = {
        order: (solve("dpm-solver++", grid, x, Gaussian().pair, order=order) - exact).norm()
        for order in (1, 2)
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
        middle = solve("dpm-solver++", grid_at(VP, lams[:2]), start, pair)
        end = solve("dpm-solver++", grid_at(VP, lams), start, pair)
        nodes, weights = np.polynomial.legendre.leggauss(20)
        lam = h * (nodes + 1) / 2
        integral = float((weights * h / 2 * np.exp(lam) * [clean(v) for v in lam]).sum())
        a, b = (VP.at(lam=v) for v in lams[1:])
        exact = b.sigma / a.sigma * middle + b.sigma * integral
        return float((end - exact).abs().max())

    inverse = [10, 20, 40]
    errors = [local_error(1 / n) for n in inverse]
    assert observed_order(errors, inverse) == pytest.approx(3, abs=0.2)
