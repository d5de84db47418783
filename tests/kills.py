"""Runs a small sweep again and again under random SIGKILLs, and reports what it saw as JSON.

    python -m tests.kills FOLDER KILLS SEED

A process of its own, so that it can fork: a child starts in milliseconds, with everything loaded,
and is killed after a random time. When a child gets to the end, a new folder is begun. Start it
with OMP_NUM_THREADS=1.
"""

import io
import json
import os
import random
import signal
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import atomic, chunks, launch, results
from bench.sweep import Sweep
from tests import fakes


def run_in_child(sweep: Sweep, folder: Path, kill_after: float | None) -> bool:
    """Whether a child that runs the sweep got to its end before it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if launch.run(sweep, folder).complete else 2
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the run failed with status {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def torn(folder: Path) -> list[str]:
    """Files under `folder` that are not whole; temporary ones do not count."""
    found = []
    for path in folder.rglob("*"):
        if path.name.endswith(atomic.SUFFIX) or path.is_dir():
            continue
        data = path.read_bytes()
        try:
            if path.suffix == ".json" or path.name == "claim":
                json.loads(data)
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in data.splitlines()]
            elif path.suffix == ".npy":
                np.load(io.BytesIO(data))
            elif sha256(data[:-32]).digest() != data[-32:]:
                found.append(str(path))
        except ValueError:
            found.append(str(path))
    return found


def scores(folder: Path) -> dict[str, str]:
    """The metrics of every record, as text: bytes are compared, not numbers."""
    return {key: json.dumps(result.metrics) for key, result in results.read_all(folder).items()}


def computed_twice(folder: Path) -> list[str]:
    """Chunks that stand more than once in the ledgers."""
    seen: set[tuple[str, int]] = set()
    twice = []
    for path in folder.glob(f"work/*/{chunks.LEDGER}"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            chunk = (path.parent.name, entry["chunk"])
            if entry["event"] != "computed" or chunk in seen:
                twice.append(f"{chunk}: {line}")
            seen.add(chunk)
    return twice


def leftovers(folder: Path) -> list[str]:
    """What a finished sweep should not keep."""
    patterns = (f"**/.*{atomic.SUFFIX}", "work/*/claim*", "work/*/chunk-*")
    return [str(path) for pattern in patterns for path in folder.glob(pattern)]


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """The report of `kills` kills."""
    torch.set_num_threads(1)  # a thread pool does not survive a fork, and a child would hang
    fakes.register()
    sweep = fakes.make_sweep(folder)
    began = time.monotonic()
    assert run_in_child(sweep, folder / "undisturbed", None)
    undisturbed = time.monotonic() - began
    expected = scores(folder / "undisturbed")
    chance = random.Random(seed)
    report: dict[str, Any] = {"kills": 0, "sweeps": 0, "torn": [], "twice": [], "left": []}
    report |= {"cells": len(expected), "different": []}
    while report["kills"] < kills:
        report["sweeps"] += 1
        disturbed = folder / f"disturbed-{report['sweeps']}"
        while not run_in_child(sweep, disturbed, chance.uniform(0, undisturbed / 3)):
            report["kills"] += 1
            report["torn"] += torn(disturbed)
            if report["kills"] == kills:
                run_in_child(sweep, disturbed, None)
                break
        run_in_child(sweep, disturbed, None)  # computes nothing, and cleans up
        report["twice"] += computed_twice(disturbed)
        report["left"] += leftovers(disturbed)
        found = scores(disturbed)
        report["different"] += [key for key in expected if found.get(key) != expected[key]]
    return report


if __name__ == "__main__":
    report = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write(json.dumps(report))
