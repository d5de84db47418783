"""A SLURM of one node for the time of some tests, and what they ask of it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import cell as cells
from bench import chunks, executors, results, states, submissions
from bench.metrics.registry import METRICS
from tests import fakes

SETUP = Path(__file__).with_name("setup.sh")
ROOT = Path(__file__).parents[2]


@contextmanager
def running(**options: str) -> Iterator[None]:
    """SLURM runs, or the tests are skipped; where BENCH_NEEDS_SLURM is set they fail instead.

    Args:
        options: of the script, without BENCH_SLURM_ in front.
    """
    folder = Path(os.environ.get("BENCH_SLURM", "/tmp/bench-slurm"))  # the script's default
    subprocess.run([SETUP, "stop"], check=True)
    environment = os.environ | {f"BENCH_SLURM_{name}": value for name, value in options.items()}
    started = subprocess.run([SETUP], capture_output=True, text=True, env=environment)
    if started.returncode != 0:
        refuse = pytest.fail if "BENCH_NEEDS_SLURM" in os.environ else pytest.skip
        refuse(f"NO SLURM HERE, ITS TESTS DID NOT RUN: {started.stderr.strip()[-500:]}")
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    patch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    patch.setattr(executors, "Job", fakes.TinyJob)
    patch.chdir(ROOT)  # jobs start where they are submitted, and find `tests` there
    cells._bound.cache_clear()
    cells._model.cache_clear()
    try:
        yield
    finally:
        patch.undo()
        subprocess.run([SETUP, "stop"], check=True)


def slurm(*command: str) -> str:
    """What one of its commands prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def bench(file: Path, verb: str, *words: str) -> "subprocess.Popen[str]":
    """A command for a sweep file in a process of its own, which knows nothing of any other."""
    folder, pipe = file.parent, subprocess.PIPE
    command = [sys.executable, "-m", "tests.tiny", verb, str(file), *words]
    command += ["--results", str(folder / "results")]
    command += ["--reports", str(folder / "reports")] if verb == "run" else []
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def controller() -> Path:
    """The file with the process id of slurmctld."""
    return Path(os.environ["SLURM_CONF"]).parent / "slurmctld.pid"


def wait_until(happened: Callable[[], bool], what: str, seconds: float = 300) -> None:
    """Until it has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.05)


def wait_for_chunk(folder: Path, key: str) -> None:
    """Until the first chunk of a cell is there."""
    work = chunks.folder_of(folder, key)
    wait_until(lambda: chunks.finished(work) > 0, f"a chunk of {key}", 600)


def wait_for_end(folder: Path) -> states.Look:
    """Until nothing is under way and no worker cleans up, by what any other shell would see."""
    deadline = time.monotonic() + 900
    keys = [row["key"] for row in results.read_plan(folder)["cells"]]
    while (seen := states.look(folder, keys)).under_way:
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)
    return seen


def jobs_of(folder: Path) -> list[str]:
    """Ids of all jobs that were ever submitted for the cells of a folder."""
    return [job.id or "" for made in submissions.read_all(folder) for job in made.jobs]
