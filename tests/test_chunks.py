import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import chunks
from bench.chunks import Chunk
from bench.errors import ResultError
from bench.metrics.facts import ImageFacts

STAMP: dict[str, Any] = {
    "key": "0123456789abcdef",
    "fingerprint": [0.5, -2.0],
    "model_digest": "aa",
    "numerics": {"device": "cpu", "dtype": "float32", "batch": 32, "threads": 1},
    "chunk": 64,
}


def a_chunk(*, with_images: bool = False) -> Chunk:
    features = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    images = np.random.default_rng(1).integers(0, 256, size=(64, 3, 4, 4), dtype=np.uint8)
    return Chunk(
        features={"tiny": features},
        extractors={"tiny": ["bb", "float32"]},
        facts=ImageFacts.of(torch.from_numpy(images)),
        images=images if with_images else None,
        calls=[10] * 64,
        seconds={"sampling": 1.5, "features": 0.5},
        peak_memory_mb=100.0,
    )


@pytest.mark.parametrize("with_images", [False, True])
def test_round_trip_and_ledger(tmp_path: Path, with_images: bool) -> None:
    assert chunks.read(tmp_path, 3, STAMP) is None
    chunks.write(tmp_path, 3, a_chunk(with_images=with_images), STAMP)
    read = chunks.read(tmp_path, 3, json.loads(json.dumps(STAMP)))
    assert read is not None
    assert read.features["tiny"].tobytes() == a_chunk().features["tiny"].tobytes()
    assert (read.calls, read.seconds) == ([10] * 64, {"sampling": 1.5, "features": 0.5})
    assert read.extractors == {"tiny": ["bb", "float32"]}
    assert read.facts.record() == a_chunk().facts.record()
    assert (read.images is None) == (not with_images)
    if read.images is not None:
        assert (read.images == a_chunk(with_images=True).images).all()
    assert chunks.finished(tmp_path) == 1
    (line,) = (tmp_path / chunks.LEDGER).read_text().splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["chunk"], entry["images"]) == ("computed", 3, 64)
    with np.load(chunks.path_of(tmp_path, 3)) as arrays:
        names = ["header", "image digests", *["images"] * with_images, "tiny"]
        assert sorted(arrays.files) == names, "people can read it with numpy alone"
    chunks.discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [chunks.LEDGER]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": [0.5, -2.000001]}, r"sampler arithmetic \(its fingerprint changed\)"),
        ({"model_digest": "cc"}, r"model digest \(aa; now cc\)"),
        ({"numerics": {"device": "cpu", "threads": 2}}, "numerics"),
        ({"chunk": 32}, r"chunk \(64; now 32\)"),
    ],
    ids=["fingerprint", "model", "numerics", "chunk size"],
)
def test_chunk_made_with_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    chunks.write(tmp_path, 0, a_chunk(), STAMP)
    with pytest.raises(ResultError, match=rf"chunk-00000.npz was made with another {named}"):
        chunks.read(tmp_path, 0, STAMP | change)


def test_fingerprints_of_two_machines_are_the_same(tmp_path: Path) -> None:
    chunks.write(tmp_path, 0, a_chunk(), STAMP)
    assert chunks.read(tmp_path, 0, STAMP | {"fingerprint": [0.5 + 1e-12, -2.0]}) is not None


def test_every_kind_of_damage_is_seen(tmp_path: Path) -> None:
    chunks.write(tmp_path, 0, a_chunk(), STAMP)
    path = chunks.path_of(tmp_path, 0)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    damaged = [whole[:length] for length in (0, 1, 31, 32, 500, len(whole) - 1)]
    for position in rng.integers(len(whole), size=200):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << int(rng.integers(8))
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(ResultError, match=r"is damaged or cut short"):
            chunks.read(tmp_path, 0, STAMP)


def test_full_disk_leaves_no_half_line_in_the_ledger(tmp_path: Path) -> None:
    """A real limit: the process may write 300 bytes to a file, which cuts the third line."""
    script = (
        "import resource, sys; from pathlib import Path; from bench import chunks\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "for chunk in range(9): chunks.note(Path(sys.argv[1]), 'computed', chunk=chunk)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert "ResultError" in run.stderr
    lines = (tmp_path / chunks.LEDGER).read_text().splitlines()
    assert [json.loads(line)["chunk"] for line in lines] == list(range(len(lines)))
    assert len(lines) == 2
