"""DEIS with the coefficients of eq. 15 of arXiv:2204.13902, integrated as they stand.

C_j is the integral over a step of Psi(t_b, tau) g^2(tau) / (2 sigma(tau)) times the Lagrange
polynomial in tau; Psi(t_b, tau) = alpha_b / alpha(tau), g^2 = -2 d log alpha / dt on VP (constant
between two indices), 2 t on EDM and 2 t / (1 - t) on flow. For rhoAB the integral is that of the
polynomial in rho.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

from classical import FLOW_FROM_BELOW, Flow, log_alpha
from mpmath import mp, mpf, quad
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise


def lagrange(nodes: list[mpf], j: int, at: mpf) -> mpf:
    value = mpf(1)
    for k, node in enumerate(nodes):
        if k != j:
            value *= (at - node) / (nodes[j] - node)
    return value


def over_step(schedule: str, t_a: mpf, t_b: mpf, factor: Callable[[mpf], mpf]) -> mpf:
    """The integral from t_a to t_b of Psi g^2 / (2 sigma) times a factor."""
    flow = Flow(schedule, "t")
    alpha_b, _ = flow.level(t_b)
    if schedule == "flow":  # Psi g^2 / (2 t) = alpha_b / (1 - t)^2
        return quad(lambda t: alpha_b / (1 - t) ** 2 * factor(t), [t_a, t_b])
    if schedule == "edm":
        return quad(factor, [t_a, t_b])
    total = mpf(0)
    for high in range(int(t_a), int(t_b), -1):  # the grids of VP hold indices
        f = log_alpha(high) - log_alpha(high - 1)

        def integrand(t: mpf, f: mpf = f) -> mpf:
            alpha, sigma = flow.level(t)
            return alpha_b / alpha * -f / sigma * factor(t)

        total += quad(integrand, [high, high - 1], method="gauss-legendre", maxdegree=3)
    return total


@cache
def coefficients(schedule: str, method: str, nodes: tuple[mpf, ...], t_b: mpf) -> tuple[mpf, ...]:
    """Of the eps at the times `nodes`, newest first."""
    t_a, flow = nodes[0], Flow(schedule, "s")
    with mp.workdps(30):
        if method == "tab":
            return tuple(
                over_step(schedule, t_a, t_b, lambda t, j=j: lagrange(list(nodes), j, t))  # type: ignore[misc]
                for j in range(len(nodes))
            )
        alpha_b, _ = flow.level(t_b)
        rhos = [flow.place(t) for t in nodes if flow.level(t)[0] > 0]
        return tuple(
            alpha_b * quad(lambda rho, j=j: lagrange(rhos, j, rho), [rhos[0], flow.place(t_b)])
            for j in range(len(rhos))
        )


def solve(x: mpf, schedule: str, times: list[float], method: str, degree: int) -> mpf:
    flow = Flow(schedule, "t")
    history: list[tuple[mpf, mpf]] = []  # (t, eps), newest first
    for t_a, t_b in pairwise([mpf(str(t)) for t in times]):
        a = flow.level(t_a)
        x0, eps = denoise(x, a)
        if t_b == (-1 if schedule == "vp-linear" else 0):
            return x0
        b = flow.level(t_b)
        history = [(t_a, eps), *history[:degree]]
        if a[0] == 0:  # the limit of the step of degree 0
            x = b[0] * x0 + b[1] * eps
            continue
        found = coefficients(schedule, method, tuple(t for t, _ in history), t_b)
        x = b[0] / a[0] * x + sum(c * e for c, (_, e) in zip(found, history, strict=False))
    return x


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for method in ("tab", "rhoab"):
        for degree in range(4):
            for schedule, times in [
                ("vp-linear", VP_TO_ZERO),
                ("vp-linear", VP_TO_MIN),
                ("edm", EDM_TO_MIN),
                ("flow", FLOW_TO_ZERO),
                ("flow", FLOW_FROM_BELOW),
            ]:
                yield case(schedule, times, method, degree)


def case(schedule: str, times: list[float], method: str, degree: int) -> Case:
    def from_start(x: mpf, levels: list[Level], noise: list[mpf]) -> mpf:
        start = x * levels[0][1] if schedule == "flow" else x  # of the standard deviation sigma
        return solve(start, schedule, times, method, degree)

    return Case("deis", {"method": method, "order": degree}, schedule, times, from_start)
