import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import atomic
from bench.errors import ResultError
from tests.disks import small_disk

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def test_replaces_the_whole_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    atomic.write_text(path, "a long first version")
    atomic.write_bytes(path, b"short")
    assert path.read_bytes() == b"short"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    atomic.write_bytes(path, b"old")

    def half(path: Path) -> None:
        with atomic.replacing(path) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_write_that_fails_midway_keeps_the_old_file(tmp_path: Path) -> None:
    """A real refusal by the kernel after 1000 bytes, in a process of its own."""
    path = tmp_path / "chunk.npz"
    path.write_bytes(b"old")
    script = (
        "import sys; from pathlib import Path; from bench import atomic\n"
        "from bench.errors import ResultError\n"
        "try: atomic.write_bytes(Path(sys.argv[1]), bytes(5000))\n"
        "except ResultError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        preexec_fn=_limit_file_size,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == (
        f"{path} could not be written: the file is larger than this process may write. Raise the "
        "limit (ulimit -f) or choose another folder with --results (File too large). Everything "
        "that was finished before is kept; the same command goes on from there.\n"
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as place:
        yield place


def test_full_disk(tiny_disk: Path) -> None:
    path = tiny_disk / "chunk.npz"
    atomic.write_bytes(path, bytes(20_000))
    with pytest.raises(ResultError) as caught:
        atomic.write_bytes(path, bytes(100_000))
    assert str(caught.value) == (
        f"{path} could not be written: the disk is full. Free some space or choose another folder "
        "with --results (No space left on device). Everything that was finished before is kept; "
        "the same command goes on from there."
    )
    assert path.read_bytes() == bytes(20_000)
    assert list(tiny_disk.iterdir()) == [path]


def test_read_only_file_system(tiny_disk: Path) -> None:
    remount = ["mount", "-o", "remount,ro", str(tiny_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(ResultError, match="is mounted read-only"):
        atomic.write_text(tiny_disk / "a.json", "{}")
    with pytest.raises(ResultError, match="is mounted read-only"):
        atomic.make_folder(tiny_disk / "sweep")


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(ResultError, match="not writable for you"):
        atomic.write_text(tmp_path / "a.json", "{}")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("I am in the way")
    with pytest.raises(ResultError, match=r"results could not be .* is a file, not a folder"):
        atomic.make_folder(tmp_path / "results")
    with pytest.raises(ResultError, match=r"results/sweep could not be .* is a file, not a"):
        atomic.make_folder(tmp_path / "results" / "sweep")
    with pytest.raises(ResultError, match="is a file, not a folder"):
        atomic.write_text(tmp_path / "results" / "a.json", "{}")


def test_folder_deleted_under_way(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="the folder is gone"):
        atomic.write_text(tmp_path / "gone" / "a.json", "{}")


def test_other_errors_keep_the_words_of_the_system(tmp_path: Path) -> None:
    with (
        pytest.raises(ResultError, match=r"the operating system refused \(Input/output error\)"),
        atomic.explained(tmp_path),
    ):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_clean_removes_only_what_dead_writers_left(tmp_path: Path) -> None:
    writer = (
        "import sys, time; from pathlib import Path; from bench import atomic; import os\n"
        "os.replace = lambda *_: (print('here', flush=True), time.sleep(60))\n"
        "atomic.write_text(Path(sys.argv[1]) / 'a.json', '{}')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    (left,) = tmp_path.iterdir()
    assert atomic.clean(tmp_path) == 0, "its writer is alive"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    foreign = tmp_path / f".b.json~elsewhere~1~0123abcd{atomic.SUFFIX}"
    foreign.touch()
    assert atomic.clean(tmp_path) == 1
    assert list(tmp_path.iterdir()) == [foreign]
    assert left != foreign
    long_ago = time.time() - atomic.ABANDONED_AFTER - 60
    os.utime(foreign, (long_ago, long_ago))
    assert atomic.clean(tmp_path) == 1
