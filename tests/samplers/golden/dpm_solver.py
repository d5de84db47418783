"""DPM-Solver and DPM-Solver++ beyond 2M, from their papers in the papers' notation.

DPM-Solver with its alpha_t / alpha_s and e^h; 2S with its r; the multistep integrals by numerical
quadrature of the interpolated D; the SDE in s = sigma / alpha, where its linear part is a power.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from mpmath import exp, expm1, log, mpf, quad, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, Solve, denoise

AT_LAMBDA: dict[str, Callable[[mpf], Level]] = {
    "vp-linear": lambda lam: (1 / sqrt(1 + exp(-2 * lam)), 1 / sqrt(1 + exp(2 * lam))),
    "edm": lambda lam: (mpf(1), exp(-lam)),
    "flow": lambda lam: (1 / (1 + exp(-lam)), 1 / (1 + exp(lam))),
}
FLOW_BELOW_ONE: list[float] = [0.97, *FLOW_TO_ZERO[1:]]  # lambda is infinite at t = 1


def dpm_solver(
    x: mpf, levels: list[Level], noise: list[mpf], schedule: str, orders: list[int]
) -> mpf:
    """Algorithms 1 and 2 of arXiv:2206.00927, and its eq. 3.7 where the order is 1."""
    for (s, t), k in zip(itertools.pairwise(levels), orders, strict=True):
        _, eps = denoise(x, s)
        (alpha_s, sigma_s), (alpha_t, sigma_t) = s, t
        if sigma_t == 0:  # sigma_t e^h is alpha_t sigma_s / alpha_s
            assert k == 1
            x = alpha_t / alpha_s * (x - sigma_s * eps)
            continue
        lam = log(alpha_s / sigma_s)
        h = log(alpha_t / sigma_t) - lam
        x_t = alpha_t / alpha_s * x - sigma_t * (exp(h) - 1) * eps
        if k == 2:
            middle = AT_LAMBDA[schedule](lam + h / 2)
            u = middle[0] / alpha_s * x - middle[1] * (exp(h / 2) - 1) * eps
            _, eps_u = denoise(u, middle)
            x_t = alpha_t / alpha_s * x - sigma_t * (exp(h) - 1) * eps_u
        if k == 3:
            r1, r2 = mpf(1) / 3, mpf(2) / 3
            one, two = (AT_LAMBDA[schedule](lam + r * h) for r in (r1, r2))
            u1 = one[0] / alpha_s * x - one[1] * (exp(r1 * h) - 1) * eps
            d1 = denoise(u1, one)[1] - eps
            u2 = two[0] / alpha_s * x - two[1] * (exp(r2 * h) - 1) * eps
            u2 -= two[1] * r2 / r1 * ((exp(r2 * h) - 1) / (r2 * h) - 1) * d1
            d2 = denoise(u2, two)[1] - eps
            x_t -= sigma_t / r2 * ((exp(h) - 1) / h - 1) * d2
        x = x_t
    return x


def two_s(x: mpf, levels: list[Level], noise: list[mpf], schedule: str) -> mpf:
    """Algorithm 1 of arXiv:2211.01095 with s_i half a step in lambda."""
    r = mpf(1) / 2
    for t_before, t in itertools.pairwise(levels):
        (alpha_a, sigma_a), (alpha_b, sigma_b) = t_before, t
        x0, _ = denoise(x, t_before)
        if sigma_b == 0:
            x = alpha_b * x0
            continue
        lam = log(alpha_a / sigma_a)
        h = log(alpha_b / sigma_b) - lam
        s = AT_LAMBDA[schedule](lam + r * h)
        u = s[1] / sigma_a * x - s[0] * (exp(-r * h) - 1) * x0
        d = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * denoise(u, s)[0]
        x = sigma_b / sigma_a * x - alpha_b * (exp(-h) - 1) * d
    return x


def parabola(nodes: list[tuple[mpf, mpf]], lam: mpf) -> mpf:
    """Lagrange's polynomial through (lambda, value)."""
    total = mpf(0)
    for i, (here, value) in enumerate(nodes):
        for j, (there, _) in enumerate(nodes):
            if i != j:
                value *= (lam - there) / (here - there)
        total += value
    return total


