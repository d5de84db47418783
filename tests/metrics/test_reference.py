"""Reference statistics: what comes back from a file, and what is refused before sampling."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from bench.diffusion.noise import Noise
from bench.errors import MetricError
from bench.metrics import kept_features, reference
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


def message(reference_: str | Path, extractor: Projection, *, with_features: bool = False) -> str:
    with pytest.raises(MetricError) as error:
        load(str(reference_), extractor, "fd", with_features=with_features)
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
    found = reference.from_files(
        tmp_path / "birds.npz", projection, progress=lambda done, of: seen.append((done, of))
    )
    assert found.name == "birds"
    assert found.certificate["source"] == str(tmp_path / "birds.npz")
    assert found.digest == build(projection).digest
    assert seen == [(40, 40)]


def write_folder(folder: Path, kind: str = "png") -> Path:
    folder.mkdir()
    for index, image in enumerate(stored()):
        Image.fromarray(image).save(folder / f"{index:03d}.{kind}")
    return folder


def test_folder_of_images(projection: Projection, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "birds")
    found = reference.from_files(folder, projection)
    assert found.digest == build(projection).digest
    assert found.name == "birds"
    assert found.certificate["source"] == str(folder)
    assert found.certificate["quantiser"] == "as stored"
    assert "lossy" not in found.certificate


def test_archive_of_images(projection: Projection, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "birds")
    with tarfile.open(tmp_path / "more.birds.tgz", "w:gz") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, arcname=file.name)
    found = reference.from_files(tmp_path / "more.birds.tgz", projection)
    assert found.digest == build(projection).digest
    assert found.name == "more.birds"


def test_jpeg_is_in_the_certificate(projection: Projection, tmp_path: Path) -> None:
    found = reference.from_files(write_folder(tmp_path / "birds", "jpg"), projection)
    reference.save(tmp_path / "stats.npz", found)
    assert reference.read(tmp_path / "stats.npz").certificate["lossy"] == 40


def with_features(extractor: Projection, count: int = 40) -> Reference:
    return reference.from_images(
        stored(count),
        extractor,
        name="some-images",
        source="images.npz",
        details={},
        keep_features=True,
    )


def test_features_are_kept_beside_the_statistics(
    projection: Projection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_BATCH", 7)
    path = tmp_path / "a.b.npz"
    reference.save(path, with_features(projection))
    found = load(str(path), projection, "fd", with_features=True)
    assert isinstance(found.features, np.memmap)
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, projection(colours(0, 40)).numpy())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.b.features.npy", "a.b.npz"]
    # They are no part of what a record calls the reference.
    monkeypatch.undo()
    np.testing.assert_allclose(found.moments.mean, build(projection).moments.mean, rtol=1e-12)
    assert with_features(projection).digest == build(projection).digest


def test_features_of_a_model_and_of_files(projection: Projection, tmp_path: Path) -> None:
    drawn = reference.from_model(TwoColours(), "x", projection, count=20, keep_features=True)
    assert drawn.features is not None
    np.testing.assert_allclose(
        Moments.from_features(drawn.features).mean, drawn.moments.mean, rtol=1e-12
    )
    read = reference.from_files(write_folder(tmp_path / "x"), projection, keep_features=True)
    np.testing.assert_array_equal(read.features, projection(colours(0, 40)).numpy())


def test_features_of_the_statistics_before_are_removed(
    projection: Projection, tmp_path: Path
) -> None:
    reference.save(tmp_path / "stats.npz", with_features(projection))
    reference.save(tmp_path / "stats.npz", build(projection))
    assert [file.name for file in tmp_path.iterdir()] == ["stats.npz"]
    assert reference.read(tmp_path / "stats.npz", with_features=True).features is None


def test_features_that_are_needed_and_not_there(projection: Projection, path: Path) -> None:
    for asked, out in ((str(path), f" --out {path}"), ("some-images", "")):
        reference.save(reference.place("some-images", projection), build(projection))
        with pytest.raises(MetricError) as error:
            load(asked, projection, "kid", with_features=True)
        file = path if out else reference.place("some-images", projection)
        source = "images.npz" if out else "some-images"
        assert str(error.value) == (
            f"{file} has no features of its images beside it, which kid needs. Rebuild with "
            f'"bench reference {source} --metric kid{out}".'
        )


def test_features_that_do_not_belong(projection: Projection, path: Path, tmp_path: Path) -> None:
    beside = tmp_path / "stats.features.npy"
    again = (
        f'Build both again with "bench reference images.npz --metric NAME --features --out {path}".'
    )
    features = with_features(projection).features
    assert features is not None
    kept_features.write(beside, features)
    assert message(path, projection, with_features=True) == (
        f"{beside} does not belong to {path}: its sha256 begins with "
        f"{kept_features.digest(features)[:8]}, and the statistics were built without keeping "
        f"features. {again}"
    )
    reference.save(path, with_features(projection))
    other = features + np.float32(1e-6)
    kept_features.write(beside, other)
    assert message(path, projection, with_features=True) == (
        f"{beside} does not belong to {path}: its sha256 begins with "
        f"{kept_features.digest(other)[:8]}, and the statistics were built with features of sha256 "
        f"{kept_features.digest(features)[:8]}. {again}"
    )
    kept_features.write(beside, features[:30])
    assert message(path, projection, with_features=True) == (
        f"{beside} has the shape (30, 16); {path} is of 40 images and 16 features. {again}"
    )
    np.save(beside, features.astype(np.float64))
    assert (
        message(path, projection, with_features=True)
        == f"{beside} is float64; expected float32. {again}"
    )


@pytest.mark.parametrize("keep", [0, 50, 1000])
def test_features_cut_short(projection: Projection, tmp_path: Path, keep: int) -> None:
    path, beside = tmp_path / "stats.npz", tmp_path / "stats.features.npy"
    reference.save(path, with_features(projection))
    beside.write_bytes(beside.read_bytes()[:keep])
    assert message(path, projection, with_features=True) == (
        f"{beside} is not an npy file, or only a part of one. Build both again with "
        f'"bench reference images.npz --metric NAME --features --out {path}".'
    )


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
    """Statistics without a certificate."""
    rewrite(path, certificate=None, n=None)
    return path


def edm(path: Path, features: np.ndarray) -> None:
    """As NVlabs/edm's fid.py writes them: float64 sums over batches."""
    x = features.astype(np.float64)
    mu = x.sum(axis=0) / len(x)
    sigma = (x.T @ x - np.outer(mu, mu) * len(x)) / (len(x) - 1)
    np.savez(path, mu=mu, sigma=sigma)


