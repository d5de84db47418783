"""Claims: at most one process works on a cell, wherever it runs, and the dead hold nothing.

A claim is a file that comes into being complete or not at all. Its owner touches it every few
seconds (the heartbeat). It is stale when its owner is known to be gone (same machine, no such
process), belonged to an earlier life of the same cluster job, or has had no heartbeat for two
minutes, by the clock of the file system: clocks of the machines may differ.

Claims save work, they do not guard the numbers: two processes on one cell, which a pause of
minutes can bring about, write the same bytes.
"""

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from uuid import uuid4

from bench import atomic, process

CLAIM = "claim"
"""Name of the claim in a cell's work folder."""
HEARTBEAT = 10.0
"""Seconds between two signs of life."""
STALE_AFTER = 120.0
"""Seconds without a sign of life after which an owner counts as dead."""


@dataclass(frozen=True)
class Owner:
    """Who holds a claim.

    Attributes:
        machine: host, boot and container (`bench.process.machine`).
        host: name of the host, for people.
        pid, started: the process and its start time.
        job: id of the cluster job, which survives a requeue, or "".
        token: unique to this claim.
        since: when it was made (UTC), for people; "" in claims of older versions.
    """

    machine: str
    host: str
    pid: int
    started: int
    job: str
    token: str
    since: str = ""

    @classmethod
    def this(cls, job: str = "") -> Self:
        """The owner that a claim made here and now would have."""
        pid = os.getpid()
        host, started = socket.gethostname(), process.started(pid) or 0
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(process.machine(), host, pid, started, job, uuid4().hex, now)

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.machine == process.machine()

    @property
    def runs_here(self) -> bool:
        """Whether it is a process of this machine that is still there."""
        return self.is_here and process.started(self.pid) == self.started


class Claim:
    """A held claim; made by `claimed`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path, self._text = path, json.dumps(asdict(owner))

    @property
    def lost(self) -> bool:
        """Whether another process has taken it over, because this one was silent for too long."""
        return _text(self._path) != self._text


@contextmanager
def claimed(path: Path, job: str = "") -> Iterator[Claim | None]:
    """Holds the claim `path` for the time of the block; gives None if a live owner has it.

    Args:
        path: the claim's file; its folder exists.
        job: id of the cluster job this process belongs to, if it does.

    Raises:
        ResultError: The folder cannot be written.
    """
    owner = Owner.this(job)
    claim = Claim(path, owner)
    if not _acquire(path, owner):
        yield None
        return
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(claim, path, ended), daemon=True)
    heart.start()
    try:
        yield claim
    finally:
        ended.set()
        heart.join()
        if not claim.lost:
            path.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Holds the claim `path` for the time of the block; waits while a live owner has it.

    Raises:
        ResultError: The folder cannot be written.
    """
    while True:
        with claimed(path) as claim:
            if claim is not None:
                yield
                return
        time.sleep(0.2)


def holder(path: Path) -> Owner | None:
    """The live owner of the claim `path`, or None if there is no claim or a stale one."""
    text = _text(path)
    return None if text is None or _stale(path, text, job="") else _owner(text)


def read(path: Path, now: float) -> tuple[Owner | None, bool]:
    """Who made the claim `path`, as far as it says so, and whether it is stale.

    Args:
        path: the claim's file. Nothing is written, so that others may look as well.
        now: the time by the clock of its file system.

    Raises:
        FileNotFoundError: There is no such claim.
    """
    text = path.read_text()
    return _owner(text), _stale(path, text, "", now)


def owner_of(path: Path) -> Owner | None:
    """Who made the claim `path`, dead or alive; None if it is gone or does not say so."""
    text = _text(path)
    return None if text is None else _owner(text)


def release(path: Path, judged: Owner | None) -> bool:
    """Removes the claim of an owner that is known to be gone, unless another has it by now."""
    text = _text(path)
    if text is None or _owner(text) != judged:
        return False
    _remove(path, text)
    return True


def _acquire(path: Path, owner: Owner) -> bool:
    """Creates the claim, unless a live owner has it."""
    mine = atomic.temporary_name(path)
    try:
        with atomic.explained(mine):
            mine.write_text(json.dumps(asdict(owner)))
        while True:
            with atomic.explained(path):
                if _create(path, mine):
                    return True
            text = _text(path)
            if text is None:
                continue
            if not _stale(path, text, owner.job):
                return False
            _remove(path, text)
    finally:
        with suppress(OSError):  # what went wrong before is what matters
            mine.unlink(missing_ok=True)


def _create(path: Path, text: Path) -> bool:
    """Creates the claim with the content of the file `text`, unless there is one."""
    try:
        os.link(text, path)  # exclusive also on NFS, and never half a file
    except FileExistsError:
        # Ours after all, where a file server's first answer was lost and the second try met it.
        return text.stat().st_nlink > 1
    except OSError:
        return _written(path, text.read_bytes())
    return True


def _written(path: Path, text: bytes) -> bool:
    """As `_create`, on a file system without hard links.

    Who reads it before its text is there knows no owner, and judges it by its age.
    """
    try:
        with path.open("xb", buffering=0) as file:
            try:
                if file.write(text) != len(text):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:  # a claim of nobody would stand in everybody's way
                path.unlink()
                raise
    except FileExistsError:
        return False
    return True


def _remove(path: Path, judged: str) -> None:
    """Removes the claim whose text was judged stale, and no fresh one that replaced it since."""
    aside = atomic.temporary_name(path)
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was faster
        return
    if _text(aside) != judged:
        _create(path, aside)
    aside.unlink(missing_ok=True)


def _stale(path: Path, text: str, job: str, now: float | None = None) -> bool:
    owner = _owner(text)
    if owner is not None:
        if job and owner.job == job:
            return True
        if owner.is_here:
            return not owner.runs_here
    try:
        now = clock(path.parent) if now is None else now
        return now - path.stat().st_mtime > STALE_AFTER
    except FileNotFoundError:
        return False


def clock(folder: Path) -> float:
    """The time by the clock that stamps the files of `folder`.

    Raises:
        ResultError: The folder cannot be written.
    """
    probe = atomic.temporary_name(folder / "clock")
    with atomic.explained(probe):
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    return now


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _owner(text: str) -> Owner | None:
    try:
        return Owner(**json.loads(text))
    except (ValueError, TypeError):  # of another version
        return None


def _beat(claim: Claim, path: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        with suppress(OSError):  # a file server that is away for a moment
            if claim.lost:
                return
            os.utime(path)
