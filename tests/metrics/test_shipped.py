"""The statistics in the package are those of the weights and the mixture in the package."""

import doctest

import pytest

from bench import models
from bench.diffusion.noise import Noise
from bench.metrics import reference, torchmetric
from bench.metrics.extractor import cifar_features
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import to_uint8
from bench.metrics.moments import Moments
from bench.metrics.protocol import Extractor
from bench.metrics.reference import Reference, load


@pytest.fixture(scope="module")
def cifar() -> Extractor:
    return cifar_features()


def shipped(name: str, cifar: Extractor) -> Reference:
    assert reference.shipped(name, cifar).is_file()
    return load(name, cifar, "fd_cifar")


@pytest.mark.parametrize(
    ("name", "count", "facts"),
    [
        ("cifar10-train", 50_000, {"dataset": "CIFAR-10", "split": "train"}),
        ("cifar10-test", 10_000, {"dataset": "CIFAR-10", "split": "test"}),
        ("cifar10-mixture", 50_000, {"seed": str(2**63), "quantiser": "round"}),
    ],
)
def test_certificate(name: str, count: int, facts: dict[str, str], cifar: Extractor) -> None:
    found = shipped(name, cifar)
    assert found.name == found.certificate["source"] == name
    assert found.moments.count == found.certificate["count"] == count
    assert facts.items() <= found.certificate.items()
    assert found.moments.factor.shape == (256, 256)
    assert reference.shipped(name, cifar).stat().st_size < 600_000


def test_mixture_is_the_one_that_ships(cifar: Extractor) -> None:
    model = models.load(models.describe("cifar10-mixture"), "cpu")
    certificate = shipped("cifar10-mixture", cifar).certificate
    assert certificate["model_digest"] == model.digest


def test_exact_draws_are_near_their_own_statistics(cifar: Extractor) -> None:
    """Nearer than real images are, in either direction: the numbers mean what they should."""
    model = models.load(models.describe("cifar10-mixture"), "cpu")
    draws = model.draw(Noise(0, range(400), model.shape))
    assert draws is not None
    moments = Moments.from_features(cifar(to_uint8(draws)).numpy())
    mixture, train, test = (
        shipped(f"cifar10-{name}", cifar).moments for name in ("mixture", "train", "test")
    )
    to_mixture, to_train = (frechet_distance(moments, other) for other in (mixture, train))
    assert to_mixture < to_train / 3
    assert frechet_distance(test, train) < frechet_distance(mixture, train) / 10


def test_example_of_a_training_loop() -> None:
    ran = doctest.testmod(torchmetric)
    assert ran.attempted >= 6
    assert ran.failed == 0
