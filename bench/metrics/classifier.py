"""The classifier score: exp of the mean divergence of an image's classes from those of all.

With the classifier of the FID's Inception it is the Inception Score; higher is better. It is made
of the same features as the distances: the classifier is their product with a matrix.

Reference: T. Salimans et al., "Improved techniques for training GANs", 2016, arXiv:1606.03498,
section 4; ten shuffled splits as in torch-fidelity (`isc_features_to_metric`); S. Barratt and
R. Sharma, "A note on the Inception Score", 2018, arXiv:1801.01973 (its limits).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from bench.errors import MetricError
from bench.metrics.measured import Measured

SPLITS = 10
SEED = 2020
BLOCK = 8192


def logits(features: NDArray[np.float32], head: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features (n, d) times the classifier's weights (classes, d), in float64: (n, classes)."""
    weights = head.T.astype(np.float64)
    blocks = range(0, len(features), BLOCK)
    return np.concatenate([features[i : i + BLOCK].astype(np.float64) @ weights for i in blocks])


def measure(logits: NDArray[np.floating[Any]]) -> Measured:
    """The mean score of ten splits of shuffled images, with its standard error and influences.

    To first order a score moves with an image by score · (divergence of the image - mean), since
    the mean divergence is stationary in the mean of the classes. (The spread over splits that other
    tools print is that of a tenth of the images.)

    Args:
        logits: (n, classes), n at least 20.

    Raises:
        MetricError: fewer than two images a split.
    """
    n = len(logits)
    if n < 2 * SPLITS:
        raise MetricError(
            f"A classifier score is the mean over {SPLITS} splits, which needs at least "
            f"{2 * SPLITS} images; there are {n}."
        )
    order = np.random.RandomState(SEED).permutation(n)  # torch-fidelity's numbers
    influence = np.empty(n)
    scores = []
    for split in range(SPLITS):
        rows = order[split * n // SPLITS : (split + 1) * n // SPLITS]
        log_p = log_softmax(logits[rows].astype(np.float64), axis=1)
        # The mean over images in logarithms: a class that no image has a chance of would be log 0.
        log_mean = logsumexp(log_p, axis=0) - np.log(len(rows))
        divergence = (np.exp(log_p) * (log_p - log_mean)).sum(axis=1)
        scores.append(float(np.exp(divergence.mean())))
        influence[rows] = scores[-1] * (divergence - divergence.mean())
    error = float(influence.std(ddof=1)) / n**0.5
    return Measured(float(np.mean(scores)), error, influence)
