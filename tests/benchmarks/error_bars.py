"""Do standard errors say how far values spread? Predicted errors against replicates.

    python tests/benchmarks/error_bars.py [--quick] [--replicates 1000] [--pool FOLDER]

A replicate is a new set of images of one law; the reference stays. "Predicted / spread" is the root
mean square of the standard errors over the standard deviation of the values, with the Monte-Carlo
error of that quotient; "covered" is how often value ± 1.96 errors holds the mean of the values.

Demanded, up to two Monte-Carlo errors: where the distance is at least three times its floor (that
of exact draws, as many) and n / d >= 24, a quotient within 15 % of 1 and intervals that cover 92 to
98 %; elsewhere a quotient of at least 0.9. The same of the differences of two laws that are driven
by the same noise, by the influences subtracted image by image. Exit code 1 where it is not met.

The laws are Gaussian (d = 32, spectrum over two decades, mean and spread moved), and features of
images that a sampler made, see `pool.py`: 200 replicates of thousands of images would be days of
sampling, so a law is there the empirical one of 30,000 images, from which replicates are drawn with
replacement. Subsets of the kernel distance are of 200 images, so that 10,000 of them stand for the
50,000 of which subsets of 1,000 are drawn.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import numerics
from bench.metrics import classifier, frechet, kernel, manifold, reference
from bench.metrics.extractor import cifar_features
from bench.metrics.measured import Measured
from bench.metrics.moments import Moments
from tests.benchmarks import pool

Array = NDArray[np.float64]
Features = NDArray[np.float32]

D = 32
SPREAD = np.logspace(0, -1, D)
RATIOS = (5, 12, 24, 50, 100, 500)
"""n / d."""
LAWS = {
    "floor": (1, 0),
    "1.2": (1.2, 0),
    "2": (2, 0),
    "2'": (2, 1),
    "3.2": (3.2, 0),
    "3.2'": (3.2, 1),
    "12": (12, 0),
    "12'": (12, 1),
    "50": (50, 0),
}
"""Distance in floors, and in which of two directions the law is moved."""
PAIRS = [("floor", "1.2"), ("2", "2'"), ("3.2", "3.2'"), ("12", "12'"), ("3.2", "12")]
POOL_RATIOS = (5, 12, 24, 50)
POOL_PAIRS = [("exact", "ddim-10"), ("ddim-10", "ddim-5")]
OTHER_COUNTS = (500, 2000, 10_000)
OTHER_LAWS = {"floor": 0.0, "near": 0.1, "far": 0.4}
OTHER_PAIRS = [("floor", "near"), ("near", "far")]
SUBSET = 200
BATCH = 25
"""Replicates of a task."""


@dataclass
class Found:
    """Values and errors of replicates (R,), by (measure, law), and errors of the pairs."""

    values: dict[tuple[str, str], Array]
    errors: dict[tuple[str, str], Array]
    paired: dict[tuple[str, str, str], Array]

    @classmethod
    def joined(cls, parts: Iterable["Found"]) -> "Found":
        every = list(parts)
        return cls(
            *(
                {key: np.concatenate([getattr(part, name)[key] for part in every]) for key in first}
                for name, first in vars(every[0]).items()
            )
        )


def replicates(
    count: int, draw: Callable[[], dict[str, dict[str, Measured]]], pairs: list[tuple[str, str]]
) -> Found:
    """`count` of what `draw` gives: measured values by law and measure."""
    drawn = [draw() for _ in range(count)]
    laws, measures = list(drawn[0]), list(next(iter(drawn[0].values())))
    keys = [(measure, law) for measure in measures for law in laws]

    def paired(measure: str, a: str, b: str) -> Array:
        influences = [(one[a][measure].influence, one[b][measure].influence) for one in drawn]
        return np.array([np.std(x - y) / len(x) ** 0.5 for x, y in influences])

    return Found(
        {(m, law): np.array([one[law][m].value for one in drawn]) for m, law in keys},
        {(m, law): np.array([one[law][m].standard_error for one in drawn]) for m, law in keys},
        {(m, a, b): paired(m, a, b) for m in measures for a, b in pairs},
    )


def both(features: Features, moments: Moments) -> dict[str, Measured]:
    """Distance and extrapolated distance."""
    plain, extrapolated = frechet.measure(features, moments, extrapolate=True)
    assert extrapolated is not None
    return {"fd": plain, "fd_inf": extrapolated}


def gaussian_reference() -> Moments:
    """The law itself, not a sample of it."""
    return Moments(10**9, np.zeros(D), np.diag(SPREAD**2) * (10**9 - 1))


def moved(target: float, direction: int) -> tuple[Array, Array]:
    """Mean and standard deviations of a law at a distance: by both up to a point, then by mean."""
    rng = np.random.default_rng(direction)
    shift, stretch = rng.standard_normal(D) * SPREAD, rng.uniform(-0.6, 0.6, D)
    most = float(((SPREAD * stretch) ** 2).sum())
    by_spread = min(target / 2, most)
    shift *= ((target - by_spread) / (shift @ shift)) ** 0.5
    return shift, SPREAD * (1 + stretch * (by_spread / most) ** 0.5)


def gaussian(n: int, floor: float, seed: int, count: int, names: list[str]) -> Found:
    """Fréchet distances of moved Gaussians driven by the same noise."""
    rng, exact = np.random.default_rng([seed, n]), gaussian_reference()
    laws = {name: moved((LAWS[name][0] - 1) * floor, LAWS[name][1]) for name in names}

    def draw() -> dict[str, dict[str, Measured]]:
        z = rng.standard_normal((n, D), dtype=np.float32)
        return {
            name: both((z * spread + mean).astype(np.float32), exact)
            for name, (mean, spread) in laws.items()
        }

    return replicates(count, draw, [pair for pair in PAIRS if set(pair) <= set(names)])


@cache
def opened(where: Path, images: int) -> tuple[dict[str, Features], Moments]:
    """Pools, and the shipped reference."""
    shipped = reference.load("cifar10-mixture", cifar_features(), "fd_cifar")
    return pool.load(where, images), shipped.moments


def resampled(n: int, where: Path, images: int, seed: int, count: int) -> Found:
    """Fréchet distances of rows of the pools, the same rows of each."""
    rng, (pools, moments) = np.random.default_rng([seed, n]), opened(where, images)

    def draw() -> dict[str, dict[str, Measured]]:
        rows = rng.integers(images, size=n)
        return {name: both(features[rows], moments) for name, features in pools.items()}

    return replicates(count, draw, POOL_PAIRS)


def others(n: int, seed: int, count: int) -> Found:
    """The other measures of moved Gaussians."""
    fixed, rng = np.random.default_rng(3), np.random.default_rng([seed, n])
    y = (fixed.standard_normal((5000, D)) * SPREAD).astype(np.float32)
    head = (fixed.standard_normal((10, D)) / SPREAD / 2).astype(np.float32)
    near = y[:2000]
    radii = manifold.radii(near)
    laws = {name: moved(size, 0) for name, size in OTHER_LAWS.items()}

    def draw() -> dict[str, dict[str, Measured]]:
        z = rng.standard_normal((n, D), dtype=np.float32)
        found = {}
        for name, (mean, spread) in laws.items():
            x = (z * spread + mean).astype(np.float32)
            found[name] = {
                "kd": kernel.measure(x, y, size=SUBSET),
                "cs": classifier.measure(classifier.logits(x, head)),
            }
            if n <= 2000:
                found[name]["precision"] = manifold.precision(x, near, radii)
                found[name]["recall"] = manifold.recall(x, near)
        return found

    return replicates(count, draw, OTHER_PAIRS)


def run(task: tuple[Callable[..., Found], tuple[Any, ...]]) -> Found:
    """A task, on one thread: the processes share the cores."""
    function, arguments = task
    with numerics.pinned(1):
        return function(*arguments)


@dataclass
class Row:
    """A comparison of predicted errors with the spread of values."""

    quotient: float
    uncertainty: float
    covered: float
    replicates: int

    @classmethod
    def of(cls, values: Array, errors: Array) -> "Row":
        centred = values - values.mean()
        variance = float(centred.var(ddof=1))
        kurtosis = float((centred**4).mean()) / variance**2
        quotient = float((errors**2).mean() / variance) ** 0.5
        covered = float((np.abs(centred) <= 1.96 * errors).mean())
        uncertainty = quotient * ((kurtosis - 1) / (4 * len(values))) ** 0.5
        return cls(quotient, uncertainty, covered, len(values))

    def problem(self, *, strict: bool) -> str:
        """What is demanded and not met, or ""."""
        slack = 2 * self.uncertainty
        if self.quotient < 0.9 - slack:
            return "too small"
        if not strict:
            return ""
        if abs(self.quotient - 1) > 0.15 + slack:
            return "off by more than 15 %"
        slack = 2 * (0.95 * 0.05 / self.replicates) ** 0.5
        if not 0.92 - slack <= self.covered <= 0.98 + slack:
            return "does not cover 92 to 98 %"
        return ""

    def cells(self, *, strict: bool) -> str:
        """For a table."""
        mark = "" if not self.problem(strict=strict) else f" **{self.problem(strict=strict)}**"
        return f"{self.quotient:.2f} ± {self.uncertainty:.2f} | {self.covered:.1%}{mark}"


class Report:
    """Prints tables and remembers what fails."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.checks = 0

    def row(self, label: str, values: Array, errors: Array, *, strict: bool) -> str:
        row = Row.of(values, errors)
        self.checks += 1
        problem = row.problem(strict=strict)
        if problem:
            self.problems.append(f"{label}: {problem} ({row.cells(strict=False)})")
        return row.cells(strict=strict)

    def distances(self, found: Found, laws: list[str], floor: str, n: int, d: int) -> list[str]:
        """Of one n: which laws are at least three floors away."""
        base = found.values["fd", floor].mean()
        far = []
        for law in laws:
            floors = found.values["fd", law].mean() / base
            strict = floors >= 3 and n >= 24 * d
            if strict:
                far.append(law)
            cells = " | ".join(
                self.row(
                    f"n/d {n / d:.0f}, law {law}, {m}",
                    found.values[m, law],
                    found.errors[m, law],
                    strict=strict,
                )
                for m in ("fd", "fd_inf")
            )
            print(f"| {n / d:.0f} | {law} | {floors:.2f} | {'yes' if strict else ''} | {cells} |")
        return far

    def pairs(
        self, found: Found, pairs: list[tuple[str, str]], far: list[str], n: int, d: int
    ) -> None:
        """Of one n."""
        for a, b in pairs:
            strict = {a, b} <= set(far)
            cells = []
            for m in ("fd", "fd_inf"):
                difference = found.values[m, a] - found.values[m, b]
                label = f"n/d {n / d:.0f}, pair {a} - {b}, {m}"
                cells.append(self.row(label, difference, found.paired[m, a, b], strict=strict))
            sharper = found.errors["fd", a] ** 2 + found.errors["fd", b] ** 2
            gain = float((found.paired["fd", a, b] ** 2).mean() / sharper.mean()) ** 0.5
            marks = "yes" if strict else ""
            print(f"| {n / d:.0f} | {a} - {b} | {gain:.2f} | {marks} | {' | '.join(cells)} |")


