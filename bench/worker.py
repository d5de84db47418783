"""The one worker loop: take a free cell, compute it, record it, until none is left.

It serves in this process, in a local job and in a task of a SLURM array alike.
"""

import logging
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import UncompletedJobError

from bench import atomic, chunks, results
from bench.cell import Setting, is_done, record_failure, run_cell
from bench.claim import CLAIM, Claim, claimed
from bench.errors import BenchError, ResultError
from bench.sweep import Cell

IDLE_CHECKPOINTS = 3
"""So often may a job be stopped without one finished chunk since the last time."""

log = logging.getLogger(__name__)


def worker(folder: Path, keys: Collection[str] | None = None, *, job: str = "") -> int:
    """Computes the cells of the plan in `folder` that are neither settled nor claimed.

    It looks again after every pass, so a cell whose worker died is taken over. A settled cell is
    done, or failed: whoever wants a failed cell tried again sets its record aside first.

    Args:
        folder: the sweep's results folder, with its plan.
        keys: the cells to look at; all by default.
        job: id of the cluster job, if this is one.

    Returns:
        How many cells were computed, failed ones included.

    Raises:
        MetricError: Weights or statistics are missing here.
        ResultError: Something cannot be read or written; going on would be in vain.
    """
    plan = results.read_plan(folder)
    setting = Setting.of(plan)
    rows = [row["cell"] for row in plan["cells"] if keys is None or row["key"] in keys]
    waiting = _dearest_first([Cell(**row) for row in rows])
    setting.bind()  # what is missing on this machine is no fault of the cells
    computed = 0
    while True:
        waiting = [cell for cell in waiting if not is_settled(cell, setting, folder)]
        ours = [cell for cell in waiting if _compute(cell, setting, folder, job)]
        computed += len(ours)
        if not ours:  # the others have owners that are alive
            return computed


def _dearest_first(cells: list[Cell]) -> list[Cell]:
    """By cost, so that no long cell is left at the end; model by model, as one is loaded once."""
    models: dict[str, int] = {}
    for cell in cells:
        models.setdefault(str(cell.model), len(models))
    return sorted(cells, key=lambda cell: (models[str(cell.model)], -cell.work * cell.samples))


def is_settled(cell: Cell, setting: Setting, folder: Path) -> bool:
    """Whether there is nothing to do for a cell: it is done, or it failed."""
    result = results.find(folder, cell.key)
    return result is not None and (result.status == "failed" or is_done(cell, result, setting))


class _LostClaim(Exception):
    """Another worker took the cell over, because this one was silent for too long."""


def _compute(cell: Cell, setting: Setting, folder: Path, job: str) -> bool:
    """Computes a cell and records it, or its failure; False if another worker has it."""
    work = atomic.make_folder(chunks.folder_of(folder, cell.key))
    with claimed(work / CLAIM, job) as claim:
        if claim is None or is_settled(cell, setting, folder):
            return False
        try:
            result = run_cell(cell, setting, folder, before_chunk=lambda: _check(claim))
        except _LostClaim:
            log.warning("%s: another worker took it over.", cell.label)
            return False
        except (ResultError, UncompletedJobError):  # a full disk; a job that is being requeued
            raise
        except BenchError as error:
            reason = str(error)
        except Exception as error:
            log.exception("%s failed by a bug", cell.label)
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        else:
            log.info("%s: done in %.1f s", cell.label, result.seconds["total"])
            return True
        log.error("%s failed: %s", cell.label, reason)
        record_failure(cell, folder, reason)
        return True


def _check(claim: Claim) -> None:
    if claim.lost:
        raise _LostClaim


@dataclass
class Job:
    """The worker loop as a job: pickled small, and requeued where it was stopped.

    Attributes:
        folder: the sweep's results folder.
        keys: the cells to look at; all if None.
    """

    folder: str
    keys: tuple[str, ...] | None = None
    _finished: int = 0
    _idle: int = 0

    def __call__(self) -> str:
        """Runs the loop; returns the message of what stopped it early, or ''."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        try:
            worker(Path(self.folder), self.keys, job=submitit.JobEnvironment().job_id)
        except BenchError as error:
            log.error("%s", error)
            return str(error)
        return ""

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Called when the job is preempted or out of time: requeues it as long as it gets on."""
        finished = chunks.computed(Path(self.folder), self.keys)
        self._idle = 0 if finished > self._finished else self._idle + 1
        self._finished = finished
        if self._idle > IDLE_CHECKPOINTS:
            log.error("Stopped %d times without a finished chunk; given up.", self._idle)
            return None
        return submitit.helpers.DelayedSubmission(self)
