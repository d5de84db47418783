"""What a training reads: labelled images, and the checkpoint that it goes on from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bench.atomic import make_folder, replacing
from bench.errors import TrainingError


@dataclass(frozen=True)
class Labelled:
    """Images uint8 (N, 3, 32, 32), labels int64 (N,), and the sha256 of the file they are from."""

    images: Tensor
    labels: Tensor
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads an npz with `arr_0` uint8 (N, 32, 32, 3) and `arr_1` integer labels 0..9 (N,).

        Raises:
            TrainingError: no such file, no npz, or arrays of another kind; names the file.
        """
        want = '"arr_0" uint8 (N, 32, 32, 3) and "arr_1" integer labels 0..9 (N,)'
        try:
            data = path.read_bytes()
            with np.load(path, allow_pickle=False) as arrays:
                images, labels = arrays["arr_0"], arrays["arr_1"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
            raise TrainingError(
                f"{path}: cannot be read as labelled images ({error}). Expected an npz with {want}."
            ) from error
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3) or not len(images):
            raise TrainingError(
                f'{path}: "arr_0" is {images.dtype} {images.shape}. Expected an npz with {want}.'
            )
        if (
            labels.dtype.kind not in "iu"
            or labels.shape != images.shape[:1]
            or labels.min() < 0
            or labels.max() > 9
        ):
            raise TrainingError(
                f'{path}: "arr_1" is {labels.dtype} {labels.shape} from {labels.min()} to '
                f"{labels.max()} for {len(images)} images. Expected an npz with {want}."
            )
        return cls(
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(labels.astype(np.int64)),
            hashlib.sha256(data).hexdigest(),
        )


def write_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Writes `state` whole or not at all; `identity` says what run it belongs to.

    Raises:
        ResultError: it cannot be written.
    """
    make_folder(path.parent)
    with replacing(path) as file:
        torch.save(state | {"identity": identity}, file)


def read_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """The state that `write_checkpoint` wrote for the same `identity`.

    Raises:
        TrainingError: a torn file, or the checkpoint of another recipe or other data.
    """
    remedy = "Remove it to start anew, or name another checkpoint."
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True)
        found = state["identity"]
    except Exception as error:  # a torn file makes torch.load raise all kinds
        raise TrainingError(f"{path}: not a readable checkpoint ({error}). {remedy}") from error
    if found != identity:
        raise TrainingError(
            f"{path}: the checkpoint of another recipe or other data ({found}); "
            f"this run is {identity}. {remedy}"
        )
    return state
