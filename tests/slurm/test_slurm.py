"""A sweep on a real SLURM of one node, without accounting; `tests/slurm/setup.sh` starts it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import cancel, chunks, executors, launch, results, scheduler, states, submissions
from bench import cell as cells
from bench.errors import LaunchError
from bench.launch import RunSummary
from bench.sweep import Sweep
from tests import fakes
from tests.kills import computed_twice, leftovers, scores
from tests.slurm import cluster
from tests.slurm.cluster import ROOT, jobs_of, slurm, wait_for_chunk, wait_for_end

pytestmark = pytest.mark.slurm

SLURM = "{executor: slurm, comment: a test, time: 00:05:00}"
SHORT = "[{sampler: ddim, eta: [0, 1], steps: [3, 5]}]"
LONG = "[{sampler: ddim, spacing: uniform, steps: 1000}]"
MAX_ARRAY = 11
"""The site's MaxArraySize: fewer than there are cells in one of the tests."""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with cluster.running(MAX_ARRAY=str(MAX_ARRAY)):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of results; the submission script must see it."""
    return tmp_path / "results" / "tiny"


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


def another_launcher(folder: Path, verb: str, grid: str, samples: int) -> "subprocess.Popen[bytes]":
    """`launch.run` or `launch.submit` in a process of its own."""
    script = (
        "import sys; from pathlib import Path\n"
        "from bench import executors, launch; from tests import fakes\n"
        "fakes.register(); executors.Job = fakes.TinyJob; folder = Path(sys.argv[1])\n"
        f"sweep = fakes.make_sweep(folder, grid={grid!r}, samples={samples}, launch={SLURM!r})\n"
        f"launch.{verb}(sweep, folder / 'results' / 'tiny')\n"
    )
    return subprocess.Popen([sys.executable, "-c", script, folder], cwd=ROOT)


def test_array_gives_the_same_bytes_as_this_process(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=SLURM)
    summary = launch.run(sweep, folder)
    assert (summary.computed, summary.failed, summary.missing) == (5, (), ())
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    assert scores(folder) == undisturbed(tmp_path, SHORT, 200)
    scripts = (folder / "work" / "logs").glob("*/*submission*.sh")
    (options,) = {script.read_text() for script in scripts}
    for option in ("--time=5", "--array=0-4%", "--job-name=bench-tiny-", "--requeue", "a test"):
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
    scripts = (folder / "work" / "logs").glob("*/*submission*.sh")
    (options,) = {script.read_text() for script in scripts}
    assert f"--array=0-{tasks - 1}%" in options


def test_requeued_job_goes_on_with_its_chunks(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)
    cell = sweep.cells()[1]
    run = Background(sweep, folder)
    wait_for_chunk(folder, cell.key)
    (running,) = states.look(folder, [cell.key]).cells
    slurm("scontrol", "requeue", running.job)
    run.join(timeout=900)
    assert run.summary.complete
    assert computed_twice(folder) == []
    assert scores(folder) == undisturbed(tmp_path, LONG, 640)


def test_job_that_is_out_of_time_is_requeued(tmp_path: Path, folder: Path) -> None:
    """SLURM's warning comes 90 s before the end, so after 30 s here; the rest is a requeue's."""
    options = SLURM.replace("00:05:00", "00:02:00")
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=3840, launch=options)
    key = sweep.cells()[1].key
    launch.submit(sweep, folder)
    (log,) = [
        Path(job.logs[0])
        for made in submissions.read_all(folder)
        for job in made.jobs
        if key in job.keys
    ]
    deadline = time.monotonic() + 120
    while not log.exists() or "Requeued job" not in log.read_text():
        assert time.monotonic() < deadline
        assert states.look(folder, [key]).under_way
        time.sleep(0.5)
    assert "this job is timed-out" in log.read_text()
    assert wait_for_end(folder).counts["done"] == 2
    assert log.read_text().count("Starting with") >= 2
    assert computed_twice(folder) == []


def test_cancelled_job_is_reported_with_its_log(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=1920, launch=SLURM)
    cell = sweep.cells()[1]
    run = Background(sweep, folder)
    wait_for_chunk(folder, cell.key)
    slurm("scancel", *(job.split("_")[0] for job in jobs_of(folder)))
    run.join(timeout=900)
    (log,) = {one.label: one.logs for one in run.summary.missing}[cell.label]
    assert "CANCELLED" in Path(log).read_text()
    before = chunks.finished(chunks.folder_of(folder, cell.key))
    assert before >= 1
    assert launch.run(fakes.make_sweep(tmp_path, grid=LONG, samples=1920), folder).complete
    assert computed_twice(folder) == []


