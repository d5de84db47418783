"""The built-in extractor: what it promises, and what it says to wrong input and damaged weights."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from bench.errors import MetricError
from bench.metrics.cifar_net import CifarNet, digest_of
from bench.metrics.extractor import SLICE, WEIGHTS, CifarFeatures, cifar_features
from bench.metrics.protocol import Extractor


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Coloured blobs: smooth, so that they are not all noise to the network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic")
    return (fine * 255).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return cifar_features()


def test_features_of_a_batch(extractor: Extractor) -> None:
    x = images(5)
    features = extractor(x)
    assert features.shape == (5, extractor.dim)
    assert features.dtype == torch.float32
    assert features.device == x.device
    assert not features.requires_grad
    assert torch.isfinite(features).all()
    assert features.std(0).mean() > 0.01  # images differ, and so do their features


def test_empty_batch(extractor: Extractor) -> None:
    assert extractor(images(1)[:0]).shape == (0, extractor.dim)


def test_same_images_give_the_same_bytes(extractor: Extractor) -> None:
    assert torch.equal(extractor(images(7)), extractor(images(7)))


def test_batch_mates_do_not_matter(extractor: Extractor) -> None:
    """Whatever the batch: an image's features differ by rounding only."""
    x = images(SLICE + 30)
    together = extractor(x)
    one_by_one = torch.cat([extractor(x[i : i + 1]) for i in range(0, len(x), 13)])
    other_batch = extractor(x.flip(0)).flip(0)
    scale = together.abs().max()
    assert (together[::13] - one_by_one).abs().max() < 1e-5 * scale
    assert (together - other_batch).abs().max() < 1e-5 * scale


def test_memory_layout_does_not_matter(extractor: Extractor) -> None:
    x = images(4)
    assert torch.equal(extractor(x), extractor(x.contiguous(memory_format=torch.channels_last)))


def test_autocast_around_it_changes_nothing(extractor: Extractor) -> None:
    x = images(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = extractor(x)
    assert torch.equal(inside, extractor(x))


def test_digest_is_that_of_the_tensors(extractor: Extractor) -> None:
    assert extractor.digest == digest_of(safetensors.torch.load_file(WEIGHTS))
    assert (extractor.name, extractor.numerics, extractor.resize) == (
        "cifar-features",
        "float32",
        "none",
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(2).float(), "Images are float32; expected uint8."),
        (images(2).permute(0, 2, 3, 1), r"\(2, 32, 32, 3\); expected \(B, 3, H, W\)"),
        (images(2)[0], r"\(3, 32, 32\); expected \(B, 3, H, W\)"),
        (images(2)[:, :1], r"\(2, 1, 32, 32\); expected \(B, 3, H, W\)"),
        (images(2)[:, :, :28], r'28 x 32 pixels; fd_cifar is defined for 32 x 32\. .* "fid"'),
    ],
)
def test_wrong_images(extractor: Extractor, bad: torch.Tensor, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        extractor(bad)


def test_missing_weights(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    with pytest.raises(MetricError) as caught:
        CifarFeatures(path, "cpu")
    assert str(caught.value) == (
        f"The weights of fd_cifar at {path} cannot be read: No such file or directory. Reinstall "
        "sampler-bench, or make the file anew: "
        "bench train features --data cifar10_train.npz --test cifar10_test.npz"
    )


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_truncated_weights(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "torn.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:kept])
    with pytest.raises(MetricError, match=r"torn\.safetensors are incomplete .* bench train"):
        CifarFeatures(path, "cpu")


def test_one_flipped_bit(tmp_path: Path) -> None:
    data = bytearray(WEIGHTS.read_bytes())
    data[-1000] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(bytes(data))
    with pytest.raises(MetricError, match=r"flipped\.safetensors are damaged"):
        CifarFeatures(path, "cpu")


def test_weights_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    certificate = {"certificate": '{"network": "resnet"}'}
    safetensors.torch.save_file({"x": torch.zeros(3)}, path, certificate)
    with pytest.raises(MetricError, match=r'other\.safetensors does not hold .* "resnet"'):
        CifarFeatures(path, "cpu")


def test_weights_without_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(CifarNet((24, 24, 24)).state_dict(), path)
    with pytest.raises(MetricError, match=r"bare\.safetensors does not hold"):
        CifarFeatures(path, "cpu")
