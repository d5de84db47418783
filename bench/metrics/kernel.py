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


def kernel(x: Features, y: Features) -> NDArray[np.floating[Any]]:
    """k(x, y) = (x·y / d + 1)³ of all pairs of rows, in the precision of its arguments."""
    product = x @ y.T
    product /= x.shape[1]
    product += 1
    return np.asarray(product * product * product)


def measure(
    samples: Features, reference: Features, subsets: int = SUBSETS, size: int = SIZE
) -> Measured:
    """The mean unbiased squared discrepancy of random subsets, with its error and influences.

    In a subset the influence of an image is twice its mean kernel to the other samples less that to
    the reference, centred: the derivative of the subset's value. An image has the sum of those of
    the subsets that it is in, and none if it is in none. So the standard error knows that subsets
    use some images more than others, and so does that of a difference of cells, which have the
    same subsets. At the floor it is too large by up to √2, since every pair is counted twice there.

    Everything is in float64: the distance is a small difference of averages near one, of which
    float32 would leave three digits.

    Args:
        samples: features (n, d), n at least 4.
        reference: features (m, d), m at least 4.
        subsets: how many; each is drawn without replacement.
        size: images of either side in a subset; of fewer images all are taken.

    Raises:
        MetricError: too few images.
    """
    n, m = len(samples), len(reference)
    few = min(n, m)
    if few < 4:
        raise MetricError(f"A kernel distance needs at least four images a side; there are {few}.")
    size = min(size, few)
    random = np.random.RandomState(SEED)  # torch-fidelity's numbers
    distances = np.empty(subsets)
    influence = np.zeros(n)
    for subset in range(subsets):
        chosen = random.choice(n, size, replace=False)
        x = samples[chosen].astype(np.float64)
        y = reference[random.choice(m, size, replace=False)].astype(np.float64)
        near = _to_others(x)
        far = np.asarray(kernel(x, y).mean(axis=1))
        distances[subset] = near.mean() + _to_others(y).mean() - 2 * far.mean()
        slope = 2 * (near - far)
        influence[chosen] += slope - slope.mean()
    # The derivative in the share of an image among all n, of which a subset's are n / size.
    influence *= n / (subsets * size)
    error = float(influence.std(ddof=1)) / n**0.5
    return Measured(float(distances.mean()), error, influence)


def _to_others(x: Array) -> Array:
    """Mean kernel of each row to the other rows."""
    values = kernel(x, x)
    return np.asarray((values.sum(axis=1) - values.diagonal()) / (len(x) - 1))
