"""Sweep files: YAML -> Sweep -> cells. Every mistake in a file is found here, with its line.

A sweep file is a question on one screen; its first comment line says which. A key written as a
list is an axis and every combination is a cell; nothing else varies. The axes are `model`, `seed`
and every key of a grid row (`metrics` is a list of what is asked of each cell, not an axis).
`times` of an explicit spacing is itself a list, so there an axis is a list of lists.

    # Does DDIM's deterministic limit still win on a coarse grid?
    name: quickstart              # default: the file's name
    model: cifar10-mixture        # or {kind: diffusers, path: google/ddpm-cifar10-32}
    samples: 5000
    seed: 0
    metrics: [fd_cifar]
    reference: cifar10-mixture    # name or path of reference statistics
    batch: 500                    # images per model call; default 500, or chunk if that is less
    chunk: 1000                   # a multiple of batch; default the first from 1000 on
    grid:
      - {sampler: ddim, eta: [0, 1], spacing: [uniform, quadratic], steps: [5, 10, 20, 50]}
      - {sampler: heun, spacing: trailing, nfe: [5, 10, 20, 50], unreachable: below}
      - {preset: edm-paper}         # a published setting; "bench check" shows its plain keys
    launch: {executor: local, workers: 2}

A grid row takes sampler, spacing, final, steps or nfe, the parameters of its samplers and those
of its spacings (each must be a parameter of all samplers, or of all spacings, of its row). `all`,
`explicit` and `file` fix the number of steps and need neither; the times of a file become explicit
ones. A preset stands for such keys (`bench.presets`). Left-out parameters take their defaults
before cells are compared, so `{sampler: ddim}` and `{sampler: ddim, eta: 0}` are one cell.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from bench import models, presets, results, samplers, yaml_lines
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.spacing import SPACINGS, Final, TimeGrid, make_grid
from bench.errors import BenchError, SweepError
from bench.metrics import registry as metrics
from bench.models import ModelSpec
from bench.parameters import Parameter, Value
from bench.sweep_file import FOLDER_NAME, SLURM_ONLY, Head, Launch, Row, validated
from bench.sweep_grid import EXACT, Items, expand, grid_of
from bench.yaml_lines import Document

__all__ = ["EXACT", "Cell", "Launch", "Sweep", "load", "parse"]

_BATCH, _CHUNK = 500, 1000


@dataclass(frozen=True, eq=False)
class Cell:
    """What determines a set of images; metrics and numerics (batch, threads) are not part of it.

    Attributes:
        model: canonical description of the model, which `models.describe` takes back.
        sampler: name in the registry, or "exact".
        params: all parameters of the sampler, canonical, by YAML name.
        spacing: name of the spacing; None for exact draws, as are steps and final.
        spacing_params: all parameters of the spacing.
        steps: number of steps asked for; `steps_effective` is what duplicates leave of it.
        final: where the grid ends.
        seed: seed of the noise.
        samples: number of images, the noise's samples 0 .. samples - 1.
        nfe_asked: the budget in the sweep file, where it gave `nfe`. How a cell was asked for
            does not determine its images: it is neither compared nor part of the key.
    """

    model: dict[str, Any]
    sampler: str
    params: dict[str, Value]
    spacing: str | None
    spacing_params: dict[str, Value]
    steps: int | None
    final: Final | None
    seed: int
    samples: int
    nfe_asked: int | None = None

    def __post_init__(self) -> None:
        # JSON knows no tuples, and a list could not be part of a cache's key.
        for name in ("params", "spacing_params"):
            given = getattr(self, name).items()
            frozen = {key: tuple(v) if isinstance(v, list) else v for key, v in given}
            object.__setattr__(self, name, frozen)

    def canonical(self) -> dict[str, Any]:
        """The cell as JSON data; `Cell(**data)` is the cell again."""
        data = {name: getattr(self, name) for name in _IDENTITY}
        return data | {"spacing_params": _plain(self.spacing_params), "params": _plain(self.params)}

    @cached_property
    def key(self) -> str:
        """16 hex digits of sha256 of the canonical JSON: sorted keys, no spaces, UTF-8."""
        text = _json(self.canonical())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def short(self) -> str:
        """The first 8 digits of the key, for messages."""
        return self.key[:8]

    @property
    def label(self) -> str:
        """The cell in words: 'ddim eta=0 spacing=uniform steps=10'.

        Of the parameters it names the numbers, and what else is not at its default.
        """
        words = [self.sampler]
        if self.spacing is not None:
            words += _worded(self.params, samplers.get(self.sampler).params)
            words.append(f"spacing={self.spacing}")
            words += _worded(self.spacing_params, SPACINGS[self.spacing].params)
            words.append(f"steps={self.steps}")
            words += [f"final={self.final}"] if self.final != "zero" else []
        words += [f"seed={self.seed}"] if self.seed else []
        return " ".join(words)

    def grid(self) -> TimeGrid:
        """The time grid; exact draws have none.

        Raises:
            ScheduleError: the model's schedule does not admit it.
        """
        assert self.spacing is not None
        assert self.steps is not None
        assert self.final is not None
        schedule = _schedule(_json(self.model))
        return make_grid(
            schedule, self.spacing, self.steps, final=self.final, params=self.spacing_params
        )

    @cached_property
    def steps_effective(self) -> int | None:
        """Number of steps of the grid, None for exact draws."""
        if self.spacing is None or self.steps is None or self.final is None:
            return None
        params = tuple(self.spacing_params.items())
        return _steps_left(_json(self.model), self.spacing, self.steps, self.final, params)

    @property
    def nfe(self) -> int | None:
        """Declared number of function evaluations per image; 0 for exact draws.

        None for a sampler that chooses its own steps.
        """
        steps = self.steps_effective
        if steps is None or self.final is None:
            return 0
        return samplers.get(self.sampler).nfe(steps, self.final, self.params)

    @property
    def work(self) -> int:
        """Function evaluations per image to reckon with: those declared, else a guess."""
        return results.CALLS_GUESS if self.nfe is None else self.nfe


_IDENTITY = (
    "model", "sampler", "params", "spacing", "spacing_params", "steps", "final", "seed", "samples",
)  # fmt: skip


@dataclass(frozen=True)
class Sweep:
    """A valid sweep file.

    Attributes:
        name: names the folders of results and reports.
        file: path of the file, as it was given.
        file_digest: of the data that it holds.
        question: its first comment line, or "".
        samples: number of images of every cell.
        metrics: names of the metrics asked of every cell.
        reference: name or path of the reference statistics.
        batch: images per model call (the last of a chunk may have fewer).
        chunk: images per file of features, a multiple of `batch`.
        keep: what stays beside the records: "nothing", "features" or "images".
        launch: where the cells run.
        presets: what became of the rows of its grid that name a preset.
    """

    name: str
    file: str
    file_digest: str
    question: str
    samples: int
    metrics: tuple[str, ...]
    reference: str
    batch: int
    chunk: int
    keep: str
    launch: Launch
    presets: tuple[presets.Expansion, ...]
    _cells: tuple[Cell, ...] = field(repr=False)

    def cells(self) -> list[Cell]:
        """The distinct cells: first `exact` for models that have exact draws, then by rows."""
        return list(self._cells)

    def plan(self) -> dict[str, Any]:
        """What `results/<sweep>/sweep.json` holds, for readers without torch."""
        return {
            "format": results.FORMAT,
            "name": self.name,
            "file": self.file,
            "file_digest": self.file_digest,
            "question": self.question,
            "cells": [
                {
                    "key": cell.key,
                    "label": cell.label,
                    "cell": cell.canonical(),
                    "nfe": cell.nfe,
                    "nfe_asked": cell.nfe_asked,
                    "steps_effective": cell.steps_effective,
                }
                for cell in self._cells
            ],
            "families": {
                cell.sampler: samplers.get(cell.sampler).family
                for cell in self._cells
                if cell.sampler != EXACT
            },
            "metrics": list(self.metrics),
            "reference": self.reference,
            "batch": self.batch,
            "chunk": self.chunk,
            "keep": self.keep,
            "launch": self.launch.model_dump(mode="json", by_alias=True, exclude_none=True),
        }


def load(path: Path | str) -> Sweep:
    """The sweep in a YAML file.

    Raises:
        SweepError: everything that is wrong with the file, a line each.
    """
    return _sweep(yaml_lines.read(path))


def parse(text: str, file: str = "sweep.yaml") -> Sweep:
    """The sweep in YAML text; `file` is the name that errors and `name` go by."""
    return _sweep(yaml_lines.parse(text, file))


def _sweep(document: Document) -> Sweep:
    if not document.data:
        raise SweepError(
            f"{document.file}: the file is empty. A sweep needs at least model, samples, metrics, "
            "reference and grid."
        )
    file_digest = results.digest(document.data)  # of what a person wrote, before anything is put in
    expansions = presets.expand(document)
    # Each part is checked also where another is wrong, so that one run shows all mistakes.
    head = validated(Head, document, document.data, ())
    launch = _launch(document)
    name, (batch, chunk) = _name(document), _batches(document, head)
    specs = list(_models(document))
    drafts = list(_drafts(document, specs))
    for k, metric in enumerate(head.metrics if head else ()):
        try:
            metrics.get(metric)
        except BenchError as error:
            document.problem(("metrics", k), f"{error}")
    if not drafts and not document.problems:
        document.problem(
            ("grid",),
            "the grid has no cells: no nfe in it can be reached, and unreachable: skip leaves "
            "them all out.",
        )
    document.stop_at_problems()
    assert head is not None
    assert launch is not None
    return Sweep(
        name=name,
        file=document.file,
        file_digest=file_digest,
        question=document.question,
        samples=head.samples,
        metrics=tuple(dict.fromkeys(head.metrics)),
        reference=head.reference,
        batch=batch,
        chunk=chunk,
        keep=head.keep,
        launch=launch,
        presets=tuple(expansions),
        _cells=tuple(_distinct(specs, drafts, head)),
    )


def _drafts(document: Document, specs: list[ModelSpec]) -> Iterator[dict[str, Any]]:
    """The cells of all rows as keyword arguments, without seed and samples."""
    rows = document.data.get("grid")
    for i, given in enumerate(rows if isinstance(rows, list) else []):
        if isinstance(given, dict) and "preset" not in given:  # these are problems already
            before = len(document.problems)
            row = validated(Row, document, given, ("grid", i))
            if row is not None:
                whole = len(document.problems) == before
                yield from expand(document, ("grid", i), row, specs, whole=whole)


def _models(document: Document) -> Iterator[ModelSpec]:
    """The models that can be described; problems with the others go into the document."""
    given = document.data.get("model")
    for k, model in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(model, str | dict):  # anything else is a problem already
            try:
                yield models.describe(model)
            except BenchError as error:
                document.problem(("model", k), f"{error}")


def _distinct(specs: list[ModelSpec], drafts: list[dict[str, Any]], head: Head) -> Iterator[Cell]:
    """Exact draws, then the drafts, each with every seed; a cell that comes again is left out."""
    floors = [
        {
            "model": spec.canonical(),
            "sampler": EXACT,
            "params": {},
            "spacing": None,
            "spacing_params": {},
            "steps": None,
            "final": None,
        }
        for spec in specs
        if spec.exact
    ]
    seen = set()
    for draft in [*floors, *drafts]:
        for seed in head.seed:
            cell = Cell(**draft, seed=seed, samples=head.samples)
            if cell not in seen:
                seen.add(cell)
                yield cell


def _name(document: Document) -> str:
    """The name of the sweep; without one, that of its file, which must then serve as a folder."""
    given = document.data.get("name")
    name = given if isinstance(given, str) else Path(document.file).stem
    if given is None and not FOLDER_NAME.fullmatch(name):
        document.problem(
            (),
            f'the file\'s name, "{name}", cannot name the folders of results; give the sweep a '
            "name of letters, digits and . _ -",
        )
    return name


def _batches(document: Document, head: Head | None) -> tuple[int, int]:
    """(batch, chunk), with their defaults filled in."""
    given = (document.data.get("batch"), document.data.get("chunk"))
    if head is None or (head.batch, head.chunk) != given:
        return _BATCH, _CHUNK  # a problem already
    batch = head.batch or min(_BATCH, head.chunk or _BATCH)
    chunk = head.chunk or -(-_CHUNK // batch) * batch
    if chunk % batch:
        near = max(batch, round(chunk / batch) * batch)
        default = "" if head.batch else " by default"
        document.problem(
            ("chunk",),
            f"{document.found(('chunk',))}; expected a multiple of batch, which is {batch}"
            f"{default}, for example {near}.",
        )
    return batch, chunk


def _launch(document: Document) -> Launch | None:
    """How to run; keys that the chosen executor does not read are mistakes, not decoration."""
    given = document.data.get("launch", {})
    if not isinstance(given, dict):
        return None  # a problem already
    before = len(document.problems)
    launch = validated(Launch, document, given, ("launch",))
    if launch is None or len(document.problems) > before:
        return None
    if launch.executor != "slurm":
        for key in given:
            if key in SLURM_ONLY:
                document.problem(
                    ("launch", key),
                    f"launch.{key} is for executor: slurm; the executor here is {launch.executor}.",
                )
    if launch.executor == "inline" and launch.workers > 1:
        document.problem(
            ("launch", "workers"),
            f"{document.found(('launch', 'workers'))}; executor: inline is this one process. "
            "Write executor: local for several workers.",
        )
    if launch.split is not None and launch.pack is not None:
        document.problem(
            ("launch", "pack"),
            f"{document.found(('launch', 'pack'))}, and launch.split is {launch.split}; a job has "
            "either many cells (pack) or a slice of one (split). Leave one of the two out.",
        )
    return launch


@cache
def _schedule(model: str) -> NoiseSchedule:
    """The schedule of a model, by the JSON of its canonical description."""
    return models.describe(json.loads(model)).schedule()


@cache
def _steps_left(model: str, spacing: str, steps: int, final: Final, params: Items) -> int:
    """By the model's JSON: a schedule, with its betas, takes long to compare."""
    return len(grid_of(_schedule(model), spacing, steps, final, params))


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _json(data: object) -> str:
    return _ENCODER.encode(data)


def _plain(params: Mapping[str, Value]) -> dict[str, Any]:
    """Parameters as JSON data."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in params.items()}


def _worded(params: Mapping[str, Value], declared: Mapping[str, Parameter]) -> list[str]:
    """The numbers among the parameters, and what else is not at its default."""
    words = []
    for name, value in params.items():
        values = value if isinstance(value, tuple) else (value,)
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numbers or value != declared[name].default:
            text = ",".join(f"{v:g}" if isinstance(v, float) else f"{v}" for v in values)
            words.append(f"{name}={text}")
    return words
