"""The distance against closed forms, high precision, and the tools of the literature."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from bench.errors import MetricError
from bench.metrics.frechet import frechet_distance
from bench.metrics.moments import Moments


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features whose spectrum falls over four decades, as an extractor's does."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    x = rng.standard_normal((n, d)) * np.logspace(0, -2, d) @ axes
    return (x + shift).astype(np.float32)


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """The distance from the features themselves: the trace is a nuclear norm of XYᵀ.

    No square root is taken of anything near zero, so this is good to 1e-14 at every rank.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    delta = x.mean(0) - y.mean(0)
    return float(delta @ delta + (a**2).sum() + (b**2).sum() - 2 * trace)


def in_high_precision(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook formula with 60 digits."""
    with mpmath.workdps(60):
        means, covariances = [], []
        for f in (x, y):
            rows = mpmath.matrix(f.astype(np.float64).tolist())
            n, d = rows.rows, rows.cols
            mean = [mpmath.fsum(rows[i, j] for i in range(n)) / n for j in range(d)]
            centred = mpmath.matrix([[rows[i, j] - mean[j] for j in range(d)] for i in range(n)])
            means.append(mpmath.matrix(mean))
            covariances.append(centred.T * centred / (n - 1))
        values, vectors = mpmath.eigsy(covariances[1])
        roots = mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values])
        root = vectors * roots * vectors.T
        inner = mpmath.eigsy(root * covariances[0] * root, eigvals_only=True)
        trace = mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in inner)
        delta = means[0] - means[1]
        spread = mpmath.fsum(c[i, i] for c in covariances for i in range(c.rows))
        return float((delta.T * delta)[0] + spread - 2 * trace)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return frechet_distance(Moments.from_features(x), Moments.from_features(y))


def test_commuting_gaussians() -> None:
    # With common axes the distance is |δ|² + Σ(√λ - √κ)².
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    first, second = rng.uniform(0.1, 4, 5), rng.uniform(0.1, 4, 5)
    delta = rng.standard_normal(5)
    a = Moments(11, delta, 10 * (axes * first) @ axes.T)
    b = Moments(11, np.zeros(5), 10 * (axes * second) @ axes.T)
    expected = delta @ delta + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-13)


def test_only_the_means_differ() -> None:
    x = features(60, 8, seed=2)
    assert distance(x + np.float32(0.5), x) == pytest.approx(8 * 0.25, rel=1e-6)


def test_zero_against_itself_and_not_against_another() -> None:
    x, y = features(100, 16, seed=2), features(100, 16, seed=3)
    scale = float(np.trace(Moments.from_features(x).covariance))
    assert 0 <= distance(x, x) < 1e-13 * scale
    assert distance(x, y) > 1e-3 * scale


@pytest.mark.parametrize(
    ("n", "m"), [(30, 40), (4, 30), (30, 4), (4, 6), (3, 3)], ids=lambda n: str(n)
)
def test_high_precision(n: int, m: int) -> None:
    x, y = features(n, 7, seed=2), features(m, 7, seed=3, shift=0.2)
    exact = in_high_precision(x, y)
    assert distance(x, y) == pytest.approx(exact, rel=1e-13)
    assert by_singular_values(x, y) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize(("n", "m"), [(300, 400), (50, 400), (400, 50), (50, 60)])
def test_any_rank(n: int, m: int) -> None:
    x, y = features(n, 128, seed=2), features(m, 128, seed=3, shift=0.01)
    assert distance(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-11)


def test_symmetric() -> None:
    x, y = features(40, 32, seed=2), features(20, 32, seed=3, shift=0.2)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)


def test_a_feature_that_never_varies() -> None:
    x, y = features(60, 12, seed=2), features(70, 12, seed=3)
    for f in (x, y):
        f[:, 5] = 1
    assert distance(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-12)


def test_order_of_images_does_not_matter() -> None:
    x, y = features(100, 16, seed=2), features(100, 16, seed=3)
    shuffled = np.random.default_rng(0).permutation(x)
    assert distance(shuffled, y) == pytest.approx(distance(x, y), rel=1e-12)


def test_square_root_of_a_matrix() -> None:
    # The formula as it is usually programmed, where it is well conditioned.
    x, y = features(400, 24, seed=2), features(400, 24, seed=3, shift=0.1)
    a, b = Moments.from_features(x), Moments.from_features(y)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    delta = a.mean - b.mean
    expected = delta @ delta + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(500, 700), (60, 700)])
def test_tools_of_the_literature(n: int, m: int) -> None:
    """torch-fidelity and torchmetrics, within their own error, which singular values measure."""
    x, y = features(n, 128, seed=2), features(m, 128, seed=3, shift=0.01)
    ours, exact = distance(x, y), by_singular_values(x, y)
    first, second = (
        fid_features_to_statistics(torch.from_numpy(f.astype(np.float64))) for f in (x, y)
    )
    fidelity = fid_statistics_to_metric(first, second, verbose=False)
    theirs = fidelity["frechet_inception_distance"]
    arguments = (torch.from_numpy(s[k]) for s in (first, second) for k in ("mu", "sigma"))
    metrics = float(_compute_fid(*arguments))
    assert ours == pytest.approx(exact, rel=1e-11)
    assert theirs == pytest.approx(ours, rel=1e-5)
    assert metrics == pytest.approx(ours, rel=1e-5)
    assert abs(ours - exact) <= min(abs(theirs - exact), abs(metrics - exact))


def test_bias_falls_as_one_over_n() -> None:
    """Samples of the reference's own law: n times the distance is about constant."""
    reference = Moments.from_features(features(200_000, 8, seed=9))
    products = [
        n * np.mean([frechet_distance(Moments.from_features(features(n, 8, seed)), reference)
                     for seed in range(30)])
        for n in (250, 1000)
    ]  # fmt: skip
    assert products[1] / products[0] == pytest.approx(1, abs=0.2)


def test_different_dimensions() -> None:
    with pytest.raises(MetricError) as error:
        distance(features(10, 5, seed=0), features(10, 6, seed=0))
    assert str(error.value) == (
        "The images have 5 features each, the reference 6. Use one extractor for both."
    )


def test_samples_that_are_no_covariance() -> None:
    good = Moments(10, np.zeros(3), 9 * np.eye(3))
    bad = Moments(10, np.zeros(3), 9 * np.diag([3.0, 2.0, -1.0]))
    with pytest.raises(MetricError) as error:
        frechet_distance(bad, good)
    assert str(error.value) == (
        "An eigenvalue of the product of both covariances is -1, the largest 3; a covariance has "
        "none below zero. The statistics are damaged: rebuild them."
    )
