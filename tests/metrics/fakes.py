"""A real extractor that needs no weights, and images for it."""

import hashlib

import numpy as np
import torch

from bench.metrics.images import check_images


class Projection:
    """Sixteen numbers of an image of 8 x 8 pixels: a random projection, and a nonlinearity."""

    name = "projection"
    dim = 16
    numerics = "float64"
    resize = "none"
    head = None

    def __init__(self, seed: int = 0) -> None:
        matrix = np.random.default_rng(seed).standard_normal((3 * 8 * 8, self.dim))
        self.matrix = torch.from_numpy(matrix / 10)
        self.digest = hashlib.sha256(matrix.tobytes()).hexdigest()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images)
        x = images.flatten(1).to(torch.float64) / 127.5 - 1
        return torch.sin(x @ self.matrix).add(x[:, : self.dim] / 4).to(torch.float32)


def colours(seed: int, count: int, size: int = 8, brightness: int = 0) -> torch.Tensor:
    """Random images: uint8 (count, 3, size, size) of 0..199, with `brightness` added."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 200, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return images + brightness


def opened(device: str) -> Projection:
    """An extractor from outside, as a metric names it: `fd@tests.metrics.fakes:opened`."""
    assert device == "cpu"
    return Projection()


def nothing(device: str) -> object:
    """What gives no extractor."""
    return object()
