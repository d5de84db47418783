"""DDIM, DDPM, Euler, Heun and DPM-Solver++, each from its paper in the paper's notation.

Alpha-bar and betas for DDPM and DDIM, sigma(t) and s(t) for Euler and Heun, lambda and r for
DPM-Solver++.
"""

import itertools
from collections.abc import Iterator

from mpmath import exp, log, mpf, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, clip, denoise


def ddim(x: mpf, levels: list[Level], noise: list[mpf], eta: str) -> mpf:
    """Eq. 12 and 16 of arXiv:2010.02502, in alpha-bar."""
    draws = iter(noise)
    for (alpha_a, sigma_a), (alpha_b, _) in itertools.pairwise(levels):
        abar_a, abar_b = alpha_a**2, alpha_b**2
        x0, eps = denoise(x, (alpha_a, sigma_a))
        one = mpf(1) if eta == "sigma-hat" else mpf(eta)
        sigma = one * sqrt((1 - abar_b) / (1 - abar_a)) * sqrt(1 - abar_a / abar_b)
        injected = sigma
        if eta == "sigma-hat":
            injected = sqrt(1 - abar_a / abar_b)
            x0 = clip(x0)
            eps = (x - alpha_a * x0) / sigma_a
        x = sqrt(abar_b) * x0 + sqrt(1 - abar_b - sigma**2) * eps
        if abar_b != 1 and one != 0:
            x += injected * next(draws)
    return x


def ddpm(x: mpf, levels: list[Level], noise: list[mpf], variance: str, clipped: bool) -> mpf:
    """Eq. 6-7 and algorithm 2 of arXiv:2006.11239, with beta = 1 - abar_a / abar_b."""
    draws = iter(noise)
    for (alpha_a, sigma_a), (alpha_b, _) in itertools.pairwise(levels):
        abar_a, abar_b = alpha_a**2, alpha_b**2
        beta = 1 - abar_a / abar_b
        x0, _ = denoise(x, (alpha_a, sigma_a))
        if clipped:
            x0 = clip(x0)
        x = (sqrt(abar_b) * beta * x0 + sqrt(1 - beta) * (1 - abar_b) * x) / (1 - abar_a)
        if abar_b != 1:
            small = (1 - abar_b) / (1 - abar_a) * beta
            x += sqrt(small if variance == "small" else beta) * next(draws)
    return x


def slope(x: mpf, level: Level) -> mpf:
    """d xbar / d s = (xbar - D(xbar; s)) / s, eq. 3 of arXiv:2206.00364 with its s(t) taken out."""
    alpha, sigma = level
    x0, _ = denoise(x, level)
    return (x / alpha - x0) / (sigma / alpha)


def heun(x: mpf, levels: list[Level], corrected: bool) -> mpf:
    """Algorithm 1 of arXiv:2206.00364 in xbar = x / alpha; Euler's method without correction."""
    for a, b in itertools.pairwise(levels):
        s_a, s_b = a[1] / a[0], b[1] / b[0]
        d = slope(x, a)
        end = x / a[0] + (s_b - s_a) * d
        if corrected and s_b != 0:
            end = x / a[0] + (s_b - s_a) * (d + slope(end * b[0], b)) / 2
        x = end * b[0]
    return x


def dpm_solver_pp(x: mpf, levels: list[Level], order: int, lowered: bool) -> mpf:
    """Algorithm 2 of arXiv:2211.01095; `lowered`: the last step is of order 1."""
    history: list[tuple[mpf, mpf]] = []  # (lambda, x0)
    for i, ((alpha_a, sigma_a), (alpha_b, sigma_b)) in enumerate(itertools.pairwise(levels)):
        x0, _ = denoise(x, (alpha_a, sigma_a))
        if sigma_b == 0 or alpha_a == 0:  # the limits of the step for infinite h
            x = alpha_b * x0 + (sigma_b / sigma_a * x if alpha_a == 0 else 0)
            history = []
            continue
        lam_a, lam_b = log(alpha_a / sigma_a), log(alpha_b / sigma_b)
        h = lam_b - lam_a
        d = x0
        if order == 2 and history and not (lowered and i == len(levels) - 2):
            lam_before, before = history[-1]
            r = (lam_a - lam_before) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        x = sigma_b / sigma_a * x - alpha_b * (exp(-h) - 1) * d
        history.append((lam_a, x0))
    return x


_MANY: list[float] = [
    *(999, 960, 910, 850, 800, 730, 650, 560, 480, 400, 310, 220, 150, 70, 20, 0),
]


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for times in (VP_TO_ZERO, VP_TO_MIN):
        for eta in ("0", "0.2", "0.5", "1", "sigma-hat"):
            yield Case(
                "ddim",
                {"eta": eta if eta == "sigma-hat" else float(eta)},
                "vp-linear",
                times,
                lambda x, levels, z, eta=eta: ddim(x, levels, z, eta),  # type: ignore[misc]
            )
        for variance in ("small", "large"):
            for clipped in (False, True):
                yield Case(
                    "ddpm",
                    {"variance": variance, "clip": clipped},
                    "vp-linear",
                    times,
                    lambda x, levels, z, v=variance, c=clipped: ddpm(x, levels, z, v, c),  # type: ignore[misc]
                )
        yield from ode_cases("vp-linear", times)
    # Whether a run is short enough for a last step of order 1, on both sides of the limits.
    for rule, limit in (("lt10", 10), ("lt15", 15)):
        for steps in (limit - 1, limit):
            yield Case(
                "dpm-solver++",
                {"order": 2, "lower-order-final": rule},
                "vp-linear",
                _MANY[-steps - 1 :],
                lambda x, levels, z, limit=limit: dpm_solver_pp(  # type: ignore[misc]
                    x, levels, 2, len(levels) - 1 < limit
                ),
            )
    yield from ode_cases("edm", EDM_TO_MIN)
    yield from ode_cases("flow", FLOW_TO_ZERO)


def ode_cases(schedule: str, times: list[float]) -> Iterator[Case]:
    if schedule != "flow":  # which starts at alpha = 0, where s is infinite
        yield Case("euler", {}, schedule, times, lambda x, levels, z: heun(x, levels, False))
        yield Case("heun", {}, schedule, times, lambda x, levels, z: heun(x, levels, True))
    for order, rule in [(1, "never"), (2, "never"), (2, "always")]:
        yield Case(
            "dpm-solver++",
            {"order": order, "lower-order-final": rule},
            schedule,
            times,
            lambda x, levels, z, o=order, r=rule: dpm_solver_pp(x, levels, o, r == "always"),  # type: ignore[misc]
        )
