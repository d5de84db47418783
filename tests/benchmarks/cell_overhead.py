"""Milliseconds that a cell costs beside its sampling, features and scoring, in one worker.

python tests/benchmarks/cell_overhead.py [CELLS] [--profile]

Tiny cells, one after another as in a packed job: what is left when the seconds in their records
are taken off is for claims, fingerprints, files and looking at what others did.
"""

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import torch

from bench import atomic, launch, results
from bench.worker import worker
from tests import fakes


def main(count: int, profile: bool) -> None:
    """Runs the cells once, then lets a worker and a run look at them when all is done."""
    torch.set_num_threads(1)
    fakes.register()
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).absolute()
        seeds = ", ".join(str(seed) for seed in range(count))
        # Twice as many cells: every model with exact draws gets one for each seed.
        grid = "[{sampler: ddim, steps: 2}]"
        sweep = fakes.make_sweep(folder, grid=grid, seeds=seeds, samples=32, batch=32, chunk=32)
        results.write_plan(atomic.make_folder(folder / "r"), sweep.plan())
        profiler = cProfile.Profile()
        began, busy = time.perf_counter(), time.process_time()
        if profile:
            profiler.enable()
        computed = worker(folder / "r")
        profiler.disable()
        took, busy = time.perf_counter() - began, time.process_time() - busy
        own = sum(result.seconds["total"] for result in results.read_all(folder / "r").values())
        print(
            f"{computed} cells in {took:.1f} s: {1000 * own / computed:.1f} ms of its own and "
            f"{1000 * (took - own) / computed:.1f} ms of overhead a cell "
            f"({1000 * busy / computed:.1f} ms of this process in all)"
        )
        for what, again in (("worker", worker), ("run", lambda _: launch.run(sweep, folder / "r"))):
            began = time.perf_counter()
            again(folder / "r")
            took = time.perf_counter() - began
            print(f"a {what} over done cells: {1000 * took / computed:.2f} ms a cell")
        if profile:
            pstats.Stats(profiler).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdecimal()]
    main(numbers[0] if numbers else 500, "--profile" in sys.argv)
