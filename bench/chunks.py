"""Chunks: the unit in which a cell is generated, resumed and split over jobs.

`results/<sweep>/work/<key>/` holds, while a cell is under way,

    chunk-00000.npz   features of its images by extractor, digests of the images, the images
                      themselves where the sweep keeps them, and a header (json): what it was made
                      with (the stamp), its extractors, model calls, facts about the images,
                      seconds, peak memory. The last 32 bytes are the sha256 of all before them;
                      numpy.load reads the file all the same.
    samples.npy       the first images of the cell, uint8 (N, C, H, W); stays for the report
    ledger.jsonl      a line for every chunk computed or refused, for people and tests; stays
    claim             who works on the cell (bench.claim)
    claim-<slice>     who works on a slice of it, where several jobs share a cell
    batch             a smaller batch than the sweep's, where that did not fit into memory; stays

A chunk is used again only if its stamp is that of the run at hand: same cell, fingerprint, model
and numerics. Any other chunk is refused with the reason, and computed again. Features that it
lacks are computed from its images, if it has them.

Where a sweep says `keep: features` or `keep: images`, the chunks of a cell move to
`results/<sweep>/kept/<key>/` when it has its record: metrics that are asked for later need no
sampling then.
"""

import errno
import io
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bench import atomic
from bench.errors import ResultError
from bench.metrics.facts import ImageFacts
from bench.results import same_fingerprint

FORMAT = 2
BATCH = "batch"
LEDGER = "ledger.jsonl"
SAMPLES = "samples.npy"

_DIGEST_BYTES = 32
_DIGESTS, _IMAGES = "image digests", "images"
"""Names of arrays; no extractor has them."""

Identity = list[str]
"""Of an extractor: digest and numerics, on which its features depend."""


@dataclass(frozen=True)
class Chunk:
    """Features of consecutive samples of a cell, and what they cost.

    Attributes:
        features: extractor name -> float32 (n, d).
        extractors: extractor name -> which one it was.
        facts: about the images.
        images: uint8 (n, C, H, W), or None where they are not kept.
        calls: model calls of each image.
        seconds: {"sampling", "features"}.
        peak_memory_mb: of the process or the GPU's allocator until then.
    """

    features: Mapping[str, NDArray[np.float32]]
    extractors: Mapping[str, Identity]
    facts: ImageFacts
    images: NDArray[np.uint8] | None
    calls: list[int]
    seconds: dict[str, float]
    peak_memory_mb: float


def folder_of(results: Path, key: str) -> Path:
    """The work folder of cell `key` in the sweep's results folder."""
    return results / "work" / key


def kept_of(results: Path, key: str) -> Path:
    """Where the chunks of cell `key` lie that are kept beside its record."""
    return results / "kept" / key


def path_of(folder: Path, index: int) -> Path:
    """The file of chunk `index` in a folder of chunks."""
    return folder / f"chunk-{index:05d}.npz"


def slice_claim(index: int | str) -> str:
    """Name of the claim on slice `index` of a cell in its work folder."""
    return f"claim-{index}"


def finished(folder: Path) -> int:
    """How many chunks of a cell lie in its work folder."""
    return sum(1 for _ in folder.glob("chunk-*.npz"))


def write(folder: Path, index: int, chunk: Chunk, stamp: Mapping[str, Any]) -> None:
    """Writes chunk `index` atomically and notes it in the ledger.

    Args:
        folder: the cell's work folder.
        index: number of the chunk.
        chunk: what to write.
        stamp: what determines the bytes, as JSON values; compared by `read`.

    Raises:
        ResultError: It cannot be written.
    """
    facts = chunk.facts
    header = {"format": FORMAT, "stamp": stamp, "extractors": chunk.extractors}
    header |= {"calls": chunk.calls, "seconds": chunk.seconds}
    header |= {"peak_memory_mb": chunk.peak_memory_mb}
    header |= {name: getattr(facts, name) for name in _FACTS}
    arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), _DIGESTS: facts.digests}
    if chunk.images is not None:
        arrays[_IMAGES] = chunk.images
    buffer = io.BytesIO()
    np.savez(buffer, **arrays | dict(chunk.features))
    data = buffer.getvalue()
    atomic.write_bytes(path_of(folder, index), data + sha256(data).digest())
    images = len(next(iter(chunk.features.values())))
    note(folder, "computed", chunk=index, images=images, seconds=sum(chunk.seconds.values()))


