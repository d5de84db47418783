"""Calls per second of the shipped mixture, in float32: python tests/benchmarks/mixture_speed.py.

A call is one image denoised once. Prints calls per second by number of threads, batch size and
noise level (no level may be much slower: subnormal responsibilities once made low noise four times
as slow), then the seconds of 10 calls on each of 10,000 images, which should be at most 10.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
import bench
from bench.diffusion.schedule import Point, make_schedule
from bench.models.mixture import Mixture

BATCHES = (32, 64, 125, 250, 500, 1000)
INDICES = (999, 800, 500, 200, 50, 0)
IMAGES, CALLS = 10_000, 10


def best(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest run: the one least disturbed by whatever else the machine does."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    """Measures with one thread and with two."""
    model = Mixture.load(Path(bench.__file__).parent / "assets" / "cifar10-mixture.safetensors")
    schedule = make_schedule("vp-linear")
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(max(BATCHES), *model.shape, generator=generator)
    data = model.draw(z, torch.rand(len(z), generator=generator))
    noise = torch.randn(data.shape, generator=generator)
    points = [schedule.at(t=float(t)) for t in INDICES]
    states = [p.alpha * data + p.sigma * noise for p in points]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s): thousand calls/s at index {INDICES} of vp-linear")
        for batch in BATCHES:
            rates = []
            for x, point in zip(states, points, strict=True):
                part = x[:batch]
                times = max(1, 500 // batch)

                def work(part: torch.Tensor = part, at: Point = point, times: int = times) -> None:
                    for _ in range(times):
                        model.denoise(part, at.alpha, at.sigma)

                rates.append(times * batch / best(work, 5) / 1000)
            print(f"  batch {batch:4d}: " + " ".join(f"{rate:6.1f}" for rate in rates))

    grid = [schedule.at(t=float(t)) for t in range(999, -1, -1000 // CALLS)]

    def target() -> None:
        for _ in range(IMAGES // 250):
            for point in grid:
                model.denoise(noise[:250], point.alpha, point.sigma)

    print(f"\n{IMAGES} images x {CALLS} calls, 2 threads, batch 250: {best(target, 2):.1f} s")


if __name__ == "__main__":
    main()
