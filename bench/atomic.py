"""Writing files so that a reader never meets half of one.

A file is written under a temporary name in its own folder, flushed to the disk and renamed: at
every moment, also after a SIGKILL or a full disk, there is the old file, the new file or none.
The temporary name carries machine and process id, so that what a killed process left behind can be
told from what a live one is writing (`clean`).
"""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from bench import process
from bench.errors import ResultError

SUFFIX = ".tmp"
ABANDONED_AFTER = 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned."""

_REMEDY = {
    errno.ENOSPC: "the disk is full. Free some space or choose another folder with --results",
    errno.EDQUOT: "the disk quota is used up. Free some space or choose another folder with "
    "--results",
    errno.EFBIG: "the file is larger than this process may write. Raise the limit (ulimit -f) or "
    "choose another folder with --results",
    errno.EACCES: "the folder is not writable for you. Change its permissions or choose another "
    "folder with --results",
    errno.EROFS: "the file system is mounted read-only. Choose another folder with --results",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Move that file away or choose "
    "another folder with --results",
    errno.ENOENT: "the folder is gone. Make sure that nobody moves or deletes it during a run",
}
_REMEDY[errno.EPERM] = _REMEDY[errno.EACCES]
_REMEDY[errno.EEXIST] = _REMEDY[errno.ENOTDIR]  # only mkdir meets it here: the path is a file


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an `OSError` of writing `path` into a `ResultError` with the path and a remedy."""
    try:
        yield
    except OSError as error:
        reason = _REMEDY.get(error.errno or 0, "the operating system refused")
        raise ResultError(
            f"{path} could not be written: {reason} ({error.strerror or error}). "
            "Everything that was finished before is kept; the same command goes on from there."
        ) from error


def make_folder(path: Path) -> Path:
    """Creates `path` with its parents, if need be, and returns it.

    Raises:
        ResultError: The folder cannot be made.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` in one step when the block ends.

    For what is too large to be held as bytes; `write_bytes` otherwise.

    Raises:
        ResultError: Disk full, quota, no permission, read-only or vanished folder. The old file,
            if there was one, is untouched, and no temporary file stays.
    """
    temporary = temporary_name(path)
    with explained(path):
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes `data` to `path`, replacing what is there in one step; raises as `replacing` does."""
    with replacing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def temporary_name(path: Path) -> Path:
    """A name beside `path` that nobody else uses and that `clean` knows the writer of."""
    writer = f"{process.machine()}~{os.getpid()}~{uuid4().hex[:8]}"
    return path.with_name(f".{path.name}~{writer}{SUFFIX}")


def clean(folder: Path) -> int:
    """Removes temporary files in `folder` whose writer is gone; returns how many.

    On this machine the writer's process id decides, elsewhere the age of the file.
    """
    removed = 0
    for temporary in folder.glob(f".*{SUFFIX}"):
        with suppress(OSError):  # another worker may be cleaning the same folder
            if _abandoned(temporary):
                temporary.unlink()
                removed += 1
    return removed


def _abandoned(temporary: Path) -> bool:
    match temporary.name.removesuffix(SUFFIX).rsplit("~", 3):
        case [_, machine, pid, _] if machine == process.machine() and pid.isdecimal():
            return process.started(int(pid)) is None
    return time.time() - temporary.stat().st_mtime > ABANDONED_AFTER


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable; some network file systems cannot, which loses nothing."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
