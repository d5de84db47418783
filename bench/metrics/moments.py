"""Count, mean and scatter of feature vectors: everything a Fréchet distance needs of them.

Moments of two disjoint sets of samples add up exactly (up to rounding) to the moments of their
union, so features can come in chunks, from several jobs, in any order.

Reference: T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance:
analysis and recommendations", The American Statistician 37 (1983), eq. 2.1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from bench.errors import MetricError

Array = NDArray[np.float64]

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 10 * EPS
"""Times d and the largest eigenvalue: what LAPACK and the products that form a matrix may be off
by. A result that is negative by more is a fault of the input, not rounding."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Count n, mean m = Σx/n and scatter C = Σ(x - m)(x - m)ᵀ of n feature vectors, in float64.

    Args:
        count: n, the number of samples.
        mean: shape (d,); zeros when n is 0.
        scatter: shape (d, d), symmetric; zeros when n is 0 or 1.
    """

    count: int
    mean: Array
    scatter: Array

    @classmethod
    def empty(cls, dim: int) -> "Moments":
        """Moments of no samples: adding them changes nothing."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    @classmethod
    def from_features(cls, features: NDArray[np.floating]) -> "Moments":
        """Moments of the rows of `features`, computed in two passes in float64.

        Args:
            features: shape (n, d), usually float32; n may be 0.

        Raises:
            MetricError: another number of axes, or values that are not finite.
        """
        if features.ndim != 2:
            raise MetricError(f"Features have the shape {features.shape}; expected (n, d).")
        if len(features) == 0:
            return cls.empty(features.shape[1])
        x = features.astype(np.float64)
        mean = x.mean(axis=0)
        if not np.isfinite(mean).all():
            bad = int((~np.isfinite(x).all(axis=1)).sum())
            raise MetricError(
                f"Features of {bad} of {len(x)} images are not finite. "
                "Look at these images and at the extractor's weights."
            )
        x -= mean
        return cls(len(x), mean, x.T @ x)

    @classmethod
    def merged(cls, parts: Iterable["Moments"]) -> "Moments":
        """Moments of the union of disjoint sets, added from left to right; at least one part."""
        return reduce(lambda a, b: a + b, parts)

    def __add__(self, other: "Moments") -> "Moments":
        """Moments of the union: C = C₁ + C₂ + (n₁n₂/n) δδᵀ with δ = m₂ - m₁ (Chan et al.)."""
        if self.dim != other.dim:
            raise MetricError(
                f"Features of {self.dim} and of {other.dim} dimensions cannot be added up. "
                "Use one extractor for all chunks."
            )
        if self.count == 0:
            return other
        if other.count == 0:
            return self
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * (other.count / count),
            self.scatter
            + other.scatter
            + np.outer(delta, delta) * (self.count * other.count / count),
        )

    @property
    def dim(self) -> int:
        """d, the number of features of a sample."""
        return len(self.mean)

    @cached_property
    def covariance(self) -> Array:
        """The unbiased covariance C / (n - 1), shape (d, d).

        Raises:
            MetricError: fewer than two samples.
        """
        if self.count < 2:
            raise MetricError(
                f"A covariance needs at least two images; there {_are(self.count)}. "
                "Ask for more samples."
            )
        return self.scatter / (self.count - 1)

    @property
    def rank(self) -> int:
        """min(d, n - 1): n samples span no more than n - 1 directions around their mean."""
        return min(self.dim, self.count - 1)

    @cached_property
    def factor(self) -> Array:
        """F of shape (d, r) with FFᵀ = covariance; made once, since it costs as much as a distance.

        Cholesky's lower triangle where the covariance is positive definite; else √λ v over the
        eigenpairs that are above rounding, at most n - 1 of them. Nothing is added to the diagonal.

        Raises:
            MetricError: an eigenvalue is negative beyond rounding: this is no covariance.
        """
        if self.rank == self.dim:
            try:
                return np.asarray(np.linalg.cholesky(self.covariance), dtype=np.float64)
            except np.linalg.LinAlgError:
                pass  # semidefinite: a feature that never varies, or two that always agree
        values, vectors = np.linalg.eigh(self.covariance)
        values = nonnegative(values, self.dim, "the reference's covariance")
        keep = values > self.dim * EPS * values[-1]
        keep[: self.dim - self.rank] = False
        return np.asarray(vectors[:, keep] * np.sqrt(values[keep]))


def nonnegative(values: Array, dim: int, of: str) -> Array:
    """`values` with rounding below zero set to zero.

    Args:
        values: eigenvalues in ascending order, of a matrix that should be semidefinite.
        dim: length of the products that made the matrix.
        of: what the matrix is, for the message.

    Raises:
        MetricError: a value is negative by more than rounding explains.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if len(values) and values[0] < -dim * ROUNDING * largest:
        raise MetricError(
            f"An eigenvalue of {of} is {values[0]:.3g}, the largest {largest:.3g}; a "
            "covariance has none below zero. The statistics are damaged: rebuild them."
        )
    return np.maximum(values, 0.0)


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
