"""What is going on in a results folder: the state of every cell, from files and the queue alone.

    done, failed   it has its record
    running        a live claim holds it
    queued         a job that is there will look at it
    stale claim    its worker is gone, and no job that is there will look at it
    missing        nothing of all that

No torch here, and nothing is left behind: any shell on any node that sees the folder may ask. What
is old is judged by the clock of the folder's file system, which takes a file that comes and goes;
who may not write there looks at the clock of the own machine.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from bench import claim, process, results, scheduler, submissions
from bench.claim import CLAIM, STALE_AFTER, Owner
from bench.errors import ResultError
from bench.results import Json, Result
from bench.scheduler import Queued
from bench.submissions import Job, Submission

DONE, FAILED, RUNNING, QUEUED = "done", "failed", "running", "queued"
STALE, MISSING = "stale claim", "missing"
CHUNK = "chunk-"
"""How the names of finished chunks begin (`bench.chunks`, which would load torch)."""
STATES = (DONE, FAILED, MISSING, RUNNING, QUEUED, STALE)


@dataclass(frozen=True)
class CellState:
    """The state of one cell.

    Attributes:
        key, label: which one.
        state: one of `STATES`.
        reason: of a failure, why it waits, or how its job ended; "" if there is none.
        host, job, since: who works on it, and since when (UTC); "" if nobody does, or unknown.
        chunks: finished ones that lie in its work folder.
        of: chunks that it needs.
    """

    key: str
    label: str
    state: str
    reason: str = ""
    host: str = ""
    job: str = ""
    since: str = ""
    chunks: int = 0
    of: int = 0


@dataclass(frozen=True)
class Waiting:
    """A job of a submission that is still there.

    Attributes:
        submission, job: which one.
        queued: what the queue says about it.
    """

    submission: Submission
    job: Job
    queued: Queued


@dataclass(frozen=True)
class Held:
    """A claim on a cell, and whether it is stale."""

    path: Path
    owner: Owner | None
    stale: bool


@dataclass(frozen=True)
class Work:
    """What lies in the work folder of a cell."""

    chunks: int = 0
    claims: tuple[Held, ...] = ()


@dataclass(frozen=True)
class Look:
    """What was seen in a results folder at one moment.

    Attributes:
        cells: the cells that were asked about.
        jobs: jobs that are there and look at any of those.
        stale: their stale claims, whatever else is true of the cell.
        said: "", or what SLURM said instead of an answer.
        away: whether it will answer later; until then its jobs count as queued.
    """

    cells: tuple[CellState, ...]
    jobs: tuple[Waiting, ...]
    stale: tuple[Held, ...]
    said: str
    away: bool

    @property
    def busy(self) -> set[str]:
        """Keys of the cells that somebody works on, or will."""
        return {cell.key for cell in self.cells if cell.state in (RUNNING, QUEUED)}

    @property
    def under_way(self) -> bool:
        """Whether anything can still change by itself."""
        return bool(self.jobs or self.busy)

    @property
    def counts(self) -> dict[str, int]:
        """How many cells are in each state."""
        found = Counter(cell.state for cell in self.cells)
        return {state: found[state] for state in STATES}

    def sentence(self) -> str:
        """'26 cells: 7 done, 0 failed, 0 missing, 4 running, 15 queued.'"""
        shown = [
            f"{number} {state}"
            for state, number in self.counts.items()
            if number or state in (DONE, FAILED, MISSING)
        ]
        return f"{len(self.cells)} cells: {', '.join(shown)}."

    def waiting(self) -> str:
        """'4 running, 15 queued (Resources)'; "" if there is nothing of it."""
        reasons = Counter(cell.reason for cell in self.cells if cell.state == QUEUED)
        parts = [f"{self.counts[RUNNING]} running"] if self.counts[RUNNING] else []
        parts += [
            f"{number} queued{f' ({reason})' if reason else ''}"
            for reason, number in reasons.items()
        ]
        return ", ".join(parts)


def look(folder: Path, keys: Collection[str] | None = None) -> Look:
    """Looks at the cells of a results folder.

    Args:
        folder: the sweep's results folder, with its plan.
        keys: the cells to look at; all by default.

    Raises:
        ResultError: There is nothing there, or something unreadable.
    """
    plan = results.read_plan(folder)
    rows = [row for row in plan["cells"] if keys is None or row["key"] in keys]
    records = results.read_all(folder) if keys is None else {}
    if keys is not None:
        found = {row["key"]: results.find(folder, row["key"]) for row in rows}
        records = {key: record for key, record in found.items() if record is not None}
    open_keys = {row["key"] for row in rows if not _settled(records.get(row["key"]), plan)}
    now = _now(folder)
    works = {key: _work(folder, key, now) for key in open_keys}
    asked = open_keys if keys is None else set(keys)
    made = [one for one in submissions.read_all(folder) if asked & _keys(one)]
    queue, said = _queue(made)
    held = [one for work in works.values() for one in work.claims]
    claimed = {(h.owner.machine, h.owner.job) for h in held if h.owner and not h.stale}
    jobs = [
        job
        for one in made
        for job in there(
            one, queue=queue, claimed=claimed, left=open_keys, now=now, started=process.started
        )
        if asked & set(job.job.keys)
    ]
    over = set() if said else _over(made, jobs)
    works = {key: _judged(work, over) for key, work in works.items()}
    of_key: dict[str, list[Waiting]] = {}
    for job in jobs:
        for key in job.job.keys:
            of_key.setdefault(key, []).append(job)
    cells = tuple(
        state(row, plan, records.get(row["key"]), works.get(row["key"]), of_key.get(row["key"], ()))
        for row in rows
    )
    stale = tuple(one for work in works.values() for one in work.claims if one.stale)
    return Look(cells, tuple(jobs), stale, said, queue is None)


def state(
    row: Json, plan: Json, record: Result | None, work: Work | None, jobs: Sequence[Waiting]
) -> CellState:
    """The state of a cell, from the facts.

    Args:
        row: the cell in the plan.
        plan: the sweep's.
        record: of the cell, if it has one.
        work: what lies in its work folder.
        jobs: those that are there and look at it.
    """
    work = work or Work()
    of = -(-row["cell"]["samples"] // plan["chunk"])
    made = CellState(row["key"], row["label"], MISSING, chunks=work.chunks, of=of)
    if record is not None and _settled(record, plan):
        return replace(made, state=record.status, reason=record.error or "", chunks=of)
    for held in work.claims:
        if not held.stale:
            return _held(made, RUNNING, held)
    if jobs:
        first = min(jobs, key=lambda job: not job.queued.running)
        return replace(
            made,
            state=QUEUED,
            reason="job running" if first.queued.running else first.queued.reason,
            host=first.queued.host,
            job=first.job.id or "",
            since=first.submission.time,
        )
    if work.claims:
        return _held(made, STALE, work.claims[0])
    return made


def there(
    submission: Submission,
    *,
    queue: Mapping[str, Queued] | None,
    claimed: Collection[tuple[str, str]],
    left: Collection[str],
    now: float,
    started: Callable[[int], int | None],
) -> list[Waiting]:
    """The jobs of a submission that are still there, from the facts.

    Args:
        submission: which one.
        queue: SLURM's, or None if it does not answer: then no job is taken for gone.
        claimed: machine and job of the owners of live claims.
        left: the cells that are not settled.
        now: the time, by the clock of the folder's file system.
        started: when a process of this machine started, or None if it is gone.
    """
    here = submission.machine == process.machine()
    age = now - datetime.fromisoformat(submission.time).timestamp()
    if here:
        launching = started(submission.pid) == submission.started
    else:
        launching = age < STALE_AFTER
    found = []
    for job in submission.jobs:
        queued = None
        if job.id is None:
            queued = Queued(submission.name, False, "being submitted", "") if launching else None
        elif submission.executor == "slurm":
            if queue is None:
                queued = Queued(submission.name, False, "SLURM does not answer", "")
            elif job.id in queue and queue[job.id].name == submission.name:
                queued = queue[job.id]  # by the name too: ids begin anew after a reinstallation
        else:
            if here:
                alive = started(int(job.id)) == job.started
            else:  # young, since it takes a while until the first claim
                young = age < STALE_AFTER and not set(job.keys).isdisjoint(left)
                alive = young or (submission.machine, job.id) in claimed
            queued = Queued(submission.name, True, "", submission.host) if alive else None
        if queued is not None:
            found.append(Waiting(submission, job, queued))
    return found


def explained(folder: Path, seen: Look) -> Look:
    """With the ends of the jobs of the cells that nobody works on, where accounting tells them."""
    lost = {cell.key for cell in seen.cells if cell.state in (MISSING, STALE)}
    reasons = endings(folder, lost)
    cells = (replace(cell, reason=reasons.get(cell.key, cell.reason)) for cell in seen.cells)
    return replace(seen, cells=tuple(cells))


def endings(folder: Path, keys: Collection[str]) -> dict[str, str]:
    """How the last jobs of these cells ended: "job 17_4 ended: OUT_OF_MEMORY".

    Cells are left out whose jobs ended by themselves, or of which nothing is known.
    """
    last = submissions.latest(submissions.read_all(folder)) if keys else {}
    jobs = {
        key: {job.id: last[key].name for job in last[key].jobs if key in job.keys and job.id}
        for key in keys
        if key in last and last[key].executor == "slurm"
    }
    ended = scheduler.endings({job: name for of in jobs.values() for job, name in of.items()})
    found = {}
    for key, of in jobs.items():
        known = [(job, ended[job]) for job in of if ended.get(job, "COMPLETED") != "COMPLETED"]
        if known:
            found[key] = ", ".join(f"job {job} ended: {how}" for job, how in known)
    return found


def chunks(folder: Path, key: str) -> int:
    """How many finished chunks of a cell lie in its work folder."""
    return sum(name.startswith(CHUNK) for name in _names(folder, key))


def exit_code(seen: Look) -> int:
    """0 if all cells are done, 3 while anything is under way, else 1."""
    if seen.under_way:
        return 3
    return 0 if seen.counts[DONE] == len(seen.cells) else 1


def _held(made: CellState, state: str, held: Held) -> CellState:
    if held.owner is None:
        return replace(made, state=state)
    owner = held.owner
    return replace(made, state=state, host=owner.host, job=owner.job, since=owner.since)


def _now(folder: Path) -> float:
    """The time by the clock of the folder's file system, else by this machine's."""
    try:
        return claim.clock(submissions.folder_of(folder))
    except ResultError:  # nothing was submitted, or it is for reading only
        return time.time()


def _queue(made: Sequence[Submission]) -> tuple[dict[str, Queued] | None, str]:
    """SLURM's queue as far as it matters here, and what it said instead of an answer."""
    jobs = [job.id for one in made if one.executor == "slurm" for job in one.jobs if job.id]
    arrays = {job.split("_")[0] for job in jobs}
    try:
        found = scheduler.queue(arrays)
    except scheduler.Away as error:
        return None, str(error)
    if found is None:
        return {}, "there is no squeue here, so what is queued is not known"
    return found, ""


