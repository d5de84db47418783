"""The Inception-v3 of the FID paper: torch-fidelity's network and weights, run faster on a CPU.

Bytes go in, are resized to 299 x 299 with TensorFlow 1's bilinear filter (no half-pixel centres, no
antialiasing) and scaled to (x - 128) / 128; out come the 2048 averages before the classifier.
Another resize is another metric: see METRICS in `bench.metrics.registry`.

The resize gives torch-fidelity's numbers to the bit, and the network its features but for the
rounding of float32: batch norms are folded into their convolutions, a CPU keeps the channels
innermost, and few images are under way at once. `tests/benchmarks/inception_speed.py` runs both
side by side.

Reference: M. Heusel et al., 2017, arXiv:1706.08500 (the metric); A. Obukhov et al., torch-fidelity,
doi:10.5281/zenodo.4957738 (the port of the TensorFlow graph and its weights).
"""

import hashlib
import os
import pickle
import shutil
import urllib.request
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    BasicConv2d,
    FeatureExtractorInceptionV3,
)

from bench.errors import MetricError
from bench.metrics.images import check_images

FILE: str = URL_INCEPTION_V3.rsplit("/", 1)[-1]
PUBLISHED = FILE.removesuffix(".pth").rsplit("-", 1)[-1]
"""How the sha256 of the published weights begins; the file carries it in its name."""
VARIABLE = "BENCH_INCEPTION"
TIMEOUT = 20.0
"""Seconds without an answer after which a machine counts as one without network."""
SIDE = 299
"""Pixels of the images that the network reads."""
SLICE = 32
"""Images that go through the network at once; larger slices are not faster."""
FEW = 4
"""Images that go through its first layers at once on a CPU, where one image has activations of 8 MB
that should stay in the cache: with 16 the layers before the first block take 1.3 times as long."""
EARLY = 10
"""How many layers those are: up to the last block of 35 x 35 pixels."""


class Inception:
    """An extractor of 2048 float32 features; it computes in float32 on every device.

    Args:
        path: the weights file; refused unless every tensor of the network is in it.
        device: where to compute.

    Raises:
        MetricError: the file is missing, damaged or of another network.
    """

    dim = 2048
    resize = "tf1-bilinear-299"
    numerics = "float32"

    def __init__(self, path: Path, device: torch.device | str) -> None:
        self.digest = sha256(path)
        self.published = self.digest.startswith(PUBLISHED)
        self.name = "inception-v3" if self.published else f"inception-{self.digest[:8]}"
        network = _network(path)
        self.head = network.fc.weight.detach().numpy()
        self._device = torch.device(device)
        # Only a CPU was measured; other devices keep torch-fidelity's layout and whole slices.
        on_cpu = self._device.type == "cpu"
        self._few = FEW if on_cpu else SLICE
        self._layout = torch.channels_last if on_cpu else torch.contiguous_format
        layers = _layers(network).to(self._device, memory_format=self._layout)  # type: ignore[call-overload]
        self._early, self._late = layers[:EARLY], layers[EARLY:]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of uint8 images (B, 3, H, W), as float32 of shape (B, 2048) on the device.

        Raises:
            MetricError: images of another type or shape.
        """
        check_images(images)
        # TF32 and a surrounding autocast would move features by 1e-3 and more: not a FID.
        with (
            torch.autocast(self._device.type, enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            parts = [self._features(part) for part in torch.split(images, SLICE)]
        return torch.cat(parts)

    def _features(self, images: Tensor) -> Tensor:
        parts = []
        for few in torch.split(images, self._few):
            x = resized(few.to(self._device)).contiguous(memory_format=self._layout)
            parts.append(self._early(x))
        return self._late(torch.cat(parts))  # type: ignore[no-any-return]


def resized(images: Tensor) -> Tensor:
    """Images as the network reads them: 299 x 299 pixels, and (x - 128) / 128.

    Output pixel i lies at i * H / 299 of the input, between two of its rows or at the last one.
    Columns first, then rows, as in TensorFlow; without a matrix product, which a GPU might round to
    TF32, and with the order of operations of torch-fidelity, whose values it gives to the bit.

    Args:
        images: uint8 (B, 3, H, W), of any size, contiguous or not.

    Returns:
        float32 (B, 3, 299, 299), with the channels innermost in memory.
    """
    x = images.permute(0, 2, 3, 1).to(torch.float32)
    x = _stretched(_stretched(x, 2), 1)
    return x.sub_(128).div_(128).permute(0, 3, 1, 2)


def _stretched(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    scale = torch.tensor(size / SIDE, dtype=torch.float32, device=x.device)
    position = torch.arange(SIDE, dtype=torch.float32, device=x.device) * scale
    low = position.long()
    part = (position - low).view(-1, *[1] * (x.ndim - 1 - dim))
    near = x.index_select(dim, low)
    far = x.index_select(dim, (low + 1).clamp_max(size - 1))
    return far.sub_(near).mul_(part).add_(near)


def place() -> Path:
    """Where the weights are looked for: BENCH_INCEPTION, else torch-fidelity's own place."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else Path(torch.hub.get_dir()) / "checkpoints" / FILE


