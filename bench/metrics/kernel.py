"""The kernel distance: the squared maximum mean discrepancy with a cubic kernel, and its error.

In the features of the FID's Inception it is the Kernel Inception Distance (KID). Unlike a Fréchet
distance it has no bias at few images; it may come out below zero.

Reference: M. Bińkowski et al., "Demystifying MMD GANs", 2018, arXiv:1801.01401, section 4; subsets
and their random numbers are those of torch-fidelity (`kid_features_to_metric`), so that the value
is the same; A. Gretton et al., "A kernel two-sample test", JMLR 13 (2012), eq. 3 (the estimator).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import MetricError
from bench.metrics.measured import Measured
from bench.metrics.moments import Array

Features = NDArray[np.floating[Any]]

SUBSETS, SIZE = 100, 1000
SEED = 2020
PARTNERS = 1000
"""Images of each side that the influences are averaged over."""
BLOCK = 8192


def kernel(x: Features, y: Features) -> NDArray[np.floating[Any]]:
    """k(x, y) = (x·y / d + 1)³ of all pairs of rows, in the precision of its arguments."""
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return np.asarray(product * product * product)


def subset_distances(
    samples: Features, reference: Features, subsets: int = SUBSETS, size: int = SIZE
) -> Array:
    """The unbiased squared discrepancy of random subsets, in float64.

    The distance is a small difference of averages near one, so float32 would leave it three digits.

    Args:
        samples: (n, d).
        reference: (m, d).
        subsets: how many; each is drawn without replacement.
        size: images of either side in a subset, at most n and m.

    Returns:
        float64 (subsets,); the distance is their mean.
    """
    random = np.random.RandomState(SEED)  # torch-fidelity's numbers
    found = np.empty(subsets)
    for index in range(subsets):
        x = samples[random.choice(len(samples), size, replace=False)].astype(np.float64)
        y = reference[random.choice(len(reference), size, replace=False)].astype(np.float64)
        within = (_off_diagonal(x) + _off_diagonal(y)) / (size * (size - 1))
        found[index] = within - 2 * float(kernel(x, y).sum()) / size**2
    return found


def witness(samples: Features, reference: Features, x: Features) -> Array:
    """Mean kernel to `samples` less mean kernel to `reference`, for every row of `x`; float64 (n,).

    Of rows that are among `samples` the kernel with themselves is in the mean: a shift that is
    nearly the same for all.
    """
    found = np.empty(len(x))
    for start in range(0, len(x), BLOCK):
        block = np.asarray(x[start : start + BLOCK])
        near, far = kernel(block, samples), kernel(block, reference)
        found[start : start + BLOCK] = near.mean(axis=1, dtype=np.float64)
        found[start : start + BLOCK] -= far.mean(axis=1, dtype=np.float64)
    return found


def measure(samples: Features, reference: Features) -> Measured:
    """The kernel distance over random subsets, with its standard error and influences.

    The influence of an image is twice the witness function there (the first Hoeffding projection
    of the statistic), estimated with random images of either side. What the random choice of
    subsets adds to the error is the spread of the subsets over their number.

    Args:
        samples: features (n, d), n at least 4.
        reference: features (m, d), m at least 4.

    Raises:
        MetricError: too few images.
    """
    few = min(len(samples), len(reference))
    if few < 4:
        raise MetricError(f"A kernel distance needs at least four images a side; there are {few}.")
    size = min(SIZE, few)
    distances = subset_distances(samples, reference, SUBSETS, size)
    random = np.random.default_rng(SEED)
    half = min(PARTNERS, few) // 2
    x = samples[np.sort(random.choice(len(samples), 2 * half, replace=False))]
    y = reference[np.sort(random.choice(len(reference), 2 * half, replace=False))]
    # Two witnesses of different images: what they share is signal, what they do not is the noise of
    # having few partners, which must not count as spread.
    first = 2 * witness(x[::2], y[::2], samples)
    second = 2 * witness(x[1::2], y[1::2], samples)
    shared = max(float(np.cov(first, second)[0, 1]), 0.0)
    chosen = float(distances.var(ddof=1)) / SUBSETS
    influence = (first + second) / 2
    error = (shared / len(samples) + chosen) ** 0.5
    return Measured(float(distances.mean()), error, influence - influence.mean())


def _off_diagonal(x: Array) -> float:
    """Sum of the kernel over pairs of different rows."""
    values = kernel(x, x)
    return float(values.sum() - np.trace(values))