def test_partition_that_does_not_exist(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, launch="{executor: slurm, partition: gpus}")
    with pytest.raises(LaunchError, match=r"SLURM refused the jobs: .*[Ii]nvalid partition"):
        launch.run(sweep, folder)
    assert results.read_all(folder) == {}
    assert submissions.read_all(folder) == []


def test_submitted_jobs_need_no_launcher(tmp_path: Path, folder: Path) -> None:
    """More cells than an array of this site may have."""
    grid = "[{sampler: ddim, eta: [0, 1], steps: [3, 4, 5, 6, 7, 8]}]"
    assert another_launcher(tmp_path, "submit", grid, 200).wait(timeout=300) == 0
    made = submissions.read_all(folder)
    assert [len(one.jobs) for one in made] == [MAX_ARRAY, 2]
    assert states.look(folder).counts["missing"] == 0
    assert states.exit_code(states.look(folder)) == 3
    seen = wait_for_end(folder)
    assert seen.counts["done"] == 13
    assert states.exit_code(seen) == 0
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    assert scores(folder) == undisturbed(tmp_path, grid, 200)


def test_killed_launcher_is_followed_by_another(tmp_path: Path, folder: Path) -> None:
    first = another_launcher(tmp_path, "run", LONG, 640)
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)
    wait_for_chunk(folder, sweep.cells()[1].key)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = jobs_of(folder)
    assert launch.run(sweep, folder).complete
    assert jobs_of(folder) == before, "it waits, and submits nothing"
    assert computed_twice(folder) == []
    assert scores(folder) == undisturbed(tmp_path, LONG, 640)


def test_launcher_killed_between_sbatch_and_the_record(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=SLURM)

    def killed(*_: object) -> list[Path]:
        raise SystemExit

    monkeypatch.setattr(executors, "_paths", killed)
    with pytest.raises(SystemExit):
        launch.submit(sweep, folder)
    monkeypatch.undo()
    (unfinished,) = submissions.read_all(folder)
    assert jobs_of(folder) == [""] * 5
    (lost,) = scheduler.named(unfinished.name)
    made = launch.submit(sweep, folder)
    assert lost not in slurm("squeue", "--noheader", "--format=%F", "--states=PENDING,RUNNING")
    assert len(made.free) == 5
    assert submissions.read_all(folder) == list(made.submissions)
    assert wait_for_end(folder).counts["done"] == 5
    assert computed_twice(folder) == []


def test_cancel_then_go_on(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=1920, launch=SLURM)
    cell = sweep.cells()[1]
    launch.submit(sweep, folder)
    wait_for_chunk(folder, cell.key)
    (running,) = [one for one in states.look(folder).cells if one.key == cell.key]
    assert (running.state, running.of) == ("running", 30)
    assert running.job in jobs_of(folder)
    done = cancel.cancel(folder)
    assert done.jobs >= 1
    assert done.left == ()
    assert list(folder.glob("work/*/claim")) == []
    seen = states.look(folder)
    assert not seen.under_way
    assert states.exit_code(seen) == 1
    finished = chunks.finished(chunks.folder_of(folder, cell.key))
    assert finished >= 1
    assert launch.run(sweep, folder).complete
    assert computed_twice(folder) == []


def test_retry_is_for_failed_cells(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=SLURM)
    assert launch.run(sweep, folder).complete
    failed, lost = sweep.cells()[1], sweep.cells()[2]
    cells.record_failure(failed, folder, "for a reason")
    results.path_of(folder, lost.key).unlink()
    made = launch.submit(sweep, folder, failed_only=True)
    assert [cell.key for cell in made.free] == [failed.key]
    seen = wait_for_end(folder)
    assert (seen.counts["done"], seen.counts["missing"]) == (4, 1)
    earlier = results.read(chunks.folder_of(folder, failed.key) / launch.EARLIER)
    assert earlier.error == "for a reason"