def multistep(
    x: mpf, levels: list[Level], noise: list[mpf], order: int, lowered: bool, eta: str
) -> mpf:
    """Order 2 is algorithm 2 of arXiv:2211.01095, order 3 integrates the parabola through D.

    Of the SDE d xbar = -(1 + eta) (xbar - D) dlam + sqrt(2 eta) s dw for xbar = x / alpha, whose
    linear part takes s_a to s_b as xbar_b = (s_b / s_a)^(1 + eta) xbar_a, and whose noise has the
    variance s_b^2 (1 - (s_b / s_a)^(2 eta)). Eta = 1 is the paper's SDE-DPM-Solver++.
    """
    draws = iter(noise)
    history: list[tuple[mpf, mpf]] = []  # (lambda, x0), the last first
    for i, ((alpha_a, sigma_a), (alpha_b, sigma_b)) in enumerate(itertools.pairwise(levels)):
        x0, _ = denoise(x, (alpha_a, sigma_a))
        if sigma_b == 0:
            return alpha_b * x0
        rate = 1 + mpf(eta)
        if alpha_a == 0:  # (s_b / s_a) = 0; x_b = alpha_b D + sigma_b eps with eps = x or fresh
            x = alpha_b * x0 + sigma_b * (x if mpf(eta) == 0 else next(draws))
            continue
        lam_a, lam_b = log(alpha_a / sigma_a), log(alpha_b / sigma_b)
        s_a, s_b = sigma_a / alpha_a, sigma_b / alpha_b
        history.insert(0, (lam_a, x0))
        k = min(order, len(history), len(levels) - 1 - i if lowered else order)
        whole = -expm1(-rate * (lam_b - lam_a))
        if k == 1:
            integral = whole * x0
        elif k == 2:
            r = (lam_a - history[1][0]) / (lam_b - lam_a)
            integral = whole * ((1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * history[1][1])
        else:
            nodes = history[:3]
            integral = quad(
                lambda lam: rate * exp(rate * (lam - lam_b)) * parabola(nodes, lam),  # noqa: B023
                [lam_a, lam_b],
            )
        bar = (s_b / s_a) ** rate * x / alpha_a + integral
        if mpf(eta) > 0:
            bar += s_b * sqrt(1 - (s_b / s_a) ** (2 * mpf(eta))) * next(draws)
        x = alpha_b * bar
    return x


def from_sigma(x: mpf, levels: list[Level], noise: list[mpf], solve: Solve) -> mpf:
    """A flow starts from noise of its own sigma, where that is not 1."""
    return solve(levels[0][1] * x, levels, noise)


# The orders of five steps: to sigma-min, and to sigma = 0.
ORDERS: dict[object, tuple[list[int], list[int] | None]] = {
    1: ([1] * 5, [1] * 5),
    2: ([2] * 5, [2, 2, 2, 2, 1]),
    3: ([3] * 5, [3, 3, 3, 3, 1]),
    "fast-0": ([3, 3, 3, 2, 1], [3, 3, 3, 2, 1]),
    "fast-1": ([3, 3, 3, 3, 1], [3, 3, 3, 3, 1]),
    "fast-2": ([3, 3, 3, 3, 2], None),
}


def singlesteps(schedule: str, times: list[float]) -> Iterator[Case]:
    for order, (to_min, to_zero) in ORDERS.items():
        orders = to_zero if times in (VP_TO_ZERO, FLOW_BELOW_ONE) else to_min
        if orders is not None:
            solve = partial(dpm_solver, schedule=schedule, orders=orders)
            yield Case("dpm-solver", {"order": order}, schedule, times, solve)
    params: dict[str, object] = {"method": "singlestep", "order": 2}
    yield Case("dpm-solver++", params, schedule, times, partial(two_s, schedule=schedule))


def multisteps(schedule: str, times: list[float]) -> Iterator[Case]:
    for order, rule, eta in [
        *((3, rule, "0") for rule in ("never", "lt10", "lt15", "always")),
        *((2, rule, "0") for rule in ("lt10", "lt15")),
        *((order, "never", eta) for order in (1, 2, 3) for eta in ("0.5", "1")),
        (3, "always", "1"),
    ]:
        params: dict[str, object] = {"order": order, "lower-order-final": rule, "eta": float(eta)}
        solve = partial(multistep, order=order, lowered=rule != "never", eta=eta)
        yield Case("dpm-solver++", params, schedule, times, solve)


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for schedule, times in [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),
    ]:
        yield from singlesteps(schedule, times)
        yield from multisteps(schedule, times)
    for case in singlesteps("flow", FLOW_BELOW_ONE):
        yield replace(case, solve=partial(from_sigma, solve=case.solve))
    yield from multisteps("flow", FLOW_TO_ZERO)
