"""Jobs into arrays: how long each may take, which go together, how many at a time. No I/O."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bench import results
from bench.results import Json, Result

HOURS = (1, 2, 4, 8, 12, 24)
"""Time limits of SLURM jobs. One that is over them is requeued as long as it gets on."""
MARGIN = 2.0
"""So many times what finished cells say: nodes differ, and start-up is not in their seconds."""


class Spec(Protocol):
    """What is to be known of a job here."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The cells that it looks at."""


Job = TypeVar("Job", bound=Spec)


@dataclass(frozen=True)
class Array(Generic[Job]):
    """Jobs that are submitted together.

    Attributes:
        minutes: time limit of each.
        jobs: in the order in which they start.
        at_a_time: how many of them may run at a time, or None for what the cluster gives.
    """

    minutes: int
    jobs: tuple[Job, ...]
    at_a_time: int | None


def expected(rows: Sequence[Json], records: Iterable[Result]) -> dict[str, float]:
    """Seconds that the cells of a plan will take, by what finished cells of their models took.

    Of several records the slowest counts. A cell is left out if no cell of its model is done.
    """
    a_call: dict[str, float] = {}
    features = 0.0
    for record in records:
        if record.status == "done" and record.seconds:
            mean = record.nfe["counted"]["mean"]
            seconds = record.seconds["sampling"] / (record.samples * max(mean, 1.0))
            model = _model(record.cell)
            a_call[model] = max(a_call.get(model, 0.0), seconds)
            features = max(features, record.seconds["features"] / record.samples)
    return {
        row["key"]: row["cell"]["samples"]
        * (max(results.calls(row), 1) * a_call[_model(row["cell"])] + features)
        for row in rows
        if _model(row["cell"]) in a_call
    }


def limit(keys: Iterable[str], seconds: Mapping[str, float]) -> int:
    """Minutes for a job that computes these cells one after the other, from one hour to a day."""
    hours = MARGIN * sum(seconds.get(key, 0.0) for key in keys) / 3600
    return 60 * next((each for each in HOURS if each >= hours), HOURS[-1])


def grouped(
    jobs: Sequence[Job],
    seconds: Mapping[str, float],
    *,
    size: int,
    minutes: int | None = None,
    at_a_time: int | None = None,
) -> list[Array[Job]]:
    """Arrays of jobs with one time limit each, the dearest first.

    Args:
        jobs: in the order in which they should start.
        seconds: what is expected of each cell, as far as anything is.
        size: how many jobs an array may have.
        minutes: time limit of all, if the sweep says one.
        at_a_time: how many jobs may run at a time. The arrays share them by their numbers of
            jobs; each may run one at least.
    """
    limits = [minutes or limit(job.keys, seconds) for job in jobs]
    found = []
    for each in sorted(set(limits), reverse=True):
        group = [job for job, its in zip(jobs, limits, strict=True) if its == each]
        parts = [group[start : start + size] for start in range(0, len(group), size)]
        found += [(each, tuple(part)) for part in parts]
    shares = [
        None if at_a_time is None else max(1, at_a_time * len(part) // len(jobs))
        for _, part in found
    ]
    return [Array(each, part, share) for (each, part), share in zip(found, shares, strict=True)]


def _model(cell: Json) -> str:
    return json.dumps(cell["model"], sort_keys=True)
