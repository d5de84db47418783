"""Reverse SDE, reverse diffusion, predictor-corrector and annealed Langevin dynamics.

The first three from arXiv:2011.13456: VP in beta (eq. 11), VE in sigma (eq. 9), with the score;
rectified flow by the definition of f and g of an SDE. Annealed Langevin from arXiv:1907.05600,
algorithm 1, on xbar = x / alpha.
"""

import itertools
from collections.abc import Iterator

from edm import FLOW_FROM_BELOW, ratio, started
from mpmath import diff, fabs, log, mpf, sqrt
from scalar import EDM_TO_MIN, LEVELS, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise


def score(x: mpf, level: Level) -> mpf:
    """Tweedie's formula turned round: (alpha x0 - x) / sigma^2."""
    return (level[0] * denoise(x, level)[0] - x) / level[1] ** 2


def drift_and_diffusion(schedule: str, t: float) -> tuple[mpf, mpf]:
    """f / x and g^2 at t."""
    if schedule == "vp-linear":  # dx = -beta x / 2 dt + sqrt(beta) dw
        index = int(t)
        alpha_below = LEVELS["vp-linear"](index - 1)[0]  # the clean image's below index 0
        beta = -2 * log(LEVELS["vp-linear"](index)[0] / alpha_below)
        return -beta / 2, beta
    if schedule == "edm":  # dx = sqrt(d sigma^2 / dt) dw
        return mpf(0), diff(lambda u: u**2, mpf(str(t)))
    at = mpf(str(t))
    f = diff(lambda u: log(1 - u), at)
    return f, diff(lambda u: u**2, at) - 2 * f * at**2


def reverse_sde(
    x: mpf, levels: list[Level], noise: list[mpf], schedule: str, times: list[float], kappa: str
) -> mpf:
    draws = iter(noise)
    for i, (level, (_, sigma_b)) in enumerate(itertools.pairwise(levels)):
        if sigma_b == 0:
            return (x + level[1] ** 2 * score(x, level)) / level[0]
        dt = mpf(str(times[i + 1])) - mpf(str(times[i]))  # negative
        f, g2 = drift_and_diffusion(schedule, times[i])
        slope = f * x - (1 + mpf(kappa) ** 2) / 2 * g2 * score(x, level)
        x += slope * dt
        if kappa != "0":
            x += mpf(kappa) * sqrt(g2) * sqrt(-dt) * next(draws)
    return x


def predict(predictor: str, x: mpf, a: Level, b: Level) -> tuple[mpf, mpf]:
    """Mean and variance of one step, VP with 1 - beta = (alpha_a / alpha_b)^2, VE beta 0 and G."""
    if b[1] == 0:
        return (x + a[1] ** 2 * score(x, a)) / a[0], mpf(0)
    root = a[0] / b[0]  # sqrt(1 - beta)
    g2 = a[1] ** 2 - root**2 * b[1] ** 2
    if predictor == "reverse-diffusion":
        return (2 - root) * x + g2 * score(x, a), g2
    mean = (x + g2 * score(x, a)) / root
    return mean, g2 if predictor == "ancestral-large" else g2 * b[1] ** 2 / a[1] ** 2


def predictor_corrector(
    x: mpf, levels: list[Level], noise: list[mpf], predictor: str, corrections: int, snr: str
) -> mpf:
    draws = iter(noise)
    for a, b in itertools.pairwise(levels):
        for _ in range(corrections):
            z = next(draws)
            gradient = score(x, a)
            step = 2 * (a[0] / b[0]) ** 2 * (mpf(snr) * fabs(z) / fabs(gradient)) ** 2
            x += step * gradient + sqrt(2 * step) * z
        x, variance = predict(predictor, x, a, b)
        if variance > 0:
            x += sqrt(variance) * next(draws)
    return x


def annealed_langevin(x: mpf, levels: list[Level], noise: list[mpf], steps: int, size: str) -> mpf:
    draws = iter(noise)
    noisy = [level for level in levels if level[1] > 0]
    epsilon = mpf(size) * ratio(noisy[-1]) ** 2
    xbar = x / levels[0][0]
    for alpha, sigma in noisy:
        step = epsilon * (sigma / alpha) ** 2 / ratio(noisy[-1]) ** 2
        for _ in range(steps):
            gradient = alpha * score(alpha * xbar, (alpha, sigma))
            xbar += step / 2 * gradient + sqrt(step) * next(draws)
    if levels[-1][1] > 0:
        return levels[-1][0] * xbar
    alpha, sigma = noisy[-1]
    return denoise(alpha * xbar, (alpha, sigma))[0]


def cases() -> Iterator[Case]:
    """The cases of this file. There are five draws, which is why some grids are short."""
    grids = [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),
        ("flow", FLOW_FROM_BELOW),
    ]
    short: list[tuple[str, list[float]]] = [
        ("vp-linear", [700, 90, -1]),
        ("vp-linear", [400, 25]),
        ("edm", [7, 0.3]),
        ("flow", [0.9, 0.15, 0]),
    ]
    for schedule, times in grids:
        for kappa in ("0", "0.4", "1"):
            yield Case(
                "reverse-sde",
                {"kappa": float(kappa)},
                schedule,
                times,
                lambda x, levels, z, s=schedule, t=times, k=kappa: reverse_sde(  # type: ignore[misc]
                    started(x, levels, s), levels, z, s, t, k
                ),
            )
        yield Case(
            "reverse-diffusion",
            {},
            schedule,
            times,
            lambda x, levels, z, s=schedule: predictor_corrector(  # type: ignore[misc]
                started(x, levels, s), levels, z, "reverse-diffusion", 0, "0"
            ),
        )
    for schedule, times in short:
        for predictor, corrections, snr in [
            ("reverse-diffusion", 1, "0.16"),
            ("reverse-diffusion", 2, "0.05"),
            ("ancestral-small", 1, "0.16"),
            ("ancestral-large", 1, "0.16"),
        ]:
            yield Case(
                "pc",
                {"predictor": predictor, "corrector-steps": corrections, "snr": float(snr)},
                schedule,
                times,
                lambda x, levels, z, s=schedule, p=predictor, m=corrections, r=snr: (  # type: ignore[misc]
                    predictor_corrector(started(x, levels, s), levels, z, p, m, r)
                ),
            )
        for steps, size in [(1, "0.2"), (2, "1.3")]:
            yield Case(
                "annealed-langevin",
                {"steps-per-level": steps, "step-size": float(size)},
                schedule,
                times,
                lambda x, levels, z, s=schedule, t=steps, e=size: annealed_langevin(  # type: ignore[misc]
                    started(x, levels, s), levels, z, t, e
                ),
            )
