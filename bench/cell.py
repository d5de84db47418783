"""A cell from its description to its record: generate in chunks, score once.

A cell may be interrupted at any moment and goes on with the chunks that are on the disk. Sample i
belongs to batch i // batch whatever the point of resuming, noise is a function of (seed, i, draw),
and numerics are pinned; so the metrics of a resumed run have the same bytes as those of an
undisturbed one.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch

from bench import atomic, chunks, models, provenance, results
from bench.chunks import Chunk
from bench.errors import ResultError
from bench.fingerprint import fingerprint
from bench.metrics import registry as metrics
from bench.metrics.moments import Moments
from bench.metrics.registry import BoundMetric
from bench.models import Model
from bench.numerics import pinned
from bench.results import Json, Result
from bench.sampling import Sampling
from bench.sweep import Cell

KEPT_SAMPLES = 64
"""Number of images of a cell that are kept for the report's grids."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What the cells of a sweep have in common beside what is in them.

    Attributes:
        metrics: names of the metrics to compute.
        reference: name or path of the reference statistics.
        batch: images per model call.
        chunk: images per chunk, a multiple of `batch`.
        device: "cpu" or "cuda".
        threads: CPU threads for everything, whatever the environment says.
    """

    metrics: tuple[str, ...]
    reference: str
    batch: int
    chunk: int
    device: str
    threads: int

    @classmethod
    def of(cls, plan: Json) -> Self:
        """The setting of a sweep's plan, on this machine."""
        device = plan["launch"]["device"]
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(
            metrics=tuple(plan["metrics"]),
            reference=plan["reference"],
            batch=plan["batch"],
            chunk=plan["chunk"],
            device=device,
            threads=plan["launch"]["threads"],
        )

    def bind(self) -> tuple[BoundMetric, ...]:
        """The metrics with extractors and statistics, shared by the cells of this process.

        Raises:
            MetricError: Weights or statistics are missing or do not fit.
        """
        return _bound(self.metrics, self.reference, self.device)

    def load(self, cell: Cell) -> Model:
        """The model of a cell, shared by the cells of this process."""
        return _model(json.dumps(cell.model, sort_keys=True), self.device)


@lru_cache(maxsize=4)
def _bound(names: tuple[str, ...], reference: str, device: str) -> tuple[BoundMetric, ...]:
    return metrics.bind(names, reference, device)


@lru_cache(maxsize=1)  # cells come model by model, and networks are large
def _model(description: str, device: str) -> Model:
    return models.load(models.describe(json.loads(description)), device)


def is_done(cell: Cell, result: Result | None, setting: Setting) -> bool:
    """Whether `result` is what running `cell` would give.

    That is a record with status done, the cell's fingerprint, the digests of model, extractors and
    reference, and every metric asked for. The commit does not matter. A failed cell is not done:
    the next run tries again, from its finished chunks, since the reason may have gone.
    """
    if result is None or result.status != "done":
        return False
    for metric in setting.bind():
        found = result.metrics.get(metric.spec.name, {})
        expected = metric.extractor.digest, metric.reference.digest
        if (found.get("extractor_digest"), found.get("reference_digest")) != expected:
            return False
    made_with = result.provenance
    same_model = made_with["model_digest"] == setting.load(cell).digest
    return same_model and chunks.same_fingerprint(made_with["fingerprint"], fingerprint(cell))


def run_cell(
    cell: Cell, setting: Setting, folder: Path, *, before_chunk: Callable[[], None] = lambda: None
) -> Result:
    """Generates what is missing of a cell, scores it and writes its record.

    Args:
        cell: what to compute.
        setting: metrics, reference and numerics.
        folder: the sweep's results folder.
        before_chunk: called before every chunk; may raise to stop.

    Raises:
        CellError: Images are not finite, or the NFE is not as declared. Finished chunks stay.
        ModelError, MetricError, ScheduleError: Something that the cell needs cannot be had.
        ResultError: Something cannot be written.
    """
    work = atomic.make_folder(chunks.folder_of(folder, cell.key))
    atomic.clean(work)
    with pinned(setting.threads), torch.no_grad():
        bound, model = setting.bind(), setting.load(cell)
        extractors = metrics.extractors(bound)
        made_with = {
            "fingerprint": list(fingerprint(cell)),
            "model_digest": model.digest,
            "numerics": {
                "device": setting.device,
                "dtype": model.dtype,
                "batch": setting.batch,
                "threads": setting.threads,
            },
        }
        features_of = {name: [one.digest, one.numerics] for name, one in extractors.items()}
        stamp = {"key": cell.key, **made_with, "extractors": features_of, "chunk": setting.chunk}
        sampling = Sampling(cell, model, setting.batch, setting.device)
        moments = {name: Moments.empty(one.dim) for name, one in extractors.items()}
        seconds = {"sampling": 0.0, "features": 0.0, "total": 0.0}
        calls: list[int] = []
        peak = 0.0
        for index, samples in enumerate(_slices(cell.samples, setting.chunk)):
            before_chunk()
            chunk = _on_disk(work, index, stamp)
            if chunk is None:
                keep = KEPT_SAMPLES if index == 0 else 0
                chunk, images = sampling.chunk(index, samples, extractors, keep)
                if keep:
                    chunks.write_samples(work, images)
                chunks.write(work, index, chunk, stamp)
            for name, features in chunk.features.items():
                moments[name] += Moments.from_features(features)
            for part, spent in chunk.seconds.items():
                seconds[part] += spent
                seconds["total"] += spent
            calls += chunk.calls
            peak = max(peak, chunk.peak_memory_mb)
        rate = cell.samples / seconds["total"]
        began = time.perf_counter()
        scores = metrics.score(moments, bound)
        seconds["total"] += time.perf_counter() - began
    result = _record(
        cell,
        status="done",
        error=None,
        metrics=scores,
        nfe={"declared": cell.nfe, "counted": _summary(calls)},
        seconds={part: round(spent, 4) for part, spent in seconds.items()},
        samples_per_second=round(rate, 2),
        peak_memory_mb=peak,
        made_with=made_with | {"model_notes": dict(model.notes)},
    )
    results.write(folder, result)
    chunks.discard(work)
    return result


def record_failure(cell: Cell, folder: Path, reason: str) -> Result:
    """Writes the record of a cell that cannot be computed: no numbers, but the reason."""
    result = _record(
        cell,
        status="failed",
        error=reason,
        metrics={},
        nfe={"declared": cell.nfe, "counted": None},
        seconds={},
        samples_per_second=None,
        peak_memory_mb=None,
        made_with={},
    )
    results.write(folder, result)
    return result


def _record(cell: Cell, *, made_with: Json, **facts: Any) -> Result:
    return Result(
        key=cell.key,
        label=cell.label,
        cell=cell.canonical(),
        steps={"asked": cell.steps, "effective": cell.steps_effective},
        samples=cell.samples,
        provenance=made_with | provenance.describe(),
        **facts,
    )


def _summary(calls: list[int]) -> Json:
    """Of the calls of each image."""
    mean = round(sum(calls) / len(calls), 2)
    return {"mean": mean, "min": min(calls), "max": max(calls)}


def _slices(samples: int, chunk: int) -> Iterator[range]:
    for start in range(0, samples, chunk):
        yield range(start, min(start + chunk, samples))


def _on_disk(work: Path, index: int, stamp: Json) -> Chunk | None:
    """A finished chunk that can be used, or None; says why, if there is one that cannot."""
    try:
        return chunks.read(work, index, stamp)
    except ResultError as error:
        log.warning("%s It is computed again.", error)
        chunks.note(work, "refused", chunk=index, reason=str(error))
        return None