def download() -> Path:
    """The weights file at `place()`, fetched unless a file is there already.

    Raises:
        MetricError: it cannot be had, or what was sent is not the published file.
    """
    path = place()
    if not path.is_file():
        _download(URL_INCEPTION_V3, path)
    return path


def find_weights() -> Path:
    """The weights file: BENCH_INCEPTION, else torch-fidelity's own place, else downloaded to there.

    Raises:
        MetricError: BENCH_INCEPTION names no file; or the file is nowhere and cannot be had.
    """
    named = os.environ.get(VARIABLE)
    if named and not place().is_file():
        raise MetricError(
            f"{VARIABLE} is {named}, and there is no such file. Set it to the Inception weights "
            f"({FILE}), or unset it to have them downloaded."
        )
    return download()


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes.

    Raises:
        MetricError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MetricError(f"{path} cannot be read: {error.strerror or error}.") from None


def _network(path: Path) -> FeatureExtractorInceptionV3:
    """torch-fidelity's network with the weights at `path`.

    It would unpickle whatever it is given, so torch's restricted unpickler reads the file first.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise MetricError(
            f"Inception weights at {path} cannot be read: the file is incomplete or not a file of "
            f"weights ({_first_line(error)}). Put {FILE} there, from {URL_INCEPTION_V3}."
        ) from None
    try:
        network = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        )
    except (RuntimeError, TypeError, AttributeError):
        count = len(tensors) if isinstance(tensors, dict) else 0
        raise MetricError(
            f"Inception weights at {path} are of another network: {count} entries, and not the 566 "
            f"that are needed. Put {FILE} there, from {URL_INCEPTION_V3}; torchvision's Inception "
            "is another network."
        ) from None
    return network


def _layers(network: FeatureExtractorInceptionV3) -> nn.Sequential:
    """The layers up to the average pool, in order, with every batch norm in its convolution.

    torch-fidelity's class holds them in the order in which it applies them, the classifier last.
    """
    for module in network.modules():
        if isinstance(module, BasicConv2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    *layers, _ = network.children()
    return nn.Sequential(*layers, nn.Flatten())


def _download(url: str, path: Path) -> None:
    """Fetch the weights under a temporary name and rename them once their digest is right."""
    temporary = path.with_name(f".{path.name}~{uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
            shutil.copyfileobj(answer, file)
        digest = sha256(temporary)
        if not digest.startswith(PUBLISHED):
            raise MetricError(
                f"What {url} sent is not the published file: its sha256 begins with {digest[:8]}, "
                f"not {PUBLISHED}. Put {FILE} at {path}, or set {VARIABLE} to where it is."
            )
        temporary.replace(path)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise MetricError(
            f"Inception weights are not at {path} and could not be downloaded ({reason}). "
            f"Put the file there, from {url}, or set {VARIABLE} to where it is."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
