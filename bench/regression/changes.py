"""What happened in a series of values with known errors: nothing, steps, a drift, outliers.

Three descriptions compete, and the one with the least misfit and penalty is taken. The misfit is
the sum of squares of the deviations in standard errors, the penalty β for each thing that happened:

- nothing: one level;
- steps: levels between change points, β for each change point, the best of all ways to place them
  (optimal partitioning, which PELT makes faster and does not change; series here are short);
- a drift: a straight line, β for its slope.

β is the χ² quantile (one degree of freedom) at 5 % over the n - 1 places of a change point, times
the number of series that are looked at together: the errors are known, so there is nothing to tune.
`tests/regression/test_changes.py` measures what that gives: of flat series of 30 points 3 % are
called anything else.

A single point between two levels that are the same by β is an outlier and no step. One that ends a
series cannot be told from a step yet, and counts as one.

Reference: B. Jackson et al., "An algorithm for optimal partitioning of data on an interval", IEEE
Signal Processing Letters 12 (2005); R. Killick, P. Fearnhead, I. A. Eckley, "Optimal detection of
changepoints with a linear computational cost", JASA 107 (2012), of PELT.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from bench.report.ties import LEVEL

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """Points from `start` up to `stop` without it, and their weighted mean with its error."""

    start: int
    stop: int
    mean: float
    error: float


@dataclass(frozen=True)
class Line:
    """A drift: the value at the first and at the last point."""

    first: float
    last: float


@dataclass(frozen=True)
class Story:
    """What happened.

    Attributes:
        levels: one where nothing did; empty for a drift.
        outliers: places of single points that left and came back.
        drift: the line, or None.
    """

    levels: tuple[Level, ...]
    outliers: tuple[int, ...] = ()
    drift: Line | None = None

    @property
    def flat(self) -> bool:
        """Whether nothing happened."""
        return len(self.levels) == 1 and not self.outliers

    @property
    def steps(self) -> list[tuple[Level, Level]]:
        """Levels before and after each change point."""
        return list(zip(self.levels, self.levels[1:], strict=False))


def story(values: Sequence[float], errors: Sequence[float], series: int = 1) -> Story:
    """What happened in a series.

    Args:
        values: in their order; at least one.
        errors: their standard errors, above zero.
        series: how many series are looked at together.

    >>> [(level.start, level.mean) for level in story([2.0, 2.0, 5.0, 5.0], [0.1] * 4).levels]
    [(0, 2.0), (2, 5.0)]
    """
    y, w = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64) ** -2.0
    penalty = beta(len(y), series)
    kept = np.arange(len(y))
    outliers: list[int] = []
    while True:
        bounds = _partition(y[kept], w[kept], penalty)
        lone = _lone(y[kept], w[kept], bounds, penalty)
        if lone is None:
            break
        outliers.append(int(kept[lone]))
        kept = np.delete(kept, lone)
    y_kept, w_kept = y[kept], w[kept]
    misfit = sum(_misfit(y_kept[a:b], w_kept[a:b]) for a, b in bounds)
    line, off = _line(kept.astype(np.float64), y_kept, w_kept)
    if off + penalty < misfit + penalty * (len(bounds) - 1):
        ends = Line(float(line(0.0)), float(line(len(y) - 1.0)))
        return Story((), tuple(sorted(outliers)), ends)
    stops = [int(kept[b]) for _, b in bounds[:-1]] + [len(y)]
    starts = [0, *stops[:-1]]
    levels = [
        Level(start, stop, *_mean(y_kept[a:b], w_kept[a:b]))
        for (a, b), start, stop in zip(bounds, starts, stops, strict=True)
    ]
    return Story(tuple(levels), tuple(sorted(outliers)))


def beta(points: int, series: int = 1) -> float:
    """The penalty for a thing that happened."""
    return float(chdtri(1, LEVEL / (series * max(1, points - 1))))


def _partition(y: Array, w: Array, penalty: float) -> list[tuple[int, int]]:
    """Bounds of the levels of least misfit and penalty."""
    n = len(y)
    # From the middle of the values: squares of large numbers would leave nothing of small errors.
    z = y - np.median(y)
    sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in (w, w * z, w * z * z)]
    best = np.full(n + 1, -penalty)
    before = np.zeros(n + 1, dtype=int)
    for end in range(1, n + 1):
        whole, first, second = (part[end] - part[:end] for part in sums)
        cost = best[:end] + second - first**2 / whole + penalty
        before[end] = int(np.argmin(cost))
        best[end] = cost[before[end]]
    bounds, end = [], n
    while end:
        bounds.append((int(before[end]), end))
        end = int(before[end])
    return bounds[::-1]


def _lone(y: Array, w: Array, bounds: list[tuple[int, int]], penalty: float) -> int | None:
    """A single point between two levels that are the same, or None."""
    for (a, b), (c, d), (e, f) in zip(bounds, bounds[1:], bounds[2:], strict=False):
        if d - c == 1:
            before, after = _mean(y[a:b], w[a:b]), _mean(y[e:f], w[e:f])
            if (before[0] - after[0]) ** 2 < penalty * (before[1] ** 2 + after[1] ** 2):
                return c
    return None


def _mean(y: Array, w: Array) -> tuple[float, float]:
    return float(np.average(y, weights=w)), float(w.sum() ** -0.5)


def _misfit(y: Array, w: Array) -> float:
    return float(np.sum(w * (y - np.average(y, weights=w)) ** 2))


def _line(x: Array, y: Array, w: Array) -> "tuple[np.poly1d, float]":
    """The straight line of least squares and its misfit."""
    if len(y) < 3:  # two points are on one whatever they are
        return np.poly1d([0.0, 0.0]), float("inf")
    line = np.poly1d(np.polyfit(x, y, 1, w=np.sqrt(w)))
    return line, float(np.sum(w * (y - line(x)) ** 2))
