"""A sweep on a real SLURM of one node, without accounting; `tests/slurm/setup.sh` starts it."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import cell as cells
from bench import chunks, executors, launch, results
from bench.errors import LaunchError
from bench.launch import RunSummary
from bench.metrics.registry import METRICS
from bench.sweep import Sweep
from tests import fakes
from tests.kills import computed_twice, leftovers, scores

pytestmark = pytest.mark.slurm

SETUP = Path(__file__).with_name("setup.sh")
ROOT = Path(__file__).parents[2]
SLURM = "{executor: slurm, comment: a test, time: 00:05:00}"
SHORT = "[{sampler: ddim, eta: [0, 1], steps: [3, 5]}]"
LONG = "[{sampler: ddim, spacing: uniform, steps: 1000}]"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """SLURM runs, or the tests are skipped; where BENCH_NEEDS_SLURM is set they fail instead."""
    folder = Path(os.environ.get("BENCH_SLURM", "/tmp/bench-slurm"))  # the script's default
    started = subprocess.run([SETUP], capture_output=True, text=True)
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
    yield
    patch.undo()
    subprocess.run([SETUP, "stop"], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of results; the submission script must see it."""
    return tmp_path / "results" / "tiny"


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def undisturbed(tmp_path: Path, grid: str, samples: int) -> dict[str, str]:
    """The scores of a run in this process."""
    launch.run(fakes.make_sweep(tmp_path, grid=grid, samples=samples), tmp_path / "inline")
    return scores(tmp_path / "inline")


class Background(threading.Thread):
    """`launch.run` in a thread, so that the test can disturb it."""

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        super().__init__()
        self._sweep, self._folder = sweep, folder
        self.start()

    def run(self) -> None:
        self.summary: RunSummary = launch.run(self._sweep, self._folder)

    def wait_for_chunk(self, key: str) -> None:
        """Until the first chunk of a cell is there."""
        deadline = time.monotonic() + 600
        while not chunks.finished(chunks.folder_of(self._folder, key)):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_array_gives_the_same_bytes_as_this_process(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=SLURM)
    summary = launch.run(sweep, folder)
    assert (summary.computed, summary.failed, summary.missing) == (5, (), ())
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    assert scores(folder) == undisturbed(tmp_path, SHORT, 200)
    scripts = (folder / "work" / "logs").glob("*submission*.sh")
    (options,) = {script.read_text() for script in scripts}
    for option in ("--time=5", "--array=0-4%", "--job-name=bench-tiny", "a test"):
        assert option in options


@pytest.mark.parametrize(("key", "tasks"), [("pack: 2", 3), ("split: 2", 10)])
def test_packs_and_slices_give_the_same_bytes(
    tmp_path: Path, folder: Path, key: str, tasks: int
) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=f"{SLURM[:-1]}, {key}}}")
    summary = launch.run(sweep, folder)
    assert (summary.computed, summary.failed, summary.missing) == (5, (), ())
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    assert scores(folder) == undisturbed(tmp_path, SHORT, 200)
    scripts = (folder / "work" / "logs").glob("*submission*.sh")
    (options,) = {script.read_text() for script in scripts}
    assert f"--array=0-{tasks - 1}%" in options


def test_requeued_job_goes_on_with_its_chunks(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)
    cell = sweep.cells()[1]
    run = Background(sweep, folder)
    run.wait_for_chunk(cell.key)
    running = slurm("squeue", "--noheader", "--array", "--format=%F_%K").split()
    for job in running:
        slurm("scontrol", "requeue", job)
    run.join(timeout=900)
    assert run.summary.complete
    assert computed_twice(folder) == []
    assert scores(folder) == undisturbed(tmp_path, LONG, 640)


def test_cancelled_job_is_reported_with_its_log(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)
    cell = sweep.cells()[1]
    run = Background(sweep, folder)
    run.wait_for_chunk(cell.key)
    slurm("scancel", "--name", f"bench-{folder.name}")
    run.join(timeout=900)
    log = dict(run.summary.missing)[cell.label]
    assert "CANCELLED" in Path(log).read_text()
    before = chunks.finished(chunks.folder_of(folder, cell.key))
    assert before >= 1
    assert launch.run(fakes.make_sweep(tmp_path, grid=LONG, samples=640), folder).complete
    assert computed_twice(folder) == []


def test_partition_that_does_not_exist(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, launch="{executor: slurm, partition: gpus}")
    with pytest.raises(LaunchError, match=r"SLURM refused the jobs: .*[Ii]nvalid partition"):
        launch.run(sweep, folder)
    assert results.read_all(folder) == {}