def _over(made: Sequence[Submission], jobs: Sequence[Waiting]) -> set[str]:
    """Ids of the jobs that the queue knows to be over: it is faster than a clock."""
    submitted = {job.id for one in made if one.executor == "slurm" for job in one.jobs if job.id}
    return submitted - {job.job.id for job in jobs}


def _judged(work: Work, over: Collection[str]) -> Work:
    """With the claims stale whose jobs are over."""
    claims = [
        replace(one, stale=True) if one.owner and one.owner.job in over else one
        for one in work.claims
    ]
    return replace(work, claims=tuple(claims))


def _settled(record: Result | None, plan: Json) -> bool:
    """Whether a cell needs nothing: it failed, or has every metric that is asked for."""
    if record is None:
        return False
    return record.status == FAILED or all(name in record.metrics for name in plan["metrics"])


def _work(folder: Path, key: str, now: float) -> Work:
    names = _names(folder, key)
    claims = []
    for name in sorted(name for name in names if name.startswith(CLAIM)):
        path = folder / "work" / key / name
        with suppress(FileNotFoundError):  # released meanwhile
            claims.append(Held(path, *claim.read(path, now)))
    return Work(sum(name.startswith(CHUNK) for name in names), tuple(claims))


def _names(folder: Path, key: str) -> list[str]:
    try:
        with os.scandir(folder / "work" / key) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []


def _keys(submission: Submission) -> set[str]:
    return {key for job in submission.jobs for key in job.keys}
