"""Adaptive solvers, one sample at a time, with the step control written out from the texts.

Dormand and Prince's table as in Hairer, Norsett and Wanner, table 5.2 (b and b-hat apart, not
their difference); algorithm 3 of arXiv:2206.00927 in its own notation. The exact flow by mpmath's
Taylor integrator, at high precision.
"""

from collections.abc import Callable, Iterator

from mpmath import asin, cos, exp, inf, log, mp, mpf, odefun, sin, sqrt
from scalar import EDM_TO_MIN, Case, Level, denoise

A = [
    [],
    ["1/5"],
    ["3/40", "9/40"],
    ["44/45", "-56/15", "32/9"],
    ["19372/6561", "-25360/2187", "64448/6561", "-212/729"],
    ["9017/3168", "-355/33", "46732/5247", "49/176", "-5103/18656"],
    ["35/384", "0", "500/1113", "125/192", "-2187/6784", "11/84"],
]
C = ["0", "1/5", "3/10", "4/5", "8/9", "1", "1"]
B_HAT = [
    "5179/57600",
    "0",
    "7571/16695",
    "393/640",
    "-92097/339200",
    "187/2100",
    "1/40",
]


def fraction(text: str) -> mpf:
    over, _, under = text.partition("/")
    return mpf(over) / mpf(under or 1)


def rk45(slope: Callable[[mpf, mpf], mpf], y: mpf, u: mpf, end: mpf, rtol: mpf, atol: mpf) -> mpf:
    direction = 1 if end > u else -1
    allowed = atol + rtol * abs(y)
    h = min(abs(y / allowed) / abs(slope(u, y) / allowed) / 100, abs(end - u))
    h = max(h, abs(end - u) / 10**6)
    largest = mpf(10)
    while u != end:
        h = min(h, abs(end - u))
        k: list[mpf] = []
        for row, c in zip(A, C, strict=True):
            stage = y + direction * h * sum(fraction(a) * kj for a, kj in zip(row, k, strict=True))
            k.append(slope(u + direction * h * fraction(c), stage))
        other = y + direction * h * sum(fraction(b) * kj for b, kj in zip(B_HAT, k, strict=True))
        error = abs(stage - other) / (atol + rtol * max(abs(y), abs(stage)))
        if error <= 1:
            y = stage
            u = end if h == abs(end - u) else u + direction * h
        h *= min(largest, max(mpf(1) / 5, mpf(9) / 10 * error ** (-mpf(1) / 5)))
        largest = mpf(10) if error <= 1 else mpf(1)
    return y


def adaptive(x: mpf, levels: list[Level], level_at: Callable[[mpf], Level], order: int) -> mpf:
    """Algorithm 3; s -> t is a step, D an eps, r1 and r2 as in algorithms 4 and 5."""
    atol, rtol, theta, h = mpf("0.0078"), mpf("0.05"), mpf("0.9"), mpf("0.05")
    (alpha_T, sigma_T), (alpha_0, sigma_0) = levels[0], levels[-1]
    lam_s, lam_0 = log(alpha_T / sigma_T), log(alpha_0 / sigma_0)
    previous = x

    def eps(x: mpf, lam: mpf) -> mpf:
        return denoise(x, level_at(lam))[1]

    def first(r: mpf) -> mpf:
        (a_s, _), (a_t, s_t) = level_at(lam_s), level_at(lam_s + r * h)
        return a_t / a_s * x - s_t * (exp(r * h) - 1) * e_s

    while lam_s < lam_0:
        h = min(h, lam_0 - lam_s)
        e_s = eps(x, lam_s)
        one = mpf(1)
        (_, s_t), r1, r2 = level_at(lam_s + h), mpf(1) / 3, mpf(2) / 3
        if order == 2:
            r1 = mpf(1) / 2
            low = first(one)
            u = first(r1)
            high = low - s_t * (exp(h) - 1) / (2 * r1) * (eps(u, lam_s + r1 * h) - e_s)
        else:
            d1 = eps(first(r1), lam_s + r1 * h) - e_s
            low = first(one) - s_t * (exp(h) - 1) / (2 * r1) * d1
            (_, s_2) = level_at(lam_s + r2 * h)
            u2 = first(r2) - s_2 * r2 / r1 * ((exp(r2 * h) - 1) / (r2 * h) - 1) * d1
            d2 = eps(u2, lam_s + r2 * h) - e_s
            high = first(one) - s_t / r2 * ((exp(h) - 1) / h - 1) * d2
        error = abs(high - low) / max(atol, rtol * max(abs(low), abs(previous)))
        if error <= 1:
            x, previous = high, low
            lam_s = lam_0 if h == lam_0 - lam_s else lam_s + h
        h = theta * h * error ** (-one / order) if error > 0 else inf
    return x


