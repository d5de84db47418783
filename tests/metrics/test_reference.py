"""Reference statistics: what comes back from a file, and what is refused before sampling."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from bench.diffusion.noise import Noise
from bench.errors import MetricError
from bench.metrics import reference
from bench.metrics.images import to_uint8
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference, load
from tests.metrics.fakes import Projection, colours


def stored(count: int = 40, seed: int = 0) -> np.ndarray:
    return colours(seed, count).permute(0, 2, 3, 1).numpy()


def build(extractor: Projection, name: str = "some-images", count: int = 40) -> Reference:
    return reference.from_images(
        stored(count), extractor, name=name, source="images.npz", details={"split": "all"}
    )


def rewrite(path: Path, **changes: Any) -> None:
    """Change arrays of a file of statistics; None removes one."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def edit(path: Path, **changes: Any) -> None:
    """Change entries of a file's certificate; None removes one."""
    with np.load(path) as file:
        certificate = json.loads(str(file["certificate"])) | changes
    kept = {key: value for key, value in certificate.items() if value is not None}
    rewrite(path, certificate=np.array(json.dumps(kept)))


@pytest.fixture
def path(projection: Projection, tmp_path: Path) -> Path:
    """A file of statistics in the features of `projection`."""
    reference.save(tmp_path / "stats.npz", build(projection))
    return tmp_path / "stats.npz"


def message(reference_: str | Path, extractor: Projection) -> str:
    with pytest.raises(MetricError) as error:
        load(str(reference_), extractor, "fd")
    return str(error.value)


def test_comes_back_as_it_was(projection: Projection, path: Path) -> None:
    built, found = build(projection), load(str(path), projection, "fd")
    assert found.digest == built.digest
    assert found.certificate == built.certificate
    assert (found.name, found.moments.count) == ("some-images", 40)
    np.testing.assert_array_equal(found.moments.mean, built.moments.mean)
    np.testing.assert_allclose(found.moments.covariance, built.moments.covariance, rtol=1e-15)


def test_certificate_says_how_it_was_made(projection: Projection) -> None:
    certificate = build(projection).certificate
    assert certificate.pop("versions").keys() == {"bench", "python", "torch", "numpy"}
    assert certificate == {
        "format": 1,
        "name": "some-images",
        "source": "images.npz",
        "split": "all",
        "count": 40,
        "extractor": {
            "name": "projection",
            "digest": projection.digest,
            "numerics": "float64",
            "resize": "none",
        },
        "quantiser": "as stored",
    }


