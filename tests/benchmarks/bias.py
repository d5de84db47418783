"""The bias of a Fréchet distance of n images, and what extrapolating leaves of it.

    python tests/benchmarks/bias.py [--quick] [--pool FOLDER]

Columns: the mean over replicates of the plain distance less the true one; the same of the
extrapolated one as `fd_inf` is (2 d²(n) - mean d²(n/2), two halves), and of the fit of Chong and
Forsyth (arXiv:1911.07023: a line in 1/n through distances of 15 random subsets of n/10 to n
images), each with its Monte-Carlo error; then their standard deviations over replicates, and root
mean square errors. All from the same images.

The truth is known twice: for Gaussians in closed form; and where the law is the empirical one of
30,000 images in fd_cifar features (`pool.py`), whose moments are those of the pool and from which
replicates are drawn with replacement. The reference is in both cases as it is: what the 50,000
images of the shipped one add to a distance, extrapolating over samples neither sees nor removes.
Of exact draws the truth is therefore not 0, but the distance of the pool's law to that reference.

Exit code 1 where the two halves are worse than the fit: a root mean square error more than a tenth
above it, by more than the Monte-Carlo error. (Bias alone would not do: that of the fit changes its
sign between n / d = 2 and 5.)
"""

import argparse
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import numerics
from bench.metrics import frechet
from bench.metrics.frechet import frechet_distance
from bench.metrics.moments import Moments
from tests.benchmarks import pool
from tests.benchmarks.error_bars import SPREAD, D, gaussian_reference, moved, opened

Array = NDArray[np.float64]
Features = NDArray[np.float32]

SUBSETS = 15
BATCH = 25
RATIOS = (2, 5, 12, 24, 50, 100, 500)
POOL_RATIOS = (2, 5, 12, 24)
DISTANCES = {"floor": 0.0, "near": 0.05, "far": 1.0}
"""True distances of the Gaussians; their reference has a trace of 6.8."""


def fitted(x: Features, moments: Moments, rng: np.random.Generator) -> float:
    """The intercept of a line in 1/n through the distances of random subsets."""
    n = len(x)
    counts = np.linspace(max(n // 10, 2), n, SUBSETS).astype(int)
    values = [
        frechet_distance(Moments.from_features(x[rng.choice(n, count, replace=False)]), moments)
        for count in counts
    ]
    return float(np.polynomial.polynomial.polyfit(1 / counts, values, 1)[0])


def estimates(x: Features, moments: Moments, rng: np.random.Generator) -> tuple[float, ...]:
    """Plain, by halves, by the fit."""
    plain, halves = frechet.measure(x, moments, extrapolate=True)
    assert halves is not None
    return plain.value, halves.value, fitted(x, moments, rng)


def gaussian(n: int, law: str, seed: int) -> Array:
    """Estimates (BATCH, 3) less the truth."""
    rng, exact = np.random.default_rng([seed, n]), gaussian_reference()
    mean, spread = moved(DISTANCES[law], 0)
    truth = float(mean @ mean + ((spread - SPREAD) ** 2).sum())

    def draw() -> Features:
        return (rng.standard_normal((n, D)) * spread + mean).astype(np.float32)

    with numerics.pinned(1):
        return np.array([estimates(draw(), exact, rng) for _ in range(BATCH)]) - truth


def resampled(n: int, law: str, seed: int, where: Path, images: int) -> Array:
    """Estimates (BATCH, 3) less the truth."""
    with numerics.pinned(1):
        rng, (pools, moments) = np.random.default_rng([seed, n]), opened(where, images)
        x = pools[law]
        every = Moments.from_features(x)
        # Of the law, whose covariance is divided by n.
        law_itself = Moments(images, every.mean, every.scatter * ((images - 1) / images))
        truth = frechet_distance(law_itself, moments)
        found = [estimates(x[rng.integers(images, size=n)], moments, rng) for _ in range(BATCH)]
        return np.array(found) - truth


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and replicates")
    parser.add_argument("--replicates", type=int, help="of the Gaussians: 500, or 100 if quick")
    parser.add_argument("--pool", type=Path, default=pool.folder())
    parser.add_argument("--images", type=int, default=30_000, help="in a pool")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    count = options.replicates or (100 if options.quick else 500)
    few = max(BATCH, count // 5)
    began, failed = time.perf_counter(), []

    with get_context("spawn").Pool(options.processes) as workers:

        def table(
            title: str, d: int, sizes: tuple[int, ...], laws: list[str], times: int,
            function: Callable[..., Array], *more: object,
        ) -> None:  # fmt: skip
            print(f"\n### {title}, d = {d}, {times} replicates\n")
            print("| law | n/d | bias: plain | halves | fit of 15 | sd: plain | halves | fit of 15 "
                  "| rms error: plain | halves | fit of 15 |")  # fmt: skip
            print("|" + " --- |" * 11)
            for law in laws:
                for size in sizes:
                    tasks = [(size * d, law, seed, *more) for seed in range(-(-times // BATCH))]
                    errors = np.concatenate(workers.starmap(function, tasks, chunksize=1))
                    bias, sd = errors.mean(axis=0), errors.std(axis=0, ddof=1)
                    mc = sd / len(errors) ** 0.5
                    rms = np.sqrt((errors**2).mean(axis=0))
                    cells = [f"{b:+.4f} ± {e:.4f}" for b, e in zip(bias, mc, strict=True)]
                    cells += [f"{value:.4f}" for value in (*sd, *rms)]
                    print(f"| {law} | {size} | " + " | ".join(cells) + " |", flush=True)
                    label = f"{title}, {law}, n/d {size}"
                    if rms[1] > rms[2] * (1.1 + 2 / len(errors) ** 0.5):
                        failed.append(f"{label}: rms {rms[1]:.4f}, of the fit {rms[2]:.4f}")

        sizes = (5, 24, 100) if options.quick else RATIOS
        table("Gaussians", D, sizes, list(DISTANCES), count, gaussian)
        if not options.quick:
            given = options.pool, options.images
            pool.load(*given, options.processes)
            laws = list(pool.STEPS)
            table("fd_cifar of cifar10-mixture", 256, POOL_RATIOS, laws, few, resampled, *given)
    print(f"\n{time.perf_counter() - began:.0f} s on {options.processes} processes")
    for problem in failed:
        print(f"not met: {problem}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
