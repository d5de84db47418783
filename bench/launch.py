"""A sweep from its cells to their records: skip what is done, launch the rest, say what became.

`results/<sweep>/` gets the plan first, then a record a cell. Running again computes only what has
no valid record: a new commit computes nothing, a changed sampler, model, extractor or reference
does, and so does a failure (its reason may have gone). A record that is no longer valid is moved
to `work/<key>/earlier.json`.

There is no launcher that has to stay alive. What was submitted is in files (`bench.submissions`),
what is under way is seen from them (`bench.states`), and whoever runs a sweep takes over what
others have begun: it leaves their cells to them, and waits for them.
"""

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from bench import (
    arrays,
    atomic,
    chunks,
    executors,
    influences,
    progress,
    results,
    scheduler,
    states,
    submissions,
)
from bench.cancel import cancel, undo
from bench.cell import Setting, is_done, run_cell
from bench.claim import CLAIM, alone, claimed, holder, release
from bench.errors import CellError, LaunchError
from bench.submissions import Submission
from bench.sweep import Cell, Sweep
from bench.worker import worker

EARLIER = "earlier.json"
"""Where in its work folder the last record of a cell lies that had to be computed again."""


@dataclass(frozen=True)
class Unfinished:
    """A cell that is not done.

    Attributes:
        label: which one.
        reason: of its failure; or how its job ended, where it has no record and that is known.
        logs: where to read more: the error logs of the jobs that looked at it last.
    """

    label: str
    reason: str
    logs: tuple[str, ...]


@dataclass(frozen=True)
class RunSummary:
    """What became of a run.

    Attributes:
        done_before: cells that needed nothing.
        computed: cells that are done now.
        failed: the cells that failed.
        missing: the cells without a record.
        interrupted: None, or after Ctrl-C what became of the jobs.
        seconds: how long it took.
    """

    done_before: int
    computed: int
    failed: tuple[Unfinished, ...]
    missing: tuple[Unfinished, ...]
    interrupted: str | None
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every cell of the sweep is done."""
        return not self.failed and not self.missing


def run(
    sweep: Sweep,
    folder: Path,
    *,
    only: Container[str] | None = None,
    console: Console | None = None,
    snapshot: bool = False,
) -> RunSummary:
    """Computes the cells of `sweep` that are not done, and waits for those that others compute.

    Args:
        sweep: the sweep.
        folder: its results folder, made if need be.
        only: keys of the cells to compute; all, if not given.
        console: shows progress, if given.
        snapshot: whether jobs run from a copy of the package.

    Raises:
        MetricError: Weights or statistics are missing or do not fit; nothing was sampled.
        LaunchError: Jobs cannot be submitted, or something stopped them before the end.
        ResultError: Something in `folder` cannot be read or written.
    """
    began = time.monotonic()
    folder = folder.absolute()
    console = console or Console(quiet=True)
    interrupted = None
    cells = _chosen(sweep, only)
    todo: Sequence[Cell] | None = None
    try:
        todo = _start(sweep, folder, cells, snapshot=snapshot, say=console.print).todo
        keys = {cell.key for cell in todo}
        if sweep.launch.executor == "inline" and todo:
            rows = [row for row in sweep.plan()["cells"] if row["key"] in keys]
            with progress.Watch(console, folder, rows, sweep.chunk) as watch:
                worker(folder, keys, stay=True)
                progress.wait(watch, folder, keys)
        elif todo:
            progress.show(console, folder, keys)
    except KeyboardInterrupt:
        interrupted = _interrupt(folder)
    if todo is None:  # interrupted before it was known
        todo = [cell for cell in cells if results.find(folder, cell.key) is None]
    executors.collect()
    return _summary(cells, todo, folder, interrupted, time.monotonic() - began)


@dataclass(frozen=True)
class Submitted:
    """What became of submitting.

    Attributes:
        todo: the cells that are not done.
        free: those of them that nobody worked on; they were submitted.
        submissions: what was made for them.
    """

    todo: tuple[Cell, ...]
    free: tuple[Cell, ...]
    submissions: tuple[Submission, ...]


def submit(
    sweep: Sweep,
    folder: Path,
    *,
    only: Container[str] | None = None,
    snapshot: bool = False,
    failed_only: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Submitted:
    """Submits the cells of `sweep` that are not done and that nobody works on; returns at once.

    Args:
        sweep: the sweep.
        folder: its results folder, made if need be.
        only: keys of the cells to submit; all, if not given.
        snapshot: whether jobs run from a copy of the package.
        failed_only: whether to leave out cells that have not failed.
        say: hears of a cluster that does not answer.

    Raises:
        MetricError: Weights or statistics are missing or do not fit.
        LaunchError: Jobs cannot be submitted, or there is nothing to submit them to.
        ResultError: Something in `folder` cannot be read or written.
    """
    if sweep.launch.executor == "inline":
        raise LaunchError(
            f'{sweep.file}: the executor is "inline", which is the process of "bench run". To '
            'submit cells, write "launch: {executor: local}" or use --executor.'
        )
    cells = _chosen(sweep, only)
    folder = folder.absolute()
    return _start(sweep, folder, cells, snapshot=snapshot, failed_only=failed_only, say=say)


def _chosen(sweep: Sweep, only: Container[str] | None) -> list[Cell]:
    return [cell for cell in sweep.cells() if only is None or cell.key in only]


def _start(
    sweep: Sweep,
    folder: Path,
    cells: Sequence[Cell],
    *,
    snapshot: bool,
    say: Callable[[str], None],
    failed_only: bool = False,
) -> Submitted:
    """Decides what has to be computed and submits it; inline, it only decides."""
    plan = sweep.plan()
    setting = Setting.of(plan)
    inline = sweep.launch.executor == "inline"
    if not inline:
        setting = replace(setting, device="cpu")  # a login node need not have the jobs' device
    setting.bind()
    with _alone(folder):
        atomic.clean(folder)
        atomic.clean(folder / influences.FOLDER)
        results.write_plan(folder, plan)
        _withdraw_unfinished(folder, say)
        seen = scheduler.patiently(lambda: _look(folder), say)
        for held in seen.stale:
            release(held.path, held.owner)
        state = {cell.key: cell.state for cell in seen.cells}
        todo, free = [], []
        for cell in cells:
            if failed_only and state[cell.key] != states.FAILED:
                continue
            if cell.key in seen.busy:
                todo.append(cell)
            elif not _settle(cell, setting, folder):
                todo.append(cell)
                free.append(cell)
        made: list[Submission] = []
        if free and not inline:
            made = executors.submit(
                sweep.launch,
                folder,
                [cell.key for cell in free],
                seconds=arrays.expected(plan["cells"], results.read_all(folder).values()),
                snapshot=snapshot,
                say=say,
            )
    return Submitted(tuple(todo), tuple(free), tuple(made))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes the folder, if need be; one launcher at a time looks and submits in it."""
    place = atomic.make_folder(submissions.folder_of(folder))
    atomic.clean(place)
    with alone(place / CLAIM):
        yield


