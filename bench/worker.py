"""The one worker loop: take a free cell, or a slice of one, compute it, until none is left.

It serves in this process, in a local job and in a task of a SLURM array alike.
"""

import logging
import signal
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from pathlib import Path

import submitit
from submitit.core.utils import UncompletedJobError

from bench import atomic, chunks, interrupt, results
from bench.cell import Setting, has_chunks, is_done, make_chunks, record_failure, run_cell
from bench.claim import CLAIM, Claim, claimed
from bench.errors import BenchError, ResultError
from bench.jobs import dearest_first, slices
from bench.numerics import free_memory, is_out_of_memory
from bench.sweep import Cell

IDLE_CHECKPOINTS = 3
"""So often may a job be stopped without one finished chunk since the last time."""
PAUSE = 2.0
"""Seconds between two looks of a worker that stays until others have finished."""

log = logging.getLogger(__name__)


def worker(
    folder: Path,
    keys: Collection[str] | None = None,
    *,
    job: str = "",
    first: int = 0,
    stay: bool = False,
) -> int:
    """Computes the cells of the plan in `folder` that are neither settled nor claimed.

    It looks again after every pass, so a cell whose worker died is taken over. A settled cell is
    done, or failed: whoever wants a failed cell tried again sets its record aside first.

    With nothing free it ends, as what a cluster has lent is not to be held idle, and the cells of
    others that die are for the next run; or else it stays until all its cells are settled.

    Where the plan says `split`, it takes slices of cells, whoever has the other ones; whoever finds
    all chunks of a cell finished scores it.

    Args:
        folder: the sweep's results folder, with its plan.
        keys: the cells to look at; all by default.
        job: id of the cluster job, if this is one.
        first: the slice of a cell that is tried first.
        stay: whether it stays while others have cells that it could take over.

    Returns:
        How many cells were settled, failed ones included.

    Raises:
        MetricError: Weights or statistics are missing here.
        ResultError: Something cannot be read or written; going on would be in vain.
    """
    plan = results.read_plan(folder)
    setting, split = Setting.of(plan), plan["launch"].get("split", 1)
    rows = [row["cell"] for row in plan["cells"] if keys is None or row["key"] in keys]
    waiting = dearest_first(Cell(**row) for row in rows)
    del plan, rows
    setting.bind()  # what is missing on this machine is no fault of the cells
    atomic.make_folder(folder / "work")
    settled = 0
    with interrupt.remembered() as reraise:
        hand = _Hand(setting, folder, job, split, first, reraise)
        while True:
            became = [hand.work_on(cell) for cell in waiting]
            settled += became.count(_Became.SETTLED)
            left = (_Became.BUSY, _Became.ADVANCED)
            waiting = [cell for cell, it in zip(waiting, became, strict=True) if it in left]
            if {_Became.SETTLED, _Became.ADVANCED} & set(became):
                continue
            if not stay or not waiting:
                return settled
            time.sleep(PAUSE)  # what is left has owners that are alive


def is_settled(cell: Cell, setting: Setting, folder: Path) -> bool:
    """Whether there is nothing to do for a cell: it is done, or it failed."""
    result = results.find(folder, cell.key)
    return result is not None and (result.status == "failed" or is_done(cell, result, setting))


class _Became(Enum):
    """What became of a cell while this worker looked at it."""

    NOTHING_TO_DO = auto()
    BUSY = auto()
    ADVANCED = auto()
    SETTLED = auto()


class _LostClaim(Exception):
    """Another worker took the work over, because this one was silent for too long."""


