"""Slices of cells, packs of them, and what may go wrong in a worker."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
import torch

from bench import cell as cells
from bench import chunks, results
from bench import fingerprint as fingerprints
from bench import worker as workers
from bench.cell import Setting, has_chunks
from bench.claim import CLAIM, claimed
from bench.errors import CellError, ModelError
from bench.jobs import jobs_of_plan
from bench.metrics.registry import METRICS
from bench.results import Result
from bench.samplers import REGISTRY
from bench.sampling import Sampling
from bench.sweep import Cell, Sweep
from bench.worker import worker
from tests import fakes
from tests.kills import computed_twice, leftovers, scores
from tests.signals import handled


@pytest.fixture(autouse=True)
def tiny_metric(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`fd_tiny` is known, and nothing is remembered from one test to the next."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    for cache in (cells._bound, cells._model, fingerprints.fingerprint):
        cache.cache_clear()
    yield
    for cache in (cells._bound, cells._model, fingerprints.fingerprint):
        cache.cache_clear()


def planned(sweep: Sweep, folder: Path) -> Path:
    """A results folder with the plan of a sweep."""
    folder.mkdir()
    results.write_plan(folder, sweep.plan())
    return folder


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, str]:
    """Metrics of the tiny sweep by one worker, without slices."""
    folder = planned(fakes.make_sweep(tmp_path), tmp_path / "plain")
    worker(folder)
    return scores(folder)


def split_sweep(tmp_path: Path, split: int = 3) -> Sweep:
    """Five cells of four chunks."""
    return fakes.make_sweep(tmp_path, launch=f"{{executor: local, workers: 2, split: {split}}}")


@pytest.mark.parametrize("split", [1, 2, 3, 4, 9])
def test_slices_give_the_same_bytes(tmp_path: Path, plain: dict[str, str], split: int) -> None:
    folder = planned(split_sweep(tmp_path, split), tmp_path / "r")
    assert worker(folder, first=1) == 5
    assert scores(folder) == plain
    assert computed_twice(folder) == []
    assert leftovers(folder) == []
    for key in plain:
        same = [
            chunks.folder_of(root, key) / chunks.SAMPLES
            for root in (folder, folder.parent / "plain")
        ]
        assert same[0].read_bytes() == same[1].read_bytes()
        images = [root / "influences" / f"{key}.npz" for root in (folder, folder.parent / "plain")]
        assert images[0].read_bytes() == images[1].read_bytes()


def test_one_slice_of_a_cell_is_left_to_who_has_it(tmp_path: Path, plain: dict[str, str]) -> None:
    sweep = split_sweep(tmp_path)
    folder, cell = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    work = chunks.folder_of(folder, cell.key)
    work.mkdir(parents=True)
    with claimed(work / chunks.slice_claim(1)):
        assert worker(folder) == 4
        assert results.find(folder, cell.key) is None
        assert [path.name for path in sorted(work.glob("chunk-*"))] == [
            "chunk-00000.npz",
            "chunk-00002.npz",
            "chunk-00003.npz",
        ]
    assert worker(folder) == 1
    assert scores(folder) == plain
    assert computed_twice(folder) == []
    assert leftovers(folder) == []


def test_two_workers_share_one_cell_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are inside a chunk of the same cell at the same time, and one of them scores."""
    sweep = split_sweep(tmp_path, split=2)
    folder, cell = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    together, real = Barrier(2, timeout=60), Sampling.chunk
    scored: list[Cell] = []
    real_score = cells.score

    def chunk(self: Sampling, *args: Any) -> Any:
        together.wait()
        return real(self, *args)

    def score(cell: Cell, *args: Any) -> Result:
        scored.append(cell)
        return real_score(cell, *args)

    monkeypatch.setattr(Sampling, "chunk", chunk)
    monkeypatch.setattr(cells, "score", score)
    threads = [Thread(target=partial(worker, folder, [cell.key], first=k)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert scored == [cell]
    assert results.find(folder, cell.key) is not None
    assert computed_twice(folder) == []


def test_another_worker_scores_where_one_died_scoring(
    tmp_path: Path, plain: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = planned(split_sweep(tmp_path), tmp_path / "r")

    class Killed(BaseException):
        pass

    def die(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(cells, "score", die)
        with pytest.raises(Killed):
            worker(folder)
    monkeypatch.setattr(Sampling, "chunk", _only_for_other_cells(next(folder.glob("work/*")).name))
    assert worker(folder) == 5
    assert scores(folder) == plain
    assert computed_twice(folder) == []


def _only_for_other_cells(key: str) -> Any:
    real = Sampling.chunk

    def chunk(self: Sampling, *args: Any) -> Any:
        assert self._cell.key != key, "this one was only to be scored"
        return real(self, *args)

    return chunk


def test_damaged_chunk_is_made_again_by_who_scores(tmp_path: Path, plain: dict[str, str]) -> None:
    """Cut short it is as good as missing; other damage is seen when all chunks are read."""
    sweep = split_sweep(tmp_path, split=4)
    folder, setting = planned(sweep, tmp_path / "r"), Setting.of(sweep.plan())
    cell = sweep.cells()[1]
    cells.make_chunks(cell, setting, folder, range(3))
    path = chunks.path_of(chunks.folder_of(folder, cell.key), 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    assert not has_chunks(cell, setting, folder, range(3))
    middle = whole.index(b"tiny.npy") + 500  # in the features
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert has_chunks(cell, setting, folder, range(3))
    assert not has_chunks(cell, setting, folder, range(4))
    assert worker(folder, [cell.key]) == 1
    assert scores(folder) == {cell.key: plain[cell.key]}
    lines = (path.parent / chunks.LEDGER).read_text().splitlines()
    events = [(entry["event"], entry["chunk"]) for entry in map(json.loads, lines)]
    assert events[3:] == [("computed", 3), ("refused", 1), ("computed", 1)]


def test_chunks_that_lack_something_are_work_to_share(tmp_path: Path) -> None:
    sweep = split_sweep(tmp_path)
    folder, setting, cell = tmp_path / "r", Setting.of(sweep.plan()), sweep.cells()[1]
    cells.make_chunks(cell, setting, folder, range(2))
    assert has_chunks(cell, setting, folder, range(2))
    assert not has_chunks(cell, replace(setting, keep="images"), folder, range(2))
    assert not has_chunks(cell, replace(setting, batch=16), folder, range(2))


def test_failure_in_a_slice_ends_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = split_sweep(tmp_path, split=4)
    folder, bad = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    real = Sampling.chunk
    tried: list[int] = []

    def chunk(self: Sampling, index: int, *args: Any) -> Any:
        if self._cell == bad:
            tried.append(index)
            raise CellError("It is not finite.")
        return real(self, index, *args)

    monkeypatch.setattr(Sampling, "chunk", chunk)
    assert worker(folder, first=2) == 5
    assert tried == [2]
    statuses = {key: result.status for key, result in results.read_all(folder).items()}
    assert Counter(statuses.values()) == {"done": 4, "failed": 1}
    assert statuses[bad.key] == "failed"


@pytest.mark.parametrize("left", [0, 4], ids=["nothing there", "all chunks there"])
@pytest.mark.parametrize("split", [1, 4])
def test_cell_that_cannot_begin_is_a_failure_and_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: int, left: int
) -> None:
    """Its sampler breaks already on the small problem of the fingerprint."""
    grid = "[{sampler: [ddim, heun], spacing: logsnr, steps: 3}]"
    launch = f"{{executor: local, split: {split}}}"
    sweep = fakes.make_sweep(tmp_path, grid=grid, launch=launch)
    folder, setting = planned(sweep, tmp_path / "r"), Setting.of(sweep.plan())
    (bad,) = [cell for cell in sweep.cells() if cell.sampler == "heun"]
    cells.make_chunks(bad, setting, folder, range(left))

    def bug(*_: object, **__: object) -> torch.Tensor:
        raise KeyError("oops")

    monkeypatch.setitem(REGISTRY, "heun", replace(REGISTRY["heun"], function=bug))
    fingerprints.fingerprint.cache_clear()
    assert worker(folder) == 3
    found = results.read_all(folder)
    assert Counter(result.status for result in found.values()) == {"done": 2, "failed": 1}
    assert str(found[bad.key].error).startswith("KeyError: 'oops' (test_worker.py:")


def preempted(*_: object) -> None:
    """What submitit's handler does when it has requeued the job."""
    sys.exit(-1)


@pytest.mark.parametrize("error", [ValueError("no shape"), ModelError("no model"), None])
@pytest.mark.parametrize(
    ("number", "handler", "raised"),
    [
        (signal.SIGINT, signal.default_int_handler, KeyboardInterrupt),
        (signal.SIGUSR2, preempted, SystemExit),
    ],
    ids=["cancelled", "preempted"],
)
def test_an_interrupt_that_compiled_code_swallows_ends_the_worker_and_fails_no_cell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plain: dict[str, str],
    number: signal.Signals,
    handler: Callable[..., None],
    raised: type[BaseException],
    error: Exception | None,
) -> None:
    """safetensors made a ValueError of a KeyboardInterrupt, and the cell of it failed."""
    folder, real = planned(fakes.make_sweep(tmp_path), tmp_path / "r"), Setting.load

    def load(self: Setting, cell: Cell) -> Any:
        try:
            signal.raise_signal(number)
        except raised:
            if error is not None:
                raise error from None
        return real(self, cell)

    with handled(number, handler), monkeypatch.context() as patch:
        patch.setattr(Setting, "load", load)
        with pytest.raises(raised):
            worker(folder)
        assert signal.getsignal(number) is handler
    assert results.read_all(folder) == {}
    assert leftovers(folder) == []
    assert worker(folder) == 5
    assert scores(folder) == plain


def test_who_lost_a_slice_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paused inside a chunk; meanwhile the cell was finished by others."""
    sweep = split_sweep(tmp_path, split=2)
    folder, cell = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    real = Sampling.chunk
    work = chunks.folder_of(folder, cell.key)

    def chunk(self: Sampling, index: int, *args: Any) -> Any:
        made = real(self, index, *args)
        with monkeypatch.context() as patch:
            patch.setattr(Sampling, "chunk", real)
            (work / chunks.slice_claim(0)).unlink()
            assert worker(folder, [cell.key]) == 1
        return made

    monkeypatch.setattr(Sampling, "chunk", chunk)
    assert worker(folder, [cell.key]) == 0
    assert sorted(path.name for path in work.iterdir()) == [chunks.LEDGER, chunks.SAMPLES]
    assert computed_twice(folder) == []


def test_packs_do_every_cell_once(tmp_path: Path, plain: dict[str, str]) -> None:
    sweep = fakes.make_sweep(tmp_path, launch="{executor: slurm, pack: 2, device: cpu}")
    folder = planned(sweep, tmp_path / "r")
    jobs = jobs_of_plan(sweep.plan(), sweep.launch, [cell.key for cell in sweep.cells()])
    assert [worker(folder, job.keys, first=job.first) for job in jobs] == [2, 2, 1]
    assert scores(folder) == plain
    assert computed_twice(folder) == []
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "(MemoryError: )"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "can't allocate memory"),
    ],
    ids=["python", "cuda", "cpu"],
)
@pytest.mark.parametrize("split", [1, 2])
def test_want_of_memory_fails_one_cell_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str, split: int
) -> None:
    sweep = split_sweep(tmp_path, split=split)
    folder, large = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    real = Sampling.chunk

    def chunk(self: Sampling, *args: Any) -> Any:
        if self._cell == large:
            raise error
        return real(self, *args)

    monkeypatch.setattr(Sampling, "chunk", chunk)
    assert worker(folder) == 5
    found = results.read_all(folder)
    assert Counter(result.status for result in found.values()) == {"done": 4, "failed": 1}
    reason = found[large.key].error
    assert reason is not None
    assert reason.startswith(
        f"Cell {large.short} ({large.label}): there was not enough memory for a single image ("
    )
    assert said in reason
    assert reason.endswith("Ask for more memory, or take a smaller model or dtype.")


def test_want_of_memory_for_the_model_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = fakes.make_sweep(tmp_path)
    folder, large = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    real = Setting.load

    def load(self: Setting, cell: Cell) -> Any:
        if cell == large:
            raise MemoryError
        return real(self, cell)

    monkeypatch.setattr(Setting, "load", load)
    assert worker(folder) == 5
    assert results.read_all(folder)[large.key].error == (
        f"Cell {large.short} ({large.label}): there was not enough memory (MemoryError: ). Take a "
        "smaller batch, or ask for more memory."
    )


def test_slices_of_a_cell_come_to_one_smaller_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = split_sweep(tmp_path, split=2)
    folder, cell = planned(sweep, tmp_path / "r"), sweep.cells()[1]
    real = Setting.load
    monkeypatch.setattr(Setting, "load", fakes.small_memory(real, 10))
    assert worker(folder, [cell.key]) == 1
    result = results.find(folder, cell.key)
    assert result is not None
    assert (result.status, result.provenance["numerics"]["batch"]) == ("done", 8)
    assert computed_twice(folder) == []
    monkeypatch.setattr(Setting, "load", real)
    at_once = fakes.make_sweep(tmp_path, batch=8)
    worker(planned(at_once, tmp_path / "at once"), [cell.key])
    assert scores(folder) == scores(tmp_path / "at once")


def test_real_want_of_memory_on_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert workers.is_out_of_memory(caught.value)


def test_settled_cells_are_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = planned(fakes.make_sweep(tmp_path), tmp_path / "r")
    assert worker(folder) == 5
    monkeypatch.setattr(workers, "claimed", None)
    assert worker(folder) == 0


def test_whole_cell_is_left_to_who_has_it(tmp_path: Path) -> None:
    sweep = split_sweep(tmp_path)
    folder, setting, cell = (
        planned(sweep, tmp_path / "r"),
        Setting.of(sweep.plan()),
        sweep.cells()[1],
    )
    cells.make_chunks(cell, setting, folder, range(4))
    with claimed(chunks.folder_of(folder, cell.key) / CLAIM):
        assert worker(folder, [cell.key]) == 0
    assert worker(folder, [cell.key]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("count", "split"), [(2000, 1), (200, 4)], ids=["cells", "slices"])
def test_thousands_of_cells_leave_a_worker_as_it_was(
    tmp_path: Path, count: int, split: int
) -> None:
    """Over four workers, from a quarter of the cells to the end: 8 MB, no file and no thread.

    2,000 cells took 90 s on two busy cores.
    """
    command = [sys.executable, "-m", "tests.soak", str(tmp_path), str(count), "4", str(split)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    run = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    report: dict[str, Any] = json.loads(run.stdout)
    grown = report["grown"]
    assert (report["cells"], report["done"], report["statuses"]) == (count, count, [0] * 4)
    assert report["twice"] == report["torn"] == report["left"] == []
    assert grown["rss"] < 8 * 1024
    assert max(grown["files"], grown["threads"], grown["children"]) <= 0
    assert report["seconds"] < 600
