"""Images on their way to an extractor: the one quantiser, and readers of image files.

Images are uint8 of shape (B, 3, H, W) from here on; files hold (N, H, W, 3).
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bench.errors import MetricError

QUANTISER = "round"
"""How floats became bytes; stands in every record. The other one in use, "truncate", is
floor(127.5 x + 127.5) (score_sde, guided-diffusion, torchmetrics' `normalize=True`)."""


def to_uint8(x: torch.Tensor) -> torch.Tensor:
    """Float images in [-1, 1] to bytes: floor(127.5 x + 128), clamped to 0..255.

    The only place where images are rounded. -1 becomes 0, 0 becomes 128, 1 becomes 255.

    Args:
        x: floating point, shape (B, C, H, W); values outside [-1, 1] are clamped.

    Returns:
        uint8 of the same shape, on the same device.

    Raises:
        MetricError: NaN or infinity anywhere, which a cast would turn into an ordinary colour.

    Reference: T. Karras et al., 2022, arXiv:2206.00364, the rounding of their `generate.py`.
    """
    finite = torch.isfinite(x).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise MetricError(
            f"{bad} of {len(x)} images are not finite, first image {int((~finite).nonzero()[0])} "
            "of this batch. The sampler diverged or the model is damaged."
        )
    return (x.to(torch.float32) * 127.5 + 128).floor_().clamp_(0, 255).to(torch.uint8)


def check_images(images: torch.Tensor) -> None:
    """Refuse what no extractor here can read.

    Args:
        images: should be uint8 of shape (B, 3, H, W).

    Raises:
        MetricError: another type, number of axes or number of channels.
    """
    if images.dtype != torch.uint8:
        raise MetricError(
            f"Images are {_name(images.dtype)}; expected uint8. Convert floats in [-1, 1] with "
            "bench.metrics.images.to_uint8, which rounds as the reference statistics were rounded."
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise MetricError(
            f"Images have the shape {tuple(images.shape)}; expected (B, 3, H, W): "
            "colour channels second."
        )


def read_npz(path: Path) -> NDArray[np.uint8]:
    """Images of an npz file: `arr_0`, uint8 of shape (N, H, W, 3), as guided-diffusion writes them.

    Raises:
        MetricError: no such file, not an npz, no `arr_0`, objects instead of numbers (which are not
            unpickled), another type or shape, or fewer than two images.
    """
    hint = "the images as arr_0, uint8 (N, H, W, 3). Write it with numpy.savez(path, images)."
    images = read_arrays(path, needed=("arr_0",), hint=hint)["arr_0"]
    if images.dtype != np.uint8:
        raise MetricError(
            f"{path}: arr_0 is {images.dtype}; expected uint8 images of 0..255. "
            "Round floats yourself, as the images that they are compared with were rounded."
        )
    if images.ndim != 4 or images.shape[3] != 3:
        raise MetricError(
            f"{path}: arr_0 has the shape {images.shape}; expected (N, H, W, 3): "
            "colour channels last."
        )
    if len(images) < 2:
        raise MetricError(f"{path}: at least two images are needed; arr_0 holds {len(images)}.")
    return images.astype(np.uint8, copy=False)


def read_arrays(
    path: Path, needed: tuple[str, ...], hint: str, also: tuple[str, ...] = ()
) -> dict[str, NDArray[np.generic]]:
    """Arrays of an npz file, which are never unpickled.

    Args:
        path: the file.
        needed: arrays that must be in it.
        hint: what was expected and how to make it, where one of them is not.
        also: arrays to read if they are there.

    Raises:
        MetricError: no such file, not an npz, not these arrays, damaged, or Python objects.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise MetricError(f"There is no file {path}.") from None
    except OSError as error:
        raise MetricError(f"{path} cannot be read: {error.strerror or error}.") from None
    with stream:
        try:
            file = np.load(stream, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, EOFError, OSError):
            raise MetricError(
                f"{path} is not an npz file, or only a part of one. Write or copy it again."
            ) from None
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise MetricError(f"{path} is a single array (npy); expected an npz. Use numpy.savez.")
        if not set(needed) <= set(file):
            held = ", ".join(f'"{name}"' for name in file) or "nothing"
            raise MetricError(f"{path} holds {held}; expected {hint}")
        names = (*needed, *(name for name in also if name in file))
        return {name: _array(file, name, path) for name in names}


def _array(file: "np.lib.npyio.NpzFile", name: str, path: Path) -> NDArray[np.generic]:
    try:
        return np.asarray(file[name])
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        if "allow_pickle" in str(error):
            raise MetricError(
                f"{path}: {name} holds Python objects; expected plain numbers. Objects are not "
                "loaded, since unpickling a file can run anything in it."
            ) from None
        raise MetricError(f"{path}: {name} is damaged ({error}). Copy the file again.") from None


def batches(images: NDArray[np.uint8], size: int) -> Iterator[torch.Tensor]:
    """Slices of (N, H, W, 3) images as uint8 tensors of shape (<= size, 3, H, W)."""
    for start in range(0, len(images), size):
        chunk = np.ascontiguousarray(images[start : start + size].transpose(0, 3, 1, 2))
        yield torch.from_numpy(chunk)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
