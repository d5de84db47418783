"""How often `bench compare` cries wolf, and how small a change it finds.

    python tests/benchmarks/power.py [nulls | planted | smallest] [--pool FOLDER] [--runs 100]

Cells of cifar10-mixture in fd_cifar, eight to a sweep. Their features are made once, 5,000 images
each (`Sampling`, as in a sweep; five minutes on two idle cores), and a run draws n rows of them
with replacement: independent draws from the law that is the empirical one of the pool, as many as
one likes. Base and head go through the real metrics code (`registry.score`), the real records and
influences, and the real `compare`.

Null comparisons, in which a sweep with any row better or worse is a false alarm:
- other seeds: rows of base and head are drawn apart, the seeds differ, so nothing is paired;
- other batch size: the same rows of images that were made in batches of 100 instead of 250;
- other threads: the same of images made on two threads instead of one.

Planted changes, in cells whose value is at least ten times their floor, of a given part of the
value, either way with the same seeds:
- everywhere: the model's eps is too large, or too small, by the same part at each call, as much as
  moves the metric by 2 %;
- in some: about every tenth image is from a run that is worse by 20 %, as many as move it by 2 %.

Exits with 1 if more than 5 % of the null sweeps of any kind have a false alarm, or if of the
changes of 2 % at 10,000 images less than 95 % of either kind are found in any cell. `smallest` is
the smallest change of a ladder that is found in at least 95 % of runs, by number of images. All
three, one after another, if none is named.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import influences, models, results, sweep
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import Point
from bench.metrics import registry
from bench.metrics.frechet import frechet_distance
from bench.metrics.moments import Moments
from bench.models import Model
from bench.numerics import pinned
from bench.regression.compare import Comparison, compare
from bench.regression.verdicts import BETTER, WORSE
from bench.report.ties import quantile
from bench.results import Result
from bench.sampling import Sampling
from bench.sweep import Cell
from tests.benchmarks.pool import folder

Features = NDArray[np.float32]

METRIC = "fd_cifar"
SWEEP = """\
name: power
model: cifar10-mixture
samples: {samples}
seed: {seed}
metrics: [fd_cifar]
reference: cifar10-mixture
grid:
  - {{sampler: ddim, spacing: quadratic, steps: 10}}
  - {{sampler: ddim, eta: 1, spacing: logsnr, steps: 10}}
  - {{sampler: heun, spacing: logsnr, steps: 5}}
  - {{sampler: dpm-solver++, order: [2, 3], spacing: logsnr, steps: 5}}
  - {{sampler: [unipc, dpm-solver++], spacing: logsnr, steps: 10}}
