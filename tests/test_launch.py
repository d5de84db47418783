import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from bench import cancel, chunks, executors, launch, process, progress, results, states, submissions
from bench import cell as cells
from bench import fingerprint as fingerprints
from bench import worker as workers
from bench.cell import record_failure
from bench.claim import CLAIM, Owner
from bench.errors import LaunchError, MetricError, ResultError
from bench.launch import RunSummary
from bench.metrics.registry import METRICS
from bench.results import Result
from bench.samplers import REGISTRY
from bench.submissions import Submission
from bench.sweep import Cell, Sweep
from bench.worker import Job, worker
from tests import fakes
from tests.disks import small_disk
from tests.kills import computed_twice, leftovers, scores, torn
from tests.signals import handled

ROOT = Path(__file__).parents[1]
HOLD = (
    "import sys, time; from pathlib import Path; from bench.claim import claimed\n"
    "with claimed(Path(sys.argv[1])) as held:\n"
    "    print(bool(held), flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def tiny_metric(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`fd_tiny` is known, and nothing is remembered from one test to the next."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    forget()
    yield
    forget()


def forget() -> None:
    """As a new process would begin."""
    for cache in (cells._bound, cells._model, fingerprints.fingerprint):
        cache.cache_clear()


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return fakes.make_sweep(tmp_path)


def outcome(summary: RunSummary) -> tuple[int, int, int, int]:
    return (
        summary.done_before,
        summary.computed,
        len(summary.failed),
        len(summary.missing),
    )


def in_background(
    folder: Path, results_folder: str, samples: int = 200, launch: str = "{executor: inline}"
) -> subprocess.Popen[str]:
    """`launch.run` in a process of its own; prints the summary."""
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from bench import executors, launch; from tests import fakes\n"
        # What a shell starts in the background inherits that Ctrl-C is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "fakes.register(); folder = Path(sys.argv[1])\n"
        "executors.Job = fakes.TinyJob\n"
        "print('ready', flush=True)\n"
        f"sweep = fakes.make_sweep(folder, samples=int(sys.argv[3]), launch={launch!r})\n"
        "summary = launch.run(sweep, folder / sys.argv[2])\n"
        "print(summary.interrupted is None, summary.computed, len(summary.missing))"
    )
    command = [sys.executable, "-c", script, str(folder), results_folder, str(samples)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_run_and_run_again(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "tiny"
    first = launch.run(sweep, folder)
    assert outcome(first) == (0, 5, 0, 0)
    assert first.complete
    assert first.interrupted is None
    before = scores(folder)
    again = launch.run(sweep, folder)
    assert outcome(again) == (5, 0, 0, 0)
    assert again.seconds < 2
    assert scores(folder) == before
    assert leftovers(folder) == []
    assert list(results.load(folder)["status"]) == ["done"] * 5
    assert results.read_plan(folder) == sweep.plan()


def test_changed_sampler_computes_its_cells_again_and_keeps_the_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = "[{sampler: ddim, steps: [3, 5]}, {sampler: heun, spacing: logsnr, steps: 3}]"
    sweep = fakes.make_sweep(tmp_path, grid=grid)
    launch.run(sweep, tmp_path / "r")
    before = scores(tmp_path / "r")
    ddim = REGISTRY["ddim"]

    def changed(*args: Any, **kwargs: Any) -> torch.Tensor:
        return ddim.function(*args, **kwargs) * 1.01

    monkeypatch.setitem(REGISTRY, "ddim", replace(ddim, function=changed))
    forget()
    assert outcome(launch.run(sweep, tmp_path / "r")) == (2, 2, 0, 0)
    after = scores(tmp_path / "r")
    different = {key for key in before if before[key] != after[key]}
    assert different == {cell.key for cell in sweep.cells() if cell.sampler == "ddim"}
    for key in different:
        earlier = results.read(chunks.folder_of(tmp_path / "r", key) / launch.EARLIER)
        assert json.dumps(earlier.metrics) == before[key]


def test_failed_cells_are_records_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = "[{sampler: [ddim, heun, euler], spacing: logsnr, steps: 3}]"
    sweep = fakes.make_sweep(tmp_path, grid=grid)

    def explode(denoise: Any, x: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        for _ in range(5):
            denoise(x, sweep.cells()[1].grid().points[0])
        return x * torch.where(x.abs().amax(dim=(1, 2, 3), keepdim=True) > 2.5, torch.nan, 1.0)

    def bug(*_: object, **__: object) -> torch.Tensor:
        raise KeyError("oops")

    monkeypatch.setitem(REGISTRY, "heun", replace(REGISTRY["heun"], function=explode))
    monkeypatch.setitem(REGISTRY, "euler", replace(REGISTRY["euler"], function=bug))
    summary = launch.run(sweep, tmp_path / "r")
    assert outcome(summary) == (0, 2, 2, 0)
    assert not summary.complete
    reasons = {one.label: one.reason for one in summary.failed}
    assert "are not finite" in reasons["heun spacing=logsnr steps=3"]
    assert reasons["euler spacing=logsnr steps=3"].startswith("KeyError: 'oops' (test_launch.py:")
    frame = results.load(tmp_path / "r")
    assert list(frame["status"]) == ["done", "done", "failed", "failed"]
    assert frame["metric.fd_tiny"].isna().tolist() == [False, False, True, True]

    monkeypatch.undo()
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    forget()
    assert outcome(launch.run(sweep, tmp_path / "r")) == (2, 2, 0, 0), "failures are tried again"


def test_missing_reference_is_refused_before_anything_is_made(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "tiny.npz").unlink()
    with pytest.raises(MetricError, match=r"There is no file .*tiny\.npz"):
        launch.run(sweep, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_results_folder_that_is_a_file(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(ResultError, match="is a file, not a folder"):
        launch.run(sweep, tmp_path / "r")


def test_record_of_a_newer_version_stops_the_run(sweep: Sweep, tmp_path: Path) -> None:
    path = results.path_of(tmp_path, sweep.cells()[2].key)
    path.write_text('{"format": 2}')
    with pytest.raises(ResultError, match=r"has format 2; this version of bench reads format 1"):
        launch.run(sweep, tmp_path)
    assert path.read_text() == '{"format": 2}'


def test_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        sweep = fakes.make_sweep(tmp_path, grid="[{sampler: ddim, steps: [3, 4, 5, 6, 7]}]")
        with pytest.raises(ResultError, match="the disk is full"):
            launch.run(sweep, disk / "r")
        assert torn(disk) == []
        assert list(disk.rglob(f".*{launch.atomic.SUFFIX}")) == []
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        summary = launch.run(sweep, disk / "r")
        assert summary.complete
        assert summary.done_before > 0
        assert computed_twice(disk / "r") == []


def test_cell_that_another_worker_has_is_left_to_it_until_that_dies(
    sweep: Sweep, tmp_path: Path
) -> None:
    """This run has nothing else to do by then; it stays, and takes the cell over."""
    cell = sweep.cells()[3]
    work = chunks.folder_of(tmp_path, cell.key)
    work.mkdir(parents=True)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, work / CLAIM], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"True\n"
    killing = threading.Timer(3, other.kill)
    killing.start()
    began = time.monotonic()
    summary = launch.run(sweep, tmp_path)
    assert time.monotonic() - began > 2
    assert outcome(summary) == (0, 5, 0, 0)
    other.communicate()


def test_worker_by_hand(sweep: Sweep, tmp_path: Path) -> None:
    results.write_plan(tmp_path, sweep.plan())
    keys = [cell.key for cell in sweep.cells()[:2]]
    assert worker(tmp_path, keys) == 2
    assert worker(tmp_path, keys) == 0
    assert worker(tmp_path) == 3


def test_dear_cells_come_first(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[int] = []
    real = workers.run_cell

    def remember(cell: Cell, *args: Any, **keywords: Any) -> Result:
        began.append(cell.nfe)
        return real(cell, *args, **keywords)

    monkeypatch.setattr(workers, "run_cell", remember)
    results.write_plan(tmp_path, sweep.plan())
    worker(tmp_path)
    assert began == sorted((cell.nfe for cell in sweep.cells()), reverse=True)
    assert len(set(began)) > 2


def test_two_runs_at_once_share_the_work(sweep: Sweep, tmp_path: Path) -> None:
    others = [in_background(tmp_path, "r") for _ in range(2)]
    said = [other.communicate(timeout=600)[0].split() for other in others]
    assert [answer[0] for answer in said] == ["ready", "ready"]
    assert launch.run(sweep, tmp_path / "r").complete
    assert computed_twice(tmp_path / "r") == []
    assert scores(tmp_path / "r") == scores_undisturbed(sweep, tmp_path)
    assert leftovers(tmp_path / "r") == []


def scores_undisturbed(sweep: Sweep, tmp_path: Path) -> dict[str, str]:
    launch.run(sweep, tmp_path / "undisturbed")
    return scores(tmp_path / "undisturbed")


def test_interrupt_leaves_a_clean_state_and_the_next_run_goes_on(tmp_path: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, samples=5000)  # enough not to end before the signal comes
    process = in_background(tmp_path, "r", samples=5000)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    while not list((tmp_path / "r").glob("work/*/ledger.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[0].split()
    assert process.returncode == 0
    assert said[0] == "False", "it knows that it was interrupted"
    assert list((tmp_path / "r").glob("work/*/claim")) == []
    assert list((tmp_path / "r").rglob(f".*{launch.atomic.SUFFIX}")) == []
    assert torn(tmp_path / "r") == []
    assert launch.run(sweep, tmp_path / "r").complete
    assert computed_twice(tmp_path / "r") == []
    assert scores(tmp_path / "r") == scores_undisturbed(sweep, tmp_path)


def kill_many(tmp_path: Path, kills: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.kills", str(tmp_path), str(kills), "0"]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(run.stdout)
    return report


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_random_kills_lose_nothing_and_double_nothing(tmp_path: Path, kills: int) -> None:
    report = kill_many(tmp_path, kills)
    sweeps = report.pop("sweeps")
    nothing: list[str] = []
    seen = {"torn": nothing, "twice": nothing, "left": nothing, "different": nothing}
    assert report == {"kills": kills, "cells": 5, **seen}
    assert sweeps >= 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["split", "pack"])
def test_disturbed_workers_lose_nothing_and_double_nothing(tmp_path: Path, mode: str) -> None:
    """Kills, pauses longer than claims live, deleted temporary files, chunks cut short."""
    command = [sys.executable, "-m", "tests.kills", str(tmp_path), "100", "0", mode]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(run.stdout)
    counts, _ = report.pop("counts"), report.pop("sweeps")
    nothing: list[str] = []
    seen = {"torn": nothing, "twice": nothing, "left": nothing, "different": nothing}
    assert report == {"made": 100, "cells": 5, **seen}
    assert all(counts[what] > 0 for what in ("killed", "paused", "deleted", "cut"))


def test_rescoring_never_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = replace(fakes.make_sweep(tmp_path), keep="features")
    folder = tmp_path / "r"
    launch.run(sweep, folder)
    before = scores(folder)
    (lost,) = [cell for cell in sweep.cells() if cell.label.startswith("exact")]
    chunks.path_of(chunks.kept_of(folder, lost.key), 2).unlink()
    monkeypatch.setitem(METRICS, "cs_tiny", fakes.TINY["cs_tiny"])
    more = replace(sweep, metrics=("fd_tiny", "cs_tiny"))
    done = launch.rescore(more, folder)
    assert done.scored == 4
    assert done.left == (
        (
            "exact",
            f"Cell {lost.short} (exact): chunk 2 of its images was not kept, so it needs sampling "
            'again. "bench run" does that.',
        ),
    )
    assert results.read_plan(folder)["metrics"] == ["fd_tiny", "cs_tiny"]
    after = results.read_all(folder)
    assert after[lost.key].metrics.keys() == {"fd_tiny"}
    for key, result in after.items():
        assert json.dumps(result.metrics["fd_tiny"]) == json.dumps(
            json.loads(before[key])["fd_tiny"]
        )
    # What was left is sampled by a run, and only that.
    assert outcome(launch.run(more, folder)) == (4, 1, 0, 0)


@pytest.mark.parametrize("split", ["", ", split: 3"], ids=["cells", "slices"])
def test_local_jobs_give_the_same_bytes(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setattr(executors, "Job", fakes.TinyJob)
    local = fakes.make_sweep(tmp_path, launch=f"{{executor: local, workers: 2{split}}}")
    out = io.StringIO()
    summary = launch.run(local, tmp_path / "r", console=Console(file=out, width=200))
    assert outcome(summary) == (0, 5, 0, 0)
    assert "5 of 5 cells, 1,000 of 1,000 images" in out.getvalue().splitlines()[-1]
    assert computed_twice(tmp_path / "r") == []
    assert scores(tmp_path / "r") == scores_undisturbed(sweep, tmp_path)
    assert leftovers(tmp_path / "r") == []


@pytest.mark.slow
def test_local_jobs_say_what_stopped_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the metric in the workers' processes nothing can be computed there."""
    local = fakes.make_sweep(tmp_path, launch="{executor: local, workers: 1}")
    with pytest.raises(LaunchError, match='no metric "fd_tiny"'):
        launch.run(local, tmp_path / "r")


def test_slurm_is_refused_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    sweep = fakes.make_sweep(tmp_path, launch="{executor: slurm}")
    with pytest.raises(LaunchError) as caught:
        launch.run(sweep, tmp_path / "r")
    assert str(caught.value) == (
        'The executor is "slurm", and there is no srun here. Run this on a node of the cluster, '
        'or set "launch: {executor: local}".'
    )


def test_job_is_requeued_as_long_as_it_gets_on(sweep: Sweep, tmp_path: Path) -> None:
    results.write_plan(tmp_path, sweep.plan())
    key = sweep.cells()[1].key
    job = Job(str(tmp_path), (key,))
    worker(tmp_path, (key,))
    assert [job.checkpoint() is not None for _ in range(5)] == [True] * 4 + [False]


def test_progress_of_a_half_finished_sweep(sweep: Sweep, tmp_path: Path) -> None:
    cells_ = sweep.cells()
    results.write_plan(tmp_path, sweep.plan())
    out = io.StringIO()
    watch = progress.Watch(
        Console(file=out, width=200), tmp_path, sweep.plan()["cells"], sweep.chunk
    )
    assert watch._line() == "0 of 5 cells, 0 of 1,000 images"
    worker(tmp_path, [cells_[0].key])
    record_failure(cells_[1], tmp_path, "for a reason")
    work = chunks.folder_of(tmp_path, cells_[2].key)
    work.mkdir(parents=True)
    for index in range(4):  # the last chunk of a cell has fewer images
        chunks.path_of(work, index).touch()
    watch._now = watch._look()
    assert watch._line().startswith("2 of 5 cells, 600 of 1,000 images, ")
    assert watch._line().endswith(" left")
    watch._began = time.monotonic() - 6000
    assert ", 0.1 images/s, " in watch._line(), "not 0 where it is slow"


LOCAL = "{executor: local, workers: 2}"


@pytest.fixture
def tiny_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "Job", fakes.TinyJob)


def wait_for(folder: Path, pattern: str) -> None:
    """Until there is such a file in a results folder."""
    deadline = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def intended(executor: str, sweep: Sweep) -> Submission:
    """A submission by this process of one job that looks at all cells of a sweep."""
    keys = [cell.key for cell in sweep.cells()]
    return Submission.intended(
        executor, "tiny", [keys], now=time.time(), code="", commit=None, snapshot=None
    )


def workers_of(folder: Path) -> list[int]:
    """Process ids of all workers that were ever submitted."""
    made = submissions.read_all(folder)
    return [int(job.id) for one in made for job in one.jobs if job.id and one.executor == "local"]


def test_submitted_workers_have_a_session_of_their_own_and_are_left_alone(
    tmp_path: Path, tiny_job: None
) -> None:
    sweep = fakes.make_sweep(tmp_path, samples=2000, launch=LOCAL)
    folder = tmp_path / "r"
    made = launch.submit(sweep, folder)
    assert (len(made.todo), len(made.free)) == (5, 5)
    pids = workers_of(folder)
    assert len(pids) == 2
    for pid in pids:
        assert os.getsid(pid) == pid
    wait_for(folder, "work/*/claim")
    seen = states.look(folder)
    assert states.exit_code(seen) == 3
    assert seen.counts["running"] + seen.counts["queued"] + seen.counts["done"] == 5
    assert {cell.job for cell in seen.cells if cell.state == "running"} <= set(map(str, pids))
    again = launch.submit(sweep, folder)
    assert (again.free, again.submissions) == ((), ())
    assert launch.run(sweep, folder).complete
    assert workers_of(folder) == pids, "run waits, and starts nothing"
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    assert states.exit_code(states.look(folder)) == 0


def test_launcher_that_is_killed_is_followed_by_another(tmp_path: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, samples=2000, launch=LOCAL)
    first = in_background(tmp_path, "r", samples=2000, launch=LOCAL)
    wait_for(tmp_path / "r", "work/*/ledger.jsonl")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = workers_of(tmp_path / "r")
    assert launch.run(sweep, tmp_path / "r").complete
    assert workers_of(tmp_path / "r") == before
    assert computed_twice(tmp_path / "r") == []


def test_worker_that_is_killed_takes_nothing_with_it(tmp_path: Path, tiny_job: None) -> None:
    """The other one had nothing else to do, and was still there."""
    grid = "[{sampler: ddim, steps: 20}]"
    sweep = fakes.make_sweep(tmp_path, grid=grid, samples=6400, launch=LOCAL)
    folder, cell = tmp_path / "r", sweep.cells()[1]
    launch.submit(sweep, folder)
    wait_for(folder, f"work/{cell.key}/ledger.jsonl")
    owner = json.loads((chunks.folder_of(folder, cell.key) / CLAIM).read_text())
    wait_for(folder, f"{sweep.cells()[0].key}.json")
    os.kill(owner["pid"], signal.SIGKILL)
    assert launch.run(sweep, folder).complete
    assert len(submissions.read_all(folder)) == 1
    assert computed_twice(folder) == []


def test_two_launchers_at_once_submit_once(tmp_path: Path) -> None:
    fakes.make_sweep(tmp_path)  # its files
    both = [in_background(tmp_path, "r", samples=2000, launch=LOCAL) for _ in range(2)]
    said = [launcher.communicate(timeout=600)[0].split() for launcher in both]
    assert said == [["ready", "True", "5", "0"]] * 2
    assert len(submissions.read_all(tmp_path / "r")) == 1
    assert computed_twice(tmp_path / "r") == []


def test_interrupted_run_stops_its_local_workers(tmp_path: Path) -> None:
    process_ = in_background(tmp_path, "r", samples=20000, launch=LOCAL)
    wait_for(tmp_path / "r", "work/*/ledger.jsonl")
    process_.send_signal(signal.SIGINT)
    said = process_.communicate(timeout=300)[0].split()
    assert said[1] == "False", "it knows that it was interrupted"
    assert [process.started(pid) for pid in workers_of(tmp_path / "r")] == [None, None]
    assert list((tmp_path / "r").glob("work/*/claim")) == []
    assert not states.look(tmp_path / "r").under_way


def test_cancel_stops_workers_and_releases_claims(tmp_path: Path, tiny_job: None) -> None:
    sweep = fakes.make_sweep(tmp_path, samples=20000, launch=LOCAL)
    folder = tmp_path / "r"
    launch.submit(sweep, folder)
    wait_for(folder, "work/*/ledger.jsonl")
    done = cancel.cancel(folder)
    assert (done.jobs, done.left) == (2, ())
    assert list(folder.glob("work/*/claim")) == []
    assert [process.started(pid) for pid in workers_of(folder)] == [None, None]
    assert not states.look(folder).under_way
    assert cancel.cancel(folder).jobs == 0
    executors.collect()


def test_cancel_is_heard_by_workers_that_a_shell_started_in_the_background(
    tmp_path: Path, tiny_job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a shell has them ignore Ctrl-C, which is what they are told to end by."""
    monkeypatch.setattr(cancel, "GRACE", 1000.0)  # nothing is killed
    folder = tmp_path / "r"
    with handled(signal.SIGINT, signal.SIG_IGN):
        launch.submit(fakes.make_sweep(tmp_path, samples=200_000, launch=LOCAL), folder)
    while len(list(folder.glob("work/*/claim"))) < 2:  # both compute
        time.sleep(0.02)
    assert cancel.cancel(folder).jobs == 2
    assert [process.started(pid) for pid in workers_of(folder)] == [None, None]
    assert states.look(folder).counts["done"] < 5
    executors.collect()


def test_cancel_releases_the_claims_of_its_jobs_alone(tmp_path: Path, sweep: Sweep) -> None:
    """Also on a cell that got its record, where the worker was killed before it let go."""
    results.write_plan(tmp_path, sweep.plan())
    settled, *others = sweep.cells()
    sleeper = subprocess.Popen(["sleep", "600"], start_new_session=True)
    job, started = str(sleeper.pid), process.started(sleeper.pid)
    submissions.write(tmp_path, intended("local", sweep).with_job(0, job, [], started))
    record_failure(settled, tmp_path, "for a reason")
    own = replace(Owner.this(job), pid=sleeper.pid, started=started or 0)
    owners = [own, own, replace(own, machine="elsewhere"), Owner.this("another")]
    for cell, owner in zip([settled, *others], owners, strict=False):
        work = chunks.folder_of(tmp_path, cell.key)
        work.mkdir(parents=True, exist_ok=True)
        (work / CLAIM).write_text(json.dumps(asdict(owner)))
    done = cancel.cancel(tmp_path)
    assert (done.jobs, done.released, done.left) == (1, 2, ())
    left = {path.parent.name for path in tmp_path.glob("work/*/claim")}
    assert left == {cell.key for cell in others[1:3]}
    assert sleeper.wait() < 0, "by a signal"


def test_workers_of_another_machine_are_stopped_there(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    results.write_plan(tmp_path, sweep.plan())
    made = replace(intended("local", sweep), machine="elsewhere", host="node07")
    submissions.write(tmp_path, made.with_job(0, "1", [], 1))
    assert cancel.cancel(tmp_path).left == (
        f'The local workers on node07 can be stopped only there: "bench cancel {tmp_path}".',
    )


def test_retry_is_for_cells_that_failed(tmp_path: Path, tiny_job: None) -> None:
    sweep = fakes.make_sweep(tmp_path, launch="{executor: local, workers: 1}")
    folder = tmp_path / "r"
    folder.mkdir()
    results.write_plan(folder, sweep.plan())
    failed, *_ = sweep.cells()
    record_failure(failed, folder, "for a reason")
    made = launch.submit(sweep, folder, failed_only=True)
    assert [cell.key for cell in made.free] == [failed.key]
    while states.look(folder, [failed.key]).under_way:
        time.sleep(0.1)
    executors.collect()
    assert states.look(folder).counts["done"] == 1
    earlier = results.read(chunks.folder_of(folder, failed.key) / launch.EARLIER)
    assert earlier.error == "for a reason"


def test_stale_claim_elsewhere_is_released_when_its_cell_is_submitted(
    sweep: Sweep, tmp_path: Path
) -> None:
    work = chunks.folder_of(tmp_path, sweep.cells()[2].key)
    work.mkdir(parents=True)
    owner = replace(Owner.this(), machine="elsewhere")
    (work / CLAIM).write_text(json.dumps(asdict(owner)))
    os.utime(work / CLAIM, (1, 1))
    assert launch.run(sweep, tmp_path).complete
    assert leftovers(tmp_path) == []


def test_inline_cells_cannot_be_submitted(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match='the executor is "inline", which is the process of'):
        launch.submit(sweep, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def seen_gpus(folder: Path) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each worker that was submitted."""
    variables = [
        dict(
            pair.split("=", 1) for pair in Path(f"/proc/{pid}/environ").read_text().split("\0")[:-1]
        )
        for pid in workers_of(folder)
    ]
    return [each["CUDA_VISIBLE_DEVICES"] for each in variables]


@pytest.mark.parametrize(
    ("options", "visible", "expected"),
    [
        ("", "", ["0", "1", "2"]),
        ("", "3,5,7", ["3", "5", "7"]),
        (", workers: 4", "", ["0", "1", "2", "0"]),
        (", device: cpu", "", ["", "", "", ""]),
        (", device: cpu, threads: 3", "", [""]),
    ],
)
def test_one_worker_for_each_gpu_or_as_many_as_the_cores_have_room_for(
    tmp_path: Path,
    tiny_job: None,
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    visible: str,
    expected: list[str],
) -> None:
    """Of three GPUs and four cores, which the workers' processes do not have."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    sweep = fakes.make_sweep(tmp_path, launch=f"{{executor: local{options}}}")
    launch.submit(sweep, tmp_path / "r")
    assert seen_gpus(tmp_path / "r") == expected
    cancel.cancel(tmp_path / "r")
    executors.collect()


def test_cancelling_while_slurm_is_away_stops_what_it_can_and_says_what_is_left(
    tmp_path: Path, tiny_job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fakes.make_sweep(tmp_path, samples=20000, launch=LOCAL)
    folder = tmp_path / "r"
    launch.submit(sweep, folder)
    submissions.write(folder, intended("slurm", sweep).with_job(0, "17_0", []))
    place = tmp_path / "commands"
    place.mkdir()
    for name in ("squeue", "scancel"):
        (place / name).write_text(
            "#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1"
        )
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    done = cancel.cancel(folder)
    assert done.jobs == 2
    assert [process.started(pid) for pid in workers_of(folder)] == [None, None]
    assert done.left == (
        "SLURM does not answer (Unable to contact slurm controller). Its jobs were not cancelled "
        f'and go on. When it answers again (sinfo shows that): "bench cancel {folder}".',
    )
    for name in ("squeue", "scancel"):
        (place / name).unlink()
    assert cancel.cancel(folder).left == (
        "Of SLURM: there is no squeue here, so what is queued is not known. On a node of its "
        f'cluster: "bench cancel {folder}".',
    )
    executors.collect()
