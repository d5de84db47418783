"""The small CIFAR-10 classifier whose penultimate features carry the metric `fd_cifar`.

Seven convolutions, no shortcuts: a fixed 2x2 patch-whitening layer, three blocks of two 3x3
convolutions with one max pooling each (32x32 -> 31 -> 15 -> 7 -> 3), a global maximum and one
linear layer. The ideas (whitening stem, identity initialisation, batch normalisation without a
scale) are those of Page, "How to train your ResNet", 2019, and of Jordan, "94% on CIFAR-10 in
3.29 seconds on a single GPU", 2024, arXiv:2404.00498; the widths are ours, chosen so that a plain
CPU can train it and read thousands of images with it.

The recipe behind the shipped weights is `bench.training.features`.
"""

import hashlib
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

WIDTHS = (48, 128, 256)
PATCHES = 24  # 2 x (2x2 pixels x 3 colours): every whitened direction and its negative

# Means and deviations of the 50,000 training images, in units of 0..255.
MEAN = (125.307, 122.950, 113.865)
DEVIATION = (62.993, 62.089, 66.705)


class Block(nn.Module):
    """conv 3x3, 2x2 max pooling, norm, GELU, conv 3x3, norm, GELU.

    Maps (B, channels, s, s) to (B, width, s // 2, s // 2).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1: nn.Module = _norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2: nn.Module = _norm(width)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight[: conv.in_channels])  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class CifarNet(nn.Module):
    """The classifier; `features` stops before the last layer.

    Args:
        widths: channels of the three blocks; the last is the feature dimension.
        classes: number of logits.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, widths: tuple[int, int, int] = WIDTHS, classes: int = 10) -> None:
        super().__init__()
        self.dim = widths[-1]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False
        )
        self.whiten = nn.Conv2d(3, PATCHES, 2)
        self.whiten.weight.requires_grad_(False)
        self.blocks = nn.Sequential(
            *(Block(c, w) for c, w in zip((PATCHES, *widths[:-1]), widths, strict=True))
        )
        self.head = nn.Linear(self.dim, classes, bias=False)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The network with these weights (a `state_dict`); the widths are read from the shapes."""
        first, second, third = (len(tensors[f"blocks.{i}.conv1.weight"]) for i in range(3))
        net = cls((first, second, third), classes=len(tensors["head.weight"]))
        net.load_state_dict(tensors)
        return net

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) on the scale 0..255, any real dtype -> zero mean, unit deviation."""
        x = (images.to(self.whiten.weight.dtype) - self.mean) / self.deviation
        return x.contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), 0..255 -> penultimate features (B, dim)."""
        x = F.gelu(self.whiten(self.normalise(images)))
        return self.blocks(x).amax(dim=(2, 3))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32), 0..255 -> logits (B, classes)."""
        return self.head(self.features(images))  # type: ignore[no-any-return]

    @torch.no_grad()
    def set_whitening(self, images: Tensor, eps: float = 5e-4) -> None:
        """Sets the first layer to whiten the 2x2 patches of `images` (B, 3, H, W), 0..255.

        The filters are the eigenvectors of the patches' covariance over the root of their
        eigenvalues (plus `eps`), and the same with the other sign.
        """
        patches = self.normalise(images).unfold(2, 2, 1).unfold(3, 2, 1)
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, PATCHES // 2).double()
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        filters = (vectors / (values + eps).sqrt()).T.reshape(-1, 3, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))
        self.whiten.bias.zero_()  # type: ignore[union-attr]


def folded(net: CifarNet) -> CifarNet:
    """`net` in evaluation mode with every norm folded into its convolution (changed in place).

    The norm of a block's first half stands behind the max pooling; its scale is positive
    (deviations are), so that it may be moved in front of it without changing the maximum.
    """
    net.eval()
    for block in net.blocks:
        assert isinstance(block, Block)
        assert isinstance(block.norm1, nn.BatchNorm2d)
        assert isinstance(block.norm2, nn.BatchNorm2d)
        block.conv1 = fuse_conv_bn_eval(block.conv1, block.norm1)
        block.conv2 = fuse_conv_bn_eval(block.conv2, block.norm2)
        block.norm1 = nn.Identity()
        block.norm2 = nn.Identity()
    return net


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 of names, shapes, types and values of CPU tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    norm.weight.requires_grad_(False)  # a scale before GELU and a normalised filter is redundant
    return norm
