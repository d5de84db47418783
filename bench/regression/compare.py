"""Two results folders, cell by cell: what became better or worse, beyond noise and by how much.

Cells are matched by all that determines their images but the seed. Those that share seeds are
compared seed by seed, image by image where the influences of both lie beside the records; cells
without a seed in common are pooled over their seeds and compared as independent.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import results
from bench.errors import ResultError
from bench.regression.fingerprints import same_arithmetic
from bench.regression.moved import Moved, moved
from bench.regression.verdicts import THRESHOLD, WORSE, Difference, Verdict, judge
from bench.report import frame
from bench.report.frame import Study
from bench.report.names import EXACT
from bench.report.pooled import Pooled, pool
from bench.report.tables import EXACT_DRAWS
from bench.report.yardstick import paired

AT_THE_FLOOR = 1.5
"""Below so many times the value of exact draws, a sampler's own error hardly shows in a value."""

PAIRED = "paired"


@dataclass(frozen=True)
class Row:
    """One metric of one cell, at the base and at the head.

    Attributes:
        label: the cell in words, as reports have it.
        metric: its name.
        samples: images behind each value.
        seeds: how many seeds are pooled.
        base: the value there.
        head: the value there.
        error: standard error of the difference.
        how: "paired", or why it is not.
        verdict: what is said of the difference.
        floor: the value of exact draws at the base; NaN where there is none, or higher is better.
        moved: how far the images of the seeds in common moved.
        notes: what changed beside the value, in words: arithmetic, model, numerics.
    """

    label: str
    metric: str
    samples: int
    seeds: int
    base: Pooled
    head: Pooled
    error: float
    how: str
    verdict: Verdict
    floor: float
    moved: Moved | None
    notes: tuple[str, ...]

    @property
    def relative(self) -> float:
        """The difference as a part of the value at the base."""
        off = self.head.mean - self.base.mean
        return off / abs(self.base.mean) if self.base.mean else math.copysign(math.inf, off)

    @property
    def of_excess(self) -> float:
        """The difference as a part of what the base has above its floor; NaN at the floor."""
        excess = self.base.mean - self.floor
        return (self.head.mean - self.base.mean) / excess if excess > 0 else math.nan

    @property
    def times_floor(self) -> float:
        """The value at the base over the floor; NaN without one."""
        return self.base.mean / self.floor if self.floor > 0 else math.nan

    @property
    def regressed(self) -> bool:
        """Whether it is worse, beyond noise and beyond the practical threshold."""
        return self.verdict.word == WORSE and self.verdict.matters


