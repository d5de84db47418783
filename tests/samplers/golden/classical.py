"""Euler, Heun, Runge-Kutta and Adams-Bashforth, with the probability flow as its papers have it.

In t: dx/dt = f x + g^2 / (2 sigma) eps (arXiv:2011.13456, eq. 13 with score = -eps / sigma), and
the straight line's velocity (x - x0) / t on flow. In lambda: dx/dlam = (d log alpha / dlam) x -
sigma eps (arXiv:2206.00927). In s: d xbar / ds = (xbar - x0) / s (arXiv:2206.00364, eq. 3). The
coefficients of Adams-Bashforth solve the moment equations of the nodes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from mpmath import exp, floor, log, lu_solve, matrix, mpf, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, LEVELS, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise

FLOW_FROM_BELOW: list[float] = [0.96, 0.8, 0.55, 0.5, 0.1, 0]


@cache
def log_alpha(index: int) -> mpf:
    return log(LEVELS["vp-linear"](index)[0])


@dataclass(frozen=True)
class Flow:
    """The probability flow of a schedule in a variable, on states y."""

    schedule: str
    variable: str

    def place(self, t: mpf) -> mpf:
        """The variable's value at time t."""
        if self.variable == "t":
            return t
        alpha, sigma = self.level(t)
        return sigma / alpha if self.variable == "s" else log(alpha / sigma)

    def level(self, t: mpf) -> Level:
        if self.schedule == "edm":
            return mpf(1), t
        if self.schedule == "flow":
            return 1 - t, t
        below = int(floor(t))
        share = t - below
        value = log_alpha(below)
        if share:
            value += share * (log_alpha(below + 1) - value)
        return exp(value), sqrt(1 - exp(2 * value))

    def level_at(self, u: mpf) -> Level:
        """The level where the variable is u."""
        if self.variable == "t":
            return self.level(u)
        s = u if self.variable == "s" else exp(-u)
        alpha = {"edm": mpf(1), "flow": 1 / (1 + s), "vp-linear": 1 / sqrt(1 + s**2)}[self.schedule]
        return alpha, s * alpha

    def slope(self, y: mpf, u: mpf, level: Level) -> mpf:
        alpha, sigma = level
        x0, eps = denoise(alpha * y if self.variable == "s" else y, level)
        if self.variable == "s":
            return (y - x0) / u
        if self.variable == "lam":  # d log alpha / dlam is sigma^2 on VP, 0 on VE and t on flow
            drift = {"vp-linear": sigma**2, "edm": mpf(0), "flow": sigma}[self.schedule]
            return drift * y - sigma * eps
        if self.schedule == "vp-linear":
            f = drift_of(u)
            return f * y - f / sigma * eps  # g^2 = -2 f
        return eps if self.schedule == "edm" else (y - x0) / u


def drift_of(t: mpf) -> mpf:
    """d log alpha / dt of the parabola through the three indices nearest to t."""
    i = min(max(int(floor(t + mpf(1) / 2)), 1), 998)
    low, mid, high = (log_alpha(k) for k in (i - 1, i, i + 1))
    return (high - low) / 2 + (t - i) * (high - 2 * mid + low)


Step = Callable[[Flow, mpf, mpf, mpf, Level, Level], mpf]
"""(flow, y, u_a, u_b, level_a, level_b) -> y_b."""


def euler(flow: Flow, y: mpf, u: mpf, v: mpf, a: Level, b: Level) -> mpf:
    return y + (v - u) * flow.slope(y, u, a)


def heun(flow: Flow, y: mpf, u: mpf, v: mpf, a: Level, b: Level) -> mpf:
    first = flow.slope(y, u, a)
    second = flow.slope(y + (v - u) * first, v, b)
    return y + (v - u) * (first + second) / 2


