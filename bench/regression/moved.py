"""How far the images of one seed moved between two runs of a cell."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLES = "samples.npy"
"""The first images of a cell, in `work/<key>/` beside its record."""


@dataclass(frozen=True)
class Moved:
    """What is known of it.

    Attributes:
        images: how many were looked at; 0 where only influences are there.
        share: the part of them that is not the same byte for byte.
        levels: mean difference of a byte, of 255; NaN where there are no images.
        correlation: of the influences on the metric; NaN where there are none.
    """

    images: int
    share: float
    levels: float
    correlation: float

    def __str__(self) -> str:
        if self.images and self.share == 0:
            return f"{self.images} of {self.images} kept images the same"
        if self.images:
            moved = round(self.share * self.images)
            return f"{moved} of {self.images} kept images moved, by {self.levels:.2g} of 255"
        return f"influences correlate at {self.correlation:.4g}"


def moved(
    base: Path,
    head: Path,
    keys: tuple[str, ...],
    influences: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Moved | None:
    """How far the images of some cells moved; None where nothing tells.

    Args:
        base: results folder of the one run.
        head: of the other.
        keys: the cells that both have, one for each seed.
        influences: of those cells, where both have them.
    """
    pairs = [(_samples(base, key), _samples(head, key)) for key in keys]
    both = [(a, b) for a, b in pairs if a is not None and b is not None and a.shape == b.shape]
    correlation = _correlation(influences)
    if both:
        a, b = (np.concatenate(side).astype(np.int16) for side in zip(*both, strict=True))
        off = np.abs(a - b)
        different = off.reshape(len(off), -1).any(axis=1)
        return Moved(len(off), float(different.mean()), float(off.mean()), correlation)
    if np.isnan(correlation):
        return None
    return Moved(0, float("nan"), float("nan"), correlation)


def _samples(folder: Path, key: str) -> NDArray[np.uint8] | None:
    try:
        images = np.load(folder / "work" / key / SAMPLES, allow_pickle=False)
    except (OSError, ValueError):  # never kept, cleaned away, or cut short: only less is known
        return None
    return images if images.dtype == np.uint8 else None


def _correlation(pairs: list[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> float:
    if not pairs:
        return float("nan")
    a, b = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    spread = float(a.std() * b.std())
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / spread if spread else float("nan")
