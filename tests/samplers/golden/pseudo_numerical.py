"""PNDM, PLMS and iPNDM from arXiv:2202.09778: transfer, pseudo Runge-Kutta, pseudo multistep.

The transfer is eq. 9 in alpha-bar on VP, and DDIM's x0 and eps elsewhere. The weights of the
multistep methods solve the moment equations of equal steps.
"""

from collections.abc import Iterator
from itertools import pairwise

from classical import FLOW_FROM_BELOW, Flow
from mpmath import lu_solve, matrix, mpf, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise


def transfer(x: mpf, eps: mpf, a: Level, b: Level) -> mpf:
    (alpha_a, sigma_a), (alpha_b, sigma_b) = a, b
    if abs(alpha_a**2 + sigma_a**2 - 1) > mpf("1e-30"):
        return alpha_b * (x - sigma_a * eps) / alpha_a + sigma_b * eps
    abar, later = alpha_a**2, alpha_b**2
    root = sqrt((1 - later) * abar) + sqrt((1 - abar) * later)
    return x + (later - abar) * (
        x / (sqrt(abar) * (sqrt(abar) + sqrt(later))) - eps / (sqrt(abar) * root)
    )


def multistep(history: list[mpf]) -> mpf:
    """Newest last."""
    n = len(history)
    powers, moments = matrix(n, n), matrix(n, 1)
    for k in range(n):
        moments[k] = mpf(1) / (k + 1)
        for j in range(n):
            powers[k, j] = mpf(-j) ** k
    weights = lu_solve(powers, moments)
    return sum(w * eps for w, eps in zip(weights, reversed(history), strict=True))


def solve(x: mpf, name: str, flow: Flow, times: list[float]) -> mpf:
    decimal = [mpf(str(t)) for t in times]
    history: list[mpf] = []
    for i, (t, t_next) in enumerate(pairwise(decimal)):
        a = flow.level(t)
        x0, eps = denoise(x, a)
        if t_next == (-1 if flow.schedule == "vp-linear" else 0):
            return x0
        b = flow.level(t_next)
        history = [*history, eps][-4:]
        if a[0] == 0:
            x = b[0] * x0 + b[1] * eps
            continue
        if name == "pndm" and i < 3:
            middle = flow.level((t + t_next) / 2)
            second = denoise(transfer(x, eps, a, middle), middle)[1]
            third = denoise(transfer(x, second, a, middle), middle)[1]
            fourth = denoise(transfer(x, third, a, b), b)[1]
            combined = eps / 6 + second / 3 + third / 3 + fourth / 6
        elif name == "plms" and i == 0:
            combined = (eps + denoise(transfer(x, eps, a, b), b)[1]) / 2
        else:
            combined = multistep(history)
        x = transfer(x, combined, a, b)
    return x


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for name in ("pndm", "plms", "ipndm"):
        yield case(name, "vp-linear", VP_TO_ZERO)
        yield case(name, "vp-linear", VP_TO_MIN)
        yield case(name, "edm", EDM_TO_MIN)
        yield case(name, "flow", FLOW_TO_ZERO if name == "ipndm" else FLOW_FROM_BELOW)


def case(name: str, schedule: str, times: list[float]) -> Case:
    def from_start(x: mpf, levels: list[Level], noise: list[mpf]) -> mpf:
        start = x * levels[0][1] if schedule == "flow" else x  # of the standard deviation sigma
        return solve(start, name, Flow(schedule, "t"), times)

    return Case(name, {}, schedule, times, from_start)
