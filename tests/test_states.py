"""What a cell's state is, from facts; and a look at a folder that has some of everything."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import chunks, process, results, scheduler, states, submissions
from bench.cell import record_failure
from bench.claim import CLAIM, Owner
from bench.metrics.registry import METRICS
from bench.scheduler import Queued
from bench.states import Held, Waiting, Work
from bench.submissions import Job, Submission
from tests import fakes

ROW = {"key": "a" * 16, "label": "ddim", "cell": {"samples": 1000}, "nfe": 5}
PLAN = {"chunk": 300, "metrics": []}
HERE = Owner.this(job="17_0")


def submission(executor: str = "slurm", *ids: str | None, started: int | None = None) -> Submission:
    made = Submission.intended(
        executor,
        "tiny",
        [["a" * 16]] * len(ids),
        now=time.time(),
        code="c",
        commit=None,
        snapshot=None,
    )
    jobs = tuple(Job(name, started, ("a" * 16,), ()) for name in ids)
    return replace(made, jobs=jobs)


def waiting(made: Submission, *, running: bool = False, reason: str = "") -> Waiting:
    return Waiting(made, made.jobs[0], Queued(made.name, running, reason, "node01"))


def test_a_live_claim_is_a_running_cell_whatever_is_queued() -> None:
    work = Work(2, (Held(Path("claim"), HERE, stale=False),))
    found = states.state(ROW, PLAN, None, work, [waiting(submission("slurm", "17_0"))])
    assert (found.state, found.host, found.job) == ("running", HERE.host, "17_0")
    assert (found.chunks, found.of) == (2, 4)
    assert found.since == HERE.since


def test_a_queued_cell_says_why_it_waits() -> None:
    held = Held(Path("claim"), HERE, stale=True)
    jobs = [waiting(submission("slurm", "17_0"), reason="Resources")]
    found = states.state(ROW, PLAN, None, Work(0, (held,)), jobs)
    assert (found.state, found.reason, found.job) == ("queued", "Resources", "17_0")
    jobs.append(waiting(submission("slurm", "18"), running=True))
    found = states.state(ROW, PLAN, None, Work(), jobs)
    assert (found.state, found.reason, found.job) == ("queued", "job running", "18")


def test_without_a_job_a_claim_is_stale_and_no_claim_is_missing() -> None:
    held = Held(Path("claim"), None, stale=True)
    assert states.state(ROW, PLAN, None, Work(1, (held,)), []).state == "stale claim"
    assert states.state(ROW, PLAN, None, Work(1), []).state == "missing"
    assert states.state(ROW, PLAN, None, None, []).state == "missing"


NOW = time.time()
LATER = NOW + 1000
GONE: dict[str, Queued] = {}
KEYS = frozenset(["a" * 16])


def alive(
    made: Submission,
    *,
    queue: dict[str, Queued] | None = GONE,
    claimed: set[tuple[str, str]] = frozenset(),  # type: ignore[assignment]
    left: set[str] = KEYS,  # type: ignore[assignment]
    now: float = LATER,
    started: Callable[[int], int | None] = lambda pid: None,
) -> list[str | None]:
    found = states.there(made, queue=queue, claimed=claimed, left=left, now=now, started=started)
    return [job.job.id for job in found]


def test_jobs_of_slurm_are_there_as_long_as_they_are_in_the_queue() -> None:
    made = submission("slurm", "17_0", "17_1")
    queued = Queued(made.name, False, "Resources", "")
    assert alive(made, queue={"17_1": queued}) == ["17_1"]
    assert alive(made, queue={"17_1": replace(queued, name="somebody else's")}) == []
    assert alive(made, queue=None) == ["17_0", "17_1"], "silence is no end"


def test_local_jobs_are_there_as_long_as_their_processes() -> None:
    made = submission("local", "5", started=7)
    assert alive(made, started={5: 7}.get) == ["5"]
    assert alive(made, started={5: 8}.get) == [], "the number is used again"
    assert alive(made) == []


def test_local_jobs_elsewhere_are_judged_by_their_claims() -> None:
    made = replace(submission("local", "5", started=7), machine="elsewhere")
    assert alive(made, claimed={("elsewhere", "5")}) == ["5"]
    assert alive(made, claimed={("here", "5"), ("elsewhere", "6")}) == []
    assert alive(made, now=NOW) == ["5"], "it takes a while until the first claim"
    assert alive(made, now=NOW, left=set()) == [], "it has nothing to begin with"


def test_jobs_without_ids_are_there_as_long_as_their_launcher() -> None:
    made = submission("slurm", None)
    assert alive(made, started=process.started) == [None]
    assert alive(made) == []
    elsewhere = replace(made, machine="elsewhere")
    assert alive(elsewhere, now=NOW) == [None]
    assert alive(elsewhere) == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five cells: failed, running, with a stale claim, queued, missing."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    made = fakes.make_sweep(tmp_path)
    results.write_plan(tmp_path, made.plan())
    failed, running, stale, queued, _ = made.cells()
    record_failure(failed, tmp_path, "for a reason")
    old = replace(HERE, machine="elsewhere")
    for cell, owner, age in ((running, HERE, 0), (stale, old, 1000)):
        work = chunks.folder_of(tmp_path, cell.key)
        work.mkdir(parents=True)
        chunks.path_of(work, 0).touch()
        path = work / CLAIM
        path.write_text(json.dumps(asdict(owner)))
        os.utime(path, (time.time() - age, time.time() - age))
    own = process.started(os.getpid())
    job = Job(str(os.getpid()), own, (queued.key,), ("out", "err"))
    submissions.write(tmp_path, replace(submission("local"), jobs=(job,)))
    return tmp_path


def test_look_at_a_folder(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    seen = states.look(folder)
    order = ["failed", "running", "stale claim", "queued", "missing"]
    assert [cell.state for cell in seen.cells] == order
    assert seen.cells[0].reason == "for a reason"
    assert [cell.chunks for cell in seen.cells[1:]] == [1, 1, 0, 0]
    assert seen.sentence() == (
        "5 cells: 0 done, 1 failed, 1 missing, 1 running, 1 queued, 1 stale claim."
    )
    assert seen.busy == {seen.cells[1].key, seen.cells[3].key}
    assert [held.path.parent.name for held in seen.stale] == [seen.cells[2].key]
    assert sorted(folder.rglob("*")) == before, "it only looks"
    assert states.exit_code(seen) == 3
    assert states.exit_code(states.look(folder, [seen.cells[2].key])) == 1


def test_claim_of_a_job_that_the_queue_knows_to_be_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stale at once, though its heart beat a moment ago, on another machine."""
    key = states.look(folder).cells[1].key
    path = chunks.folder_of(folder, key) / CLAIM
    path.write_text(json.dumps(asdict(replace(HERE, machine="elsewhere"))))
    submissions.write(folder, replace(submission("slurm"), jobs=(Job("17_0", None, (key,), ()),)))
    queue: dict[str, Queued] | None = {}
    monkeypatch.setattr(scheduler, "queue", lambda arrays: queue)
    assert states.look(folder, [key]).cells[0].state == "stale claim"
    queue = None  # a machine without squeue cannot know
    seen = states.look(folder, [key])
    assert seen.cells[0].state == "running"
    assert seen.said == "there is no squeue here, so what is queued is not known"


