"""Which of several values is the best beyond the noise, or which cannot be told apart from it.

Each value is compared with the best one. It is told apart where it lies further off than
`quantile` times the standard error of the difference, at 95 % for all comparisons of one question
together (Bonferroni: the chance of error is shared out over them).

That is conservative, whatever the correlations. With equal means, a false winner has to beat every
other by its margin, and one of them at least that of 0.025 / (k - 1): k candidates for the winner
make that 0.025 k / (k - 1), at most 0.05 and reached only by two. And the true best, wherever it
is, is among those that are not told apart in 97.5 % of all cases. The comparisons share the noise
of the best, so the exact margins of Hsu's multiple comparisons with the best are a little narrower;
they need the correlations, and these do not.

Reference: J. C. Hsu, "Constrained simultaneous confidence intervals for multiple comparisons with
the best", Annals of Statistics 12 (1984); "Multiple Comparisons" (1996), chapter 4.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.special import ndtri, stdtrit

LEVEL = 0.05
"""Chance that a question with equal candidates is given a winner, at most."""


@dataclass(frozen=True)
class Verdict:
    """What the noise allows to be said.

    Attributes:
        beyond: Whether the best is the best beyond the noise.
        among: Places of the best and of those that cannot be told apart from it, best first.
    """

    beyond: bool
    among: tuple[int, ...]


def judge(
    values: Sequence[float],
    errors: Sequence[float],
    difference: Callable[[int, int], float],
    *,
    higher: bool = False,
    freedom: float = math.inf,
) -> Verdict | None:
    """Compares each value with the best; None where there is nothing to decide or no way to.

    Args:
        values: of the candidates.
        errors: their standard errors; NaN where none is known, which leaves the question open,
            since a candidate of unknown spread may be the best.
        difference: the standard error of the difference of the candidates at two places.
        higher: whether higher values are better.
        freedom: degrees of freedom of the errors: infinite unless they come from few numbers.

    >>> judge([3.0, 3.1, 9.0], [0.1] * 3, lambda i, j: 0.14)
    Verdict(beyond=False, among=(0, 1))
    >>> judge([3.0, 3.1, 9.0], [0.1] * 3, lambda i, j: 0.14, higher=True)
    Verdict(beyond=True, among=(2,))
    """
    if len(values) < 2 or any(map(math.isnan, errors)):
        return None
    order = sorted(
        range(len(values)), key=lambda place: -values[place] if higher else values[place]
    )
    best, *others = order
    margin = quantile(len(others), freedom)
    tied = [
        place
        for place in others
        if abs(values[place] - values[best]) <= margin * difference(best, place)
    ]
    return Verdict(not tied, (best, *tied))


def quantile(comparisons: int, freedom: float = math.inf) -> float:
    """Standard errors that a difference must exceed: two-sided, by Student's t where they are few.

    >>> round(quantile(1), 2), round(quantile(10), 2), round(quantile(1, freedom=2), 2)
    (1.96, 2.81, 4.3)
    """
    tail = 1 - LEVEL / (2 * comparisons)
    return float(ndtri(tail) if math.isinf(freedom) else stdtrit(freedom, tail))
