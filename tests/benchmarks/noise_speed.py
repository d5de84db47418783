"""Noise against a call of the cheapest model of the quickstart, side by side in one process.

    python tests/benchmarks/noise_speed.py [--threads 2] [--batch 500] [--rounds 15]

Promise: the noise of a step costs no more than the model call it stands beside. The two take
turns, and what counts is the median of their ratios: on a busy machine both suffer alike. Exit
code 1 if the promise is broken.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from bench import models
from bench.diffusion.noise import normal


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = models.load(models.describe("cifar10-mixture"), "cpu")
    samples = range(options.batch)
    x = normal(0, samples, 0, model.shape)
    point = model.schedule.at(t=500.0)

    def noise() -> object:
        return normal(0, samples, 1, model.shape)

    def call() -> object:
        return model.pair(x, point)

    noise(), call()
    rounds = [(seconds(noise), seconds(call)) for _ in range(options.rounds)]
    ratio = statistics.median(one / other for one, other in rounds)
    for name, column in [("noise", 0), ("model call", 1)]:
        each = statistics.median(r[column] for r in rounds) / options.batch * 1e6
        print(f"{name:>10}: {each:7.1f} us an image, batch {options.batch}")
    print(f"     ratio: {ratio:7.2f}, {options.threads} thread(s); promised: at most 1")
    return int(ratio > 1)


if __name__ == "__main__":
    sys.exit(main())
