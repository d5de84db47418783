"""What a feature extractor is, for all that use one."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Extractor(Protocol):
    """Turns images into features; two with the same digest and numerics give the same ones."""

    @property
    def name(self) -> str:
        """Short and fit for a file name: statistics are kept as `<reference>.<name>.npz`."""

    @property
    def dim(self) -> int:
        """d, the number of features of an image."""

    @property
    def digest(self) -> str:
        """Of the weights: sha256 in hexadecimal."""

    @property
    def numerics(self) -> str:
        """The arithmetic that features depend on beyond rounding, such as "float32"."""

    @property
    def resize(self) -> str:
        """How images are brought to the size that the network reads; "none" if they are not."""

    @property
    def head(self) -> NDArray[np.float32] | None:
        """Weights (classes, d) of a linear classifier, without bias; None if there is none."""

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        """Features of uint8 images (B, 3, H, W), as float32 of shape (B, d) on its device."""
