"""Moments against numpy, and the claim that parts add up to the whole."""

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics.moments import Moments


def features(n: int, d: int = 6, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + offset).astype(np.float32)


def close(a: Moments, b: Moments, rtol: float = 1e-13) -> bool:
    scale = float(np.abs(b.scatter).max())
    return (
        a.count == b.count
        and np.allclose(a.mean, b.mean, rtol=rtol, atol=0)
        and np.allclose(a.scatter, b.scatter, rtol=0, atol=rtol * scale)
    )


def test_mean_and_covariance_are_numpys() -> None:
    x = features(50)
    moments = Moments.from_features(x)
    np.testing.assert_allclose(moments.mean, x.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(x.astype(np.float64).T), rtol=1e-13)
    assert moments.count == 50
    assert moments.mean.dtype == moments.scatter.dtype == np.float64


@pytest.mark.parametrize("sizes", [[40, 60], [1, 99], [100], [7] * 14 + [2], [0, 30, 0, 70, 0]])
def test_parts_add_up_to_the_whole(sizes: list[int]) -> None:
    x = features(100, offset=3)
    parts = np.split(x, np.cumsum(sizes)[:-1])
    merged = Moments.merged(Moments.from_features(part) for part in parts)
    assert close(merged, Moments.from_features(x))


def test_order_does_not_matter() -> None:
    x = features(100)
    parts = [Moments.from_features(part) for part in np.split(x, [10, 15, 60])]
    shuffled = Moments.from_features(np.random.default_rng(1).permutation(x))
    assert close(Moments.merged(reversed(parts)), Moments.merged(parts))
    assert close(shuffled, Moments.from_features(x))


def test_a_far_mean_costs_no_digits() -> None:
    # A sum of squares would lose all sixteen digits here.
    near, far = features(200).astype(np.float64), features(200).astype(np.float64) + 1e8
    parts = [Moments.from_features(part) for part in np.split(far, 10)]
    expected = Moments.from_features(near).covariance
    np.testing.assert_allclose(Moments.merged(parts).covariance, expected, atol=1e-6)


def test_empty_changes_nothing() -> None:
    moments = Moments.from_features(features(10))
    for total in (moments + Moments.empty(6), Moments.empty(6) + moments):
        assert total is moments
    assert (Moments.empty(6) + Moments.empty(6)).count == 0
    assert Moments.from_features(np.zeros((0, 6), np.float32)).count == 0


@pytest.mark.parametrize("n", [4, 6, 7, 30])
def test_factor_times_itself_is_the_covariance(n: int) -> None:
    moments = Moments.from_features(features(n))
    factor = moments.factor
    assert factor.shape == (6, min(n - 1, 6))
    np.testing.assert_allclose(factor @ factor.T, moments.covariance, atol=1e-13)
    assert moments.factor is factor


def test_factor_of_a_feature_that_never_varies() -> None:
    x = features(30)
    x[:, 2] = 5
    x[:, 4] = x[:, 1]
    moments = Moments.from_features(x)
    assert moments.factor.shape == (6, 4)
    np.testing.assert_allclose(moments.factor @ moments.factor.T, moments.covariance, atol=1e-13)


def test_all_the_same() -> None:
    assert Moments.from_features(np.ones((5, 6), np.float32)).factor.shape == (6, 0)


@pytest.mark.parametrize(("n", "found"), [(0, "there are 0"), (1, "there is 1")])
def test_fewer_than_two_images(n: int, found: str) -> None:
    with pytest.raises(MetricError) as error:
        _ = Moments.from_features(features(n)).covariance
    assert str(error.value) == (
        f"A covariance needs at least two images; {found}. Ask for more samples."
    )


def test_features_that_are_not_finite() -> None:
    x = features(10)
    x[3, 1] = np.nan
    x[4, 0] = np.inf
    with pytest.raises(MetricError) as error:
        Moments.from_features(x)
    assert str(error.value) == (
        "Features of 2 of 10 images are not finite. "
        "Look at these images and at the extractor's weights."
    )


def test_features_of_another_shape() -> None:
    with pytest.raises(MetricError) as error:
        Moments.from_features(np.zeros((2, 3, 4), np.float32))
    assert str(error.value) == "Features have the shape (2, 3, 4); expected (n, d)."


def test_two_extractors_do_not_add_up() -> None:
    with pytest.raises(MetricError) as error:
        Moments.empty(6) + Moments.empty(7)
    assert str(error.value) == (
        "Features of 6 and of 7 dimensions cannot be added up. Use one extractor for all chunks."
    )


def test_a_negative_eigenvalue_is_an_error() -> None:
    scatter = np.diag([3.0, 2.0, -1.0]) * 9
    with pytest.raises(MetricError) as error:
        _ = Moments(10, np.zeros(3), scatter).factor
    assert str(error.value) == (
        "An eigenvalue of the reference's covariance is -1, the largest 3; a covariance has none "
        "below zero. The statistics are damaged: rebuild them."
    )
