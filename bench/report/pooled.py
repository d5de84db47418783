"""A value over seeds, with its error."""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Pooled:
    """One value over the seeds that have it.

    Attributes:
        mean: NaN for a hole.
        seeds: How many seeds the mean is of.
        note: Why a value is missing, wholly or for some of the seeds; else "".
        error: Standard error of the mean; NaN where none is known.
        freedom: Degrees of freedom of the error: infinite where it comes from the records, which
            have it from their images; seeds - 1 where it comes from the spread over seeds.
        keys: Of the cells behind the mean, in the order of their seeds.
        spread: Standard deviation over seeds; NaN for fewer than two.
    """

    mean: float
    seeds: int
    note: str = ""
    error: float = math.nan
    freedom: float = math.inf
    keys: tuple[str, ...] = ()
    spread: float = math.nan

    @property
    def hole(self) -> bool:
        """Whether there is no value."""
        return self.seeds == 0

    @property
    def sure(self) -> bool:
        """Whether there is a value whose error is known."""
        return not self.hole and not math.isnan(self.error)


Row = Mapping[Hashable, Any]
"""A cell by the names of its columns."""


def pool(cells: pd.DataFrame, metric: str) -> Pooled:
    """The value of a metric over cells that differ in their seeds alone."""
    return pool_rows(cells.to_dict("records"), metric)


def pool_rows(rows: Sequence[Row], metric: str) -> Pooled:
    """The same of cells that are no frame: pandas takes long over many frames of few cells."""
    rows = sorted(rows, key=lambda row: int(row["seed"]))
    good = [row for row in rows if _known(row.get(f"metric.{metric}"))]
    values = [float(row[f"metric.{metric}"]) for row in good]
    error, freedom = _error(values, [row.get(f"error.{metric}") for row in good])
    return Pooled(
        mean=statistics.fmean(values) if good else math.nan,
        seeds=len(good),
        note=_note(rows, len(good), metric),
        error=error,
        freedom=freedom,
        keys=tuple(str(row["key"]) for row in good),
        spread=statistics.stdev(values) if len(values) > 1 else math.nan,
    )


def missing(value: Any) -> bool:
    """Whether there is nothing in a place of a frame: None, NaN or NA."""
    return value is None or bool(pd.isna(value))


def _known(value: Any) -> bool:
    return not missing(value) and math.isfinite(value)


def _error(values: list[float], errors: list[Any]) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom."""
    seeds = len(values)
    if seeds and not any(map(missing, errors)):
        return math.sqrt(sum(float(error) ** 2 for error in errors)) / seeds, math.inf
    if seeds > 1:
        return statistics.stdev(values) / math.sqrt(seeds), float(seeds - 1)
    return math.nan, math.inf


def _note(rows: Sequence[Row], good: int, metric: str) -> str:
    notes = []
    for row in rows:
        if _known(row.get(f"metric.{metric}")):
            continue
        known = f"{metric} was not recorded" if missing(row["reason"]) else str(row["reason"])
        notes.append(f"{row['status']}: {known}" if row["status"] == "failed" else known)
    note = "; ".join(dict.fromkeys(notes))
    return f"{len(notes)} of {len(rows)} seeds: {note}" if note and good else note
