"""Multistep consistency sampling, algorithm 1 of arXiv:2303.01469, on xbar = x / alpha.

The mixture's denoiser stands in for a consistency function f: the algorithm does not ask.
"""

from collections.abc import Iterator

from edm import ratio
from mpmath import mpf, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, LEVELS, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise


def consistency(x: mpf, levels: list[Level], noise: list[mpf], epsilon: mpf) -> mpf:
    """The algorithm runs to the last call; a grid that ends above epsilon has its noise added."""
    f, _ = denoise(x, levels[0])
    rest = levels[1:-1]
    for level, z in zip(rest, noise, strict=False):
        tau = ratio(level)
        f, _ = denoise(level[0] * (f + sqrt(tau**2 - epsilon**2) * z), level)
    end = ratio(levels[-1])
    if end > epsilon:
        f += sqrt(end**2 - epsilon**2) * noise[len(rest)]
    return levels[-1][0] * f


def cases() -> Iterator[Case]:
    """The cases of this file."""
    epsilons = {
        "vp-linear": ratio(LEVELS["vp-linear"](0)),
        "edm": mpf("0.002"),
        "flow": ratio(LEVELS["flow"](0.001)),
    }
    for schedule, times in [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),  # ends at 0.01, above epsilon
        ("edm", [80, 0.661, 0]),
        ("flow", FLOW_TO_ZERO),
    ]:
        yield Case(
            "consistency",
            {},
            schedule,
            times,
            lambda x, levels, z, e=epsilons[schedule]: consistency(x, levels, z, e),  # type: ignore[misc]
        )