SINGLE_HEAD = """
| n/d | law | distance / floor | strict | fd: predicted / spread | covered \
| fd_inf: predicted / spread | covered |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
PAIR_HEAD = """
| n/d | laws | error, paired / unpaired | strict | fd: predicted / spread | covered \
| fd_inf: predicted / spread | covered |
| --- | --- | --- | --- | --- | --- | --- | --- |"""
OTHER_HEAD = """
| measure | n | law | mean | predicted / spread | covered |
| --- | --- | --- | --- | --- | --- |"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes and replicates")
    parser.add_argument("--replicates", type=int, help="of the Gaussians: 1000, or 200 if quick")
    parser.add_argument("--pool", type=Path, default=pool.folder())
    parser.add_argument("--images", type=int, default=30_000, help="in a pool")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    count = options.replicates or (200 if options.quick else 1000)
    few = 100 if options.quick else max(200, count // 4)
    ratios = (5, 24, 100) if options.quick else RATIOS
    pool_ratios = () if options.quick else POOL_RATIOS
    counts = OTHER_COUNTS[:2] if options.quick else OTHER_COUNTS
    began, report = time.perf_counter(), Report()
    if pool_ratios:
        pool.load(options.pool, options.images, options.processes)
        print(f"(pools at hand after {time.perf_counter() - began:.0f} s)\n", flush=True)
    began = time.perf_counter()

    with get_context("spawn").Pool(options.processes) as workers:

        def spread(
            function: Callable[..., Found], *given: Any, count: int, more: Any = ()
        ) -> Found:
            tasks = [(function, (*given, i, BATCH, *more)) for i in range(-(-count // BATCH))]
            return Found.joined(workers.imap(run, tasks))

        print(f"### Fréchet distance of Gaussians, d = {D}, {count} replicates")
        pairs = []
        print(SINGLE_HEAD)
        for n in (ratio * D for ratio in ratios):
            first = spread(gaussian, n, 0.0, count=200, more=(["floor"],))
            floor = float(first.values["fd", "floor"].mean())
            found = spread(gaussian, n, floor, count=count, more=(list(LAWS),))
            pairs.append((found, report.distances(found, list(LAWS), "floor", n, D), n))
            sys.stdout.flush()
        print(f"\n### Paired differences of Gaussians, d = {D}, {count} replicates\n{PAIR_HEAD}")
        for found, far, n in pairs:
            report.pairs(found, PAIRS, far, n, D)

        pairs.clear()
        if pool_ratios:
            print(f"\n### fd_cifar of cifar10-mixture, d = 256, {few} replicates from pools of "
                  f"{options.images}\n{SINGLE_HEAD}")  # fmt: skip
        for n in (ratio * 256 for ratio in pool_ratios):
            found = spread(resampled, n, options.pool, options.images, count=few)
            pairs.append((found, report.distances(found, list(pool.STEPS), "exact", n, 256), n))
            sys.stdout.flush()
        if pool_ratios:
            print(f"\n### Paired differences in fd_cifar, {few} replicates\n{PAIR_HEAD}")
        for found, far, n in pairs:
            report.pairs(found, POOL_PAIRS, far, n, 256)

        print(f"\n### Other measures of Gaussians, d = {D}, {few} replicates\n{OTHER_HEAD}")
        by_count = [(n, spread(others, n, count=few)) for n in counts]
        for measure in ("kd", "cs", "precision", "recall"):
            for n, found in by_count:
                if (measure, "floor") not in found.values:
                    continue
                singles = [(law, found.values[measure, law], found.errors[measure, law])
                           for law in OTHER_LAWS]  # fmt: skip
                doubles = [
                    (f"{a} - {b}", found.values[measure, a] - found.values[measure, b],
                     found.paired[measure, a, b])
                    for a, b in OTHER_PAIRS
                ]  # fmt: skip
                for law, values, errors in singles + doubles:
                    strict = measure != "recall" and "floor" not in law and "near" not in law
                    cells = report.row(f"{measure}, n {n}, {law}", values, errors, strict=strict)
                    print(f"| {measure} | {n} | {law} | {values.mean():.4g} | {cells} |")
    print(f"\n{report.checks} checks, {len(report.problems)} not met, "
          f"{time.perf_counter() - began:.0f} s on {options.processes} processes")  # fmt: skip
    for problem in report.problems:
        print(f"not met: {problem}")
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
