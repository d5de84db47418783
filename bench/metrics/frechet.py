"""The Fréchet distance between two sets of features, each taken for a Gaussian.

Reference: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", 2017, arXiv:1706.08500, eq. 6; the formula itself is from D. C. Dowson and
B. V. Landau, "The Fréchet distance between multivariate normal distributions", 1982.
"""

import numpy as np

from bench.errors import MetricError
from bench.metrics.moments import ROUNDING, Moments, nonnegative


def frechet_distance(samples: Moments, reference: Moments) -> float:
    """d² = |m - m_r|² + tr S + tr S_r - 2 tr (S_r^½ S S_r^½)^½, in float64.

    With S_r = FFᵀ the last trace is the sum of the square roots of the eigenvalues of FᵀSF, which
    is symmetric: no complex numbers, no square root of a matrix, nothing added to a diagonal. Of
    these eigenvalues only as many as the ranks allow are kept; the others are zero but for
    rounding, of which the square root would make 1e-8 each.

    Args:
        samples: moments of the images to judge.
        reference: moments of the images to compare with. Its factor F is computed at its first use
            and kept, which halves the time of every further distance to it.

    Returns:
        The distance, at least 0, biased upwards by about a constant over n.

    Raises:
        MetricError: fewer than two samples, different dimensions, or a covariance that is not
            semidefinite beyond rounding.
    """
    if samples.dim != reference.dim:
        raise MetricError(
            f"The images have {samples.dim} features each, the reference {reference.dim}. "
            "Use one extractor for both."
        )
    factor = reference.factor
    product = factor.T @ samples.covariance @ factor
    # A product of three is symmetric up to rounding only, and eigvalsh reads one triangle.
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2).astype(np.float64)
    values = nonnegative(eigenvalues, samples.dim, "the product of both covariances")
    shared = min(samples.rank, len(values))
    roots = np.sqrt(values[len(values) - shared :])

    delta = samples.mean - reference.mean
    spread = float(np.trace(samples.covariance) + np.trace(reference.covariance))
    distance = float(delta @ delta) + spread - 2 * float(roots.sum())
    # Equal moments leave the rounding of the traces, and nothing else can come out below zero.
    if distance < -samples.dim * ROUNDING * spread:
        raise MetricError(
            f"The Fréchet distance came out as {distance:.3g}, below zero by more than rounding. "
            "The statistics are damaged: rebuild them."
        )
    return max(distance, 0.0)
