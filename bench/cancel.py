"""Stops what is under way in a results folder, whoever started it, and frees its cells."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import claim, process, scheduler, states
from bench.claim import Owner
from bench.states import Waiting
from bench.submissions import Submission

GRACE = 5.0
"""Seconds that local workers have to end by themselves."""
PATIENCE = 90.0
"""Seconds until one stops waiting for the end of what was cancelled: SLURM gives jobs 30."""
POLL = 0.2


@dataclass(frozen=True)
class Cancelled:
    """What became of cancelling.

    Attributes:
        jobs: how many jobs were told to end.
        released: how many claims were released.
        left: what could not be cancelled from here, each with what to do.
    """

    jobs: int
    released: int
    left: tuple[str, ...]


def cancel(
    folder: Path, which: Callable[[Submission], bool] = lambda submission: True
) -> Cancelled:
    """Cancels the jobs of the live submissions of a folder and waits for their end.

    Chunks that are finished stay, so the cells go on from there when they are submitted again.

    Args:
        folder: the sweep's results folder.
        which: the submissions to cancel; all by default.

    Raises:
        LaunchError: SLURM refuses.
        ResultError: Something in `folder` cannot be read.
    """
    seen = states.look(folder)
    jobs = [job for job in seen.jobs if which(job.submission)]
    stopped = [job for job in jobs if _is_here(job)]
    for job in stopped:
        _signal(job, signal.SIGINT)
    left = _elsewhere(jobs, folder)
    if seen.said and not seen.away:  # no squeue
        left.append(f'Of SLURM: {seen.said}. On a node of its cluster: "bench cancel {folder}".')
    slurm = [job for job in jobs if job.submission.executor == "slurm"]
    try:
        _scancel(slurm)
        stopped += slurm
    except scheduler.Away as error:
        left.append(
            f"SLURM does not answer ({error}). Its jobs were not cancelled and go on. When it "
            f'answers again (sinfo shows that): "bench cancel {folder}".'
        )
    return Cancelled(len(stopped), _released(folder, stopped), tuple(left))


def undo(folder: Path, made: Submission) -> None:
    """Cancels an array that only its name identifies, waits for its end, releases its claims.

    Raises:
        LaunchError: SLURM refuses.
        Away: The controller does not answer.
    """
    arrays = scheduler.named(made.name)
    scheduler.cancel(arrays)
    began = time.monotonic()
    while scheduler.named(made.name) and time.monotonic() - began < PATIENCE:
        time.sleep(POLL)
    for path, owner in _claims(folder) if arrays else ():
        if owner.job.split("_")[0] in arrays:
            claim.release(path, owner)


def _scancel(jobs: list[Waiting]) -> None:
    """Cancels jobs of SLURM, by their names where their ids are not known.

    Raises:
        LaunchError: SLURM refuses.
        Away: The controller does not answer.
    """
    arrays = {job.job.id.split("_")[0] for job in jobs if job.job.id is not None}
    unknown = {job.submission.name for job in jobs if not job.submission.complete}
    arrays |= {array for name in unknown for array in scheduler.named(name)}
    scheduler.cancel(sorted(arrays))


def _released(folder: Path, stopped: list[Waiting]) -> int:
    """Waits until these jobs are gone; how many claims they left, which are released."""
    began = time.monotonic()
    killed = False
    while (left := _there(folder, stopped)) and time.monotonic() - began < PATIENCE:
        if not killed and time.monotonic() - began > GRACE:
            killed = True
            for job in stopped:
                if _is_here(job):
                    _signal(job, signal.SIGKILL)
        time.sleep(POLL)
    held = [(path, owner) for path, owner in _held(folder, stopped) if owner.job not in left]
    return sum(claim.release(path, owner) for path, owner in held)


def _there(folder: Path, stopped: list[Waiting]) -> set[str]:
    """Ids of those of these jobs that are still there."""
    seen = {(job.submission.id, job.job.id) for job in states.look(folder).jobs}
    # A worker may outlive the process that its job is known by, and its claim with it.
    working = {owner.job for _, owner in _held(folder, stopped) if owner.runs_here}
    return {
        job.job.id
        for job in stopped
        if job.job.id is not None
        and (
            (job.submission.id, job.job.id) in seen
            or job.job.id in working
            # Whose cells are all settled is not seen, and may still be ending.
            or (_is_here(job) and _runs(job))
        )
    }


def _held(folder: Path, jobs: list[Waiting]) -> list[tuple[Path, Owner]]:
    """The claims of these jobs."""
    local = {job.job.id for job in jobs if _is_here(job)}
    slurm = {job.job.id for job in jobs if not _is_here(job)}
    return [
        (path, owner)
        for path, owner in _claims(folder)
        # Machines that share the folder may have processes of the same number.
        if owner.job in slurm or (owner.is_here and owner.job in local)
    ]


def _claims(folder: Path) -> list[tuple[Path, Owner]]:
    """All claims that say whose they are, also on cells that have their record by now."""
    found = [(path, claim.owner_of(path)) for path in folder.glob(f"work/*/{claim.CLAIM}*")]
    return [(path, owner) for path, owner in found if owner is not None]


def _is_here(job: Waiting) -> bool:
    """Whether it is a worker of this machine that has been started."""
    local = job.submission.executor == "local" and job.job.id is not None
    return local and job.submission.machine == process.machine()


def _signal(job: Waiting, number: signal.Signals) -> None:
    """Sends a signal to a local job: its controller leads a group of processes."""
    assert job.job.id is not None
    if _runs(job):
        with suppress(ProcessLookupError):
            os.killpg(int(job.job.id), number)


def _runs(job: Waiting) -> bool:
    """Whether the process of a local job is still there."""
    assert job.job.id is not None
    return process.started(int(job.job.id)) == job.job.started


def _elsewhere(jobs: list[Waiting], folder: Path) -> list[str]:
    hosts = {
        job.submission.host
        for job in jobs
        if job.submission.executor == "local" and not _is_here(job)
    }
    return [
        f'The local workers on {host} can be stopped only there: "bench cancel {folder}".'
        for host in sorted(hosts)
    ]
