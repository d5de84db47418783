"""Restart, section 3.1 of arXiv:2306.14878, on xbar = x / alpha, with EDM's steps in between."""

import itertools
from collections.abc import Iterator

from edm import FLOW_FROM_BELOW, heun, ratio, started
from mpmath import mpf, sqrt
from scalar import EDM_TO_MIN, VP_TO_MIN, VP_TO_ZERO, Case, Level


def restart(
    x: mpf,
    levels: list[Level],
    noise: list[mpf],
    schedule: str,
    intervals: list[tuple[int, int, str, str]],
    rho: str = "7",
    s_noise: str = "1",
) -> mpf:
    """`intervals` as the paper has them: (N_restart, K, t_min, t_max)."""
    draws = iter(noise)
    times = [ratio(level) for level in levels]
    usable = [i for i, t in enumerate(times) if i > 0 and t > 0]
    power = 1 / mpf(rho)
    xbar = x / levels[0][0]
    for i, (t, after) in enumerate(itertools.pairwise(times), start=1):
        xbar = heun(schedule, xbar, t, after)
        for count, repeats, t_min, t_max in intervals:
            if i != min(usable, key=lambda j: abs(times[j] - mpf(t_min))):
                continue
            high, low = mpf(t_max) ** power, after**power
            steps = [(high + (low - high) * j / (count - 1)) ** mpf(rho) for j in range(count)]
            for _ in range(repeats):
                xbar += sqrt(mpf(t_max) ** 2 - after**2) * mpf(s_noise) * next(draws)
                for now, then in itertools.pairwise(steps):
                    xbar = heun(schedule, xbar, now, then)
    return xbar * levels[-1][0]


# s at the points: VP_TO_ZERO 54, 8.0, 2.2, 0.65, 0.12; VP_TO_MIN 157, 12, 8.4, 1.2, 0.05, 0.01;
# EDM_TO_MIN 80, 20, 14, 3, 0.9, 0.01; the flow 24, 4, 1.2, 1, 0.11.
SETTINGS: list[tuple[dict[str, object], list[tuple[int, int, str, str]], dict[str, str]]] = [
    ({}, [(3, 2, "0.06", "0.30")], {}),
    ({"points": 4, "repeats": 3}, [(4, 3, "0.06", "0.30")], {}),
    (
        {
            "s-min": 0.9,
            "s-max": 5.5,
            "interval-rho": 2,
            "s-noise": 1.003,
            "points": 2,
            "repeats": 1,
        },
        [(2, 1, "0.9", "5.5")],
        {"rho": "2", "s_noise": "1.003"},
    ),
    (
        {"points": [3, 2], "repeats": [1, 2], "s-min": [0.5, 0.02], "s-max": [6, 0.4]},
        [(3, 1, "0.5", "6"), (2, 2, "0.02", "0.4")],
        {},
    ),
]


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for schedule, times in [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),
        ("flow", FLOW_FROM_BELOW),
    ]:
        for params, intervals, rest in SETTINGS:
            yield Case(
                "restart",
                params,
                schedule,
                times,
                lambda x, levels, z, schedule=schedule, i=intervals, rest=rest: restart(  # type: ignore[misc]
                    started(x, levels, schedule), levels, z, schedule, i, **rest
                ),
            )