def rk4(flow: Flow, y: mpf, u: mpf, v: mpf, a: Level, b: Level) -> mpf:
    h, w = v - u, (u + v) / 2
    middle = flow.level_at(w)
    k1 = flow.slope(y, u, a)
    k2 = flow.slope(y + h / 2 * k1, w, middle)
    k3 = flow.slope(y + h / 2 * k2, w, middle)
    k4 = flow.slope(y + h * k3, v, b)
    return y + h * (k1 / 6 + k2 / 3 + k3 / 3 + k4 / 6)


def adams_bashforth(order: int) -> Step:
    history: list[tuple[mpf, mpf]] = []  # (u, slope), oldest first

    def step(flow: Flow, y: mpf, u: mpf, v: mpf, a: Level, b: Level) -> mpf:
        history.append((u, flow.slope(y, u, a)))
        del history[:-order]
        n = len(history)
        powers, moments = matrix(n, n), matrix(n, 1)
        for k in range(n):
            moments[k] = (v - u) ** (k + 1) / (k + 1)
            for j, (node, _) in enumerate(history):
                powers[k, j] = (node - u) ** k
        weights = lu_solve(powers, moments)
        return y + sum(weights[j] * slope for j, (_, slope) in enumerate(history))

    return step


def solve(x: mpf, levels: list[Level], times: list[float], flow: Flow, steps: list[Step]) -> mpf:
    """One step after another; the last step to sigma = 0 is the x0 there."""
    decimal = [mpf(str(t)) for t in times]
    for step, a, b, t_a, t_b in zip(steps, levels, levels[1:], decimal, decimal[1:], strict=False):
        if b[1] == 0:
            return denoise(x, a)[0]
        if a[0] == 0 and flow.variable == "s":  # the limit of Euler's step for infinite s_a
            x = b[0] * denoise(x, a)[0] + b[1] * x
            continue
        over_a, over_b = (a[0], b[0]) if flow.variable == "s" else (1, 1)
        x = over_b * step(flow, x / over_a, flow.place(t_a), flow.place(t_b), a, b)
    return x


def cases() -> Iterator[Case]:
    """The cases of this file; Euler and Heun in s stand in basic.py as well."""
    for variable in ("s", "lam", "t"):
        yield from cases_of("vp-linear", VP_TO_ZERO, variable)
        yield from cases_of("vp-linear", VP_TO_MIN, variable)
        yield from cases_of("edm", EDM_TO_MIN, variable)
        yield from cases_of("flow", FLOW_TO_ZERO if variable == "t" else FLOW_FROM_BELOW, variable)
    yield from multistep_cases("flow", FLOW_TO_ZERO, "s")  # from alpha = 0


def cases_of(schedule: str, times: list[float], variable: str) -> Iterator[Case]:
    n = len(times) - 1
    for name, given, steps in [
        ("euler", {}, [euler] * n),
        ("heun", {}, [heun] * n),
        ("heun", {"corrected-last": False}, [heun] * (n - 1) + [euler]),
        ("rk4", {}, [rk4] * n),
    ]:
        yield case(name, given, schedule, times, variable, lambda steps=steps: steps)  # type: ignore[misc]
    yield from multistep_cases(schedule, times, variable)


def multistep_cases(schedule: str, times: list[float], variable: str) -> Iterator[Case]:
    for order in (1, 2, 3, 4):
        steps = lambda order=order: [adams_bashforth(order)] * (len(times) - 1)  # noqa: E731
        yield case("ab", {"order": order}, schedule, times, variable, steps)


def case(
    name: str,
    given: dict[str, object],
    schedule: str,
    times: list[float],
    variable: str,
    steps: Callable[[], list[Step]],
) -> Case:
    def from_start(x: mpf, levels: list[Level], noise: list[mpf]) -> mpf:
        start = x * levels[0][1] if schedule == "flow" else x  # of the standard deviation sigma
        return solve(start, levels, times, Flow(schedule, variable), steps())

    return Case(name, {"variable": variable, **given}, schedule, times, from_start)
