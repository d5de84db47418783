import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench import claim
from bench.claim import Owner, claimed, holder
from bench.errors import ResultError
from tests.disks import small_disk

HOLD = (
    "import sys, time; from pathlib import Path; from bench.claim import claimed\n"
    "with claimed(Path(sys.argv[1])) as held:\n"
    "    print(bool(held), flush=True); time.sleep(float(sys.argv[2]))"
)


def leave(path: Path, owner: Owner, age: float) -> None:
    """A claim whose last heartbeat was `age` seconds ago."""
    path.write_text(json.dumps(asdict(owner)))
    then = time.time() - age
    os.utime(path, (then, then))


def far_away(job: str = "") -> Owner:
    return replace(Owner.this(job), machine="elsewhere-00000000")


def test_only_one_of_many_processes_gets_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "claim"), "3"]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    answers = [racer.communicate()[0].strip() for racer in racers]
    assert sorted(answers) == ["False"] * 5 + ["True"]
    assert list(tmp_path.iterdir()) == []


def test_is_released_also_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    with suppress(KeyboardInterrupt), claimed(path) as held:
        assert held is not None
        owner = holder(path)
        assert owner is not None
        assert owner.pid == os.getpid()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_claim_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    command = [sys.executable, "-c", HOLD, str(path), "60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with claimed(path) as held:
        assert held is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert holder(path) is None
    with claimed(path) as held:
        assert held is not None
    assert list(tmp_path.iterdir()) == []


def test_process_id_that_is_used_again_is_not_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    leave(path, replace(Owner.this(), started=1), age=0)
    with claimed(path) as held:
        assert held is not None


@pytest.mark.parametrize(("age", "free"), [(0, False), (100, False), (130, True)])
def test_owner_on_another_machine_is_judged_by_its_heartbeat(
    tmp_path: Path, age: float, free: bool
) -> None:
    path = tmp_path / "claim"
    leave(path, far_away(), age)
    with claimed(path) as held:
        assert (held is not None) == free
    assert path.exists() != free


def test_heartbeat_is_judged_by_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "claim"
    leave(path, far_away(), age=0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 600)
    with claimed(path) as held:
        assert held is None


def test_requeued_job_takes_over_its_own_claim(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    leave(path, far_away(job="17_4"), age=0)
    with claimed(path, job="17_5") as held:
        assert held is None
    with claimed(path, job="17_4") as held:
        assert held is not None


def test_claim_of_another_version_is_judged_by_age(tmp_path: Path) -> None:
    path = tmp_path / "claim"
    path.write_text('{"who": "knows"}')
    with claimed(path) as held:
        assert held is None
    os.utime(path, (1, 1))
    with claimed(path) as held:
        assert held is not None


def test_heart_beats_and_notices_a_takeover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "HEARTBEAT", 0.02)
    path = tmp_path / "claim"
    with claimed(path) as held:
        assert held is not None
        os.utime(path, (1, 1))
        deadline = time.time() + 5
        while path.stat().st_mtime == 1 and time.time() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1
        assert not held.lost
        leave(path, far_away(), age=0)
        assert held.lost
    assert path.exists(), "the new owner's claim stays"


def test_fresh_claim_is_never_removed_for_a_stale_one(tmp_path: Path) -> None:
    """Two processes judge one claim stale; the slower one must not remove the faster one's."""
    path = tmp_path / "claim"
    leave(path, far_away(), age=0)
    fresh = path.read_text()
    claim._remove(path, judged="what it was before")
    assert path.read_text() == fresh
    assert [file.name for file in tmp_path.iterdir()] == ["claim"]


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "claim"
    with claimed(path) as held:
        assert held is not None
        assert not held.lost
        with claimed(path) as second:
            assert second is None
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_claim_of_nobody(tmp_path: Path) -> None:
    """Neither with hard links nor where there are none, and nothing that others would clean."""
    with small_disk(tmp_path / "disk", "16k") as disk:
        with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
        with pytest.raises(ResultError, match="the disk is full"), claimed(disk / "claim"):
            pass
        with pytest.raises(OSError, match="No space left"):
            claim._written(disk / "claim", b"x" * 9000)
        assert [path.name for path in disk.iterdir()] == ["ballast"]


def test_link_whose_first_answer_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file server made it, its answer got lost, and the client's second try was refused."""
    real = os.link

    def twice(*paths: Path) -> None:
        real(*paths)
        real(*paths)

    monkeypatch.setattr(os, "link", twice)
    path = tmp_path / "claim"
    with claimed(path) as held:
        assert held is not None
        with claimed(path) as second:
            assert second is None
    assert list(tmp_path.iterdir()) == []
