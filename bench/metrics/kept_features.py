"""Features of reference images, kept beside their statistics.

Distances that compare sets of features (kernel distances, precision and recall) need them all; a
Fréchet distance needs only the statistics, which are a hundredth of the size. So they are a file of
their own, `NAME.features.npy` beside `NAME.npz`, float32 of shape (n, d). The certificate of the
statistics has its sha256, of the numbers: a file of another build is refused.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench import atomic
from bench.errors import MetricError

Features = NDArray[np.float32]


def place(statistics: Path) -> Path:
    """The file of the features that belong to a file of statistics."""
    return statistics.with_name(statistics.name.removesuffix(".npz") + ".features.npy")


def digest(features: Features) -> str:
    """sha256 (hex) of the numbers, little-endian, row after row."""
    return hashlib.sha256(np.ascontiguousarray(features, dtype="<f4").data).hexdigest()


def write(path: Path, features: Features) -> None:
    """Write features to `path`, replaced in one step, without a copy of them in memory.

    Raises:
        ResultError: the file cannot be written.
    """
    whole = np.ascontiguousarray(features, dtype=np.float32)
    with atomic.replacing(path) as file:
        # As numpy.save, which does not say why where the disk is full.
        header = np.lib.format.header_data_from_array_1_0(whole)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(whole.data)


def read(statistics: Path, shape: tuple[int, int], sha256: str | None, source: str) -> Features:
    """The features beside a file of statistics, mapped and not loaded.

    Args:
        statistics: the file of the statistics; that of the features must be there.
        shape: (n, d) according to the statistics.
        sha256: of the features, according to them; None if they were built without.
        source: of the images, for the command that a message recommends.

    Raises:
        MetricError: the file is damaged or belongs to other statistics.
    """
    path = place(statistics)
    again = (
        f'Build both again with "bench reference {source} --metric NAME --features --out '
        f'{statistics}".'
    )
    try:
        features = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError):
        raise MetricError(f"{path} is not an npy file, or only a part of one. {again}") from None
    if features.dtype != np.float32:
        raise MetricError(f"{path} is {features.dtype}; expected float32. {again}")
    if features.shape != shape:
        raise MetricError(
            f"{path} has the shape {features.shape}; {statistics} is of {shape[0]} images and "
            f"{shape[1]} features. {again}"
        )
    found = digest(features)
    if found != sha256:
        told = f"with features of sha256 {sha256[:8]}" if sha256 else "without keeping features"
        raise MetricError(
            f"{path} does not belong to {statistics}: its sha256 begins with {found[:8]}, and the "
            f"statistics were built {told}. {again}"
        )
    return features
