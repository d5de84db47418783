"""Submissions: what was started where, as files that any shell on any node can read.

`results/<sweep>/work/submissions/<id>.json` describes one array of SLURM, or the local workers
that were started together. It is written before the jobs are submitted, with null for their ids,
and again when these are known: what a launcher leaves that is killed in between is found by the
name of its job. A file is never changed afterwards; whether a job is still there, the cluster or
the process table knows.

    format      1
    id          also the name of the file, and the end of the job's name; sorts by time
    executor    "local" or "slurm"
    name        the job's name in the queue
    jobs        [{id, started, keys, logs}]: id of the job ("17_4"; a process id for local ones)
                or null; when the process started, for local ones; the cells that it looks at; the
                paths of its logs
    code        digest of the package (bench.code)
    commit      of the checkout, or null
    snapshot    the copy of the package that the jobs run from, or null
    host, machine, pid, started, user, time
                who submitted it, where and when (UTC, by the clock of the folder's file system:
                those of the machines may differ)
"""

import getpass
import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from bench import atomic, process, results
from bench.errors import ResultError

FORMAT = 1
FOLDER = "submissions"
"""Name of the folder of these files in a sweep's work folder."""


@dataclass(frozen=True)
class Job:
    """One job of a submission; the fields are explained in the module's docstring."""

    id: str | None
    started: int | None
    keys: tuple[str, ...]
    logs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was submitted at once; the fields are explained in the module's docstring."""

    id: str
    executor: str
    name: str
    jobs: tuple[Job, ...]
    code: str
    commit: str | None
    snapshot: str | None
    host: str
    machine: str
    pid: int
    started: int
    user: str
    time: str
    format: int = FORMAT

    @classmethod
    def intended(
        cls,
        executor: str,
        sweep: str,
        keys: Sequence[Sequence[str]],
        *,
        now: float,
        code: str,
        commit: str | None,
        snapshot: Path | None,
    ) -> Self:
        """By this process, for jobs that look at these cells and have no ids yet."""
        when, pid = datetime.fromtimestamp(now, UTC), os.getpid()
        made = f"{when:%Y%m%dT%H%M%S%f}-{uuid4().hex[:6]}"
        return cls(
            id=made,
            executor=executor,
            name=f"bench-{sweep}-{made}",
            jobs=tuple(Job(None, None, tuple(some), ()) for some in keys),
            code=code,
            commit=commit,
            snapshot=None if snapshot is None else str(snapshot),
            host=socket.gethostname(),
            machine=process.machine(),
            pid=pid,
            started=process.started(pid) or 0,
            user=_user(),
            time=when.isoformat(timespec="seconds"),
        )

    def with_job(
        self, index: int, job_id: str, logs: Sequence[Path], started: int | None = None
    ) -> Self:
        """The submission with what is known about job `index` now."""
        jobs = list(self.jobs)
        paths = tuple(map(str, logs))
        jobs[index] = replace(jobs[index], id=job_id, started=started, logs=paths)
        return replace(self, jobs=tuple(jobs))

    @property
    def complete(self) -> bool:
        """Whether the ids of all its jobs are known."""
        return all(job.id is not None for job in self.jobs)

    @property
    def ours(self) -> bool:
        """Whether this very process made it."""
        pid = os.getpid()
        return (self.machine, self.pid) == (process.machine(), pid) and self.started == (
            process.started(pid) or 0
        )

    @property
    def log_folder(self) -> str:
        """Where its logs and pickles go, below the sweep's work folder."""
        return f"logs/{self.id}"


def folder_of(folder: Path) -> Path:
    """Where the submissions of a results folder lie."""
    return folder / "work" / FOLDER


def write(folder: Path, submission: Submission) -> None:
    """Writes a submission atomically.

    Raises:
        ResultError: It cannot be written.
    """
    path = atomic.make_folder(folder_of(folder)) / f"{submission.id}.json"
    atomic.write_text(path, json.dumps(asdict(submission), indent=1) + "\n")


def withdraw(folder: Path, submission: Submission) -> None:
    """Removes a submission of which nothing was or will be started."""
    (folder_of(folder) / f"{submission.id}.json").unlink(missing_ok=True)


def read_all(folder: Path) -> list[Submission]:
    """The submissions of a results folder, in the order of time.

    Raises:
        ResultError: One is not JSON, of another format, or without a key that it should have.
    """
    return [_read(path) for path in sorted(folder_of(folder).glob("*.json"))]


def latest(made: Iterable[Submission]) -> dict[str, Submission]:
    """The last submission that has a job for it, for every cell that has one."""
    return {key: one for one in made for job in one.jobs for key in job.keys}


def _user() -> str:
    """The name of the user; its number where a container knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _read(path: Path) -> Submission:
    data = results.read_json(path)
    try:
        jobs = tuple(
            Job(job["id"], job["started"], tuple(job["keys"]), tuple(job["logs"]))
            for job in data["jobs"]
        )
        return Submission(**data | {"jobs": jobs})
    except (KeyError, TypeError) as error:
        raise ResultError(
            f"{path} is not a submission ({error}). Move it away; what its jobs are doing is still "
            "seen by their claims."
        ) from None
