"""What SLURM's commands say, with scripts in their place; the real ones are in tests/slurm."""

from pathlib import Path

import pytest

from bench import scheduler
from bench.errors import LaunchError
from bench.scheduler import Away, Queued


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are looked for in, and nowhere else."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(scheduler, "PAUSES", (0.0,))
    return tmp_path


def install(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_queue_of_arrays_and_single_jobs() -> None:
    text = (
        "17|4|PENDING|Resources||bench-a\n17|3|RUNNING|None|node01|bench-a\n18|N/A|COMPLETING|x|n|b"
    )
    assert scheduler.parse_queue(text) == {
        "17_4": Queued("bench-a", False, "Resources", ""),
        "17_3": Queued("bench-a", True, "", "node01"),
        "18": Queued("b", True, "", "n"),
    }


def test_no_squeue_is_not_an_empty_queue(commands: Path) -> None:
    assert scheduler.queue(["17"]) is None
    assert scheduler.queue([]) == {}


def test_forgotten_jobs_are_over_and_silence_is_not(commands: Path) -> None:
    install(
        commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    )
    assert scheduler.queue(["17"]) == {}
    away = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    install(commands, "squeue", f"echo '{away}' >&2; exit 1")
    with pytest.raises(Away, match="Unable to contact slurm controller"):
        scheduler.queue(["17"])


@pytest.mark.parametrize(
    ("config", "size"), [("MaxArraySize            = 11", 11), ("MaxJobCount = 5", 1000)]
)
def test_array_size_of_the_site(commands: Path, config: str, size: int) -> None:
    install(commands, "scontrol", f"echo 'Configuration data as of now'; echo '{config}'")
    assert scheduler.max_array_size() == size


def test_patience(commands: Path) -> None:
    said: list[str] = []
    answers = iter([Away("Socket timed out"), Away("Socket timed out"), None])

    def ask() -> str:
        answer = next(answers)
        if answer is not None:
            raise answer
        return "yes"

    assert scheduler.patiently(ask, said.append) == "yes"
    assert said == ["SLURM does not answer (Socket timed out); the next try is in 0 s."] * 2


def test_cancelling_what_is_over_does_not_matter_and_what_is_not_ours_does(commands: Path) -> None:
    error = "scancel: error: Kill job error on job id 17"
    install(commands, "scancel", f"echo '{error}: Invalid job id specified' >&2; exit 1")
    scheduler.cancel(["17"])
    install(commands, "scancel", f"echo '{error}: Access/permission denied' >&2; exit 1")
    with pytest.raises(LaunchError, match=r"did not cancel the jobs 17: .*permission denied"):
        scheduler.cancel(["17"])


def test_how_jobs_ended_where_there_is_accounting(commands: Path) -> None:
    jobs = {"17_0": "bench-a", "17_1": "bench-a", "17_2": "bench-a", "18_0": "bench-b"}
    assert scheduler.endings(jobs) == {}, "no sacct"
    install(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert scheduler.endings(jobs) == {}
    lines = (
        "17_0|bench-a|FAILED|1:0",
        "17_0.batch|batch|FAILED|1:0",
        "17_0.0|python|OUT_OF_MEMORY|0:125",
        "17_1|bench-a|FAILED|137:0",
        "17_1.0|python|CANCELLED by 0|0:9",
        "17_2|bench-a|RUNNING|0:0",
        "17_[3-9]|bench-a|PENDING|0:0",
        "18_0|somebody else's|TIMEOUT|0:0",
    )
    install(commands, "sacct", "\n".join(f'echo "{line}"' for line in lines))
    assert scheduler.endings(jobs) == {"17_0": "OUT_OF_MEMORY", "17_1": "FAILED, exit code 137:0"}
    assert scheduler.endings({}) == {}
