"""What scoring costs and how right it is, beside torchmetrics and torch-fidelity, at 2048 features.

    python tests/benchmarks/scoring_speed.py [--images 50000] [--rounds 5] [--threads 2] [--part P]

Demanded: the Fréchet distance from moments in at most 60 % of the time of torchmetrics' `compute()`
(median of the ratios of rounds that take turns), to 1e-9 of a result by singular values; everything
but precision and recall of 50,000 images, errors and influences included, in under 30 s and 3 GB
beyond the features. Exit code 1 where it is not met. Features are synthetic and look like
Inception's; the time does not depend on them.
"""

import argparse
import copy
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.metrics import classifier, frechet, kernel
from bench.metrics.frechet import frechet_distance
from bench.metrics.measures import measure
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference
from bench.numerics import pinned
from tests.metrics.laws import inception_like

D, CLASSES, BLOCK = 2048, 1008, 5000
Features = NDArray[np.float32]
Array = NDArray[np.float64]


class AsTheyAre(torch.nn.Module):
    """In place of their network: features come as images."""

    num_features = D

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def features(n: int, seed: int, shift: float = 0.0) -> Features:
    """In blocks, since making them takes several times their memory."""
    found = np.empty((n, D), dtype=np.float32)
    for start in range(0, n, BLOCK):
        part = found[start : start + BLOCK]
        part[:] = inception_like(len(part), D, 1000 * seed + start // BLOCK, shift)
    return found


def moments(x: Features) -> Moments:
    """In blocks."""
    return Moments.merged(
        Moments.from_features(x[start : start + BLOCK]) for start in range(0, len(x), BLOCK)
    )


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Of one call: those that passed, and busy ones of this process, all cores together."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - busy


def of_reference(y: Features) -> FrechetInceptionDistance:
    """torchmetrics, with the reference in it."""
    metric = FrechetInceptionDistance(feature=AsTheyAre()).set_dtype(torch.float64)
    return fed(metric, y, real=True)


def fed(metric: FrechetInceptionDistance, x: Features, *, real: bool) -> FrechetInceptionDistance:
    """The metric, with more in it."""
    for start in range(0, len(x), BLOCK):
        metric.update(torch.from_numpy(x[start : start + BLOCK]).double(), real=real)
    return metric


def triangle(x: Features) -> Array:
    """R of shape (d, d) with RᵀR = covariance, without squaring anything."""
    mean = x.mean(axis=0, dtype=np.float64)
    found = np.zeros((0, D))
    for start in range(0, len(x), BLOCK):
        rows = x[start : start + BLOCK] - mean
        found = np.linalg.qr(np.concatenate([found, rows]), mode="r")
    return np.asarray(found / (len(x) - 1) ** 0.5)


def by_singular_values(a: Array, b: Array, delta: Array) -> float:
    """The distance from triangles: its trace is their product's nuclear norm, right to 1e-13."""
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(delta @ delta + (a**2).sum() + (b**2).sum() - 2 * trace)


def again(one: Moments) -> Moments:
    """Without what it has computed so far."""
    return Moments(one.count, one.mean, one.scatter)


class PeakMemory:
    """The most memory of this process beyond what it had at first, in GB, every 5 ms."""

    def __enter__(self) -> "PeakMemory":
        self._stop, self.first = threading.Event(), self._now()
        self.most = self.first
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def beyond(self) -> float:
        return (self.most - self.first) / 1e9

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, self._now())

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=["scoring", "distance", "both"], default="both")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="torchmetrics")
    torch.set_num_threads(options.threads)
    with pinned(options.threads):
        return run(options.images, options.rounds, options.threads, options.part)


def run(n: int, rounds: int, threads: int, part: str) -> int:
    """All tables; 1 where something demanded is not met."""
    x, y = features(n, 1, shift=0.1), features(n, 2)
    reference = Reference("synthetic", moments(y), {}, "", y)
    _ = reference.moments.factor
    samples, failed = moments(x), []
    if part != "distance":
        failed += scoring(x, samples, reference, threads)
    if part != "scoring":
        failed += distance(x, samples, reference.moments, y, rounds, threads)
    for problem in failed:
        print(f"not met: {problem}")
    return int(bool(failed))