def test_moments_are_of_the_features(projection: Projection, monkeypatch: Any) -> None:
    monkeypatch.setattr(reference, "_BATCH", 7)
    features = projection(colours(0, 40)).numpy()
    expected = Moments.from_features(features)
    np.testing.assert_allclose(build(projection).moments.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(
        build(projection).moments.scatter, expected.scatter, rtol=0, atol=1e-11
    )


def test_digest_is_of_the_numbers(projection: Projection, path: Path) -> None:
    edit(path, source="elsewhere.npz")
    assert reference.read(path).digest == build(projection).digest
    with np.load(path) as file:
        mu = file["mu"].copy()
    mu[3] = np.nextafter(mu[3], 1)
    rewrite(path, mu=mu)
    assert reference.read(path).digest != build(projection).digest


def test_npz_of_images(projection: Projection, tmp_path: Path) -> None:
    np.savez(tmp_path / "birds.npz", stored())
    seen: list[tuple[int, int]] = []
    found = reference.from_npz(
        tmp_path / "birds.npz", projection, progress=lambda done, of: seen.append((done, of))
    )
    assert found.name == "birds"
    assert found.certificate["source"] == str(tmp_path / "birds.npz")
    assert found.digest == build(projection).digest
    assert seen == [(40, 40)]


class TwoColours:
    """A model whose images are one random colour plus noise."""

    digest = "0" * 64
    shape = (3, 8, 8)

    def draw(self, noise: Noise) -> torch.Tensor | None:
        return noise() / 10 + noise()[:, :, :1, :1] / 5


class Network(TwoColours):
    """A model without exact draws."""

    def draw(self, noise: Noise) -> None:
        return None


def test_exact_draws(projection: Projection, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = reference.from_model(TwoColours(), "two-colours", projection, count=50)
    monkeypatch.setattr(reference, "_BATCH", 8)
    parts = reference.from_model(TwoColours(), "two-colours", projection, count=50)
    np.testing.assert_allclose(whole.moments.mean, parts.moments.mean, rtol=1e-12)
    images = to_uint8(TwoColours().draw(Noise(2**63, range(50), (3, 8, 8))))  # type: ignore[arg-type]
    expected = Moments.from_features(projection(images).numpy())
    np.testing.assert_allclose(whole.moments.mean, expected.mean, rtol=1e-12)
    certificate = whole.certificate
    assert certificate["quantiser"] == "round"
    assert certificate["seed"] == str(2**63)
    assert certificate["model_digest"] == "0" * 64
    assert certificate["source"] == "two-colours"


def test_model_without_exact_draws(projection: Projection) -> None:
    with pytest.raises(MetricError) as error:
        reference.from_model(Network(), "google/ddpm-cifar10-32", projection, count=50)
    assert str(error.value) == (
        'The model "google/ddpm-cifar10-32" has no exact draws, so it cannot be its own reference. '
        "Use the images that it was trained on."
    )


def test_cifar10_through_torchvision(
    projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Dataset:
        def __init__(self, root: str, train: bool, download: bool) -> None:
            asked.append((root, train, download))
            self.data = stored()

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Dataset)
    found = reference.from_cifar10("cifar10-test", projection)
    assert asked == [(str(tmp_path / "cache/data"), False, True)]
    assert found.digest == build(projection).digest
    assert found.certificate["dataset"] == "CIFAR-10"
    assert found.certificate["split"] == "test"


def test_cifar10_without_network(
    projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://127.0.0.1:9/cifar-10-python.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", url)
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(MetricError) as error:
        reference.from_cifar10("cifar10-train", projection)
    assert str(error.value) == (
        f"CIFAR-10 is not in {tmp_path / 'cache/data'} and could not be downloaded "
        "(<urlopen error [Errno 111] Connection refused>). Put the folder cifar-10-batches-py "
        "there (https://www.cs.toronto.edu/~kriz/cifar.html), or give an npz of its images: "
        '"bench reference IMAGES.npz --name cifar10-train".'
    )


def test_names_are_looked_for_in_the_users_cache(projection: Projection, own_cache: Path) -> None:
    place = reference.place("some-images", projection)
    assert place == own_cache / "reference/some-images.projection.npz"
    reference.save(place, build(projection))
    assert load("some-images", projection, "fd").digest == build(projection).digest


def test_users_statistics_win_over_shipped_ones_that_they_replace(
    projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "shipped", lambda *_: tmp_path / "shipped.npz")
    reference.save(tmp_path / "shipped.npz", build(projection, count=30))
    assert load("some-images", projection, "fd").moments.count == 30
    reference.save(reference.place("some-images", projection), build(projection, count=40))
    assert load("some-images", projection, "fd").moments.count == 40
    # Of an extractor that is no longer in use: passed over.
    reference.save(reference.place("some-images", projection), build(Projection(seed=1)))
    assert load("some-images", projection, "fd").moments.count == 30


def test_unknown_name(projection: Projection) -> None:
    assert message("cifar10-trian", projection) == (
        'There are no statistics of "cifar10-trian" in the features of projection. Did you mean '
        '"cifar10-train"? Build them with "bench reference cifar10-trian --metric fd", or give the '
        "path of an npz file."
    )


def test_missing_file(projection: Projection, tmp_path: Path) -> None:
    assert message(tmp_path / "none.npz", projection) == f"There is no file {tmp_path}/none.npz."


def test_other_dimension(projection: Projection, path: Path, tmp_path: Path) -> None:
    rewrite(path, mu=np.zeros(7), sigma=np.eye(7))
    assert message(path, projection) == (
        f"{path} holds 7-dimensional statistics; projection gives 16. Rebuild with "
        f'"bench reference images.npz --metric fd --out {path}".'
    )


def test_other_weights(path: Path, projection: Projection) -> None:
    other = Projection(seed=1)
    assert message(path, other) == (
        f"{path} was made with projection of another digest ({projection.digest[:8]}); projection "
        f'has {other.digest[:8]}. Rebuild with "bench reference images.npz --metric fd '
        f'--out {path}".'
    )


def test_other_weights_under_a_name(projection: Projection) -> None:
    other = Projection(seed=1)
    place = reference.place("some-images", projection)
    reference.save(place, build(projection))
    assert message("some-images", other) == (
        f"{place} was made with projection of another digest ({projection.digest[:8]}); projection "
        f'has {other.digest[:8]}. Rebuild with "bench reference some-images --metric fd".'
    )


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("name", 'was made with other; the extractor is projection'),
        ("numerics", 'was made with projection of another numerics ("other"); projection has '
         '"float64"'),
        ("resize", 'was made with projection of another resize ("other"); projection has "none"'),
    ],
)  # fmt: skip
def test_other_extractor(projection: Projection, path: Path, key: str, problem: str) -> None:
    extractor = build(projection).certificate["extractor"]
    edit(path, extractor=extractor | {key: "other"})
    assert message(path, projection) == (
        f'{path} {problem}. Rebuild with "bench reference images.npz --metric fd --out {path}".'
    )


def test_other_quantiser(projection: Projection, path: Path) -> None:
    edit(path, quantiser="truncate")
    assert message(path, projection) == (
        f'{path} was made from images quantised by "truncate"; expected "round". Rebuild with '
        f'"bench reference images.npz --metric fd --out {path}".'
    )


def test_newer_format(projection: Projection, path: Path) -> None:
    edit(path, format=2)
    assert message(path, projection) == (
        f"{path} has a certificate of format 2; this version of bench reads 1. "
        "Build the file again, or update bench."
    )


def test_incomplete_certificate(projection: Projection, path: Path) -> None:
    edit(path, quantiser=None, count=None)
    assert message(path, projection) == (
        f"{path}: its certificate lacks count, quantiser. Build it again."
    )


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{"])
def test_unreadable_certificate(projection: Projection, path: Path, text: str) -> None:
    rewrite(path, certificate=np.array(text))
    assert message(path, projection) == f"{path}: its certificate cannot be read. Build it again."


def test_not_finite(projection: Projection, path: Path) -> None:
    sigma = np.eye(16)
    sigma[2, 3] = sigma[3, 2] = np.nan
    rewrite(path, sigma=sigma)
    assert message(path, projection) == (
        f"{path}: 2 of 256 numbers of sigma are not finite. Build it again."
    )


def test_asymmetric(projection: Projection, path: Path) -> None:
    sigma = np.eye(16)
    sigma[2, 3] = 0.25
    rewrite(path, sigma=sigma)
    assert message(path, projection) == (
        f"{path}: sigma is not symmetric (off by 0.25); no covariance is that. Build it again."
    )


def test_single_precision(projection: Projection, path: Path) -> None:
    rewrite(path, sigma=np.eye(16, dtype=np.float32))
    assert message(path, projection) == (
        f"{path}: sigma is float32; expected float64, since rounding in a covariance moves the "
        "distance by more than samplers differ. Build it again."
    )


def test_integers(projection: Projection, path: Path) -> None:
    rewrite(path, mu=np.zeros(16, dtype=np.int64))
    assert message(path, projection) == f"{path}: mu is int64; expected floating point."


def test_shapes(projection: Projection, path: Path) -> None:
    rewrite(path, mu=np.zeros(15))
    assert message(path, projection) == (
        f"{path}: mu has the shape (15,) and sigma (16, 16); expected (d,) and (d, d). "
        "Build it again."
    )


def test_images_are_no_statistics(projection: Projection, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, stored())
    assert message(path, projection) == (
        f'{path} holds "arr_0"; expected "mu" and "sigma". Statistics of images are made by '
        f'"bench reference {path}".'
    )


class PublishedInception(Projection):
    """An extractor with the name of the published network."""

    name = "inception-v3"


@pytest.fixture
def uncertified(path: Path) -> Path:
    """Statistics as EDM and pytorch-fid write them."""
    rewrite(path, certificate=None, n=None)
    return path


def test_statistics_of_other_tools(projection: Projection, uncertified: Path) -> None:
    found = load(str(uncertified), PublishedInception(), "fid")
    assert found.certificate == {}
    assert found.name == "stats"
    assert found.moments.rank == 16
    np.testing.assert_allclose(
        found.moments.covariance, build(projection).moments.covariance, rtol=1e-15
    )


def test_statistics_of_other_tools_are_of_inception_only(
    projection: Projection, uncertified: Path
) -> None:
    assert message(uncertified, projection) == (
        f"{uncertified} does not say how it was made, so it can only be taken for statistics of "
        "the published Inception-v3; the extractor is projection. Rebuild with "
        f'"bench reference IMAGES.npz --metric fd --out {uncertified}".'
    )
