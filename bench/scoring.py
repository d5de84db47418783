"""Scoring images that somebody else made, and handing out those of a cell.

The metrics are those of a sweep, from the same features by the same code: what `score` says of the
images of a cell is what the record of the cell says.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from bench import atomic
from bench.errors import MetricError
from bench.metrics import registry
from bench.metrics.facts import ImageFacts
from bench.metrics.image_files import ImageFiles
from bench.metrics.registry import BoundMetric, Record

SATURATED = 0.2
"""Share of bytes at 0 or 255 from which on images count as saturated."""
_BATCH = 500

Progress = Callable[[int, int], None]
"""Called with the number of images done and of all."""


@dataclass(frozen=True)
class Scored:
    """What images came out as.

    Attributes:
        images: their number.
        metrics: records by the name of the metric, as those of a cell.
        facts: near_constant, duplicates, saturated, as in the record of a cell.
    """

    images: int
    metrics: dict[str, Record]
    facts: dict[str, Any]


@torch.no_grad()
def score(
    images: ImageFiles, bound: Sequence[BoundMetric], progress: Progress | None = None
) -> Scored:
    """The metrics of images in files.

    Args:
        images: the files.
        bound: metrics with their reference, from `registry.bind`.
        progress: see `Progress`.

    Raises:
        MetricError: an image that is damaged, or too few for a metric.
    """
    extractors = registry.extractors(bound)
    # Filled in place: two copies of the features of 50,000 images are a gigabyte.
    features = {
        name: np.empty((images.count, one.dim), np.float32) for name, one in extractors.items()
    }
    facts: list[ImageFacts] = []
    done = 0
    for batch in images.batches(_BATCH):
        for name, extractor in extractors.items():
            features[name][done : done + len(batch)] = extractor(batch).cpu().numpy()
        facts.append(ImageFacts.of(batch))
        done += len(batch)
        if progress:
            progress(done, images.count)
    scores = registry.score(features, bound)
    return Scored(images.count, scores.records, ImageFacts.merged(facts).record())


def cautions(scored: Scored, images: ImageFiles) -> Iterator[str]:
    """What to keep in mind with the values, a sentence each."""
    if images.lossy:
        yield (
            f"{images.lossy:,} of the images are JPEG or lossy WebP: compression moves every "
            "distance; compare only with images that went through the same."
        )
    facts = scored.facts
    if facts["near_constant"]:
        yield f"{facts['near_constant']:,} images are near-constant: they show nothing."
    if facts["duplicates"]:
        yield f"{facts['duplicates']:,} images are copies of others."
    if facts["saturated"] > SATURATED:
        yield f"{facts['saturated']:.0%} of all bytes are 0 or 255: is the range of values right?"
    notes = [note for one in scored.metrics.values() for note in one["notes"]]
    for note in dict.fromkeys(notes):
        of = [name for name, one in scored.metrics.items() if note in one["notes"]]
        yield f"{', '.join(of)}: {note.rstrip('.')}."


def write_npz(path: Path, parts: Iterator[NDArray[np.uint8]]) -> int:
    """Images (n, C, H, W) into one npz as other tools read it: `arr_0`, uint8 (N, H, W, C).

    Returns:
        Their number.

    Raises:
        ResultError: The file cannot be written.
    """
    whole = np.concatenate([part.transpose(0, 2, 3, 1) for part in parts])
    atomic.make_folder(path.parent)
    with atomic.replacing(path) as file:
        np.savez(file, whole)
    return len(whole)


def write_folder(folder: Path, parts: Iterator[NDArray[np.uint8]]) -> int:
    """Images (n, 3, H, W) as `000000.png`, ... in a new folder, which appears when it is whole.

    Returns:
        Their number.

    Raises:
        MetricError: The folder is there already.
        ResultError: It cannot be written.
    """
    if folder.exists():
        raise MetricError(f"{folder} is there already. Choose another folder, or move it away.")
    temporary = atomic.make_folder(atomic.temporary_name(folder))
    count = 0
    try:
        with atomic.explained(folder):
            for part in parts:
                for pixels in part.transpose(0, 2, 3, 1):
                    Image.fromarray(pixels).save(temporary / f"{count:06d}.png")
                    count += 1
            temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return count
