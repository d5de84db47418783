"""Which code runs: a digest of this package, copies of it, and jobs that refuse any other.

A job is submitted now and starts hours later, from the files that lie there then. So it carries
the digest of the code that submitted it, and does nothing where it finds another. With a snapshot
(`results/<sweep>/work/snapshots/<digest>/bench`) it runs from a copy, and the files of the package
may be edited meanwhile.
"""

import hashlib
import logging
import pickle
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol
from uuid import uuid4

from bench import atomic

SNAPSHOTS = "snapshots"
"""Name of the folder of copies in a sweep's work folder."""
PACKAGE = Path(__file__).parent

log = logging.getLogger(__name__)


def digest(package: Path = PACKAGE) -> str:
    """16 hex digits over all Python files of the package, and over names and sizes of its assets.

    Args:
        package: the folder of the package, as it lies on the disk now.
    """
    whole = hashlib.sha256()
    for path in _files(package):
        content = path.read_bytes() if path.suffix == ".py" else str(path.stat().st_size).encode()
        name = path.relative_to(package).as_posix().encode()
        whole.update(b"%d %s %d " % (len(name), name, len(content)) + content)
    return whole.hexdigest()[:16]


def snapshot(work: Path, package: Path = PACKAGE) -> Path:
    """Copies the package into a sweep's work folder; returns what to put in front of PYTHONPATH.

    A copy that is there already is used again.

    Raises:
        ResultError: It cannot be written.
    """
    place = work / SNAPSHOTS
    temporary = place / f".{uuid4().hex}{atomic.SUFFIX}"
    with atomic.explained(place):
        for path in _files(package):
            copy = temporary / package.name / path.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        # Of the copy: the files may have been edited while they were copied.
        made = place / digest(temporary / package.name)
        if made.exists():
            shutil.rmtree(temporary)
        else:
            temporary.rename(made)
    return made


def _files(package: Path) -> Iterator[Path]:
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc" and not path.name.startswith("."):
            yield path


class Work(Protocol):
    """What a job does: see `bench.worker.Job`."""

    def __call__(self) -> str:
        """Returns what stopped it early, or ''."""

    def checkpoint(self) -> Any:
        """A submission of what is left, or None."""


class Guarded:
    """A job that runs only with the code that it was made with.

    The work is kept as bytes, so that other code is found before it is used.

    Args:
        work: what to do.
        code: digest of the code it was made with.
    """

    def __init__(self, work: Work, code: str) -> None:
        self._code = code
        self._bytes = pickle.dumps(work)
        self._work: Work | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_code": self._code, "_bytes": self._bytes, "_work": None}

    def __call__(self) -> str:
        """Does the work; returns what stopped it early, or ''."""
        if refusal := _refusal(self._code, digest()):
            logging.basicConfig(level=logging.INFO)
            log.error("%s", refusal)
            return refusal
        self._work = pickle.loads(self._bytes)
        _expect_to_be_requeued()
        return self._work()

    def checkpoint(self) -> Any:
        """Called when the job is preempted or out of time: see `bench.worker.Job`."""
        from submitit.helpers import DelayedSubmission

        if self._work is None:
            return DelayedSubmission(self)
        left = self._work.checkpoint()
        return None if left is None else DelayedSubmission(Guarded(left.function, self._code))


def _expect_to_be_requeued() -> None:
    """Makes a requeue that kills its own command what it is, and not a failure of the cell.

    submitit runs "scontrol requeue" in the handler of a signal, amid the computing; SLURM may end
    the job, and that command with it, before the command has returned.
    """
    from submitit.core.job_environment import JobEnvironment
    from submitit.core.utils import UncompletedJobError

    number = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
    requeue = signal.getsignal(number)

    def handle(signum: int, frame: FrameType | None) -> None:
        assert callable(requeue)
        try:
            requeue(signum, frame)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise UncompletedJobError(f"The job was to be requeued: {error}") from error

    if callable(requeue):  # in a job, not by hand
        signal.signal(number, handle)


def _refusal(expected: str, found: str) -> str:
    """Why a job does nothing, or ''."""
    if found == expected:
        return ""
    return (
        f"The code in {PACKAGE} is {found}; this job was submitted with {expected}. It was edited "
        "or updated since, so nothing was computed. Submit again to use the code of now; with "
        "--snapshot jobs keep the code of their submission."
    )