def flow(x: mpf, levels: list[Level]) -> mpf:
    """In the angle: VP states, alpha = cos and sigma = sin; to the first level from the last."""
    (alpha, sigma), (alpha_end, sigma_end) = levels[0], levels[-1]
    start, end = (asin(s / sqrt(a**2 + s**2)) for a, s in ((alpha, sigma), (alpha_end, sigma_end)))

    def slope(u: mpf, y: mpf) -> mpf:
        x0, eps = denoise(y, (cos(start - u), sin(start - u)))
        return sin(start - u) * x0 - cos(start - u) * eps

    with mp.workdps(20):
        y = odefun(slope, 0, x / sqrt(alpha**2 + sigma**2), tol=mpf("1e-12"))(start - end)
    return y * sqrt(alpha_end**2 + sigma_end**2)


def edm_at(lam: mpf) -> Level:
    return mpf(1), exp(-lam)


def in_s(x: mpf, levels: list[Level], tolerance: str) -> mpf:
    start, end = levels[0][1], levels[-1][1]
    return rk45(
        lambda s, y: denoise(y, (mpf(1), s))[1], x, start, end, mpf(tolerance), mpf(tolerance)
    )


def in_lam(x: mpf, levels: list[Level], tolerance: str) -> mpf:
    start, end = (log(alpha / sigma) for alpha, sigma in (levels[0], levels[-1]))

    def slope(lam: mpf, x: mpf) -> mpf:
        """alpha^2 = 1 / (1 + e^(-2 lam)) on VP; x' = alpha' x0 + sigma' eps."""
        alpha, sigma = 1 / sqrt(1 + exp(-2 * lam)), 1 / sqrt(1 + exp(2 * lam))
        x0, eps = denoise(x, (alpha, sigma))
        return alpha * sigma**2 * x0 - sigma * alpha**2 * eps

    return rk45(slope, x, start, end, mpf(tolerance), mpf(tolerance))


def cases() -> Iterator[Case]:
    """The cases of this file: in s on EDM, where xbar is x, and in lam on VP, where it is not."""
    ends = [EDM_TO_MIN[0], EDM_TO_MIN[-1]]
    for variable, schedule, times, solve in (
        ("s", "edm", ends, in_s),
        ("lam", "vp-linear", [999.0, 0.0], in_lam),
    ):
        yield Case(
            "rk45",
            {"variable": variable, "rtol": 1e-4, "atol": 1e-4},
            schedule,
            times,
            lambda x, levels, z, solve=solve: solve(x, levels, "1e-4"),  # type: ignore[misc]
        )
    for order in (2, 3):
        yield Case(
            "dpm-solver-adaptive",
            {"order": order},
            "edm",
            ends,
            lambda x, levels, z, order=order: adaptive(x, levels, edm_at, order),  # type: ignore[misc]
        )
    for schedule, times in (("vp-linear", [999.0, 0.0]), ("flow", [1.0, 0.0])):
        yield Case(
            "exact-flow",
            {"tolerance": 1e-10},
            schedule,
            times,
            lambda x, levels, z: flow(x, levels),
            within=1e-7,
        )
