"""Everything that befalls a sweep on a cluster, in one sweep."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import chunks, launch, results, states, submissions
from bench import sweep as sweeps
from tests import fakes
from tests.kills import computed_twice, leftovers, scores, torn
from tests.slurm import cluster
from tests.slurm.cluster import slurm, wait_for_chunk, wait_until
from tests.slurm.samplers import NAP

pytestmark = pytest.mark.slurm

LONG = 200
"""Steps of the cell that meets its time limit: 20 chunks, each with naps of 4 s."""
STEPS = ", ".join(map(str, [LONG, *range(20, 57)]))
GRID = (
    f'[{{sampler: "tests.slurm.samplers:napping", steps: [{STEPS}]}},'
    ' {sampler: "tests.slurm.samplers:broken", steps: 3}]'
)
SLURM = f"{{executor: slurm, setup: [export {NAP}=0.02]}}"
TIMES = 4
"""So often the long cell meets its limit."""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """More processors than there are: jobs that nap share them."""
    with cluster.running(MAX_ARRAY="11", CPUS="6"):
        yield


class Disturbed:
    """A sweep that `bench run` computes, and what its jobs are doing."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "tiny.yaml", folder / "results" / "tiny"
        self.file.write_text(
            fakes.sweep_text(folder, grid=GRID, launch=SLURM, samples=640, chunk=32)
        )
        self.cells = {cell.label: cell for cell in sweeps.load(self.file).cells()}
        self.touched: set[str] = set()
        self._started: list[subprocess.Popen[str]] = []

    def bench(self, verb: str, *words: str) -> "subprocess.Popen[str]":
        """A command for the sweep; see `cluster.bench`."""
        made = cluster.bench(self.file, verb, *words)
        self._started.append(made)
        return made

    def stop(self) -> None:
        """Ends the commands that have not ended."""
        for one in self._started:
            one.kill()
            one.communicate()

    def key(self, steps: int) -> str:
        """The key of the cell with so many steps."""
        (found,) = [
            cell.key
            for label, cell in self.cells.items()
            if "napping" in label and cell.steps == steps
        ]
        return found

    def state(self, key: str) -> states.CellState:
        """What any other shell would see of a cell."""
        return states.look(self.folder, [key]).cells[0]

    def at_work(self) -> states.CellState:
        """A cell that was left in peace so far and has finished a chunk, but few of them.

        A job goes on for the five seconds that SLURM gives it before it is killed.
        """
        found: list[states.CellState] = []

        def one() -> bool:
            for cell in states.look(self.folder).cells:
                young = cell.key not in self.touched and 1 <= cell.chunks <= cell.of / 4
                if cell.state == states.RUNNING and young:
                    found.append(cell)
                    return True
            return False

        wait_until(one, "a cell that is being computed")
        self.touched.add(found[0].key)
        return found[0]

    def log_of(self, key: str) -> str:
        """The standard output of the jobs of a cell."""
        return "\n".join(
            Path(job.logs[0]).read_text()
            for made in submissions.read_all(self.folder)
            for job in made.jobs
            if key in job.keys and job.logs and Path(job.logs[0]).exists()
        )

    def wait_until_over(self, job: str) -> None:
        """Until the queue knows nothing of a job."""
        queued = ("squeue", "--noheader", "--array", "--format=%i")
        wait_until(lambda: job not in slurm(*queued).split(), f"the end of job {job}")


def restarted(job: str) -> int:
    """How often SLURM began a job again."""
    found = re.search(r"Restarts=(\d+)", slurm("scontrol", "show", "job", job))
    assert found is not None
    return int(found[1])


def preempted() -> list[str]:
    """What the controller says of jobs that gave way, by its log."""
    log = (cluster.controller().parent / "slurmctld.log").read_text()
    return re.findall(r"preempted JobId=(\S+) has been requeued", log)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Disturbed]:
    made = Disturbed(tmp_path)
    yield made
    made.stop()


