"""With accounting: everything as without, and how jobs ended is told."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import chunks, states, submissions, sweep
from bench.claim import CLAIM, owner_of
from tests import fakes
from tests.kills import computed_twice
from tests.slurm import cluster
from tests.slurm.cluster import bench, slurm, wait_for_chunk, wait_until
from tests.slurm.samplers import NAP

pytestmark = pytest.mark.slurm

MODULE = "tests.slurm.samplers"
ENDINGS = {100: "TIMEOUT", 41: "CANCELLED", 42: "NODE_FAIL"}
"""By the steps of the cell."""
GRID = (
    f'[{{sampler: "{MODULE}:napping", steps: [41, 42, 43]}},'
    f' {{sampler: "{MODULE}:greedy", steps: 44}}, {{sampler: "{MODULE}:deaf", steps: 100}}]'
)
SLURM = f"{{executor: slurm, mem: 1500MB, setup: [export {NAP}=0.05]}}"


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with cluster.running(ACCOUNTING="1", CPUS="6"):
        yield


def lost(folder: Path) -> dict[str, str]:
    """What became of the jobs of the cells that nobody works on."""
    seen = states.explained(folder, states.look(folder))
    gone = (states.MISSING, states.STALE)
    return {cell.key: cell.reason.split(": ")[-1] for cell in seen.cells if cell.state in gone}


def test_how_jobs_ended_is_told(tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "results" / "tiny"
    file.write_text(fakes.sweep_text(tmp_path, grid=GRID, launch=SLURM, samples=960, chunk=32))
    keys = {cell.steps: cell.key for cell in sweep.load(file).cells()}
    said = bench(file, "submit").communicate()[0]
    assert said.startswith("6 cells submitted in 6 jobs, 0 under way before.")

    # The node fails. Jobs that may not be requeued end with it; the others begin again.
    for steps in ENDINGS:
        wait_for_chunk(folder, keys[steps])
    jobs = {
        steps: job.id
        for made in submissions.read_all(folder)
        for job in made.jobs
        for steps, key in keys.items()
        if key in job.keys
    }
    deaf = chunks.folder_of(folder, keys[100]) / CLAIM
    first = owner_of(deaf)
    slurm("scontrol", "update", f"JobId={jobs[42]}", "Requeue=0")
    node = f"NodeName={socket.gethostname().split('.')[0]}"
    slurm("scontrol", "update", node, "State=DOWN", "Reason=a test")
    # So that it does not come back by itself, while its jobs still have their seconds to end: it
    # would refuse to launch them twice.
    slurm("scontrol", "update", node, "State=DRAIN", "Reason=a test")
    daemons = ["pgrep", "slurmstepd"]
    wait_until(lambda: subprocess.run(daemons, capture_output=True).returncode == 1, "their end")
    slurm("scontrol", "update", node, "State=RESUME")

    # One does not hear that its time is over; another one is cancelled. SLURM warns at once, and
    # what has not begun with its cell yet would die of that.
    wait_until(lambda: owner_of(deaf) not in (None, first), "the deaf job, begun again")
    slurm("scontrol", "update", f"JobId={jobs[100]}", "TimeLimit=1")

    def runs(steps: int) -> bool:
        running = slurm("squeue", "--noheader", "--states=RUNNING", f"--jobs={jobs[steps]}")
        (cell,) = states.look(folder, [keys[steps]]).cells
        return bool(running) and cell.state == states.RUNNING

    wait_until(lambda: runs(41), "the job that will be cancelled")
    slurm("scancel", jobs[41])

    # It takes control groups to tell; where SLURM itself ends what takes too much, it only fails.
    groups = os.access("/sys/fs/cgroup/memory", os.W_OK)
    killed = "OUT_OF_MEMORY" if groups else "FAILED, exit code 9:0"
    expected = {keys[steps]: how for steps, how in ENDINGS.items()} | {keys[44]: killed}

    wait_until(lambda: lost(folder) == expected, f"{expected}", 300)
    assert states.look(folder).counts["done"] == 2
    out = bench(file, "status").communicate()[0]
    assert f"; job {jobs[42]} ended: NODE_FAIL\n" in out
    assert f"; job {jobs[44]} ended: {killed}\n" in out
    said = bench(file, "logs", keys[44][:8]).communicate()[0]
    assert re.search("oom-kill|exceeded memory limit", said)
    assert "DUE TO TIME LIMIT" in bench(file, "logs", keys[100][:8]).communicate()[0]

    # Submitted again they go on, and are cancelled.
    before = {steps: chunks.finished(chunks.folder_of(folder, keys[steps])) for steps in ENDINGS}
    assert min(before.values()) >= 1
    said = bench(file, "submit").communicate()[0]
    assert said.startswith("4 cells submitted in 4 jobs, 0 under way before.")
    done = bench(file, "cancel")
    # The one that takes too much may have been faster.
    assert re.match("[34] jobs cancelled, ", done.communicate()[0])
    assert done.returncode == 0
    wait_until(lambda: {*lost(folder).values()} - {killed} == {"CANCELLED"}, "cancelled jobs")
    assert computed_twice(folder) == []
