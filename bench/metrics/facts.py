"""What can be said of images without a network: hints that something is wrong with a sampler."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

CONSTANT = 8
"""An image is near-constant if in no channel its bytes differ by more than this, of 255."""


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """Facts about some images, which add up over batches.

    Args:
        near_constant: how many show nothing.
        saturated: how many bytes are 0 or 255.
        bytes: how many bytes there are.
        digests: of the bytes of each image, uint64 (n,). Two of 50,000 different images share one
            with a chance of 1e-10, so equal ones are copies.
    """

    near_constant: int
    saturated: int
    bytes: int
    digests: NDArray[np.uint64]

    @classmethod
    def of(cls, images: torch.Tensor) -> "ImageFacts":
        """Of uint8 images (B, C, H, W)."""
        flat = images.cpu().flatten(2)
        spread = flat.amax(dim=2).int() - flat.amin(dim=2)
        pixels = flat.numpy()
        digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in pixels]
        return cls(
            near_constant=int((spread <= CONSTANT).all(dim=1).sum()),
            saturated=int((pixels == 0).sum() + (pixels == 255).sum()),
            bytes=pixels.size,
            digests=np.frombuffer(b"".join(digests), dtype=np.uint64),
        )

    @classmethod
    def merged(cls, parts: Iterable["ImageFacts"]) -> "ImageFacts":
        """Of all images of at least one part."""
        every = list(parts)
        return cls(
            sum(part.near_constant for part in every),
            sum(part.saturated for part in every),
            sum(part.bytes for part in every),
            np.concatenate([part.digests for part in every]),
        )

    def record(self) -> dict[str, Any]:
        """As the record of a cell has them: near_constant, duplicates, saturated (a share)."""
        return {
            "near_constant": self.near_constant,
            "duplicates": len(self.digests) - len(np.unique(self.digests)),
            "saturated": round(self.saturated / self.bytes, 6),
        }
