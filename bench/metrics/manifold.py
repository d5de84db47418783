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
    n = len(features)
    if n <= NEIGHBOUR:
        raise MetricError(
            f"Precision and recall need at least {NEIGHBOUR + 1} images a side; there are {n}."
        )
    found = np.empty(n)
    for rows in _blocks(n):
        nearest = np.empty((rows.stop - rows.start, 0))
        for columns in _blocks(n):
            distances = _squared(features[rows], features[columns])
            # An image is its own nearest neighbour whatever rounding says.
            diagonal = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            distances[diagonal - rows.start, diagonal - columns.start] = 0.0
            both = np.concatenate([nearest, distances], axis=1)
            keep = min(NEIGHBOUR + 1, both.shape[1])
            nearest = np.partition(both, keep - 1, axis=1)[:, :keep]
        found[rows] = nearest.max(axis=1)
    return found


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
    """The share of the reference in the manifold of the samples, with its binomial error.

    The error is that of the images of the reference, by the usual formula; what other samples would
    do to the manifold is not in it, and there is no influence of a sample.
    """
    share = float(inside(reference, samples, radii(samples)).mean())
    return Measured(share, _binomial(share, len(reference)))


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
