"""A value over seeds, with its error."""

import math
from dataclasses import dataclass

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
    """

    mean: float
    seeds: int
    note: str = ""
    error: float = math.nan
    freedom: float = math.inf
    keys: tuple[str, ...] = ()

    @property
    def hole(self) -> bool:
        """Whether there is no value."""
        return self.seeds == 0

    @property
    def sure(self) -> bool:
        """Whether there is a value whose error is known."""
        return not self.hole and not math.isnan(self.error)


def pool(rows: pd.DataFrame, metric: str) -> Pooled:
    """The value of a metric over cells that differ in their seeds alone."""
    rows = rows.sort_values("seed", kind="stable")
    unknown = pd.Series(math.nan, index=rows.index)
    values = rows.get(f"metric.{metric}", unknown)
    good = values[values.map(math.isfinite)]
    error, freedom = _error(good, rows.get(f"error.{metric}", unknown)[good.index])
    return Pooled(
        mean=float(good.mean()) if len(good) else math.nan,
        seeds=len(good),
        note=_note(rows, good, metric),
        error=error,
        freedom=freedom,
        keys=tuple(rows.loc[good.index, "key"]),
    )


def _error(values: "pd.Series[float]", errors: "pd.Series[float]") -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom."""
    seeds = len(values)
    if seeds and errors.notna().all():
        return math.sqrt(float((errors**2).sum())) / seeds, math.inf
    if seeds > 1:
        return float(values.std(ddof=1)) / math.sqrt(seeds), float(seeds - 1)
    return math.nan, math.inf


def _note(rows: pd.DataFrame, good: "pd.Series[float]", metric: str) -> str:
    notes = []
    for index in rows.index.difference(good.index, sort=False):
        row = rows.loc[index]
        known = row["reason"] if pd.notna(row["reason"]) else f"{metric} was not recorded"
        notes.append(f"{row['status']}: {known}" if row["status"] == "failed" else known)
    note = "; ".join(dict.fromkeys(notes))
    return f"{len(notes)} of {len(rows)} seeds: {note}" if note and len(good) else note
