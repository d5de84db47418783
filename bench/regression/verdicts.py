"""What the noise allows to be said of a difference: better, worse, the same, or not known yet.

Many differences are judged together, and all of them by one chance of error: where nothing changed,
a comparison calls anything better or worse in at most 5 % of all cases, however many cells it has.

- Better or worse: the difference from zero is significant by Holm's method, which holds whatever
  the correlations between the cells, and is never less powerful than Bonferroni's.
- The same within x: it is not, and the interval of the difference (95 % for all of them together,
  Bonferroni) lies within ± x of the value at the base, x at most the practical threshold.
- Undecided: neither; `needs` is the number of images at which it would be one of the two, if the
  difference stays where it is.

A difference between images that are equal byte for byte is no question of noise: it is left out of
the number of comparisons, which a change of one sampler of many gains power from.

Reference: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
of Statistics 6 (1979).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtr, stdtr

from bench.report.ties import LEVEL, quantile

BETTER, WORSE, SAME, UNDECIDED = "better", "worse", "same", "undecided"
THRESHOLD = 0.01
"""Practical threshold: a change of less than 1 % of the value fails no build."""


@dataclass(frozen=True)
class Difference:
    """A difference to judge.

    Attributes:
        value: head less base.
        error: its standard error; NaN where none is known.
        base: the value that it is relative to.
        images: how many there are behind each of the two values.
        higher: whether higher values are better.
        freedom: degrees of freedom of the error.
        identical: whether all images are the same, so that there is no noise.
    """

    value: float
    error: float
    base: float
    images: int
    higher: bool = False
    freedom: float = math.inf
    identical: bool = False

    @property
    def relative(self) -> float:
        """The difference as a part of the base; infinite from a base of nothing."""
        if self.value == 0:
            return 0.0
        return self.value / abs(self.base) if self.base else math.copysign(math.inf, self.value)


@dataclass(frozen=True)
class Verdict:
    """What is said of a difference.

    Attributes:
        word: better, worse, same or undecided.
        p: chance of such a difference where there is none, after the correction; NaN where no error
            is known.
        within: half the interval and the difference, as a part of the base: how large the change
            may be.
        needs: images for a decision; None where there is one, or no error.
        matters: whether the change is beyond the practical threshold.
    """

    word: str
    p: float
    within: float
    needs: int | None = None
    matters: bool = False


def judge(differences: Sequence[Difference], threshold: float = THRESHOLD) -> list[Verdict]:
    """A verdict for each of the differences, all of them corrected together.

    >>> [v.word for v in judge([Difference(0.2, 0.02, 4.0, 1000), Difference(0.01, 0.02, 4.0, 99)])]
    ['worse', 'undecided']
    """
    tested = [place for place, d in enumerate(differences) if _has_noise(d)]
    ps = dict(zip(tested, holm([_p(differences[place]) for place in tested]), strict=True))
    return [
        _tested(d, ps[place], len(tested), threshold) if place in ps else _untested(d)
        for place, d in enumerate(differences)
    ]


def _has_noise(difference: Difference) -> bool:
    return not difference.identical and not math.isnan(difference.error)


def _untested(difference: Difference) -> Verdict:
    return (
        Verdict(SAME, 1.0, 0.0) if difference.identical else Verdict(UNDECIDED, math.nan, math.nan)
    )


def _tested(difference: Difference, p: float, comparisons: int, threshold: float) -> Verdict:
    d = difference
    half = quantile(comparisons, d.freedom) * d.error
    scale = abs(d.base)
    within = (abs(d.value) + half) / scale if scale else math.inf
    if p <= LEVEL:
        better = (d.value > 0) == d.higher
        return Verdict(BETTER if better else WORSE, p, within, matters=abs(d.relative) >= threshold)
    if within <= threshold:
        return Verdict(SAME, p, within)
    # Enough that the interval leaves out zero, or fits between the thresholds.
    target = max(abs(d.value), threshold * scale - abs(d.value))
    needs = math.ceil(d.images * (half / target) ** 2) if target > 0 else None
    return Verdict(UNDECIDED, p, within, needs)


def holm(ps: Sequence[float]) -> list[float]:
    """The chances after Holm's correction: compare each with the level as it is.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = least
    return adjusted


def _p(difference: Difference) -> float:
    """Two-sided."""
    if difference.value == 0:
        return 1.0
    if difference.error == 0:
        return 0.0
    z = -abs(difference.value) / difference.error
    tail = ndtr(z) if math.isinf(difference.freedom) else stdtr(difference.freedom, z)
    return 2 * float(tail)
