"""ER-SDE-Solvers in the notation of arXiv:2309.06169: sigma on VE, lambda = sigma / alpha on VP.

The Taylor solvers with phi, its ratio r, the differences D and U, and the integrals of 1 / phi and
(sigma - sigma_i-1) / phi by quadrature.
"""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

from edm import FLOW_FROM_BELOW, ratio, started
from mpmath import exp, mpf, quad, sqrt
from scalar import EDM_TO_MIN, FLOW_TO_ZERO, VP_TO_MIN, VP_TO_ZERO, Case, Level, denoise

PHI: dict[str, Callable[[mpf], mpf]] = {
    "ode": lambda x: x,
    "sde": lambda x: x**2,
    "er-sde-5": lambda x: x * (exp(x ** mpf("0.3")) + 10),
}


@cache
def integral(scale: str, power: int, low: mpf, high: mpf) -> mpf:
    """Of (u - high)^power / phi(u) over u from low to high."""
    places = [low]  # pieces on which u grows tenfold at most
    while places[-1] * 10 < high:
        places.append(places[-1] * 10)
    return quad(lambda u: (u - high) ** power / PHI[scale](u), [*places, high])


def er_sde(x: mpf, levels: list[Level], noise: list[mpf], scale: str, order: int) -> mpf:
    phi, draws = PHI[scale], iter(noise)
    if levels[0][0] == 0:  # the limit of a start with ever less signal
        levels = [(mpf("1e-40"), levels[0][1]), *levels[1:]]
    lams = [ratio(level) for level in levels]
    x0: list[mpf] = []
    d: list[mpf] = []  # D of each step, from the second on
    for i, ((alpha, _), (alpha_next, sigma_next)) in enumerate(pairwise(levels)):
        x0.append(denoise(x, levels[i])[0])
        if sigma_next == 0:
            return alpha_next * x0[-1]
        now, after = lams[i], lams[i + 1]
        r = phi(after) / phi(now)
        x = alpha_next / alpha * r * x + alpha_next * (1 - r) * x0[-1]
        if order >= 2 and i >= 1:
            d.append((x0[-1] - x0[-2]) / (now - lams[i - 1]))
            weight = after - now + phi(after) * integral(scale, 0, after, now)
            x += alpha_next * weight * d[-1]
        if order == 3 and i >= 2:
            u = (d[-1] - d[-2]) / ((now - lams[i - 2]) / 2)
            weight = (after - now) ** 2 / 2 + phi(after) * integral(scale, 1, after, now)
            x += alpha_next * weight * u
        if scale != "ode":
            x += alpha_next * sqrt(after**2 - now**2 * r**2) * next(draws)
    return x


def cases() -> Iterator[Case]:
    """The cases of this file."""
    for schedule, times in [
        ("vp-linear", VP_TO_ZERO),
        ("vp-linear", VP_TO_MIN),
        ("edm", EDM_TO_MIN),
        ("flow", FLOW_TO_ZERO),
        ("flow", FLOW_FROM_BELOW),
    ]:
        for scale in PHI:
            for order in (1, 2, 3):
                yield Case(
                    "er-sde",
                    {"order": order, "noise-scale": scale},
                    schedule,
                    times,
                    lambda x, levels, z, s=schedule, p=scale, k=order: er_sde(  # type: ignore[misc]
                        started(x, levels, s), levels, z, p, k
                    ),
                )
