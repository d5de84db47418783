"""A cell from its description to its record: generate in chunks, score once.

A cell may be interrupted at any moment and goes on with the chunks that are on the disk. Sample i
belongs to batch i // batch whatever the point of resuming, noise is a function of (seed, i, draw),
and numerics are pinned; so the metrics of a resumed run have the same bytes as those of an
undisturbed one. Only as long as a cell has no chunk may its batch change: it is halved where it
does not fit into memory, and the record says which it was.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bench import atomic, chunks, influences, models, provenance, results
from bench.chunks import Chunk, Identity
from bench.errors import CellError, MetricError, ResultError
from bench.fingerprint import fingerprint
from bench.metrics import registry as metrics
from bench.metrics.facts import ImageFacts
from bench.metrics.protocol import Extractor
from bench.metrics.registry import BoundMetric
from bench.models import Model
from bench.numerics import free_memory, is_out_of_memory, pinned
from bench.results import Json, Result
from bench.sampling import Sampling, identity
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
        keep: what stays beside the record: "nothing", "features" or "images" (with features).
        compiled: whether networks are compiled, once for all cells of this process.
    """

    metrics: tuple[str, ...]
    reference: str
    batch: int
    chunk: int
    device: str
    threads: int
    keep: str = "nothing"
    compiled: bool = False

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
            keep=plan.get("keep", "nothing"),
            compiled=plan["launch"].get("compile", False),
        )

    def bind(self) -> tuple[BoundMetric, ...]:
        """The metrics with extractors and statistics, shared by the cells of this process.

        Raises:
            MetricError: Weights or statistics are missing or do not fit.
            CellError: The device is not there.
        """
        if self.device == "cuda" and not torch.cuda.is_available():
            raise CellError(
                'launch.device is "cuda", and torch finds no CUDA device here. Run where there is '
                "one, or write device: cpu (or auto)."
            )
        return _bound(self.metrics, self.reference, self.device)

    def chunks(self, cell: Cell) -> int:
        """How many chunks a cell has."""
        return -(-cell.samples // self.chunk)

    def load(self, cell: Cell) -> Model:
        """The model of a cell, shared by the cells of this process."""
        return _model(json.dumps(cell.model, sort_keys=True), self.device, self.compiled)


@lru_cache(maxsize=4)
def _bound(names: tuple[str, ...], reference: str, device: str) -> tuple[BoundMetric, ...]:
    return metrics.bind(names, reference, device)


@lru_cache(maxsize=1)  # cells come model by model, and networks are large
def _model(description: str, device: str, compiled: bool) -> Model:
    return models.load(models.describe(json.loads(description)), device, compiled=compiled)


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
    return same_model and results.same_fingerprint(made_with["fingerprint"], fingerprint(cell))


def run_cell(
    cell: Cell,
    setting: Setting,
    folder: Path,
    *,
    check: Callable[[], None] = lambda: None,
    sample: bool = True,
) -> Result:
    """Generates what is missing of a cell, scores it and writes its record.

    Args:
        cell: what to compute.
        setting: metrics, reference and numerics.
        folder: the sweep's results folder.
        check: called before a chunk is made, before it is written and before the scoring; may
            raise to stop.
        sample: False if only chunks that are there may be used.

    Raises:
        CellError: Images are not finite, the NFE is not as declared, or memory does not suffice.
            Finished chunks stay. Or a chunk is missing that may not be sampled.
        ModelError, MetricError, ScheduleError: Something that the cell needs cannot be had.
        ResultError: Something cannot be written.
    """
    every = range(setting.chunks(cell))
    with pinned(setting.threads):
        found = make_chunks(cell, setting, folder, every, check=check, sample=sample)
        check()
        return score(cell, setting, folder, found)


def make_chunks(
    cell: Cell,
    setting: Setting,
    folder: Path,
    wanted: range,
    *,
    check: Callable[[], None] = lambda: None,
    sample: bool = True,
) -> list[Chunk]:
    """Chunks of a cell by their numbers, without images; those that are missing are made.

    The arguments and what it raises are those of `run_cell`.
    """
    atomic.clean(atomic.make_folder(chunks.folder_of(folder, cell.key)))
    with pinned(setting.threads), torch.no_grad():
        extractors, model = metrics.extractors(setting.bind()), setting.load(cell)
        while True:
            own = _own(cell, setting, folder)
            try:
                return _made(cell, own, folder, wanted, model, extractors, check, sample)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                _halve(cell, own, setting.batch, folder, error)
            free_memory()  # what the error held on to


def _made(
    cell: Cell,
    setting: Setting,
    folder: Path,
    wanted: range,
    model: Model,
    extractors: Mapping[str, Extractor],
    check: Callable[[], None],
    sample: bool,
) -> list[Chunk]:
    """The chunks of `make_chunks`, with one batch size from the first to the last."""
    work, found = chunks.folder_of(folder, cell.key), []
    made_with = _made_with(cell, setting, model)
    sampling: Sampling | None = None
    for index in wanted:
        check()
        chunk = _on_disk(folder, cell, index, made_with, setting, extractors)
        if chunk is None and not sample:
            raise CellError(
                f"Cell {cell.short} ({cell.label}): chunk {index} of its images was not kept, "
                'so it needs sampling again. "bench run" does that.'
            )
        if chunk is None:
            sampling = sampling or _sampling(cell, setting, model, extractors)
            chunk = sampling.chunk(index, _samples(cell, setting, index), extractors)
            check()
            assert chunk.images is not None
            if index == 0:
                chunks.write_samples(work, chunk.images[:KEPT_SAMPLES])
            if setting.keep != "images":
                chunk = replace(chunk, images=None)
            chunks.write(work, index, chunk, _stamp(cell, setting, made_with))
        found.append(replace(chunk, images=None))
    return found


def _sampling(
    cell: Cell, setting: Setting, model: Model, extractors: Mapping[str, Extractor]
) -> Sampling:
    """What samples a cell.

    Raises:
        CellError: An extractor does not take such images. That is asked of one image without
            content, since the first ones of the sampler may take an hour.
    """
    blank = torch.zeros(1, *model.shape, dtype=torch.uint8, device=setting.device)
    for extractor in extractors.values():
        try:
            extractor(blank)
        except MetricError as error:
            raise CellError(
                f"Cell {cell.short} ({cell.label}): its model gives images of "
                f"{' x '.join(map(str, model.shape))}. {error}"
            ) from error
    return Sampling(cell, model, setting.batch, setting.device)


def _own(cell: Cell, setting: Setting, folder: Path) -> Setting:
    """The setting with the batch that this cell has come to."""
    batch = chunks.batch_of(folder, cell.key, setting.batch)
    return setting if setting.chunk % batch else replace(setting, batch=batch)


def _halve(cell: Cell, own: Setting, asked: int, folder: Path, error: Exception) -> None:
    """Has the cell go on with half its batch, or the next smaller divisor of a chunk.

    Raises:
        CellError: It is one image already, or there are chunks, which fix the batch.
    """
    work, batch = chunks.folder_of(folder, cell.key), min(own.batch, cell.samples)
    name = f"Cell {cell.short} ({cell.label})"
    wanting = f"({type(error).__name__}: {error})"
    if batch == 1:
        raise CellError(
            f"{name}: there was not enough memory for a single image {wanting}. Ask for more "
            "memory, or take a smaller model or dtype."
        ) from error
    finished = chunks.finished(work) + chunks.finished(chunks.kept_of(folder, cell.key))
    if finished:
        raise CellError(
            f"{name}: there was not enough memory for a batch of {batch} {wanting}, and {finished} "
            f"of its {own.chunks(cell)} chunks are of such batches already, so that it cannot be "
            "halved. Ask for more memory, or write a smaller batch in the sweep, which begins the "
            "cell anew."
        ) from error
    smaller = next(n for n in range(batch // 2, 0, -1) if own.chunk % n == 0)
    log.warning(
        "%s: not enough memory for a batch of %d; it goes on with %d.", name, batch, smaller
    )
    chunks.note_batch(work, smaller, asked)
    chunks.note(work, "halved", batch=smaller, asked=asked, reason=wanting)


def score(cell: Cell, setting: Setting, folder: Path, found: list[Chunk]) -> Result:
    """Scores a cell from all its chunks, writes its record and clears its work folder.

    Raises:
        MetricError: Features and reference do not fit.
        ResultError: Something cannot be written.
    """
    work, setting = chunks.folder_of(folder, cell.key), _own(cell, setting, folder)
    with pinned(setting.threads), torch.no_grad():
        bound, model = setting.bind(), setting.load(cell)
        seconds = {part: sum(one.seconds[part] for one in found) for part in found[0].seconds}
        spent = sum(seconds.values())
        began = time.perf_counter()
        scores = metrics.score(_joined(found), bound)
        seconds["total"] = spent + time.perf_counter() - began
        made_with = _made_with(cell, setting, model)
    result = _record(
        cell,
        status="done",
        error=None,
        metrics=scores.records,
        nfe={"declared": cell.nfe, "counted": _summary([n for one in found for n in one.calls])},
        seconds={part: round(value, 4) for part, value in seconds.items()},
        samples_per_second=round(cell.samples / spent, 2),
        peak_memory_mb=max(one.peak_memory_mb for one in found),
        images=ImageFacts.merged(one.facts for one in found).record(),
        made_with=made_with | {"model_notes": dict(model.notes)},
    )
    # Before the record: with it the cell is done, and nothing would make them any more.
    influences.write(folder, result, scores.influences)
    results.write(folder, result)
    if setting.keep != "nothing":
        chunks.keep(work, chunks.kept_of(folder, cell.key))
    chunks.discard(work)
    return result


def has_chunks(cell: Cell, setting: Setting, folder: Path, wanted: range) -> bool:
    """Whether these chunks of a cell are finished, by their headers: `make_chunks` reads them."""
    setting = _own(cell, setting, folder)
    stamp = _stamp(cell, setting, _made_with(cell, setting, setting.load(cell)))
    asked = _identities(metrics.extractors(setting.bind()))
    places = (chunks.folder_of(folder, cell.key), chunks.kept_of(folder, cell.key))

    def usable(place: Path, index: int) -> bool:
        held = chunks.peek(place, index, stamp)
        return held is not None and not _lack(*held, setting, asked)

    return all(any(usable(place, index) for place in places) for index in wanted)


def images(cell: Cell, setting: Setting, folder: Path) -> Iterator[NDArray[np.uint8]]:
    """The images of a cell, chunk by chunk, from those kept or else by sampling them again.

    Args:
        cell: whose images.
        setting: its numerics; the metrics do not matter.
        folder: the sweep's results folder.

    Yields:
        uint8 (n, C, H, W).

    Raises:
        CellError, ModelError, ScheduleError: as for `run_cell`.
    """
    setting = _own(cell, setting, folder)
    with pinned(setting.threads), torch.no_grad():
        model = setting.load(cell)
        made_with = _made_with(cell, setting, model)
        sampling = Sampling(cell, model, setting.batch, setting.device)
        for index in range(setting.chunks(cell)):
            kept = _on_disk(folder, cell, index, made_with, setting, {})
            if kept is None or kept.images is None:
                kept = sampling.chunk(index, _samples(cell, setting, index), {})
            assert kept.images is not None
            yield kept.images


def _made_with(cell: Cell, setting: Setting, model: Model) -> Json:
    """What determines the bytes of a cell's images beside the cell, as its record says it."""
    return {
        "fingerprint": list(fingerprint(cell)),
        "model_digest": model.digest,
        "numerics": {
            "device": setting.device,
            "dtype": model.dtype,
            "batch": setting.batch,
            "threads": setting.threads,
            **({"compiled": True} if setting.compiled else {}),
        },
    }


def _stamp(cell: Cell, setting: Setting, made_with: Json) -> Json:
    return {"key": cell.key, **made_with, "chunk": setting.chunk}


def _joined(found: list[Chunk]) -> dict[str, NDArray[np.float32]]:
    """Features of all images of a cell, by extractor."""
    names = list(found[0].features)
    return {name: np.concatenate([one.features[name] for one in found]) for name in names}


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


def _samples(cell: Cell, setting: Setting, index: int) -> range:
    """The samples of chunk `index`; the last chunk may have fewer."""
    start = index * setting.chunk
    return range(start, min(start + setting.chunk, cell.samples))


def _on_disk(
    folder: Path,
    cell: Cell,
    index: int,
    made_with: Json,
    setting: Setting,
    extractors: Mapping[str, Extractor],
) -> Chunk | None:
    """A finished chunk with the features of all extractors; None if it has to be sampled.

    Says why, if there is one that cannot be used.
    """
    work = chunks.folder_of(folder, cell.key)
    for place in (work, chunks.kept_of(folder, cell.key)):
        try:
            chunk = chunks.read(place, index, _stamp(cell, setting, made_with))
            if chunk is None:
                continue
            return _completed(chunk, chunks.path_of(place, index), setting, extractors)
        except ResultError as error:
            log.warning("%s It is computed again.", error)
            chunks.note(atomic.make_folder(work), "refused", chunk=index, reason=str(error))
    return None


def _completed(
    chunk: Chunk, path: Path, setting: Setting, extractors: Mapping[str, Extractor]
) -> Chunk:
    """The chunk with exactly the features asked for, those that it lacks made from its images.

    Raises:
        ResultError: It lacks images: for such features, or to be kept.
    """
    asked = _identities(extractors)
    if lack := _lack(chunk.extractors, chunk.images is not None, setting, asked):
        raise ResultError(f"{path} is without {lack}.")
    lacking = _lacking(chunk.extractors, asked)
    features = {name: f for name, f in chunk.features.items() if name not in lacking}
    for name in lacking:
        began = time.perf_counter()
        batches = torch.split(torch.from_numpy(chunk.images), setting.batch)
        features[name] = torch.cat([extractors[name](part).cpu() for part in batches]).numpy()
        chunk.seconds["features"] += time.perf_counter() - began
    return replace(chunk, features={name: features[name] for name in asked}, extractors=asked)


def _identities(extractors: Mapping[str, Extractor]) -> dict[str, Identity]:
    return {name: identity(extractor) for name, extractor in extractors.items()}


def _lacking(made: Mapping[str, Identity], asked: Mapping[str, Identity]) -> list[str]:
    return [name for name, which in asked.items() if made.get(name) != which]


def _lack(
    made: Mapping[str, Identity], images: bool, setting: Setting, asked: Mapping[str, Identity]
) -> str:
    """What a chunk lacks that only sampling can give, in words; '' if it can be used."""
    if images:
        return ""
    if setting.keep == "images":
        return "images, and the sweep says to keep them"
    lacking = _lacking(made, asked)
    return f"features of {', '.join(lacking)}, and has no images" if lacking else ""