def test_cell_whose_record_lacks_a_metric_is_missing(folder: Path) -> None:
    plan = results.read_plan(folder)
    key = plan["cells"][0]["key"]
    record = results.read(results.path_of(folder, key))
    results.write(folder, replace(record, status="done", error=None))
    assert states.look(folder, [key]).cells[0].state == "missing"
    results.write_plan(folder, plan | {"metrics": []})
    assert states.look(folder, [key]).cells[0].state == "done"


def test_how_the_jobs_of_lost_cells_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = states.look(folder).cells
    stale, missing = cells[2].key, cells[4].key
    made = replace(
        submission("slurm"),
        jobs=(Job("17_0", None, (stale,), ()), Job("17_1", None, (missing, cells[0].key), ())),
    )
    submissions.write(folder, made)
    monkeypatch.setattr(scheduler, "queue", lambda arrays: {})
    how = {"17_0": "NODE_FAIL", "17_1": "COMPLETED"}
    monkeypatch.setattr(
        scheduler, "endings", lambda jobs: {job: how[job] for job in jobs if jobs[job] == made.name}
    )
    seen = states.explained(folder, states.look(folder))
    reasons = ["for a reason", "", "job 17_0 ended: NODE_FAIL", "job running", ""]
    assert [cell.reason for cell in seen.cells] == reasons
    how["17_1"] = "CANCELLED"
    assert states.endings(folder, [missing]) == {missing: "job 17_1 ended: CANCELLED"}


def test_what_is_old_is_judged_by_the_clock_of_the_file_system(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = states.look(folder).cells[1].key
    path = chunks.folder_of(folder, key) / CLAIM
    path.write_text(json.dumps(asdict(replace(HERE, machine="elsewhere"))))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    assert states.look(folder, [key]).cells[0].state == "running"
    shutil.rmtree(submissions.folder_of(folder))  # there is nothing to read the clock from
    assert states.look(folder, [key]).cells[0].state == "stale claim"
