"""The classifier score against its definition, and its influences against differences."""

import numpy as np
import pytest
from scipy.special import softmax

from bench.errors import MetricError
from bench.metrics import classifier

LOGITS = np.random.default_rng(0).normal(scale=2, size=(200, 7))


def by_hand(p: np.ndarray, weights: np.ndarray) -> float:
    """exp E KL(p(y|x) | p(y)), Salimans et al., section 4, with weights of images."""
    weights = weights / weights.sum()
    all_images = weights @ p
    return float(np.exp(weights @ (p * np.log(p / all_images)).sum(axis=1)))


def splits(n: int) -> list[np.ndarray]:
    order = np.random.RandomState(2020).permutation(n)
    return [order[i * n // 10 : (i + 1) * n // 10] for i in range(10)]


def weighted(logits: np.ndarray, weights: np.ndarray) -> float:
    p = softmax(logits, axis=1)
    return float(np.mean([by_hand(p[rows], weights[rows]) for rows in splits(len(p))]))


def test_definition() -> None:
    assert classifier.measure(LOGITS).value == pytest.approx(
        weighted(LOGITS, np.ones(200)), rel=1e-12
    )


def test_classes_that_are_certain() -> None:
    """One class an image, all equally often: the number of classes. One class for all: 1."""
    certain = 1000 * np.eye(5)[np.arange(1000) % 5]
    assert 4.75 < classifier.measure(certain).value < 5
    same = classifier.measure(np.tile(certain[0], (1000, 1)))
    assert (same.value, same.standard_error) == (pytest.approx(1), pytest.approx(0))


def test_logits_that_overflow() -> None:
    moved = LOGITS + 1e5
    assert classifier.measure(moved).value == pytest.approx(classifier.measure(LOGITS).value)


def test_influence_is_the_derivative_in_the_weight_of_an_image() -> None:
    influence = classifier.measure(LOGITS).influence
    assert influence is not None
    step = 1e-4
    for image in range(0, 200, 20):
        change = np.zeros(200)
        change[image] = step
        up, down = weighted(LOGITS, 1 + change), weighted(LOGITS, 1 - change)
        # A weight of one is a share of 1/n.
        assert influence[image] == pytest.approx(200 * (up - down) / (2 * step), rel=1e-5)
    assert influence.mean() == pytest.approx(0, abs=1e-12)


def test_standard_error_is_that_of_the_influences() -> None:
    measured = classifier.measure(LOGITS)
    assert measured.influence is not None
    expected = measured.influence.std(ddof=1) / 200**0.5
    assert measured.standard_error == pytest.approx(expected, rel=1e-12)


def test_logits_are_features_times_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((20, 6)).astype(np.float32)
    head = rng.standard_normal((4, 6)).astype(np.float32)
    monkeypatch.setattr(classifier, "BLOCK", 7)
    found = classifier.logits(features, head)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, features.astype(np.float64) @ head.T.astype(np.float64))


def test_too_few_images() -> None:
    with pytest.raises(MetricError) as error:
        classifier.measure(LOGITS[:19])
    assert str(error.value) == (
        "A classifier score is the mean over 10 splits, which needs at least 20 images; "
        "there are 19."
    )
