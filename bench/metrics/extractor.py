"""The built-in extractor: 256 features of the small CIFAR-10 network, for the metric `fd_cifar`.

What any extractor promises stands in `bench.metrics.protocol`. This one reads bytes of 32 x 32
pixels as they are, in float32 on every device.

Why not bf16: `tests/benchmarks/feature_precision.py`, 2000 test images against 2000 training
images, measured on a CPU with AVX-512 but no bf16 units:

| noise (of 255) | float32 | bf16   | standard error | features moved by |
| -------------- | ------- | ------ | -------------- | ----------------- |
| 0              | 8.35    | 8.36   | 0.98           | 1.6 %             |
| 2              | 14.65   | 14.68  | 1.67           | 1.7 %             |
| 8              | 189.64  | 190.29 | 2.96           | 2.1 %             |
| 32             | 294.11  | 295.05 | 0.60           | 2.4 %             |

For good images bf16 is far inside the noise; for bad ones it is not (0.94 against 0.60). It was
also less than half as fast (179 against 425 images/s on one thread of a busy machine). CPUs with
AMX would be faster in bf16; that was not measured, and two precisions would be two metrics.
"""

import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bench.errors import MetricError
from bench.metrics.cifar_net import CifarNet, digest_of, folded
from bench.metrics.images import check_images

WEIGHTS = Path(__file__).parents[1] / "assets" / "cifar-features.safetensors"
SIDE = 32
"""Pixels: the network has seen no other size."""
SLICE = 100
"""Images that go through the network at once; more do not fit the caches of a CPU core."""

_REMEDY = (
    "Reinstall sampler-bench, or make the file anew: "
    "bench train features --data cifar10_train.npz --test cifar10_test.npz"
)


class CifarFeatures:
    """An extractor of the penultimate features of `CifarNet`, computed in float32.

    Args:
        path: weights as `bench.training.features` writes them.
        device: where to compute.

    Raises:
        MetricError: the file is missing, damaged or of another network.
    """

    name = "cifar-features"
    resize = "none"
    numerics = "float32"

    def __init__(self, path: Path, device: torch.device | str) -> None:
        self.digest, net = _read(path)
        self.dim = net.dim
        self.head = net.head.weight.detach().numpy().copy()
        self._device = torch.device(device)
        self._net = folded(net).to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of uint8 images (B, 3, 32, 32), as float32 of shape (B, dim) on the device.

        Raises:
            MetricError: images of another type, shape or size.
        """
        check_images(images)
        if images.shape[2:] != (SIDE, SIDE):
            raise MetricError(
                f"Images are {images.shape[2]} x {images.shape[3]} pixels; fd_cifar is defined for "
                f'{SIDE} x {SIDE}. For other sizes ask for the metric "fid", which resizes.'
            )
        # TF32 or a surrounding autocast would make it another metric.
        with (
            torch.autocast(self._device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            parts = [
                self._net.features(part.to(self._device)) for part in torch.split(images, SLICE)
            ]
        return torch.cat(parts)


def cifar_features(device: torch.device | str = "cpu") -> CifarFeatures:
    """The extractor with the weights that ship in the package.

    Raises:
        MetricError: they are missing or damaged.
    """
    return CifarFeatures(WEIGHTS, device)


def _read(path: Path) -> tuple[str, CifarNet]:
    """The network in a weights file, and the digest of its tensors.

    Of the tensors, not the file: what the file says about itself changes no feature. The digest is
    checked against the one in the file's certificate.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MetricError(
            f"The weights of fd_cifar at {path} cannot be read: {error.strerror or error}. "
            f"{_REMEDY}"
        ) from None
    try:
        tensors = safetensors.torch.load(data)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        certificate = json.loads(metadata.get("certificate", "{}"))
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise MetricError(
            f"The weights of fd_cifar at {path} are incomplete or no safetensors file ({error}). "
            f"{_REMEDY}"
        ) from None
    if certificate.get("network") != "CifarNet":
        raise MetricError(
            f"{path} does not hold the feature network of fd_cifar (its certificate names the "
            f'network "{certificate.get("network", "")}"). {_REMEDY}'
        )
    digest = digest_of(tensors)
    if digest != certificate["tensors_sha256"]:
        raise MetricError(
            f"The weights of fd_cifar at {path} are damaged: they are not those that were written. "
            f"{_REMEDY}"
        )
    return digest, CifarNet.of(tensors)