def pytorch_fid(path: Path, features: np.ndarray) -> None:
    """As pytorch-fid's --save-stats writes them: features collected in float64, compressed."""
    x = features.astype(np.float64)
    np.savez_compressed(path, mu=np.mean(x, axis=0), sigma=np.cov(x, rowvar=False))


def guided_diffusion(path: Path, features: np.ndarray) -> None:
    """As the reference batches of guided-diffusion: images, and moments of float32 features."""
    spatial = np.random.default_rng(0).standard_normal((30, 7)).astype(np.float32)
    np.savez(
        path,
        stored(),
        mu=np.mean(features, axis=0),
        sigma=np.cov(features, rowvar=False),
        mu_s=np.mean(spatial, axis=0),
        sigma_s=np.cov(spatial, rowvar=False),
    )


@pytest.mark.parametrize(
    ("write", "kind", "tolerance"),
    [
        (edm, np.float64, 1e-12),
        (pytorch_fid, np.float64, 1e-12),
        (guided_diffusion, np.float32, 1e-6),
    ],
)
def test_statistics_of_other_tools(
    projection: Projection,
    tmp_path: Path,
    write: Callable[[Path, np.ndarray], None],
    kind: type,
    tolerance: float,
) -> None:
    path = tmp_path / "cifar10-32x32.npz"
    write(path, projection(colours(0, 40)).numpy())
    with np.load(path) as file:
        assert (file["mu"].dtype, file["sigma"].dtype) == (kind, np.float64)
    found, expected = load(str(path), PublishedInception(), "fid"), build(projection).moments
    assert (found.certificate, found.features) == ({}, None)
    assert found.name == "cifar10-32x32"
    assert found.moments.rank == 16
    np.testing.assert_allclose(found.moments.mean, expected.mean, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        found.moments.covariance, expected.covariance, rtol=1e-10, atol=1e-12
    )


def test_images_of_a_reference_batch_are_its_images(projection: Projection, tmp_path: Path) -> None:
    guided_diffusion(tmp_path / "batch.npz", np.zeros((3, 5), np.float32))
    found = reference.from_files(tmp_path / "batch.npz", projection)
    assert found.digest == build(projection).digest


def test_statistics_of_other_tools_are_of_inception_only(
    projection: Projection, uncertified: Path
) -> None:
    assert message(uncertified, projection) == (
        f"{uncertified} does not say how it was made, so it can only be taken for statistics of "
        "the published Inception-v3; the extractor is projection. Rebuild with "
        f'"bench reference IMAGES.npz --metric fd --out {uncertified}".'
    )
