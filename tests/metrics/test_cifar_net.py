"""The network of fd_cifar: shapes, its whitening, and folding that changes nothing."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from bench.metrics.cifar_net import PATCHES, CifarNet, digest_of, folded
from bench.metrics.extractor import WEIGHTS, cifar_features
from bench.training.features import Labelled, accuracy

WIDTHS = (24, 32, 48)


def images(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def small(seed: int = 0) -> CifarNet:
    """A small network with norms that do something."""
    torch.manual_seed(seed)
    net = CifarNet(WIDTHS)
    net.set_whitening(images(50))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            assert module.running_mean is not None
            assert module.running_var is not None
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.1, 3)
    return net.eval()


def test_shapes_and_dtypes() -> None:
    net = small()
    assert net.features(images(3)).shape == (3, 48)
    assert net(images(3)).shape == (3, 10)
    assert net.features(images(3)).dtype == torch.float32


def test_other_sizes_pass_through_for_training_on_shrunk_images() -> None:
    assert small().features(images(2)[:, :, :24, :24]).shape == (2, 48)


def test_whitening_makes_patches_white() -> None:
    # Correlated noise: without whitening the filters' outputs would be far from unit variance.
    x = images(200).float()
    x = (x + x.roll(1, 3) + x.roll(1, 2)) / 3
    net = CifarNet(WIDTHS)
    net.set_whitening(x)
    with torch.no_grad():
        out = net.whiten(net.normalise(x)).permute(0, 2, 3, 1).reshape(-1, PATCHES)
    half = out[:, : PATCHES // 2]
    second = half.T @ half / len(half)
    assert torch.allclose(second, torch.eye(PATCHES // 2), atol=0.02)
    assert torch.equal(half, -out[:, PATCHES // 2 :])


def test_folding_keeps_the_features() -> None:
    x = images(8)
    net = small()
    with torch.no_grad():
        before = net.features(x)
        after = folded(net).features(x)
    assert before.std() > 0.1
    assert torch.allclose(before, after, atol=1e-5, rtol=1e-5)


def test_of_reads_the_widths_from_the_weights() -> None:
    net = small()
    again = CifarNet.of(net.state_dict()).eval()
    assert again.dim == 48
    with torch.no_grad():
        assert torch.equal(again(images(2)), net(images(2)))


def test_digest_sees_names_shapes_types_and_values() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.full((1,), 2.0)},
    ]
    assert digest_of(tensors) == digest_of(dict(reversed(tensors.items())))
    assert digest_of(tensors) not in [digest_of(other) for other in others]


def test_shipped_weights_fit_the_budget() -> None:
    assert WEIGHTS.stat().st_size <= 8_000_000
    assert cifar_features().dim == 256


@pytest.mark.slow
def test_shipped_weights_classify_the_test_images() -> None:
    named = os.environ.get("BENCH_CIFAR10_TEST")
    if not named:
        pytest.skip("BENCH_CIFAR10_TEST does not name the npz of CIFAR-10 test images")
    import safetensors.torch

    net = CifarNet.of(safetensors.torch.load_file(WEIGHTS))
    with ThreadPoolExecutor(2) as pool:
        share = accuracy(net, Labelled.read(Path(named)), pool, views=False)
    assert share >= 0.93