def test_controller_that_is_away_for_a_moment(tmp_path: Path, folder: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)
    run = Background(sweep, folder)
    wait_for_chunk(folder, sweep.cells()[1].key)
    os.kill(int(cluster.controller().read_text()), signal.SIGTERM)
    seen = states.look(folder)
    assert seen.away
    assert "nable to contact slurm controller" in seen.said
    assert seen.counts["missing"] == 0, "what is queued is not taken for lost"
    done = cancel.cancel(folder)
    assert done.jobs == done.released == 0
    assert "Its jobs were not cancelled and go on." in done.left[0]
    before = jobs_of(folder)
    (tmp_path / "second").mkdir()
    waiting = [
        another_launcher(tmp_path, "submit", LONG, 640),  # finds everything under way
        another_launcher(tmp_path / "second", "submit", SHORT, 200),  # has something to submit
    ]
    time.sleep(20)
    assert [launcher.poll() for launcher in waiting] == [None, None]
    subprocess.run(["/usr/sbin/slurmctld"], check=True)
    assert [launcher.wait(timeout=300) for launcher in waiting] == [0, 0]
    assert jobs_of(folder) == before
    run.join(timeout=900)
    assert run.summary.complete
    assert computed_twice(folder) == []
    assert wait_for_end(tmp_path / "second" / "results" / "tiny").counts["done"] == 5


def test_job_that_waits_says_why(tmp_path: Path, folder: Path) -> None:
    held = slurm("sbatch", "--parsable", "--hold", "--wrap=true", "--output=/dev/null").strip()
    options = SLURM.replace("}", f", dependency: 'afterok:{held}'}}")
    sweep = fakes.make_sweep(tmp_path, grid=SHORT, launch=options)
    launch.submit(sweep, folder)
    deadline = time.monotonic() + 60
    while states.look(folder).waiting() != "5 queued (Dependency)":
        assert time.monotonic() < deadline, states.look(folder).waiting()
        time.sleep(0.5)
    assert not launch.submit(sweep, folder).free, "they are not submitted twice"
    assert cancel.cancel(folder).jobs == 5
    slurm("scancel", held)
    assert states.look(folder).counts["missing"] == 5


def test_launcher_killed_before_the_record_whose_jobs_are_at_work(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fakes.make_sweep(tmp_path, grid=LONG, samples=640, launch=SLURM)

    def killed(*_: object) -> list[Path]:
        raise SystemExit

    monkeypatch.setattr(executors, "_paths", killed)
    with pytest.raises(SystemExit):
        launch.submit(sweep, folder)
    monkeypatch.undo()
    wait_for_chunk(folder, sweep.cells()[1].key)
    (found,) = states.look(folder, [sweep.cells()[1].key]).cells
    assert found.state == "running", "its claim shows it"
    assert launch.run(sweep, folder).complete
    assert computed_twice(folder) == []


@pytest.mark.parametrize("snapshot", [False, True])
def test_package_that_is_edited_while_jobs_are_queued(tmp_path: Path, snapshot: bool) -> None:
    copy, folder = tmp_path / "checkout", tmp_path / "r"
    shutil.copytree(ROOT / "bench", copy / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    held = slurm("sbatch", "--parsable", "--hold", "--wrap=true", "--output=/dev/null").strip()
    options = SLURM.replace("}", f", dependency: 'afterok:{held}'}}")
    script = (
        "import sys; from pathlib import Path; from bench import executors, launch\n"
        "from tests import fakes\n"
        "fakes.register(); executors.Job = fakes.TinyJob; folder = Path(sys.argv[1])\n"
        f"sweep = fakes.make_sweep(folder, grid={SHORT!r}, launch={options!r})\n"
        f"launch.submit(sweep, folder / 'r', snapshot={snapshot})\n"
    )
    paths = os.pathsep.join([str(copy), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", script, tmp_path], cwd=copy, env=environment, check=True)
    (copy / "bench" / "worker.py").write_text("raise RuntimeError('edited')\n")
    slurm("scontrol", "release", held)
    seen = wait_for_end(folder)
    logs = [Path(job.logs[-1]) for made in submissions.read_all(folder) for job in made.jobs]
    refused = ["this job was submitted with" in log.read_text() for log in logs]
    if snapshot:
        assert seen.counts["done"] == 5
        assert refused == [False] * 5
    else:
        assert seen.counts["missing"] == 5
        assert refused == [True] * 5
