"""The kernel distance against its definition, and its influences against differences."""

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics import kernel
from tests.metrics.laws import inception_like

X, Y = inception_like(60, 8, 0, shift=0.4), inception_like(50, 8, 1)


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """Gretton et al., eq. 3, pair by pair."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(float) @ b.astype(float) / len(a) + 1) ** 3)

    def within(z: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        return float(np.mean([k(z[i], z[j]) for i, j in pairs]))

    return within(x) + within(y) - 2 * float(np.mean([k(a, b) for a in x for b in y]))


def test_subsets_of_all() -> None:
    measured = kernel.measure(X[:50], Y)
    assert measured.value == pytest.approx(by_hand(X[:50], Y), rel=1e-10)


def test_small_subsets_average_to_the_whole() -> None:
    measured = kernel.measure(X, Y, subsets=20_000, size=10)
    assert measured.value == pytest.approx(by_hand(X, Y), rel=0.1)


def test_no_bias_at_the_floor() -> None:
    values = [
        kernel.measure(inception_like(100, 8, 2 * seed), inception_like(100, 8, 2 * seed + 1)).value
        for seed in range(40)
    ]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 40**0.5)
    assert min(values) < 0


def test_influence_is_the_derivative_in_the_weight_of_an_image() -> None:
    subsets, size, n = 5, 20, len(X)
    random = np.random.RandomState(2020)
    rows = [
        (random.choice(n, size, replace=False), random.choice(len(Y), size, replace=False))
        for _ in range(subsets)
    ]

    def value(weights: np.ndarray) -> float:
        values = []
        for of_x, of_y in rows:
            x, y, w = X[of_x].astype(float), Y[of_y].astype(float), weights[of_x]
            pairs = np.outer(w, w) * (1 - np.eye(size))
            within = (pairs * kernel.kernel(x, x)).sum() / pairs.sum()
            values.append(within - 2 * (w @ kernel.kernel(x, y).mean(axis=1)) / w.sum())
        return float(np.mean(values))

    influence = kernel.measure(X, Y, subsets, size).influence
    assert influence is not None
    step = 1e-4
    for image in range(n):
        change = step * (np.arange(n) == image)
        slope = (value(1 + change) - value(1 - change)) / (2 * step)
        assert influence[image] == pytest.approx(n * slope, rel=1e-5, abs=1e-8)
    never = set(range(n)) - set(np.concatenate([of_x for of_x, _ in rows]))
    assert never
    assert not influence[list(never)].any()
    assert influence.mean() == pytest.approx(0, abs=1e-12)


def test_standard_error_is_that_of_the_influences() -> None:
    measured = kernel.measure(X, Y)
    assert measured.influence is not None
    expected = measured.influence.std(ddof=1) / 60**0.5
    assert measured.standard_error == pytest.approx(expected, rel=1e-12)


def test_same_twice() -> None:
    first, second = kernel.measure(X, Y), kernel.measure(X, Y)
    assert (first.value, first.standard_error) == (second.value, second.standard_error)
    np.testing.assert_array_equal(first.influence, second.influence)


@pytest.mark.parametrize(("n", "m"), [(3, 50), (50, 3)])
def test_too_few_images(n: int, m: int) -> None:
    with pytest.raises(MetricError) as error:
        kernel.measure(X[:n], Y[:m])
    assert str(error.value) == "A kernel distance needs at least four images a side; there are 3."