def _look(folder: Path) -> states.Look:
    """What is going on in the folder, by an answer of the cluster.

    Raises:
        Away: The controller does not answer, and there are jobs that it would know of.
    """
    seen = states.look(folder)
    if seen.away:
        raise scheduler.Away(seen.said)
    return seen


def _withdraw_unfinished(folder: Path, say: Callable[[str], None]) -> None:
    """Undoes what a launcher left that was killed while it submitted an array.

    Jobs of such an array may lack the files that they start from. Whoever is alone in the folder
    knows that no launcher is at it.
    """
    for made in submissions.read_all(folder):
        if made.executor == "slurm" and not made.complete:
            if scheduler.has("squeue"):
                scheduler.patiently(partial(undo, folder, made), say)
            submissions.withdraw(folder, made)


def _interrupt(folder: Path) -> str:
    """After Ctrl-C: stops the local workers of this process; returns what became of the jobs."""
    said = []
    mine = [one for one in submissions.read_all(folder) if one.ours]
    if any(one.executor == "local" for one in mine):
        cancel(folder, lambda one: one.ours and one.executor == "local")
        said.append("The local workers were stopped.")
    if any(one.executor == "slurm" for one in mine):
        said.append(f'The SLURM jobs go on; "bench cancel {folder}" stops them.')
    return " ".join(said)


def _summary(
    cells: list[Cell],
    todo: Sequence[Cell],
    folder: Path,
    interrupted: str | None,
    seconds: float,
) -> RunSummary:
    """What became of the cells that were to be computed.

    Raises:
        LaunchError: Cells have no record, and their jobs said why.
    """
    found = [(cell, results.find(folder, cell.key)) for cell in todo]
    failed = [(cell, made.error) for cell, made in found if made is not None and made.error]
    silent = [cell for cell, made in found if made is None]
    last = submissions.latest(submissions.read_all(folder)) if failed or silent else {}
    made = {last[cell.key].id: last[cell.key] for cell in silent if cell.key in last}
    stopped = executors.said(folder, made.values())
    if stopped and interrupted is None:
        raise LaunchError("\n".join(stopped))
    ended = states.endings(folder, {cell.key for cell in silent})
    return RunSummary(
        done_before=len(cells) - len(todo),
        computed=len(todo) - len(failed) - len(silent),
        failed=tuple(_unfinished(cell, reason, last) for cell, reason in failed),
        missing=tuple(_unfinished(cell, ended.get(cell.key, ""), last) for cell in silent),
        interrupted=interrupted,
        seconds=seconds,
    )


def _unfinished(cell: Cell, reason: str, last: Mapping[str, Submission]) -> Unfinished:
    """With the error logs of the jobs that looked at the cell last."""
    jobs = last[cell.key].jobs if cell.key in last else ()
    logs = tuple(job.logs[-1] for job in jobs if cell.key in job.keys and job.logs)
    return Unfinished(cell.label, reason, logs)


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
