"""Golden values of the grids themselves: noise schedules, and how spacings lay steps over them.

Schedules from Ho et al. (arXiv:2006.11239), Nichol and Dhariwal (arXiv:2102.09672, eq. 17),
Rombach et al. (arXiv:2112.10752), Karras et al. (arXiv:2206.00364, table 1) and Liu et al.
(arXiv:2209.03003, with noise at t = 1); the rates from Kingma et al. (arXiv:2107.00630). Spacings
of indices are whole-number arithmetic. Spacings of noise levels are angles arctan(sigma / alpha),
whose time is found by bisection.

The project's conventions, not a paper's: log alpha is linear between trained indices, and the clean
image is index -1; rates at an index are those of its cleaner side; flow ends at t = 0.001; halves
are rounded to the even index; a single point is the noisiest; in continuous time, linspace holds
both ends of the schedule and trailing is t_max (i + 1) / n; EDM's grid is cut to what the schedule
reaches.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from mpmath import atan, atan2, cos, diff, exp, floor, inf, linspace, log, mp, mpf, pi, sqrt, tan

mp.dps = 50

T = 1000


@dataclass(frozen=True)
class Schedule:
    """alpha and sigma over t_min <= t <= t_max."""

    level: Callable[[mpf], tuple[mpf, mpf]]
    t_min: mpf
    t_max: mpf
    clean: mpf
    # The standard deviation of the start, of its sigma.
    prior: Callable[[mpf], mpf]
    indices: int = 0  # trained ones

    def angle(self, t: mpf) -> mpf:
        alpha, sigma = self.level(t)
        return atan2(sigma, alpha)

    def time(self, angle: mpf) -> mpf:
        """The time of an angle, which grows with the time, by bisection."""
        low, high = self.t_min, self.t_max
        for _ in range(170):
            middle = (low + high) / 2
            if self.angle(middle) < angle:
                low = middle
            else:
                high = middle
        return high

    def rates(self, t: mpf) -> tuple[mpf, mpf]:
        """f = d log alpha / dt, g^2 = d sigma^2 / dt - 2 f sigma^2, from below."""
        f = diff(lambda u: log(self.level(u)[0]), t, direction=-1)
        change = diff(lambda u: self.level(u)[1] ** 2, t, direction=-1)
        return f, change - 2 * f * self.level(t)[1] ** 2


def discrete(betas: list[mpf]) -> Schedule:
    """alpha_bar is the product of 1 - beta; `logs[i + 1]` is that of index i."""
    logs = [mpf(0)]
    for beta in betas:
        logs.append(logs[-1] + log(1 - beta) / 2)

    def level(t: mpf) -> tuple[mpf, mpf]:
        below = min(int(floor(t)), T - 2)
        part = t - below
        alpha = exp((1 - part) * logs[below + 1] + part * logs[below + 2])
        return alpha, sqrt(1 - alpha**2)

    return Schedule(level, mpf(0), mpf(T - 1), mpf(-1), lambda sigma: mpf(1), T)


def cosine_betas() -> list[mpf]:
    def f(t: int) -> mpf:
        return cos((mpf(t) / T + mpf("0.008")) / mpf("1.008") * pi / 2) ** 2

    return [min(1 - f(t) / f(t - 1), mpf("0.999")) for t in range(1, T + 1)]


SCHEDULES = {
    "vp-linear": discrete(linspace(mpf("0.0001"), mpf("0.02"), T)),
    "vp-cosine": discrete(cosine_betas()),
    "vp-scaled-linear": discrete(
        [root**2 for root in linspace(sqrt(mpf("0.00085")), sqrt(mpf("0.012")), T)]
    ),
    "edm": Schedule(lambda t: (mpf(1), t), mpf("0.002"), mpf(80), mpf(0), lambda sigma: sigma),
    "flow": Schedule(lambda t: (1 - t, t), mpf("0.001"), mpf(1), mpf(0), lambda sigma: sigma),
}

# Spacings: the times of n points from noise to data.


def ramp(first: mpf, last: mpf, n: int) -> list[mpf]:
    return [first + (last - first) * i / (n - 1) for i in range(n)] if n > 1 else [first]


def falling(indices: list[int]) -> list[mpf]:
    return [mpf(i) for i in sorted(set(indices), reverse=True)]


def uniform(schedule: Schedule, n: int) -> list[mpf]:
    """floor(i T / n)."""
    return falling([i * T // n for i in range(n)] if n > 1 else [T - 1])


def squares(top: int, n: int) -> list[mpf]:
    """floor((i sqrt(top) / (n - 1))^2)."""
    return falling([top * i * i // (n - 1) ** 2 for i in range(n)] if n > 1 else [top])


def even(schedule: Schedule, n: int) -> list[mpf]:
    if schedule.indices and n > 1:
        return falling([round(Fraction(i * (T - 1), n - 1)) for i in range(n)])
    return ramp(schedule.t_max, schedule.t_min, n)


def trailing(schedule: Schedule, n: int) -> list[mpf]:
    """round((i + 1) T / n) - 1."""
    if schedule.indices:
        return falling([round(Fraction((i + 1) * T, n)) - 1 for i in range(n)])
    return [schedule.t_max * i / n for i in range(n, 0, -1)]


def time_power(schedule: Schedule, n: int, power: int = 2) -> list[mpf]:
    """t^(1 / power) is even."""
    root = mpf(1) / power
    return [u**power for u in ramp(schedule.t_max**root, schedule.t_min**root, n)]


def explicit(schedule: Schedule, n: int, times: list[float]) -> list[mpf]:
    return [mpf(str(t)) for t in times]


TIMES: dict[str, Callable[..., list[mpf]]] = {
    "uniform": uniform,
    "linspace": even,
    "trailing": trailing,
    "quadratic": lambda schedule, n: squares(800, n),  # 0.8 T
    "quadratic-full": lambda schedule, n: squares(T - 1, n),
    "all": uniform,  # at n = T
    "time-power": time_power,
    "explicit": explicit,
}

# Spacings: the angles of n points from noise to data.


def karras(
    schedule: Schedule,
    n: int,
    rho: float = 7,
    sigma_min: float | mpf | None = None,
    sigma_max: float | mpf | None = None,
) -> list[mpf]:
    """Eq. 5 of arXiv:2206.00364 for sigma / alpha."""
    first = tan(schedule.angle(schedule.t_max)) if sigma_max is None else mpf(str(sigma_max))
    last = tan(schedule.angle(schedule.t_min)) if sigma_min is None else mpf(str(sigma_min))
    root = 1 / mpf(str(rho))
    return [atan(u ** (1 / root)) for u in ramp(first**root, last**root, n)]


def edm(schedule: Schedule, n: int) -> list[mpf]:
    first = min(atan(mpf(80)), schedule.angle(schedule.t_max))
    last = max(atan(mpf("0.002")), schedule.angle(schedule.t_min))
    return karras(schedule, n, 7, tan(last), tan(first))


def logsnr(schedule: Schedule, n: int) -> list[mpf]:
    """Section 3.3 of arXiv:2206.00927: lambda = log(alpha / sigma) is even."""
    ends = [-log(tan(schedule.angle(t))) for t in (schedule.t_max, schedule.t_min)]
    return [atan(exp(-lam)) for lam in ramp(*ends, n)]


def cosine(schedule: Schedule, n: int) -> list[mpf]:
    """alpha = cos(pi u / 2) at even u, from the code of arXiv:2202.00512."""
    return ramp(schedule.angle(schedule.t_max), schedule.angle(schedule.t_min), n)


ANGLES: dict[str, Callable[..., list[mpf]]] = {
    "karras": karras,
    "edm": edm,
    "logsnr": logsnr,
    "cosine": cosine,
}

VP = ("vp-linear", "vp-cosine", "vp-scaled-linear")
FINITE = (*VP, "edm")  # alpha > 0 at the start
RUNS = [(1, "zero"), (1, "sigma-min"), (2, "zero"), (5, "sigma-min"), (10, "zero")]
RUNS += [(18, "denoise"), (50, "zero")]
# Of one rule on another schedule, or at other parameters.
FEWER = [(5, "zero"), (18, "sigma-min")]
Params = dict[str, object]
Case = tuple[str, Params, str, int, str]  # spacing, its parameters, schedule, steps, final


def cases() -> Iterator[Case]:
    for spacing in ("uniform", "linspace", "trailing", "quadratic", "quadratic-full"):
        for schedule in VP:
            runs = RUNS if schedule == "vp-linear" else FEWER
            yield from ((spacing, {}, schedule, *run) for run in runs)
    # Where squares fall on one index: from 30 and from 33 points on.
    for spacing, n in itertools.product(("quadratic", "quadratic-full"), (29, 30, 32, 33, 1000)):
        yield spacing, {}, "vp-linear", n, "zero"
    for schedule in VP:
        yield "all", {}, schedule, T, "zero"
        yield "all", {}, schedule, T - 1, "sigma-min"
    given = [({}, RUNS, FINITE), ({"sigma-max": 80}, FEWER, ("flow",))]
    given.append(({"rho": 3, "sigma-min": 0.05, "sigma-max": 10}, FEWER, tuple(SCHEDULES)))
    for params, runs, schedules in given:
        yield from (("karras", params, s, *run) for s in schedules for run in runs)
    for spacing, schedules in [
        ("linspace", ("edm", "flow")),
        ("trailing", ("edm", "flow")),
        ("logsnr", FINITE),
        ("edm", tuple(SCHEDULES)),
        ("cosine", tuple(SCHEDULES)),
        ("time-power", tuple(SCHEDULES)),
    ]:
        yield from ((spacing, {}, schedule, *run) for schedule in schedules for run in RUNS)
    yield from (("time-power", {"power": 3}, s, *run) for s in SCHEDULES for run in FEWER)
    for schedule in SCHEDULES:
        times = GIVEN_TIMES.get(schedule, [999, 640.5, 300, 12.25, 0])
        yield "explicit", {"times": times}, schedule, len(times), "zero"
        yield "explicit", {"times": times}, schedule, len(times) - 1, "sigma-min"


GIVEN_TIMES = {"edm": [80, 14, 0.9, 0.01], "flow": [1, 0.55, 0.5, 0.1, 0.001]}
GIVEN_LAMS = [mpf(3), mpf("0.5"), mpf(-2)]
GIVEN_S = [mpf("0.0625"), mpf(1), mpf(12)]


def text(values: list[mpf]) -> str:
    return " ".join(mp.nstr(mpf(value), 18) for value in values)


def point(schedule: Schedule, t: mpf) -> list[mpf]:
    """t, alpha, sigma and lambda = log(alpha / sigma)."""
    alpha, sigma = (mpf(1), mpf(0)) if t == schedule.clean else schedule.level(t)
    lam = inf if sigma == 0 else -inf if alpha == 0 else log(alpha / sigma)
    return [t, alpha, sigma, lam]


def grid(case: Case) -> dict[str, object]:
    """The number of points, and the first, the middle and the last of them by their place."""
    spacing, params, name, steps, final = case
    schedule = SCHEDULES[name]
    n = steps if final == "zero" else steps + 1
    keywords = {key.replace("-", "_"): value for key, value in params.items()}
    found = (TIMES | ANGLES)[spacing](schedule, n, **keywords)
    count = len(found) + (final == "zero")
    points = {}
    for i in sorted({0, 1, count // 2, count - 2, count - 1}):
        if i == len(found):
            t = schedule.clean
        else:
            t = schedule.time(found[i]) if spacing in ANGLES else found[i]
        points[i] = text(point(schedule, t))
    return {
        "spacing": spacing,
        "params": params,
        "schedule": name,
        "steps": steps,
        "final": final,
        "count": count,
        "points": points,
    }


def levels(name: str, schedule: Schedule) -> dict[str, list[str]]:
    """A schedule at times, and the times of given lambda and sigma / alpha."""
    given = [1, 37.5, 250, 500.125, 998.75] if schedule.indices else [0.02, 0.3, 0.75]
    given += [9.5] if name == "edm" else []
    ends = [schedule.t_min, schedule.t_max]
    times = [ends[0], *(mpf(str(t)) for t in given), ends[1]]
    return {
        "range": [text([*ends, schedule.indices])],
        "clean image": [text(point(schedule, schedule.clean))],
        "point": [text(point(schedule, t)) for t in times],
        "prior std": [text([t, schedule.prior(schedule.level(t)[1])]) for t in times],
        # f and g^2; f is infinite at alpha = 0.
        "rates": [text([t, *schedule.rates(t)]) for t in times if schedule.level(t)[0] > 0],
        "t of lambda": [text([lam, schedule.time(atan(exp(-lam)))]) for lam in GIVEN_LAMS],
        "t of s": [text([s, schedule.time(atan(s))]) for s in GIVEN_S],
    }


def values() -> dict[str, object]:
    """What grids.json holds; a point is "t alpha sigma lambda"."""
    return {
        "schedules": {name: levels(name, schedule) for name, schedule in SCHEDULES.items()},
        "grids": [grid(case) for case in cases()],
    }