@dataclass(frozen=True)
class Comparison:
    """What the comparison of two folders found.

    Attributes:
        base: what the one is called.
        head: the other.
        threshold: the practical one.
        rows: the cells that were compared.
        broken: cells that had a value at the base and fail at the head, with the reason.
        left_out: cells that were not compared, with the reason.
        only: how many cells the base alone has, and the head alone.
        said: what the reader should know of the comparison as a whole.
    """

    base: str
    head: str
    threshold: float
    rows: tuple[Row, ...]
    broken: tuple[tuple[str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    only: tuple[int, int] = (0, 0)
    said: tuple[str, ...] = ()

    @property
    def regressions(self) -> list[Row]:
        """The rows that fail a build."""
        return [row for row in self.rows if row.regressed]

    @property
    def failed(self) -> bool:
        """Whether a build should fail."""
        return bool(self.regressions or self.broken)


@dataclass(frozen=True)
class _Side:
    """A folder, with its cells by question."""

    folder: Path
    study: Study
    cells: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class _Draft:
    """A row before all of them are judged together."""

    row: Mapping[str, Any]
    difference: Difference = field(repr=False)


def compare(
    base: Path,
    head: Path,
    *,
    threshold: float = THRESHOLD,
    names: tuple[str, str] | None = None,
) -> Comparison:
    """Compares the cells that two results folders have in common.

    Args:
        base: the folder to compare with.
        head: the folder that is judged.
        threshold: practical threshold, as a part of the value.
        names: what the two are called; their paths by default.

    Raises:
        ResultError: A folder has no results, a record was edited or cannot be read, or the two have
            no cell or no metric in common.
    """
    a, b = _side(base), _side(head)
    called = names or (str(base), str(head))
    common = [question for question in a.cells if question in b.cells]
    if not common:
        raise ResultError(
            f"{base} and {head} have no cell in common: of {len(a.cells)} and {len(b.cells)}, none "
            "has the same model, sampler, parameters, spacing, steps and number of samples. Run "
            "both with one sweep file."
        )
    metrics = [name for name in a.study.metrics if name in b.study.metrics]
    if not metrics:
        raise ResultError(
            f"{base} has the metrics {', '.join(a.study.metrics) or 'none'}, {head} has "
            f"{', '.join(b.study.metrics) or 'none'}: none is in both. Compute one for both "
            '("bench rescore", or "bench run" with another list of metrics).'
        )
    drafts: list[_Draft] = []
    broken: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    for question in common:
        rows = _matched(a.cells[question], b.cells[question])
        label = _label(a, rows[0])
        for metric in metrics:
            draft = _draft(a, b, rows, metric)
            if isinstance(draft, _Draft):
                drafts.append(draft)
                continue
            gone = rows[0]["status"].eq("done").all() and rows[1]["status"].eq("failed").any()
            (broken if gone else left_out).append((label, draft))
    verdicts = judge([draft.difference for draft in drafts], threshold)
    found = tuple(Row(**d.row, verdict=v) for d, v in zip(drafts, verdicts, strict=True))
    only = len(a.cells) - len(common), len(b.cells) - len(common)
    return Comparison(
        *called,
        threshold,
        found,
        tuple(dict.fromkeys(broken)),  # a cell fails once, not once a metric
        tuple(dict.fromkeys(left_out)),
        only,
        tuple(_said(found)),
    )


def _side(folder: Path) -> _Side:
    if folder.is_dir():
        results.verify(folder)
    study = frame.read(folder)
    plan = results.read_plan(folder)["cells"] if (folder / results.PLAN).exists() else []
    described = {row["key"]: row["cell"] for row in plan}
    described |= {key: record.cell for key, record in study.records.items()}
    questions = study.cells["key"].map(lambda key: _question(described[key]))
    cells = {str(name): rows for name, rows in study.cells.groupby(questions, sort=False)}
    return _Side(folder, study, cells)


def _question(cell: results.Json) -> str:
    """All that determines the images but the seed."""
    return json.dumps({k: v for k, v in cell.items() if k != "seed"}, sort_keys=True)


def _matched(base: pd.DataFrame, head: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells of one question with the seeds that both have, or all where they have none."""
    common = set(base["seed"]) & set(head["seed"])
    if not common:
        return base, head
    return base[base["seed"].isin(common)], head[head["seed"].isin(common)]


def _label(side: _Side, rows: pd.DataFrame) -> str:
    """The cell in words, as reports have it, with what else tells it from the others."""
    first = rows.iloc[0]
    setting = side.study.settings[int(first["setting"])].name
    also = f" ({setting})" if setting else ""
    if first["sampler"] == EXACT:
        return EXACT_DRAWS + also
    # With the spacing also where most cells share it: a row may stand alone.
    return f"{first['line']} {first['grid']}, {first['steps']} steps{also}"


def _draft(
    a: _Side, b: _Side, rows: tuple[pd.DataFrame, pd.DataFrame], metric: str
) -> _Draft | str:
    """A row to be judged, or why there is none."""
    one, other = (_pooled(tag, each, metric) for tag, each in zip("ab", rows, strict=True))
    for side, value in ((a, one), (b, other)):
        if value.hole:
            return f"{side.folder}: {value.note or 'no value'}"
    same_seeds = set(rows[0]["seed"]) == set(rows[1]["seed"])
    if same_seeds and _seeds(a, one) != _seeds(b, other):
        return f"not the same seeds have a value: {one.note or other.note}"
    entries = [_entry(side, key, metric) for side, v in ((a, one), (b, other)) for key in v.keys]
    for part in ("reference_digest", "extractor_digest", "n"):
        values = list(dict.fromkeys(entry.get(part) for entry in entries))
        if len(values) > 1:
            what = part.removesuffix("_digest") if part != "n" else "number of images"
            return f"another {what}: {' and '.join(map(str, values))}"
    found = {**_influences(a, one, metric), **_influences(b, other, metric)}
    pairs = {key: _pair(side, key, metric) for side, v in ((a, one), (b, other)) for key in v.keys}
    couples = [
        (found[x], found[y])
        for x, y in zip(one.keys, other.keys, strict=False)
        if same_seeds and x in found and y in found and len(found[x]) == len(found[y])
    ]
    whole = bool(couples) and len(couples) == len(one.keys) == len(other.keys)
    error = paired(one, other, found if whole else {}, pairs)
    keys = tuple(key[1:] for key in one.keys) if same_seeds else ()
    went = moved(a.folder, b.folder, keys, couples)
    higher = any(entry.get("better") == "higher" for entry in entries)
    images = int(entries[0]["n"]) * min(one.seeds, other.seeds)
    difference = Difference(
        value=other.mean - one.mean,
        error=error,
        base=one.mean,
        images=images,
        higher=higher,
        freedom=min(one.freedom, other.freedom),
        identical=same_seeds and _identical(one, other, couples, went),
    )
    row = {
        "label": _label(a, rows[0]),
        "metric": metric,
        "samples": int(rows[0]["samples"].iloc[0]),
        "seeds": one.seeds,
        "base": one,
        "head": other,
        "error": error,
        "how": PAIRED if whole else _why(a, b, found, one, other, same_seeds=same_seeds),
        "floor": math.nan if higher else _floor(a, rows[0], metric),
        "moved": went,
        "notes": tuple(_notes(a, b, one, other)),
    }
    return _Draft(row, difference)


def _pooled(tag: str, rows: pd.DataFrame, metric: str) -> Pooled:
    """The value over the seeds; its keys are told apart from those of the other side by the tag."""
    return pool(rows.assign(key=tag + rows["key"]), metric)


def _seeds(side: _Side, value: Pooled) -> list[int]:
    return [side.study.records[key[1:]].cell["seed"] for key in value.keys]


def _entry(side: _Side, key: str, metric: str) -> results.Json:
    return dict(side.study.records[key[1:]].metrics[metric])


def _influences(side: _Side, value: Pooled, metric: str) -> dict[str, NDArray[np.float32]]:
    held = side.study.influences
    return {key: held[key[1:]][metric] for key in value.keys if metric in held.get(key[1:], {})}


def _pair(side: _Side, key: str, metric: str) -> tuple[Any, ...]:
    record = side.study.records[key[1:]]
    return record.cell["seed"], record.metrics[metric]["n"]


def _why(
    a: _Side,
    b: _Side,
    found: Mapping[str, object],
    one: Pooled,
    other: Pooled,
    *,
    same_seeds: bool,
) -> str:
    """Why two values are not compared image by image."""
    if not same_seeds:
        return "unpaired: no seed in common"
    without = [
        str(side.folder)
        for side, value in ((a, one), (b, other))
        if not all(key in found for key in value.keys)
    ]
    return f"unpaired: no influences beside the records in {' and '.join(without)}"


def _identical(
    one: Pooled,
    other: Pooled,
    couples: list[tuple[NDArray[np.float32], NDArray[np.float32]]],
    went: Moved | None,
) -> bool:
    """Whether there is no difference at all, in whatever is there to tell."""
    same = one.mean == other.mean and (one.error == other.error or math.isnan(one.error))
    kept = went is None or went.images == 0 or went.share == 0
    return same and kept and all(np.array_equal(x, y) for x, y in couples)


def _floor(side: _Side, rows: pd.DataFrame, metric: str) -> float:
    setting = side.study.settings[int(rows["setting"].iloc[0])]
    found = frame.floor(setting, metric)
    return math.nan if found is None else found.mean


def _notes(a: _Side, b: _Side, one: Pooled, other: Pooled) -> Iterator[str]:
    """What else differs between the records of the first seed."""
    then = a.study.records[one.keys[0][1:]].provenance
    now = b.study.records[other.keys[0][1:]].provenance
    # The fingerprint of a cell is of its own noise, so of its seed.
    if one.keys[0][1:] == other.keys[0][1:] and not same_arithmetic(then, now):
        yield "the sampler's arithmetic changed"
    if then.get("model_digest") != now.get("model_digest"):
        yield "another model"
    for name, value in (then.get("numerics") or {}).items():
        if (found := (now.get("numerics") or {}).get(name)) != value:
            yield f"{name} {found}, was {value}"


def _said(rows: tuple[Row, ...]) -> Iterator[str]:
    for why in dict.fromkeys(row.how for row in rows if row.how != PAIRED):
        count = sum(row.how == why for row in rows)
        yield (
            f"{count} of {len(rows)} differences are {why}. Their errors are those of independent "
            "cells: right, but larger than those of pairs."
        )
    samplers = [row for row in rows if not row.label.startswith(EXACT_DRAWS)]
    low = [row for row in samplers if row.times_floor < AT_THE_FLOOR]
    if low:
        yield (
            f"{len(low)} of {len(rows)} values lie below {AT_THE_FLOOR:g} times their floor (exact "
            "draws): what a change does to such a sampler hardly shows in its value. Fewer steps "
            'show more, and "bench fingerprint" all of it.'
        )
