"""The Fréchet distance between two sets of features, each taken for a Gaussian, and its error.

Reference: M. Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
equilibrium", 2017, arXiv:1706.08500, eq. 6; the formula itself is from D. C. Dowson and
B. V. Landau, "The Fréchet distance between multivariate normal distributions", 1982.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import MetricError
from bench.metrics.measured import Measured
from bench.metrics.moments import ROUNDING, Moments, nonnegative

HALVES_SEED = 0
"""Of the permutation that halves the images: files come sorted, by class for example."""
BLOCK = 8192
"""Rows of features that are in float64 at a time: 130 MB of 2048 dimensions."""


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


def influences(
    features: NDArray[np.floating[Any]], samples: Moments, reference: Moments
) -> NDArray[np.float64]:
    """The influence of each image on the Fréchet distance, see `Measured`.

    With u = x - m and the optimal map T = F(FᵀSF)^-½Fᵀ from the samples' Gaussian to the
    reference's (TST = S_r = FFᵀ), it is 2(m - m_r)·u + uᵀ(I - T)u less its mean: the derivative of
    the squared Wasserstein distance of two Gaussians in the mean and covariance of one of them.
    Where the samples do not span the space, T is that of the directions that they span.

    Args:
        features: (n, d), those that `samples` are the moments of.
        samples: moments of the images.
        reference: moments of the images to compare with.

    Returns:
        float64 (n,), mean 0.

    Reference: the derivative is that of R. Bhatia, T. Jain, Y. Lim, "On the Bures-Wasserstein
    distance between positive definite matrices", Expositiones Mathematicae 37 (2019).
    """
    factor = reference.factor
    product = factor.T @ samples.covariance @ factor
    values, vectors = np.linalg.eigh((product + product.T) / 2)
    shared = min(samples.rank, len(values))
    values, vectors = values[len(values) - shared :], vectors[:, len(values) - shared :]
    positive = values > samples.dim * ROUNDING * values.max(initial=0.0)
    root = factor @ (vectors[:, positive] * values[positive] ** -0.25)
    change = np.eye(samples.dim) - root @ root.T
    # Products in float32 are off by 1e-7 of I - T, however small it is, and take half the time. As
    # |u|² - uᵀTu they would be off by 1e-7 of |u|², of which near the reference nothing is left.
    in_float32 = change.astype(np.float32)
    shift = 2 * (samples.mean - reference.mean)
    found = np.empty(len(features))
    for start in range(0, len(features), BLOCK):
        u = features[start : start + BLOCK].astype(np.float64)
        u -= samples.mean
        moved = u.astype(np.float32) @ in_float32
        found[start : start + BLOCK] = u @ shift + np.einsum("ij,ij->i", u, moved)
    found -= found.mean()
    return found


def measure(
    features: NDArray[np.float32], reference: Moments, *, extrapolate: bool
) -> tuple[Measured, Measured | None]:
    """The Fréchet distance of features and its value at infinitely many images, with errors.

    The distance of n images is too large by c/n + O(1/n²). That of a half of them has twice the
    bias and, averaged over both halves, the same linear part; so 2 d²(n) - mean d²(n/2) has neither
    c/n nor, to first order, another error than d²(n). `docs/metrics.md` has bias and variance
    beside those of the plain value.

    Args:
        features: (n, d), n at least 4 to extrapolate and 2 otherwise.
        reference: moments of the images to compare with.
        extrapolate: whether the second value is asked for.

    Returns:
        Distance, and extrapolated distance or None; both with influences.

    Raises:
        MetricError: too few images, features that are not finite, or damaged statistics.

    Reference: M. J. Chong and D. Forsyth, "Effectively unbiased FID and Inception Score and where
    to find them", 2020, arXiv:1911.07023 (linear in 1/n; there by a fit over many subsets).
    """
    n = len(features)
    if extrapolate and n < 4:
        raise MetricError(f"An extrapolated distance needs at least four images; there are {n}.")
    # Both values come from the same sums, so that asking for the one does not move the other.
    order = np.random.default_rng(HALVES_SEED).permutation(n)
    halves = [_moments(features, np.sort(part)) for part in (order[: n // 2], order[n // 2 :])]
    samples = Moments.merged(halves)
    value = frechet_distance(samples, reference)
    influence = influences(features, samples, reference)
    error = float(influence.std(ddof=1)) / n**0.5
    plain = Measured(value, error, influence)
    if not extrapolate:
        return plain, None
    half = sum(frechet_distance(part, reference) for part in halves) / 2
    return plain, Measured(2 * value - half, error, influence)


def _moments(features: NDArray[np.float32], rows: NDArray[np.int64]) -> Moments:
    blocks = (features[rows[i : i + BLOCK]] for i in range(0, len(rows), BLOCK))
    return Moments.merged([Moments.empty(features.shape[1]), *map(Moments.from_features, blocks)])
