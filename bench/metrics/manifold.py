"""Precision and recall: the share of images of one side inside the manifold of the other.

The manifold of a set is the union of balls around its features, each as large as the distance to
the third nearest neighbour. Precision says how many samples look like the reference, recall how
much of the reference the samples cover.

Reference: T. Kynkäänniemi et al., "Improved precision and recall metric for assessing generative
models", 2019, arXiv:1904.06991, eq. 1-2. They use features of VGG-16; those used here stand in the
record, and values in other features are other numbers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import MetricError
from bench.metrics.measured import Measured
from bench.metrics.moments import Array

Features = NDArray[np.floating[Any]]

NEIGHBOUR = 3
_ROWS = 2048
"""Distances are computed in blocks of this size squared: 34 MB in float64."""


def radii(features: Features) -> Array:
    """Squared distance of each row to its third nearest other row, float64 (n,).

    Raises:
        MetricError: fewer than four rows.
    """
    return _nearest(features, NEIGHBOUR)[0][:, -1]


def inside(features: Features, manifold: Features, radii: Array) -> NDArray[np.bool_]:
    """Which rows (n, d) lie in a ball around a row of `manifold` (m, d) with `radii` (m,)."""
    found = np.zeros(len(features), dtype=np.bool_)
    for rows in _blocks(len(features)):
        for columns in _blocks(len(manifold)):
            distances = _squared(features[rows], manifold[columns])
            found[rows] |= (distances <= radii[columns]).any(axis=1)
    return found


def precision(samples: Features, reference: Features, reference_radii: Array) -> Measured:
    """The share of samples in the manifold of the reference, with its binomial error."""
    hits = inside(samples, reference, reference_radii).astype(np.float64)
    share = float(hits.mean())
    return Measured(share, _binomial(share, len(hits)), hits - share)


def recall(samples: Features, reference: Features) -> Measured:
    """The share of the reference in the manifold of the samples, with its jackknife error.

    The influence of a sample is (n - 1) times what leaving it out takes away: the images that only
    its ball covers, less those that the balls around it cover when they grow to the next neighbour.
    The error is never too small but too large, by 1.2 to 1.9 (pairs: 2 to 3), since a jackknife
    counts what neighbours do together for each of them. (The binomial error of the reference's
    images, which look like draws but are not, was between 0.4 and 1.1 of the spread over samples.)

    Args:
        samples: (n, d), n at least 5.
        reference: (m, d).

    Raises:
        MetricError: fewer than five samples.

    Reference: B. Efron and C. Stein, "The jackknife estimate of variance", Annals of Statistics 9
    (1981), for why it is not too small.
    """
    nearest, neighbours = _nearest(samples, NEIGHBOUR + 1)
    radii, grown = nearest[:, -2], nearest[:, -1]
    n, m = len(samples), len(reference)
    covered, taken = 0, np.zeros(n)
    for rows in _blocks(m):
        balls = np.zeros(rows.stop - rows.start, dtype=np.int64)
        last = np.zeros_like(balls)
        edges = []
        for columns in _blocks(n):
            distances = _squared(reference[rows], samples[columns])
            within = distances <= radii[columns]
            balls += within.sum(axis=1)
            some = within.any(axis=1)
            last[some] = columns.start + within[some].argmax(axis=1)
            edge = (distances <= grown[columns]) & ~within & (balls <= 1)[:, None]
            edges.append(np.argwhere(edge) + np.array([0, columns.start]))
        covered += int((balls > 0).sum())
        taken += _taken(balls, last, np.concatenate(edges), neighbours[:, :-1])
    influence = (n - 1) / m * (taken - taken.mean())
    return Measured(covered / m, float(influence.std(ddof=1)) / n**0.5, influence)


def _taken(
    balls: NDArray[np.int64],
    last: NDArray[np.int64],
    edges: NDArray[np.int64],
    neighbours: NDArray[np.int64],
) -> Array:
    """How many images of the reference each sample takes along when it is left out, float64 (n,).

    Args:
        balls: in how many balls each of them is.
        last: the sample of one of these balls.
        edges: pairs of one of them and a sample whose ball is too small for it by one neighbour.
        neighbours: of the samples, those that make their balls (n, 3).
    """
    found = np.zeros(len(neighbours))
    image, sample = edges.T
    saved = (balls[image] == 1) & (neighbours[sample] == last[image, None]).any(axis=1)
    lost = balls == 1
    lost[image[saved]] = False
    np.add.at(found, last[lost], 1)
    outside = balls[image] == 0
    won = np.stack([np.repeat(image[outside], NEIGHBOUR), neighbours[sample[outside]].ravel()])
    np.subtract.at(found, np.unique(won, axis=1)[1], 1)
    return found


def _nearest(features: Features, count: int) -> tuple[Array, NDArray[np.int64]]:
    """Squared distances of each row to its nearest other rows in ascending order, and which."""
    n = len(features)
    if n <= count:
        raise MetricError(
            f"Precision and recall need at least {count + 1} images a side; there are {n}."
        )
    nearest, which = np.empty((n, count)), np.empty((n, count), dtype=np.int64)
    for rows in _blocks(n):
        best = np.empty((rows.stop - rows.start, 0))
        of = np.empty_like(best, dtype=np.int64)
        for columns in _blocks(n):
            distances = _squared(features[rows], features[columns])
            diagonal = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            distances[diagonal - rows.start, diagonal - columns.start] = np.inf
            few = _smallest(distances, count)
            best = np.concatenate([best, np.take_along_axis(distances, few, axis=1)], axis=1)
            of = np.concatenate([of, few + columns.start], axis=1)
            few = _smallest(best, count)
            best, of = (np.take_along_axis(each, few, axis=1) for each in (best, of))
        order = np.argsort(best, axis=1, kind="stable")
        nearest[rows] = np.take_along_axis(best, order, axis=1)
        which[rows] = np.take_along_axis(of, order, axis=1)
    return nearest, which


def _smallest(rows: Array, count: int) -> NDArray[np.int64]:
    """Places of the smallest numbers of each row, or all of them if there are no more."""
    if rows.shape[1] <= count:
        return np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    return np.argpartition(rows, count - 1, axis=1)[:, :count]


def _binomial(share: float, n: int) -> float:
    return float((share * (1 - share) / n) ** 0.5)


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, n)) for start in range(0, n, _ROWS)]


def _squared(x: Features, y: Features) -> Array:
    """|x - y|² of all pairs of rows, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    squares = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y)
    squares -= 2 * (x @ y.T)
    return np.asarray(np.maximum(squares, 0.0, out=squares))
