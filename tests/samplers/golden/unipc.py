"""UniPC in the notation of arXiv:2302.04867: phi_k, R_p(h), B(h), a_p, with data prediction."""

from collections.abc import Iterator
from itertools import product

from mpmath import exp, factorial, inf, log, lu_solve, matrix, mpf
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise

Evaluations = list[tuple[mpf, mpf]]  # (lambda, D), oldest first


def lam(level: Level) -> mpf:
    alpha, sigma = level
    return log(alpha / sigma) if alpha > 0 and sigma > 0 else (inf if alpha > 0 else -inf)


def combine(x: mpf, a: Level, b: Level, d0: mpf, others: Evaluations, variant: str) -> mpf:
    """UniP and UniC: the differences D_m - D0 of `others`, weighted by a_m B(h) / r_m."""
    h = lam(b) - lam(a)
    first = b[1] / a[1] * x - b[0] * (exp(-h) - 1) * d0
    p = len(others)
    if p == 0:
        return first
    hh = -h
    big_b = hh if variant == "bh1" else exp(hh) - 1
    r = [(place - lam(a)) / h for place, _ in others]
    if p == 1:
        weights = [mpf(1) / 2]
    else:
        phi = (exp(hh) - 1) / hh  # phi_1
        rows, right = matrix(p, p), matrix(p, 1)
        for k in range(1, p + 1):
            phi = (phi - 1 / factorial(k)) / hh  # phi_{k+1}
            right[k - 1] = hh * phi * factorial(k) / big_b
            for m in range(p):
                rows[k - 1, m] = r[m] ** (k - 1)
        weights = list(lu_solve(rows, right))
    change = sum(w * (d - d0) / place for w, place, (_, d) in zip(weights, r, others, strict=True))
    return first - b[0] * big_b * change


def solve(
    x: mpf, levels: list[Level], order: int, variant: str, corrector: bool, lowered: bool
) -> mpf:
    n = len(levels) - 1
    known: Evaluations = []
    predicted, origin, p = x, x, 0
    for i in range(n):
        a, b = levels[i], levels[i + 1]
        d, _ = denoise(predicted, a)
        x = predicted
        if corrector and p:
            earlier = known[-p:-1]
            x = combine(origin, levels[i - 1], a, known[-1][1], [*earlier, (lam(a), d)], variant)
        known.append((lam(a), d))
        if b[1] == 0:
            return d
        if a[0] == 0:  # h is infinite; this evaluation is of no use to later steps
            predicted, known, p = b[1] / a[1] * x + b[0] * d, [], 0
            continue
        p = min(order, len(known), n - i if lowered else order)
        origin = x
        predicted = combine(x, a, b, d, known[-p:-1], variant)
    return predicted


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for (schedule, times), order, variant, corrector, lowered in product(
        [
            ("vp-linear", VP_TO_ZERO),
            ("vp-linear", VP_TO_MIN),
            ("edm", EDM_TO_MIN),
            ("flow", FLOW_TO_ZERO),
        ],
        (1, 2, 3),
        ("bh1", "bh2"),
        (True, False),
        (True, False),
    ):
        yield Case(
            "unipc",
            {
                "order": order,
                "variant": variant,
                "corrector": corrector,
                "lower-order-final": "always" if lowered else "never",
            },
            schedule,
            times,
            lambda x, levels, z, o=order, v=variant, c=corrector, low=lowered: solve(  # type: ignore[misc]
                x, levels, o, v, c, low
            ),
        )
