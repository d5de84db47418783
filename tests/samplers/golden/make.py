"""Golden values of the samplers, derived a second time: scalars, mpmath, 50 digits.

    python tests/samplers/golden/make.py

Nothing of `bench` is imported. Each sampler is written from its paper in the paper's notation
(alpha-bar and betas for DDPM and DDIM, sigma(t) and s(t) for Euler and Heun, lambda and r for
DPM-Solver++), on a scalar mixture of two Gaussians. `test_golden.py` compares the samplers of
the registry with `values.json` to 1e-10.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from mpmath import exp, linspace, log, mp, mpf, sqrt

mp.dps = 50

# The model: weights, means and variances of the two components.
MODEL = {"weights": ["0.6", "0.4"], "means": ["-0.7", "1.1"], "variances": ["0.04", "0.3"]}
STARTS = ["-1.9", "-0.6", "0.15", "0.8", "2.4"]
# What the noise calls return, one row a call; one number for each start.
NOISE = [
    ["0.31", "-1.2", "0.05", "1.7", "-0.4"],
    ["-0.8", "0.6", "1.1", "-0.2", "-1.5"],
    ["1.4", "0.9", "-0.7", "0.3", "0.2"],
    ["-0.1", "-0.5", "2.0", "-1.1", "0.7"],
    ["0.45", "1.3", "-1.6", "0.65", "-0.9"],
]

Level = tuple[mpf, mpf]  # (alpha, sigma)
Model = Callable[[mpf, Level], tuple[mpf, mpf]]


def denoise(x: mpf, level: Level) -> tuple[mpf, mpf]:
    """E[x0 | x] from the posterior of each component, and eps = (x - alpha x0) / sigma."""
    alpha, sigma = level
    shares, means = [], []
    for w, m, c in zip(
        *(map(mpf, MODEL[k]) for k in ("weights", "means", "variances")), strict=True
    ):
        total = alpha**2 * c + sigma**2
        shares.append(w / sqrt(total) * exp(-((x - alpha * m) ** 2) / (2 * total)))
        means.append((m * sigma**2 + alpha * c * x) / total)
    x0 = sum(p * m for p, m in zip(shares, means, strict=True)) / sum(shares)
    return x0, (x - alpha * x0) / sigma


def clip(x: mpf) -> mpf:
    return min(max(x, mpf(-1)), mpf(1))


def vp_linear(t: int) -> Level:
    """Ho et al.: alpha-bar is the product of 1 - beta, beta from 1e-4 to 0.02 in 1000 steps."""
    if t < 0:
        return mpf(1), mpf(0)
    betas = linspace(mpf("0.0001"), mpf("0.02"), 1000)
    abar = mpf(1)
    for beta in betas[: t + 1]:
        abar *= 1 - beta
    return sqrt(abar), sqrt(1 - abar)


def flow(t: str) -> Level:
    return 1 - mpf(t), mpf(t)


def edm(t: str) -> Level:
    return mpf(1), mpf(t)


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


def vp_cases(times: list[int]) -> list[tuple[dict[str, object], Callable[[mpf, list[mpf]], mpf]]]:
    levels = [vp_linear(t) for t in times]
    cases: list[tuple[dict[str, object], Callable[[mpf, list[mpf]], mpf]]] = []
    for eta in ("0", "0.2", "0.5", "1", "sigma-hat"):
        given = eta if eta == "sigma-hat" else float(eta)
        cases.append(
            (
                {"sampler": "ddim", "params": {"eta": given}},
                lambda x, z, eta=eta: ddim(x, levels, z, eta),
            )
        )
    for variance in ("small", "large"):
        for clipped in (False, True):
            cases.append(
                (
                    {"sampler": "ddpm", "params": {"variance": variance, "clip": clipped}},
                    lambda x, z, v=variance, c=clipped: ddpm(x, levels, z, v, c),
                )
            )
    return cases + ode_cases(levels)


def ode_cases(
    levels: list[Level],
) -> list[tuple[dict[str, object], Callable[[mpf, list[mpf]], mpf]]]:
    cases: list[tuple[dict[str, object], Callable[[mpf, list[mpf]], mpf]]] = []
    if levels[0][0] != 0:
        cases = [
            ({"sampler": "euler", "params": {}}, lambda x, z: heun(x, levels, False)),
            ({"sampler": "heun", "params": {}}, lambda x, z: heun(x, levels, True)),
        ]
    for order, rule in [(1, "never"), (2, "never"), (2, "always")]:
        params = {"order": order, "lower-order-final": rule}
        cases.append(
            (
                {"sampler": "dpm-solver++", "params": params},
                lambda x, z, o=order, r=rule: dpm_solver_pp(x, levels, o, r == "always"),
            )
        )
    return cases


def main() -> None:
    cases = []
    # -1 is the clean image. Steps of very different size, so that no ratio can hide.
    for times in ([900, 640, 410, 180, 30, -1], [999, 700, 650, 300, 12, 0]):
        cases += [("vp-linear", times, *case) for case in vp_cases(times)]
    edm_times = ["80", "20", "14", "3", "0.9", "0.01"]
    cases += [("edm", edm_times, *case) for case in ode_cases([edm(t) for t in edm_times])]
    flow_times = ["1", "0.8", "0.55", "0.5", "0.1", "0"]
    cases += [("flow", flow_times, *case) for case in ode_cases([flow(t) for t in flow_times])]
    written = []
    for schedule, times, what, solve in cases:
        # Starts are those of N(0, 1), times 80 for EDM.
        scale = mpf(80) if schedule == "edm" else mpf(1)
        ends = [solve(scale * mpf(x), [mpf(row[i]) for row in NOISE]) for i, x in enumerate(STARTS)]
        row = {**what, "schedule": schedule, "times": [float(t) for t in times]}
        written.append({**row, "ends": [mp.nstr(x, 18) for x in ends]})
    values = {"model": MODEL, "starts": STARTS, "noise": NOISE, "cases": written}
    path = Path(__file__).with_name("values.json")
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
