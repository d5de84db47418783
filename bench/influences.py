"""What each image does to a metric, kept beside the record so that cells can be compared in pairs.

`results/<sweep>/influences/<key>.npz` holds the influences of a cell (`bench.metrics.measured`) by
metric. With them the error of the difference of two cells at equal seeds is that of the pairs,
often a small part of either error. They are outside git: a report without them is right, only less
sharp. No torch here.

    header   json: format, key, and for each metric {array, scale, value, n, reference_digest,
             extractor_digest}; the last four as in the record, which tell when it was made anew
    0, 1, …  influences over the scale (their root mean square) as float16 with 8 bits after the
             leading one, high bytes before low ones; a distance and its extrapolation share one

The last 32 bytes are the sha256 of all before them; numpy.load reads the file all the same.

Eight bits move an influence by at most 1/512 of itself, and the spread of a difference of two that
correlate at 0.999 by about 1/1000: far less than a standard error is known to. Bytes of one kind
side by side are what deflate needs to find that the others are zero: 50,000 images take about
70 kB a metric.
"""

import io
import json
import math
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import atomic
from bench.errors import ResultError
from bench.results import Result

FORMAT = 1
FOLDER = "influences"
RESOLUTION = 2.0**-9
"""How far an influence is kept, as a part of itself."""

_DIGEST_BYTES = 32
_BITS = 8
_TIES = ("value", "n", "reference_digest", "extractor_digest")


def path_of(folder: Path, key: str) -> Path:
    """Where the influences of cell `key` lie in the sweep's results folder."""
    return folder / FOLDER / f"{key}.npz"


def write(folder: Path, result: Result, influences: Mapping[str, NDArray[np.float64]]) -> None:
    """Writes the influences of a cell atomically, in place of those that are there.

    Args:
        folder: the sweep's results folder.
        result: the record of the cell, with an entry for each of the metrics.
        influences: metric -> (n,), finite.

    Raises:
        ResultError: The file cannot be written.
        ValueError: A number is not finite (a bug: failures are recorded as failures).
    """
    arrays: dict[str, NDArray[np.uint8]] = {}
    places: dict[int, str] = {}
    entries = {}
    for name, values in influences.items():
        scale = _scale(name, values)
        if id(values) not in places:
            places[id(values)] = str(len(arrays))
            arrays[str(len(arrays))] = _pack(values / scale)
        entries[name] = {"array": places[id(values)], "scale": scale, **_tie(result, name)}
    header = {"format": FORMAT, "key": result.key, "metrics": entries}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)  # type: ignore[arg-type]
    data = buffer.getvalue()
    path = path_of(folder, result.key)
    with atomic.explained(path.parent):
        path.parent.mkdir(exist_ok=True)  # a results folder that is gone stays gone
    atomic.write_bytes(path, data + sha256(data).digest())


def read(folder: Path, result: Result) -> dict[str, NDArray[np.float32]]:
    """The influences that belong to `result`, by metric; none where no file lies.

    A metric is left out if its entry in the record is not the one that its influences were written
    with: they would be those of another value.

    Raises:
        ResultError: The file is damaged, of another format, or cannot be read.
    """
    path = path_of(folder, result.key)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from error
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    remedy = "Remove the file: cells are then compared without pairs."
    if sha256(body).digest() != digest:
        raise ResultError(f"{path} is damaged or cut short ({len(data)} bytes). {remedy}")
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        header = json.loads(str(arrays["header"]))
        if header["format"] != FORMAT:
            raise ResultError(
                f"{path} has format {header['format']}; this version of bench reads format "
                f"{FORMAT}. {remedy}"
            )
        return {
            name: _unpack(arrays[entry["array"]]) * np.float32(entry["scale"])
            for name, entry in header["metrics"].items()
            if name in result.metrics and _tie(result, name) == {tie: entry[tie] for tie in _TIES}
        }


def paired_error(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """The standard error of the difference of two values, from influences at equal seeds.

    std(a - b) / √n: what both cells owe to the noise that they share falls away.

    >>> a = np.array([1.0, -1.0, 3.0, -3.0])
    >>> paired_error(a, a + np.array([0.5, -0.5, 0.5, -0.5]))
    0.25
    """
    difference = a.astype(np.float64) - b.astype(np.float64)
    return float(difference.std()) / math.sqrt(len(difference))


def _tie(result: Result, name: str) -> dict[str, Any]:
    return {tie: result.metrics[name].get(tie) for tie in _TIES}


def _scale(name: str, values: NDArray[np.float64]) -> float:
    """The root mean square, at most √n below the largest: no influence leaves float16."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: not every influence is finite")
    return float(np.sqrt(np.mean(np.square(values)))) or 1.0


def _pack(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(n,) -> (2, n): high and low bytes of float16 of which the last bits are zero."""
    mantissa, exponent = np.frexp(values)  # from 1/2 to 1: one bit more than after the leading one
    rounded = np.ldexp(np.round(np.ldexp(mantissa, _BITS + 1)), exponent - _BITS - 1)
    # Contiguous, or numpy would store the transposed array in the order of the one below it.
    return np.ascontiguousarray(rounded.astype(">f2").view(np.uint8).reshape(-1, 2).T)


def _unpack(planes: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(planes.T).view(">f2").ravel().astype(np.float32)