"""
IMAGES, PART = 5000, 500
FLOOR, FAR = 0.0348, 10.0
"""The value of 10,000 exact draws (results/zoo), and the times from which changes must be found."""
PLANTED, STRUCK = 0.02, 0.2
TRIAL = 0.01
NULLS = {"other seeds": 2, "other batch size": 1, "other threads": 1}
"""Kinds of null comparisons, and their shares."""
LADDER = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)


def cells(samples: int, seed: int = 0) -> list[Cell]:
    """The cells of the sweep."""
    return sweep.parse(SWEEP.format(samples=samples, seed=seed)).cells()


# Pools of features.


def made(where: Path, name: str, place: int, count: int, **how: float) -> Features:
    """Features of the first images of a cell, from the disk or made now.

    Args:
        where: folder of the pools.
        name: of the pool.
        place: of the cell in the sweep.
        count: how many images.
        how: batch, threads, and by what part eps is too large (skew).
    """
    path = where / f"power-{place}-{name}.npy"
    if not path.exists() or len(np.load(path, mmap_mode="r")) < count:
        began = time.perf_counter()
        tasks = [(place, start, how) for start in range(0, count, PART)]
        with get_context("spawn").Pool(1 if how.get("threads", 1) > 1 else 2) as pool:
            np.save(path, np.concatenate(pool.starmap(_part, tasks, chunksize=1)))
        took = time.perf_counter() - began
        print(f"{cells(count)[place].label}, {name}: {count} images in {took:.0f} s", flush=True)
    return np.asarray(np.load(path)[:count], dtype=np.float32)


def _part(place: int, start: int, how: dict[str, float]) -> Features:
    with pinned(int(how.get("threads", 1))), torch.no_grad():
        cell, model = cells(IMAGES)[place], _model()
        if skew := how.get("skew"):
            model = _skewed(model, skew)
        (bound,) = registry.bind((METRIC,), "cifar10-mixture", "cpu")
        sampling = Sampling(cell, model, int(how.get("batch", 250)), "cpu")
        samples = range(start, start + PART)
        chunk = sampling.chunk(0, samples, {"it": bound.extractor})
    return np.asarray(chunk.features["it"], dtype=np.float32)


@cache
def _model() -> Model:
    return models.load(models.describe("cifar10-mixture"), "cpu")


def _skewed(model: Model, skew: float) -> Model:
    def pair(x: Tensor, point: Point) -> Pair:
        _, eps = model.pair(x, point)
        eps = (1 + skew) * eps
        return (x - point.sigma * eps) / point.alpha, eps

    return replace(model, pair=pair)


def _value(features: Features) -> float:
    (bound,) = _bound()
    return frechet_distance(Moments.from_features(features), bound.reference.moments)


@cache
def _bound() -> tuple[registry.BoundMetric, ...]:
    return registry.bind((METRIC,), "cifar10-mixture", "cpu")


def skew_for(where: Path, place: int, part: float, count: int = 2000) -> float:
    """By how much eps must be too large for the metric to rise by a part of itself.

    From a parabola through the values at three skews.
    """
    trials = [made(where, f"trial{sign:+d}", place, count, skew=sign * TRIAL) for sign in (-1, 1)]
    base = _value(made(where, "base", place, IMAGES)[:count])
    low, high = (_value(trial) / base - 1 for trial in trials)
    slope, bend = (high - low) / (2 * TRIAL), (high + low) / (2 * TRIAL**2)
    roots = [root.real for root in np.roots([bend, slope, -part]) if abs(root.imag) < 1e-12]
    return float(min(roots, key=abs))


def rows_for(base: Features, struck: Features, part: float) -> float:
    """Which share of the images must be struck for the metric to rise by a part of itself."""
    start = _value(base)
    low, high = 0.0, 1.0
    order = np.random.default_rng(7).permutation(len(base))
    for _ in range(14):
        share = (low + high) / 2
        hit = order[: round(share * len(base))]
        mixed = base.copy()
        mixed[hit] = struck[hit]
        low, high = (share, high) if _value(mixed) < (1 + part) * start else (low, share)
    return (low + high) / 2


# One comparison.


def side(place: Path, features: Mapping[int, Features], seed: int = 0) -> Path:
    """A results folder with a cell for each set of features, by its place in the sweep."""
    place.mkdir(parents=True)
    bound = _bound()
    every = cells(len(next(iter(features.values()))), seed)
    for number, each in features.items():
        cell = every[number]
        scores = registry.score({bound[0].extractor.name: each}, bound)
        record = Result(
            key=cell.key,
            label=cell.label,
            cell=cell.canonical(),
            status="done",
            error=None,
            metrics=scores.records,
            nfe={"declared": cell.nfe, "counted": None},
            steps={"asked": cell.steps, "effective": cell.steps_effective},
            samples=cell.samples,
            seconds={},
            samples_per_second=None,
            peak_memory_mb=None,
            provenance={},
        )
        influences.write(place, record, scores.influences)
        results.write(place, record)
    return place


def compared(
    base: Mapping[int, Features], head: Mapping[int, Features], seeds: tuple[int, int] = (0, 0)
) -> Comparison:
    """Two sweeps, from their features to the verdicts."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-power-"))
    try:
        a = side(scratch / "base", base, seeds[0])
        b = side(scratch / "head", head, seeds[1])
        return compare(a, b)
    finally:
        shutil.rmtree(scratch)