def read(folder: Path, index: int, stamp: Mapping[str, Any]) -> Chunk | None:
    """Chunk `index`, or None if it was not computed yet.

    Raises:
        ResultError: It is damaged, or was made with something else; the message says with what.
    """
    path = path_of(folder, index)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from error
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if sha256(body).digest() != digest:
        raise ResultError(f"{path} is damaged or cut short ({len(data)} bytes).")
    with np.load(io.BytesIO(body)) as arrays:
        header = json.loads(str(arrays["header"]))
        if header["format"] != FORMAT:
            raise ResultError(f"{path} has format {header['format']}; expected {FORMAT}.")
        if difference := _difference(header["stamp"], stamp):
            raise ResultError(f"{path} was made with another {difference}.")
        return Chunk(
            features={name: arrays[name] for name in header["extractors"]},
            extractors=header["extractors"],
            facts=ImageFacts(**{name: header[name] for name in _FACTS}, digests=arrays[_DIGESTS]),
            images=arrays.get(_IMAGES),
            calls=header["calls"],
            seconds=header["seconds"],
            peak_memory_mb=header["peak_memory_mb"],
        )


def peek(
    folder: Path, index: int, stamp: Mapping[str, Any]
) -> tuple[Mapping[str, Identity], bool] | None:
    """The extractors of chunk `index` and whether it has images, by its header alone.

    None if it is not there, cut short, or was made with something else. Other damage is for `read`
    to find: this is cheap, and says whether there is work left.
    """
    try:
        with path_of(folder, index).open("rb") as file, np.load(file) as arrays:
            header = json.loads(str(arrays["header"]))
            if header["format"] != FORMAT or _difference(header["stamp"], stamp):
                return None
            return header["extractors"], _IMAGES in arrays.files
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        return None


_FACTS = ("near_constant", "saturated", "bytes")


def batch_of(results: Path, key: str, asked: int) -> int:
    """Images per model call of cell `key`: as asked, or less where that did not fit into memory."""
    for folder in (folder_of(results, key), kept_of(results, key)):
        try:
            noted = json.loads((folder / BATCH).read_text())
            if noted["asked"] == asked:
                return int(noted["batch"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return asked


def note_batch(folder: Path, batch: int, asked: int) -> None:
    """Has the cell go on with batches of `batch` images, where the sweep asks for `asked`.

    Raises:
        ResultError: It cannot be written.
    """
    atomic.write_bytes(folder / BATCH, json.dumps({"batch": batch, "asked": asked}).encode())


def discard(folder: Path) -> None:
    """Removes the chunks of a cell that has its record, and claims on slices of it.

    The other files stay. Who still holds such a claim, after a long pause, stops by itself.
    """
    for pattern in ("chunk-*.npz", slice_claim("*")):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def keep(folder: Path, kept: Path) -> None:
    """Moves the chunks of a cell that has its record to where they are kept.

    Raises:
        ResultError: The folder cannot be made or written.
    """
    for path in sorted(folder.glob("chunk-*.npz")):
        with atomic.explained(kept / path.name):
            kept.mkdir(parents=True, exist_ok=True)
            path.replace(kept / path.name)
    if (folder / BATCH).exists():  # what they were made with, should the work folder go
        atomic.write_bytes(kept / BATCH, (folder / BATCH).read_bytes())


def write_samples(folder: Path, images: NDArray[np.uint8]) -> None:
    """Keeps the first images of a cell for the report."""
    buffer = io.BytesIO()
    np.save(buffer, images)
    atomic.write_bytes(folder / SAMPLES, buffer.getvalue())


def note(folder: Path, event: str, **facts: Any) -> None:
    """Appends a line to the ledger: event, facts, time, host and process.

    Raises:
        ResultError: It cannot be written.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"event": event, **facts, "time": time, "host": socket.gethostname()}
    line = (json.dumps(entry | {"pid": os.getpid()}) + "\n").encode()
    path = folder / LEDGER
    with atomic.explained(path), path.open("ab", buffering=0) as file:
        size = file.tell()
        if file.write(line) != len(line):  # the disk is full: no half line may stay
            file.truncate(size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def computed(results: Path, keys: Iterable[str] | None) -> int:
    """How many chunks were ever computed for these cells (all by default), by their ledgers."""
    found = (results / "work").iterdir() if keys is None else (folder_of(results, k) for k in keys)
    ledgers = [folder / LEDGER for folder in found if (folder / LEDGER).exists()]
    return sum(path.read_text().count('"event": "computed"') for path in ledgers)


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Names the first thing in which two stamps differ, with both values where they are short."""
    for name, value in expected.items():
        was = found.get(name)
        if name == "fingerprint" and was is not None:
            if not same_fingerprint(was, value):
                return "sampler arithmetic (its fingerprint changed)"
        elif was != value:
            return f"{name.replace('_', ' ')} ({was}; now {value})"
    return ""
