"""Which code runs: edits between the submission of a job and its start."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import UncompletedJobError

from bench import code
from bench.code import Guarded
from bench.errors import ResultError
from bench.metrics.registry import METRICS
from tests import fakes
from tests.signals import handled

ROOT = Path(__file__).parents[1]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small one."""
    folder = tmp_path / "bench"
    (folder / "assets").mkdir(parents=True)
    (folder / "__init__.py").write_text("x = 1\n")
    (folder / "assets" / "weights").write_bytes(b"123")
    return folder


def test_digest_is_of_code_and_of_names_and_sizes_of_assets(package: Path, tmp_path: Path) -> None:
    before = code.digest(package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"x")
    (package / "assets" / "weights").write_bytes(b"456")
    assert code.digest(package) == before
    shutil.copytree(package, tmp_path / "copy")
    assert code.digest(tmp_path / "copy") == before
    (package / "assets" / "weights").write_bytes(b"4567")
    assert code.digest(package) != before
    (package / "assets" / "weights").write_bytes(b"456")
    (package / "__init__.py").write_text("x = 2\n")
    assert code.digest(package) != before


def test_snapshot_is_a_copy_named_by_its_digest(package: Path, tmp_path: Path) -> None:
    made = code.snapshot(tmp_path / "work", package)
    assert made == tmp_path / "work" / "snapshots" / code.digest(package)
    assert code.digest(made / "bench") == made.name
    assert code.snapshot(tmp_path / "work", package) == made
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    (package / "__init__.py").write_text("x = 2\n")
    assert code.snapshot(tmp_path / "work", package) != made


def test_snapshot_that_cannot_be_written(package: Path, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    with pytest.raises(ResultError, match="is a file, not a folder"):
        code.snapshot(tmp_path / "work", package)


class Counting:
    """Work that is stopped twice."""

    def __init__(self, left: int = 2) -> None:
        self.left = left

    def __call__(self) -> str:
        return f"{self.left} left"

    def checkpoint(self) -> object:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Counting(self.left - 1)) if self.left else None


def test_guarded_work_is_done_and_checkpointed_as_it_is() -> None:
    job = pickle.loads(pickle.dumps(Guarded(Counting(), code.digest())))
    assert job.checkpoint().function is job, "stopped before it has begun"
    said = []
    while True:
        said.append(job())
        left = job.checkpoint()
        if left is None:
            break
        job = pickle.loads(pickle.dumps(left.function))
    assert said == ["2 left", "1 left", "0 left"]


def test_guarded_work_refuses_other_code() -> None:
    job = Guarded(Counting(), "0123456789abcdef")
    assert job() == (
        f"The code in {ROOT / 'bench'} is {code.digest()}; this job was submitted with "
        "0123456789abcdef. It was edited or updated since, so nothing was computed. Submit again "
        "to use the code of now; with --snapshot jobs keep the code of their submission."
    )


class Signalled(Counting):
    """Work in whose midst the job is told to end."""

    def __call__(self) -> str:
        os.kill(os.getpid(), signal.SIGUSR2)
        return "not requeued"


def test_requeue_that_ends_its_own_command_is_no_fault_of_the_work() -> None:
    def requeue(*_: object) -> None:
        raise subprocess.CalledProcessError(-15, "scontrol requeue 17_4")

    with (
        handled(signal.SIGUSR2, requeue),
        pytest.raises(UncompletedJobError, match="was to be requeued: "),
    ):
        Guarded(Signalled(), code.digest())()


@pytest.mark.parametrize("snapshot", [False, True])
def test_package_that_is_edited_between_submission_and_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: bool
) -> None:
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT / "bench", copy / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    fakes.make_sweep(tmp_path)
    script = (
        "import sys; from pathlib import Path; import bench\n"
        "from bench import executors, launch; from bench.errors import BenchError\n"
        "from tests import fakes\n"
        "fakes.register(); executors.Job = fakes.TinyJob; folder = Path(sys.argv[1])\n"
        "launch_ = '{executor: local, workers: 1}'\n"
        "sweep = fakes.make_sweep(folder, grid='[{sampler: ddim, steps: 3}]', launch=launch_)\n"
        "start = executors._Detached._submit_command\n"
        "def edited(self, command):\n"
        "    module = Path(bench.__file__).with_name('worker.py')\n"
        "    module.write_text('raise RuntimeError(\"edited\")\\n')\n"
        "    return start(self, command)\n"
        "executors._Detached._submit_command = edited\n"
        "try: print(launch.run(sweep, folder / 'r', snapshot=sys.argv[2] == 'True').complete)\n"
        "except BenchError as error: print(error)\n"
    )
    paths = os.pathsep.join([str(copy), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path, str(snapshot)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    if snapshot:
        assert done.stdout == "True\n"
    else:
        assert done.stdout.startswith(
            f"The code in {copy / 'bench'} is {code.digest(copy / 'bench')};"
        )
        assert "this job was submitted with" in done.stdout
