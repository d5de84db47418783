"""Every measure through the one call, and what it refuses."""

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics import classifier, kernel, manifold
from bench.metrics.frechet import frechet_distance
from bench.metrics.measured import Measured
from bench.metrics.measures import MEASURES, measure
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference
from tests.metrics.laws import inception_like

D = 8
X, Y = inception_like(120, D, 0, shift=0.3), inception_like(150, D, 1)
HEAD = np.random.default_rng(0).standard_normal((5, D)).astype(np.float32)
REFERENCE = Reference("laws", Moments.from_features(Y), {}, "", Y)


@pytest.fixture(scope="module")
def found() -> dict[str, Measured]:
    return measure(list(MEASURES), X, REFERENCE, HEAD)


def test_values(found: dict[str, Measured]) -> None:
    distance = frechet_distance(Moments.from_features(X), REFERENCE.moments)
    values = {name: measured.value for name, measured in found.items()}
    assert list(values) == list(MEASURES)
    assert values.pop("fd_inf") < distance
    assert values == {
        "fd": pytest.approx(distance, rel=1e-12),
        "kd": kernel.measure(X, Y).value,
        "cs": classifier.measure(classifier.logits(X, HEAD)).value,
        "precision": manifold.precision(X, Y, manifold.radii(Y)).value,
        "recall": manifold.recall(X, Y).value,
    }


@pytest.mark.parametrize("name", MEASURES)
def test_alone_as_beside_others(found: dict[str, Measured], name: str) -> None:
    (alone,) = measure([name], X, REFERENCE, HEAD).values()
    assert (alone.value, alone.standard_error) == (found[name].value, found[name].standard_error)


@pytest.mark.parametrize("name", MEASURES)
def test_influences(found: dict[str, Measured], name: str) -> None:
    influence = found[name].influence
    assert influence is not None
    assert (influence.shape, influence.dtype) == ((120,), np.float64)
    assert influence.mean() == pytest.approx(0, abs=1e-12 * np.abs(influence).max())
    assert found[name].standard_error > 0


@pytest.mark.parametrize("name", ["fd", "kd"])
def test_influences_say_which_images_to_drop(name: str) -> None:
    """Without the tenth of the images that raises it most, the value falls by about their share."""
    (before,) = measure([name], X, REFERENCE, HEAD).values()
    assert before.influence is not None
    kept = np.argsort(before.influence)[:108]
    (after,) = measure([name], X[kept], REFERENCE, HEAD).values()
    assert after.value < before.value
    assert after.value - before.value == pytest.approx(before.influence[kept].mean(), rel=0.5)


def test_moments_are_enough_for_some() -> None:
    moments = Reference("laws", REFERENCE.moments, {}, "")
    asked = [name for name, one in MEASURES.items() if not one.needs_features]
    assert list(measure(asked, X, moments, HEAD)) == asked == ["fd", "fd_inf", "cs"]


@pytest.mark.parametrize("name", MEASURES)
def test_features_that_are_not_finite(name: str) -> None:
    x = X.copy()
    x[3, 1], x[70], x[119, :2] = np.nan, np.inf, (np.inf, -np.inf)
    with pytest.raises(MetricError) as error:
        measure([name], x, REFERENCE, HEAD)
    assert str(error.value) == (
        "Features of 3 of 120 images are not finite. "
        "Look at these images and at the extractor's weights."
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fd", "A covariance needs at least two images; there is 1. Ask for more samples."),
        ("fd_inf", "An extrapolated distance needs at least four images; there are 1."),
        ("kd", "A kernel distance needs at least four images a side; there are 1."),
        (
            "cs",
            "A classifier score is the mean over 10 splits, which needs at least 20 images; "
            "there are 1.",
        ),
        ("recall", "Precision and recall need at least 5 images a side; there are 1."),
    ],
)
def test_too_few_images(name: str, message: str) -> None:
    with pytest.raises(MetricError) as error:
        measure([name], X[:1], REFERENCE, HEAD)
    assert str(error.value) == message


def test_one_image_has_a_precision() -> None:
    """It needs neighbours in the reference only."""
    (found,) = measure(["precision"], X[:1], REFERENCE, HEAD).values()
    assert found.value in (0, 1)
