"""The kernel distance against its definition, and its influences."""

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


def test_a_subset_of_all() -> None:
    found = kernel.subset_distances(X[:50], Y, subsets=2, size=50)
    assert found == pytest.approx([by_hand(X[:50], Y)] * 2, rel=1e-10)


def test_small_subsets_average_to_the_whole() -> None:
    found = kernel.subset_distances(X, Y, subsets=20_000, size=10)
    error = found.std() / len(found) ** 0.5
    assert found.mean() == pytest.approx(by_hand(X, Y), abs=4 * error)
    assert error < 0.05 * by_hand(X, Y)


def test_fewer_images_than_a_subset() -> None:
    """All of the smaller side are then in every subset."""
    measured = kernel.measure(X, Y)
    expected = kernel.subset_distances(X, Y, kernel.SUBSETS, size=50).mean()
    assert measured.value == expected


def test_no_bias_at_the_floor() -> None:
    values = [
        kernel.measure(inception_like(100, 8, 2 * seed), inception_like(100, 8, 2 * seed + 1)).value
        for seed in range(40)
    ]
    assert np.mean(values) == pytest.approx(0, abs=4 * np.std(values) / 40**0.5)
    assert min(values) < 0


def test_witness_is_the_difference_of_means() -> None:
    expected = [np.mean(kernel.kernel(x[None], X)) - np.mean(kernel.kernel(x[None], Y)) for x in X]
    assert kernel.witness(X, Y, X) == pytest.approx(expected, abs=1e-6)


def test_witness_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kernel.witness(X, Y, X)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    assert kernel.witness(X, Y, X) == pytest.approx(whole, abs=1e-6)


def test_same_twice() -> None:
    first, second = kernel.measure(X, Y), kernel.measure(X, Y)
    assert (first.value, first.standard_error) == (second.value, second.standard_error)
    np.testing.assert_array_equal(first.influence, second.influence)


@pytest.mark.parametrize(("n", "m"), [(3, 50), (50, 3)])
def test_too_few_images(n: int, m: int) -> None:
    with pytest.raises(MetricError) as error:
        kernel.measure(X[:n], Y[:m])
    assert str(error.value) == "A kernel distance needs at least four images a side; there are 3."