def scoring(x: Features, samples: Moments, reference: Reference, threads: int) -> list[str]:
    """Prints what each part costs; what is not met."""
    y = reference.features
    assert y is not None
    head = np.random.default_rng(0).standard_normal((CLASSES, D)).astype(np.float32) / D**0.5
    print(f"### Scoring {len(x)} images at {D} features, {threads} thread(s)\n")
    print("| part | seconds | busy seconds of a core | GB beyond the features |")
    print("| --- | --- | --- | --- |")
    asked = ("fd", "fd_inf", "kd", "cs")
    parts: list[tuple[str, Callable[[], object]]] = [
        ("moments", lambda: moments(x)),
        ("a distance", lambda: frechet_distance(samples, reference.moments)),
        ("influences on it", lambda: frechet.influences(x, samples, reference.moments)),
        ("fd and fd_inf", lambda: frechet.measure(x, reference.moments, extrapolate=True)),
        ("kd", lambda: kernel.measure(x, y)),
        ("cs", lambda: classifier.measure(classifier.logits(x, head))),
        ("all in one call", lambda: measure(asked, x, reference, head)),
    ]
    for name, work in parts:
        with PeakMemory() as memory:
            took, busy = seconds(work)
        print(f"| {name} | {took:.1f} | {busy:.1f} | {memory.beyond:.2f} |", flush=True)
    met = took <= 30 and memory.beyond <= 3
    return [] if met else [f"scoring took {took:.1f} s and {memory.beyond:.2f} GB"]


def distance(
    x: Features, samples: Moments, reference: Moments, y: Features, rounds: int, threads: int
) -> list[str]:
    """Prints accuracy and time beside the other tools; what is not met."""
    failed = []
    few = x[:1500]
    cases = [("full rank", x, samples), ("rank-deficient, n = 1500", few, moments(few))]
    print(f"\n### Accuracy at {D} features: relative error against singular values\n")
    print("| case | distance | bench | torchmetrics | torch-fidelity |")
    print("| --- | --- | --- | --- | --- |")
    tools, base, of_y = {}, of_reference(y), triangle(y)
    for name, side, of in cases:
        delta = of.mean - reference.mean
        right = by_singular_values(triangle(side), of_y, delta)
        tools[name] = fed(copy.deepcopy(base), side, real=False)
        both = [{"mu": one.mean, "sigma": one.covariance} for one in (of, reference)]
        fidelity = fid_statistics_to_metric(*both, verbose=False)["frechet_inception_distance"]
        values = (frechet_distance(of, reference), float(tools[name].compute()), fidelity)
        errors = [value / right - 1 for value in values]
        print(
            f"| {name} | {right:.6f} | " + " | ".join(f"{e:+.1e}" for e in errors) + " |",
            flush=True,
        )
        if abs(errors[0]) > 1e-9:
            failed.append(f"{name}: off by {errors[0]:.1e}")

    metric = tools["full rank"]

    def torchmetrics() -> object:
        metric._computed = None
        return metric.compute()

    works: list[Callable[[], object]] = [
        lambda: frechet_distance(again(samples), reference),
        lambda: frechet_distance(again(samples), again(reference)),
        torchmetrics,
    ]
    times = [[seconds(work) for work in works] for _ in range(rounds + 1)][1:]
    title = f"{D} features, {threads} thread(s), {rounds} rounds in turns"
    print(f"\n### The distance from moments, {title}\n")
    print("| | seconds, median (least) | of torchmetrics, median (range) | of its busy seconds |")
    print("| --- | --- | --- | --- |")
    names = ("bench, reference seen before", "bench, new reference", "torchmetrics compute()")
    for i, name in enumerate(names):
        column, ratios, busy = (
            [t[i][0] for t in times],
            [t[i][0] / t[2][0] for t in times],
            [t[i][1] / t[2][1] for t in times],
        )
        ratio = statistics.median(ratios)
        print(
            f"| {name} | {statistics.median(column):.2f} ({min(column):.2f}) | {ratio:.0%} "
            f"({min(ratios):.0%} to {max(ratios):.0%}) | {statistics.median(busy):.0%} |"
        )
        if i < 2 and ratio > 0.6:
            failed.append(f"{name}: {ratio:.0%} of the time of torchmetrics")
    return failed


if __name__ == "__main__":
    sys.exit(main())