def test_nothing_is_lost_and_nothing_computed_twice(run: Disturbed, tmp_path: Path) -> None:
    assert len(run.cells) == 40
    (broken,) = [cell for label, cell in run.cells.items() if "broken" in label]
    long = run.key(LONG)
    run.touched |= {broken.key, long}
    first = run.bench("run")
    wait_until(
        lambda: sum(len(made.jobs) for made in submissions.read_all(run.folder)) == 40, "40 jobs"
    )
    assert len(submissions.read_all(run.folder)) == 4, "no array is larger than the site allows"

    # The limit of one job is two minutes from now on; SLURM warns 90 s before, and looks twice a
    # minute.
    wait_for_chunk(run.folder, long)
    slurm("scontrol", "update", f"JobId={run.state(long).job}", "TimeLimit=2")

    # One is killed, by the kernel say.
    killed = run.at_work()
    owner = json.loads((chunks.folder_of(run.folder, killed.key) / "claim").read_text())
    os.kill(owner["pid"], signal.SIGKILL)

    # One is cancelled by hand.
    cancelled = run.at_work()
    slurm("scancel", cancelled.job)

    # Three are requeued.
    requeued = [run.at_work() for _ in range(3)]
    for cell in requeued:
        slurm("scontrol", "requeue", cell.job)

    # One gives way to a job of a partition that comes first, if all processors are taken.
    for _ in range(5):
        wait_until(lambda: len(slurm("squeue", "-h", "-t", "R").splitlines()) >= 6, "six jobs")
        urgent = ["sbatch", "--partition=urgent", "--output=/dev/null", "--wait", "--wrap"]
        slurm(*urgent, "sleep 2")
        if preempted():
            break
    assert len(preempted()) == 1

    # The controller is away for a while.
    os.kill(int(cluster.controller().read_text()), signal.SIGTERM)
    wait_until(lambda: states.look(run.folder).away, "the controller is away")
    subprocess.run(["/usr/sbin/slurmctld"], check=True)
    wait_until(lambda: not states.look(run.folder).away, "the controller is back")

    # The launcher is killed, and another one takes over what is left.
    for job in (killed.job, cancelled.job):
        run.wait_until_over(job)
    lost = {killed.key, cancelled.key}
    assert run.state(killed.key).state == states.STALE
    assert run.state(cancelled.key).state in (states.STALE, states.MISSING)
    assert first.poll() is None, "it waits for the others"
    first.kill()
    first.communicate()
    before = cluster.jobs_of(run.folder)
    second = run.bench("run")

    # From the fourth time on the long cell has time enough.
    limits = "Caught signal SIGUSR2"
    wait_until(lambda: run.log_of(long).count(limits) >= TIMES, "four time limits")
    slurm("scontrol", "update", f"JobId={before[0]}", "TimeLimit=60")
    _, err = second.communicate(timeout=900)
    assert run.log_of(long).count("Requeued job") >= TIMES
    assert {cell.key for cell in requeued if restarted(cell.job) < 1} == set()
    again = {
        key
        for made in submissions.read_all(run.folder)
        for job in made.jobs
        if job.id not in before
        for key in job.keys
    }
    assert again - {broken.key} == lost, "the second launcher submits what is lost, and the failure"

    # One cell failed, by its own fault, and says why and where.
    assert second.returncode == 1, err
    (line,) = [line for line in err.splitlines() if "failed: " in line]
    assert line.startswith(f"{broken.label} failed: Cell {broken.short}")
    assert "are not finite" in line
    said = run.bench("logs", broken.key[:8]).communicate()[0]
    assert "are not finite" in said
    (where,) = re.findall(r"\(see (\S+)\)", line)
    assert "are not finite" in Path(where).read_text()

    # All others are done, with the bytes of a run that nothing disturbed.
    seen = states.look(run.folder)
    assert (seen.counts["done"], seen.counts["failed"]) == (39, 1)
    assert not seen.under_way
    assert [path for path in torn(run.folder) if "/work/logs/" not in path] == []
    assert computed_twice(run.folder) == []
    assert leftovers(run.folder) == []
    peaceful = fakes.make_sweep(
        tmp_path,
        grid=GRID,
        launch="{executor: local, workers: 2}",
        samples=640,
        chunk=32,
    )
    assert launch.run(peaceful, tmp_path / "peaceful").computed == 39
    expected = scores(tmp_path / "peaceful")
    found = scores(run.folder)
    assert found.keys() == expected.keys() == {cell.key for cell in run.cells.values()}
    assert found == expected
    assert results.find(run.folder, long) is not None
