"""Precision and recall against all pairs, one by one."""

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics import manifold
from tests.metrics.laws import inception_like

X, Y = inception_like(40, 6, 0, shift=0.8), inception_like(30, 6, 1)


def radius(rows: np.ndarray, index: int) -> float:
    others = np.delete(rows, index, axis=0)
    return float(np.sort(np.linalg.norm(others - rows[index], axis=1))[2])


def share_inside(points: np.ndarray, rows: np.ndarray) -> float:
    points, rows = points.astype(float), rows.astype(float)
    radii = [radius(rows, index) for index in range(len(rows))]
    inside = [
        any(np.linalg.norm(p - r) <= s for r, s in zip(rows, radii, strict=True)) for p in points
    ]
    return float(np.mean(inside))


@pytest.fixture(params=[2048, 40, 7, 1], ids=lambda rows: f"blocks of {rows}")
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_ROWS", request.param)


@pytest.mark.usefixtures("blocks")
def test_radii() -> None:
    expected = [radius(X.astype(float), index) ** 2 for index in range(len(X))]
    assert manifold.radii(X) == pytest.approx(expected, rel=1e-9)


@pytest.mark.usefixtures("blocks")
def test_all_pairs() -> None:
    precision, recall = share_inside(X, Y), share_inside(Y, X)
    assert 0.1 < min(precision, recall) <= max(precision, recall) < 0.99
    assert precision != recall
    assert manifold.precision(X, Y, manifold.radii(Y)).value == pytest.approx(precision, rel=1e-12)
    assert manifold.recall(X, Y).value == pytest.approx(recall, rel=1e-12)


@pytest.mark.usefixtures("blocks")
def test_against_itself() -> None:
    assert manifold.precision(X, X, manifold.radii(X)).value == 1
    assert manifold.recall(X, X).value == 1


@pytest.mark.usefixtures("blocks")
def test_copies_are_neighbours() -> None:
    """Three copies beside an image make its ball a point, two do not."""
    two, three = X.copy(), X.copy()
    two[1:3], three[1:4] = two[0], three[0]
    assert manifold.radii(two)[:3] == pytest.approx(radius(two.astype(float), 0) ** 2)
    assert manifold.radii(three)[:4] == pytest.approx(0, abs=1e-12)


def test_far_apart() -> None:
    assert manifold.precision(X + 100, Y, manifold.radii(Y)).value == 0
    assert manifold.recall(X + 100, Y).value == 0


def test_precision_has_a_binomial_error() -> None:
    measured = manifold.precision(X, Y, manifold.radii(Y))
    share = measured.value
    assert measured.standard_error == pytest.approx((share * (1 - share) / 40) ** 0.5)
    assert measured.influence is not None
    assert measured.influence.std() / 40**0.5 == pytest.approx(measured.standard_error)
    assert sorted(set(measured.influence)) == pytest.approx([-share, 1 - share])


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("scale", [0.9, 1, 1.5])
def test_recall_has_a_jackknife_error(scale: float) -> None:
    x = (X * scale).astype(np.float32)
    measured = manifold.recall(x, Y)
    left_out = [share_inside(Y, np.delete(x, image, axis=0)) for image in range(40)]
    jackknife = 39 * (share_inside(Y, x) - np.array(left_out))
    assert 0.05 < measured.value < 1
    assert measured.influence == pytest.approx(jackknife - jackknife.mean(), abs=1e-9)
    assert np.std(jackknife) > 0.1
    assert measured.standard_error == pytest.approx(np.std(jackknife, ddof=1) / 40**0.5)


def test_too_few_images() -> None:
    """One more than neighbours, and for recall another, which is left out."""
    for found, call in [
        (3, lambda: manifold.radii(X[:3])),
        (0, lambda: manifold.radii(X[:0])),
        (4, lambda: manifold.recall(X[:4], Y)),
    ]:
        with pytest.raises(MetricError) as error:
            call()
        assert str(error.value) == (
            f"Precision and recall need at least {max(found + 1, 4)} images a side; "
            f"there are {found}."
        )
