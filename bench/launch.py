"""A sweep from its cells to their records: skip what is done, launch the rest, say what became.

`results/<sweep>/` gets the plan first, then a record a cell. Running again computes only what has
no valid record: a new commit computes nothing, a changed sampler, model, extractor or reference
does, and so does a failure (its reason may have gone). A record that is no longer valid is moved
to `work/<key>/earlier.json`.
"""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bench import atomic, chunks, executors, influences, results
from bench.cell import Setting, is_done, run_cell
from bench.claim import CLAIM, claimed, holder
from bench.errors import CellError, LaunchError
from bench.progress import Watch
from bench.sweep import Cell, Sweep

EARLIER = "earlier.json"
"""Where in its work folder the last record of a cell lies that had to be computed again."""


@dataclass(frozen=True)
class RunSummary:
    """What became of a run.

    Attributes:
        done_before: cells that needed nothing.
        computed: cells that are done now.
        failed: label and reason of each cell that failed.
        missing: label, and where to look, of each cell without a record.
        interrupted: None, or after Ctrl-C what became of the jobs.
        seconds: how long it took.
    """

    done_before: int
    computed: int
    failed: tuple[tuple[str, str], ...]
    missing: tuple[tuple[str, str], ...]
    interrupted: str | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every cell of the sweep is done."""
        return not self.failed and not self.missing


def run(sweep: Sweep, folder: Path, *, console: Console | None = None) -> RunSummary:
    """Computes the cells of `sweep` that are not done.

    Args:
        sweep: the sweep.
        folder: its results folder, made if need be.
        console: shows progress, if given.

    Raises:
        MetricError: Weights or statistics are missing or do not fit; nothing was sampled.
        LaunchError: Jobs cannot be submitted, or something stopped them before the end.
        ResultError: Something in `folder` cannot be read or written.
    """
    began = time.monotonic()
    folder = folder.absolute()
    plan = sweep.plan()
    setting = Setting.of(plan)
    if sweep.launch.executor != "inline":
        setting = replace(setting, device="cpu")  # a login node need not have the jobs' device
    setting.bind()
    atomic.make_folder(folder / "work")
    atomic.clean(folder)
    atomic.clean(folder / influences.FOLDER)
    results.write_plan(folder, plan)
    cells = sweep.cells()
    todo = [cell for cell in cells if not _settle(cell, setting, folder)]
    interrupted = None
    stopped: list[str] = []
    executor = executors.make(sweep.launch, folder, [cell.key for cell in todo])
    if todo:
        watch = Watch(console or Console(quiet=True), folder, todo, sweep.chunk)
        try:
            with watch:
                stopped = executor.run()
        except KeyboardInterrupt:
            interrupted = executor.interrupt()
    failed, missing = [], []
    for cell in todo:
        result = results.find(folder, cell.key)
        if result is None:
            missing.append((cell.label, executor.log_of(cell.key)))
        elif result.error is not None:
            failed.append((cell.label, result.error))
    if missing and stopped:
        raise LaunchError("\n".join(stopped))
    return RunSummary(
        done_before=len(cells) - len(todo),
        computed=len(todo) - len(failed) - len(missing),
        failed=tuple(failed),
        missing=tuple(missing),
        interrupted=interrupted,
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True)
class Rescored:
    """What became of scoring cells again.

    Attributes:
        scored: cells with a new record.
        left: label, and why, of each cell whose record is as it was.
    """

    scored: int
    left: tuple[tuple[str, str], ...]


def rescore(sweep: Sweep, folder: Path) -> Rescored:
    """Computes the metrics of `sweep` anew from what its cells kept, without sampling.

    Raises:
        MetricError: Weights or statistics are missing or do not fit.
        ResultError: Something in `folder` cannot be read or written.
    """
    folder = folder.absolute()
    plan = sweep.plan()
    setting = Setting.of(plan)
    setting.bind()
    results.write_plan(atomic.make_folder(folder), plan)
    scored, left = 0, []
    for cell in sweep.cells():
        work = atomic.make_folder(chunks.folder_of(folder, cell.key))
        with claimed(work / CLAIM) as claim:
            if claim is None:
                left.append((cell.label, "it is being computed."))
                continue
            try:
                run_cell(cell, setting, folder, sample=False)
                scored += 1
            except CellError as error:
                left.append((cell.label, str(error)))
    return Rescored(scored, tuple(left))


def _settle(cell: Cell, setting: Setting, folder: Path) -> bool:
    """Whether a cell is done; if it is not, a record that it has is set aside."""
    result = results.find(folder, cell.key)
    work = chunks.folder_of(folder, cell.key)
    if is_done(cell, result, setting):
        _tidy(work)
        return True
    if result is not None:
        path = results.path_of(folder, cell.key)
        with atomic.explained(path):
            atomic.make_folder(work)
            path.replace(work / EARLIER)
    return False


def _tidy(work: Path) -> None:
    """Removes what a worker leaves that dies between writing a record and cleaning up."""
    chunks.discard(work)
    atomic.clean(work)
    claim = work / CLAIM
    if claim.exists() and holder(claim) is None:
        claim.unlink(missing_ok=True)
