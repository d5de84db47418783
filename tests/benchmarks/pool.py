"""Features of many images of cifar10-mixture, made once for the scripts that resample them.

    python tests/benchmarks/pool.py --images 30000

A law that is the empirical one of a pool has known moments, and rows drawn from the pool with
replacement are independent draws from it: as many replicates as one likes, and no Gaussians. The
three pools share their noise image by image: exact draws, and ddim of 5 and of 10 steps. With two
cores 30,000 images of each take about six minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import models, sweep
from bench.metrics.extractor import cifar_features
from bench.numerics import pinned
from bench.sampling import Sampling

SWEEP = """\
model: cifar10-mixture
samples: 1000
seed: 77
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
  - sampler: ddim
    steps: {steps}
"""
STEPS = {"exact": 0, "ddim-5": 5, "ddim-10": 10}
PART, BATCH = 1000, 250


def folder() -> Path:
    """Where pools lie unless told otherwise."""
    return Path(os.environ.get("TMPDIR", tempfile.gettempdir())) / "bench-pool"


def load(where: Path, images: int, processes: int = 2) -> dict[str, NDArray[np.float32]]:
    """Features (images, 256) by the name of the sampler; what is missing is made."""
    where.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in STEPS:
        path = where / f"{name}.npy"
        if not path.exists() or len(np.load(path, mmap_mode="r")) < images:
            began = time.perf_counter()
            starts = range(0, images, PART)
            with get_context("spawn").Pool(processes) as pool:
                parts = pool.starmap(_part, [(name, start) for start in starts], chunksize=1)
            np.save(path, np.concatenate(parts)[:images])
            print(f"{images} images of {name}: {time.perf_counter() - began:.0f} s", flush=True)
        found[name] = np.load(path)[:images]
    return found


def _part(name: str, start: int) -> NDArray[np.float32]:
    # Exact draws are a cell of every sweep of a model that has them.
    cells = sweep.parse(SWEEP.format(steps=STEPS[name] or 5)).cells()
    (cell,) = (cell for cell in cells if (cell.sampler == sweep.EXACT) == (name == "exact"))
    with pinned(1), torch.no_grad():
        model = models.load(models.describe("cifar10-mixture"), "cpu")
        sampling = Sampling(cell, model, BATCH, "cpu")
        extractor = cifar_features()
        chunk = sampling.chunk(0, range(start, start + PART), {extractor.name: extractor})
    return np.asarray(chunk.features[extractor.name], dtype=np.float32)


def main() -> None:
    """Makes the pools that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, default=folder())
    parser.add_argument("--images", type=int, default=30_000)
    arguments = parser.parse_args()
    for name, features in load(arguments.pool, arguments.images).items():
        print(f"{name}: {features.shape} in {arguments.pool}")


if __name__ == "__main__":
    main()
