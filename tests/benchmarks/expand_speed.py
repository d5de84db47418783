"""Seconds that 10,000 cells take to expand once torch is imported.

python tests/benchmarks/expand_speed.py
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import sweep

TEXT = """\
model: cifar10-mixture
samples: 5000
seed: [{seeds}]
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
  - sampler: ddim
    eta: [0, 0.2, 0.5, 1, sigma-hat]
    spacing: [uniform, quadratic]
    steps: [5, 10, 20, 50, 100, 200, 500, 1000]
  - sampler: dpm-solver++
    order: [1, 2]
    spacing: [logsnr, trailing]
    nfe: [5, 10, 20, 50, 100]
"""


def main() -> None:
    """Expands once, cold, and prints the seconds that passed and those that were spent here."""
    text = TEXT.format(seeds=", ".join(str(seed) for seed in range(100)))
    start, busy = time.perf_counter(), time.process_time()
    cells = sweep.parse(text).cells()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{len(cells)} cells in {seconds:.2f} s ({busy:.2f} s of this process)")


if __name__ == "__main__":
    main()
