"""Full disks, read-only and vanished folders, at every point where a cell writes something."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench import atomic, chunks, claim, influences, launch, results
from bench import cell as cells
from bench import fingerprint as fingerprints
from bench.errors import ResultError
from bench.metrics.registry import METRICS
from bench.sweep import Sweep
from tests import fakes
from tests.disks import small_disk
from tests.kills import computed_twice, leftovers, scores, torn

POINTS: dict[str, tuple[ModuleType, str]] = {
    "claim": (claim, "_acquire"),
    "samples": (chunks, "write_samples"),
    "chunk": (chunks, "write"),
    "ledger": (chunks, "note"),
    "influences": (influences, "write"),
    "record": (results, "write"),
}
SPLITS = pytest.mark.parametrize("split", [1, 3], ids=["cells", "slices"])
EACH = pytest.mark.parametrize("point", POINTS)


@pytest.fixture(autouse=True)
def tiny_metric(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`fd_tiny` is known, and nothing is remembered from one test to the next."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    for cache in (cells._bound, cells._model, fingerprints.fingerprint):
        cache.cache_clear()
    yield
    for cache in (cells._bound, cells._model, fingerprints.fingerprint):
        cache.cache_clear()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as place:
        yield place


def small(tmp_path: Path, split: int) -> Sweep:
    """Three cells of four chunks."""
    run = f"{{executor: inline, split: {split}, device: cpu}}"
    return fakes.make_sweep(tmp_path, grid="[{sampler: ddim, steps: [3, 4]}]", launch=run)


def befall(
    monkeypatch: pytest.MonkeyPatch, point: str, folder: Path, fault: Callable[[], None]
) -> None:
    """Lets `fault` happen just before a write, once, when a cell is done."""
    module, name = POINTS[point]
    real, happened = getattr(module, name), False

    def after_fault(*args: Any, **keywords: Any) -> Any:
        nonlocal happened
        if not happened and results.read_all(folder):
            happened = True
            fault()
        return real(*args, **keywords)

    monkeypatch.setattr(module, name, after_fault)


def goes_on(sweep: Sweep, folder: Path, tmp_path: Path, before: dict[str, float]) -> None:
    """A further run loses nothing of what was done, and gives the numbers of an undisturbed one."""
    assert len(before) >= 1
    summary = launch.run(sweep, folder)
    assert summary.complete
    assert summary.done_before == len(before)
    assert before.items() <= times(folder).items()
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    launch.run(small(tmp_path, 1), tmp_path / "undisturbed")
    assert scores(folder) == scores(tmp_path / "undisturbed")


def times(folder: Path) -> dict[str, float]:
    """When each record was written."""
    return {path.name: path.stat().st_mtime for path in folder.glob("[0-9a-f]*[0-9a-f].json")}


@SPLITS
@EACH
def test_full_disk(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, point: str, split: int
) -> None:
    sweep, folder, ballast = small(tmp_path, split), disk / "r", disk / "ballast"

    def fill() -> None:
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)

    with monkeypatch.context() as patch:
        befall(patch, point, folder, fill)
        with pytest.raises(ResultError, match="could not be written: the disk is full"):
            launch.run(sweep, folder)
    assert ballast.exists()
    assert torn(folder) == []
    assert list(disk.rglob(f".*{atomic.SUFFIX}")) == []
    assert list(disk.rglob("claim*")) == []
    before = times(folder)
    ballast.unlink()
    goes_on(sweep, folder, tmp_path, before)


@SPLITS
@EACH
def test_folder_that_becomes_read_only(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, point: str, split: int
) -> None:
    sweep, folder = small(tmp_path, split), disk / "r"

    def remount(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(disk)], check=True)

    with monkeypatch.context() as patch:
        befall(patch, point, folder, lambda: remount("ro"))
        with pytest.raises(ResultError, match="the file system is mounted read-only"):
            launch.run(sweep, folder)
    remount("rw")
    assert torn(folder) == []
    for path in folder.glob("work/*/claim*"):
        path.unlink()  # the process that held it would be gone
    goes_on(sweep, folder, tmp_path, times(folder))


@SPLITS
@EACH
def test_folder_that_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, split: int
) -> None:
    """The run stops, and does not bring back a folder of which half is missing."""
    sweep, folder = small(tmp_path, split), tmp_path / "r"
    with monkeypatch.context() as patch:
        befall(patch, point, folder, lambda: shutil.rmtree(folder))
        with pytest.raises(ResultError, match="the folder is gone"):
            launch.run(sweep, folder)
    assert not folder.exists()
    assert launch.run(sweep, folder).complete