@dataclass(frozen=True)
class _Hand:
    """What a worker does with a cell; the attributes are those of `worker`.

    `reraise` raises what ends the worker, where it was taken for something else on its way.
    """

    setting: Setting
    folder: Path
    job: str
    split: int
    first: int
    reraise: Callable[[], None]

    def work_on(self, cell: Cell) -> _Became:
        """Does of a cell what is free: all of it, or slices and the scoring."""
        if self._is_settled(cell):
            return _Became.NOTHING_TO_DO
        advanced = False
        if self.split > 1:
            parts = list(enumerate(slices(self.setting.chunks(cell), self.split)))
            begin = self.first % len(parts)
            for index, part in parts[begin:] + parts[:begin]:
                became = self._slice(cell, index, part)
                if became is _Became.SETTLED:  # by a failure
                    return became
                advanced |= became is _Became.ADVANCED
            if not all(self._has(cell, part) for _, part in parts):
                return _Became.ADVANCED if advanced else _Became.BUSY
        became = self._hold(cell, CLAIM, self._whole)
        return _Became.ADVANCED if advanced and became is _Became.BUSY else became

    def _whole(self, cell: Cell, check: Callable[[], None]) -> _Became:
        result = run_cell(cell, self.setting, self.folder, check=check)
        log.info("%s: done in %.1f s", cell.label, result.seconds["total"])
        return _Became.SETTLED

    def _slice(self, cell: Cell, index: int, part: range) -> _Became:
        def make(cell: Cell, check: Callable[[], None]) -> _Became:
            make_chunks(cell, self.setting, self.folder, part, check=check)
            log.info("%s: slice %d is finished", cell.label, index)
            return _Became.ADVANCED

        if self._has(cell, part):
            return _Became.NOTHING_TO_DO
        return self._hold(cell, chunks.slice_claim(index), make)

    def _hold(
        self, cell: Cell, name: str, task: Callable[[Cell, Callable[[], None]], _Became]
    ) -> _Became:
        """Does a task under the claim `name`; its failure is recorded as that of the cell."""
        work = chunks.folder_of(self.folder, cell.key)
        # Without parents: a results folder that somebody deleted is not to come back half empty.
        with atomic.explained(work):
            work.mkdir(exist_ok=True)
        with atomic.explained(work / name), claimed(work / name, self.job) as claim:
            if claim is None:
                return _Became.BUSY
            if self._is_settled(cell):
                return _Became.NOTHING_TO_DO
            try:
                return task(cell, partial(self._check, claim, work))
            except _LostClaim:
                log.warning("%s: another worker took it over.", cell.label)
                return _Became.BUSY
            except (ResultError, UncompletedJobError):  # a full disk; a job that is being requeued
                raise
            except BenchError as error:
                self.reraise()
                reason = str(error)
            except Exception as error:
                self.reraise()
                log.exception("%s failed", cell.label)
                reason = _reason(error, cell)
            free_memory()  # what the error held on to
            log.error("%s failed: %s", cell.label, reason)
            record_failure(cell, self.folder, reason)
            return _Became.SETTLED

    def _check(self, claim: Claim, work: Path) -> None:
        """Raises what ends the work, if anything does."""
        self.reraise()
        if claim.lost:
            with atomic.explained(work):
                work.stat()  # its claim may be gone with everything else
            raise _LostClaim

    def _is_settled(self, cell: Cell) -> bool:
        return is_settled(cell, self.setting, self.folder)

    def _has(self, cell: Cell, part: range) -> bool:
        """Whether a slice is finished; if that cannot be told, who tries to make it says why."""
        try:
            return has_chunks(cell, self.setting, self.folder, part)
        except (ResultError, UncompletedJobError):
            raise
        except Exception:
            self.reraise()
            log.exception("%s: its chunks cannot be judged", cell.label)
            return False


def _reason(error: Exception, cell: Cell) -> str:
    """Why a cell failed by something that nobody foresaw, or by want of memory."""
    text = f"{type(error).__name__}: {error}"
    if is_out_of_memory(error):
        return (
            f"Cell {cell.short} ({cell.label}): there was not enough memory ({text}). Take a "
            "smaller batch, or ask for more memory."
        )
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{text} ({Path(where.filename).name}:{where.lineno})"


@dataclass
class Job:
    """The worker loop as a job: pickled small, and requeued where it was stopped.

    Attributes:
        folder: the sweep's results folder.
        keys: the cells to look at; all if None.
        first: the slice of a cell that is tried first.
    """

    folder: str
    keys: tuple[str, ...] | None = None
    first: int = 0
    _finished: int = 0
    _idle: int = 0

    def __call__(self) -> str:
        """Runs the loop; returns the message of what stopped it early, or ''."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
        # "bench cancel" sends it, and what a shell started in the background would not hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            here = submitit.JobEnvironment()
            stay = here.cluster != "slurm"
            worker(Path(self.folder), self.keys, job=here.job_id, first=self.first, stay=stay)
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