def nulls(where: Path, n: int, runs: int, rng: np.random.Generator) -> dict[str, list[Comparison]]:
    """Comparisons in which nothing changed, by their kind."""
    count = len(cells(IMAGES))
    base = [made(where, "base", k, IMAGES) for k in range(count)]
    other = {
        "other batch size": [made(where, "batch", k, IMAGES, batch=100) for k in range(count)],
        "other threads": [made(where, "threads", k, IMAGES, threads=2) for k in range(count)],
    }
    found: dict[str, list[Comparison]] = {}
    for kind, share in NULLS.items():
        for _ in range(runs * share // 2):
            rows = rng.integers(0, IMAGES, n)
            again = rng.integers(0, IMAGES, n) if kind not in other else rows
            head = other.get(kind, base)
            found.setdefault(kind, []).append(
                compared(
                    {k: pool[rows] for k, pool in enumerate(base)},
                    {k: pool[again] for k, pool in enumerate(head)},
                    (0, 1) if kind not in other else (0, 0),
                )
            )
    return found


def planted(where: Path, kind: str, part: float) -> Iterator[tuple[int, Features, Features]]:
    """The far cells with the features of their base and of their changed head."""
    for k in range(1, len(cells(IMAGES))):
        base = made(where, "base", k, IMAGES)
        if _value(base) < FAR * FLOOR:
            continue
        if kind == "everywhere":
            skew = skew_for(where, k, part)
            near = _value(made(where, f"near{part:g}", k, IMAGES, skew=skew)) / _value(base) - 1
            yield k, base, made(where, f"skew{part:g}", k, IMAGES, skew=skew * part / near)
        else:
            struck = made(where, "struck", k, IMAGES, skew=skew_for(where, k, STRUCK))
            yield k, base, _mixed(base, struck, rows_for(base, struck, part))


def _mixed(base: Features, struck: Features, share: float) -> Features:
    hit = np.random.default_rng(8).permutation(len(base))[: round(share * len(base))]
    mixed = base.copy()
    mixed[hit] = struck[hit]
    return mixed


def power(
    where: Path,
    kind: str,
    part: float,
    n: int,
    runs: int,
    rng: np.random.Generator,
    least: float = 0.0,
) -> dict[str, float]:
    """How often a planted change is found, as worse, by the cell; ends where `least` is missed."""
    every = list(planted(where, kind, part))
    hits: dict[str, int] = {}
    for done in range(1, runs + 1):
        rows = rng.integers(0, IMAGES, n)
        base, head = ({k: pair[i][rows] for k, *pair in every} for i in range(2))
        for row in compared(base, head).rows:
            hits[row.label] = hits.get(row.label, 0) + (row.verdict.word == WORSE)
        if min(hits.values()) < done - (1 - least) * runs:
            break
    return {label: count / runs for label, count in hits.items()}


def smallest(where: Path, kind: str, n: int, runs: int, rng: np.random.Generator) -> str:
    """The smallest change of the ladder that is found in 95 % of runs in every far cell."""
    for part in LADDER:
        if min(power(where, kind, part, n, runs, rng, least=0.95).values()) >= 0.95:
            return f"{100 * part:g} %"
    return f"over {100 * LADDER[-1]:g} %"


def unpaired(where: Path, n: int, rng: np.random.Generator) -> str:
    """The change that independent cells show in 95 % of runs, from their standard errors."""
    far = {k: base for k, base, _ in planted(where, "in some", PLANTED)}
    base, head = (
        {k: pool[rng.integers(0, IMAGES, n)] for k, pool in far.items()} for _ in range(2)
    )
    rows = compared(base, head, (0, 1)).rows
    margin = quantile(len(rows)) + 1.645
    shares = [margin * row.error / row.base.mean for row in rows]
    return f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"


def main() -> int:
    """Measures, prints Markdown, and says whether what is demanded holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["nulls", "planted", "smallest"])
    parser.add_argument("--pool", type=Path, default=folder())
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--images", type=int, default=5000, help="of the null comparisons")
    arguments = parser.parse_args()
    where = arguments.pool
    where.mkdir(parents=True, exist_ok=True)
    parts = {"nulls": _nulls, "planted": _planted, "smallest": _smallest}
    wrong = 0
    for name, part in parts.items():
        if arguments.part in (None, name):
            rng = np.random.default_rng([2024, len(name)])  # whichever parts are asked for
            wrong += part(where, arguments.images, arguments.runs, rng)
    print(json.dumps({"demands not met": wrong}))
    return int(wrong > 0)


def _nulls(where: Path, images: int, runs: int, rng: np.random.Generator) -> int:
    print(f"Null comparisons, sweeps of {len(cells(1000))} cells, {images:,} images:\n")
    print("| what differs | sweeps | with a false alarm | largest change of a value |")
    print("| --- | ---: | ---: | ---: |")
    wrong = 0
    for kind, every in nulls(where, images, runs, rng).items():
        alarms = sum(
            any(row.verdict.word in (WORSE, BETTER) for row in each.rows) for each in every
        )
        most = max(abs(row.relative) for each in every for row in each.rows)
        print(f"| {kind} | {len(every)} | {alarms} | {100 * most:.2g} % |", flush=True)
        wrong += alarms > 0.05 * len(every)
    return wrong


def _planted(where: Path, images: int, runs: int, rng: np.random.Generator) -> int:
    print(f"\nA change of {100 * PLANTED:g} %, 10,000 images, {runs} runs each:\n")
    print("| cell | everywhere | in some images |")
    print("| --- | ---: | ---: |")
    one, other = (
        power(where, kind, PLANTED, 10_000, runs, rng) for kind in ("everywhere", "in some")
    )
    wrong = 0
    for label in one:
        print(f"| {label} | {one[label]:.0%} | {other[label]:.0%} |", flush=True)
        wrong += min(one[label], other[label]) < 0.95
    return wrong


def _smallest(where: Path, images: int, runs: int, rng: np.random.Generator) -> int:
    print("\nThe smallest change that is found in 95 % of runs in every cell:\n")
    print("| images | in pairs, in some images | other seeds |")
    print("| ---: | ---: | ---: |")
    for n in (1000, 5000, 10_000, 50_000):
        found = smallest(where, "in some", n, runs // 5, rng)
        print(f"| {n:,} | {found} | {unpaired(where, n, rng)} |", flush=True)
    return 0


if __name__ == "__main__":
    with pinned(1):
        sys.exit(main())
