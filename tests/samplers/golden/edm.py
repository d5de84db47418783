"""EDM with churn, algorithm 2 of arXiv:2206.00364 in its own terms: sigma, D and d.

On xbar = x / alpha with sigma / alpha for the paper's sigma. The raised level stays below the
schedule's noisiest one.
"""

import itertools
from collections.abc import Iterator
from functools import cache

from mpmath import mpf, sqrt
from scalar import EDM_TO_MIN, LEVELS, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise

FLOW_FROM_BELOW: list[float] = [0.96, 0.8, 0.55, 0.5, 0.1, 0]


def level_of(schedule: str, sigma: mpf) -> Level:
    """alpha and sigma where sigma / alpha is the given one."""
    alpha = {"edm": mpf(1), "flow": 1 / (1 + sigma), "vp-linear": 1 / sqrt(1 + sigma**2)}[schedule]
    return alpha, alpha * sigma


def slope(schedule: str, xbar: mpf, sigma: mpf) -> mpf:
    """d = (x - D(x; sigma)) / sigma."""
    level = level_of(schedule, sigma)
    return (xbar - denoise(level[0] * xbar, level)[0]) / sigma


def heun(schedule: str, xbar: mpf, sigma: mpf, after: mpf) -> mpf:
    d = slope(schedule, xbar, sigma)
    end = xbar + (after - sigma) * d
    if after != 0:
        end = xbar + (after - sigma) * (d / 2 + slope(schedule, end, after) / 2)
    return end


@cache
def noisiest(schedule: str) -> mpf:
    return {
        "vp-linear": lambda: ratio(LEVELS["vp-linear"](999)),
        "edm": lambda: mpf(80),
        "flow": lambda: mpf("inf"),
    }[schedule]()


def ratio(level: Level) -> mpf:
    return level[1] / level[0]


def edm(
    x: mpf,
    levels: list[Level],
    noise: list[mpf],
    schedule: str,
    churn: str,
    low: str = "0",
    high: str = "inf",
    s_noise: str = "1",
) -> mpf:
    draws = iter(noise)
    sigmas = [ratio(level) for level in levels]
    xbar = x / levels[0][0]
    for sigma, after in itertools.pairwise(sigmas):
        gamma = mpf(0)
        if mpf(low) <= sigma <= mpf(high):
            gamma = min(mpf(churn) / (len(levels) - 1), sqrt(2) - 1)
        raised = sigma
        if gamma > 0:
            raised = min(sigma + gamma * sigma, noisiest(schedule))
            xbar += sqrt(raised**2 - sigma**2) * mpf(s_noise) * next(draws)
        xbar = heun(schedule, xbar, raised, after)
    return xbar * levels[-1][0]


SETTINGS: list[dict[str, str]] = [
    {"churn": "0"},
    {"churn": "0.7"},
    {"churn": "40"},
    {"churn": "1.2", "low": "0.05", "high": "16", "s_noise": "1.007"},
]
NAMES = {"churn": "s-churn", "low": "s-min", "high": "s-max", "s_noise": "s-noise"}


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for schedule, times in [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),
        ("flow", FLOW_FROM_BELOW),
    ]:
        for setting in SETTINGS:
            yield Case(
                "edm",
                {NAMES[key]: float(value) for key, value in setting.items()},
                schedule,
                times,
                lambda x, levels, z, schedule=schedule, setting=setting: edm(  # type: ignore[misc]
                    started(x, levels, schedule), levels, z, schedule, **setting
                ),
            )


def started(x: mpf, levels: list[Level], schedule: str) -> mpf:
    """A flow starts from noise of its own sigma where it starts below t = 1."""
    return levels[0][1] * x if schedule == "flow" else x
