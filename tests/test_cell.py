import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from bench import cell as cells
from bench import chunks, influences, models, provenance, results
from bench import fingerprint as fingerprints
from bench.cell import Setting, is_done, run_cell
from bench.errors import CellError
from bench.metrics import reference
from bench.metrics.registry import METRICS
from bench.models import Model
from bench.numerics import pinned
from bench.results import Result
from bench.samplers import REGISTRY
from bench.sampling import Sampling
from bench.sweep import Cell, Sweep
from tests import fakes
from tests.models.test_diffusers import write_folder


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
def sweep(tmp_path: Path) -> Sweep:
    return fakes.make_sweep(tmp_path)


def one_cell(sweep: Sweep, label: str = "ddim eta=1 spacing=uniform steps=5") -> Cell:
    return next(cell for cell in sweep.cells() if cell.label == label)


def scores(result: Result) -> str:
    return json.dumps(result.metrics)


def ledger(folder: Path, cell: Cell) -> list[dict[str, Any]]:
    path = chunks.folder_of(folder, cell.key) / chunks.LEDGER
    return [json.loads(line) for line in path.read_text().splitlines()]


class Interrupted(Exception):
    pass


def interrupt_after(count: int) -> Any:
    """A `check` that lets `count` chunks pass: it is asked before each, and before its file."""
    passed = iter(range(2 * count))

    def check() -> None:
        if next(passed, None) is None:
            raise Interrupted

    return check


def test_record_says_what_was_done(sweep: Sweep, tmp_path: Path) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    result = run_cell(cell, setting, tmp_path)
    assert results.find(tmp_path, cell.key) == result
    assert (result.status, result.error, result.samples) == ("done", None, 200)
    assert result.nfe == {"declared": 5, "counted": {"mean": 5.0, "min": 5, "max": 5}}
    assert result.steps == {"asked": 5, "effective": 5}
    assert 0 < result.metrics["fd_tiny"]["value"] < 10
    assert result.metrics["fd_tiny"]["n"] == 200
    assert result.seconds["total"] >= result.seconds["sampling"] > 0
    assert result.samples_per_second is not None
    assert result.samples_per_second > 0
    assert result.peak_memory_mb is not None
    assert result.peak_memory_mb > 50
    made_with = result.provenance
    assert made_with["numerics"] == {"device": "cpu", "dtype": "float32", "batch": 32, "threads": 1}
    assert len(made_with["fingerprint"]) == 6
    assert {"commit", "dirty", "versions", "host", "time", "model_digest"} <= made_with.keys()
    work = chunks.folder_of(tmp_path, cell.key)
    assert sorted(path.name for path in work.iterdir()) == ["ledger.jsonl", "samples.npy"]
    images = np.load(work / chunks.SAMPLES)
    assert (images.dtype, images.shape) == (np.uint8, (64, *fakes.SHAPE))


@pytest.mark.parametrize("chunks_before", [0, 1, 3, 4])
def test_resumed_cell_has_the_same_bytes_and_computes_nothing_twice(
    sweep: Sweep, tmp_path: Path, chunks_before: int
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    whole = run_cell(cell, setting, tmp_path / "whole")
    if chunks_before < 4:
        with pytest.raises(Interrupted):
            run_cell(cell, setting, tmp_path / "parts", check=interrupt_after(chunks_before))
    else:  # all chunks there, and no record
        run_cell(cell, setting, tmp_path / "parts")
        results.path_of(tmp_path / "parts", cell.key).unlink()
    parts = run_cell(cell, setting, tmp_path / "parts")
    assert scores(parts) == scores(whole)
    computed = [entry["chunk"] for entry in ledger(tmp_path / "parts", cell)]
    assert computed == list(range(4)) * (2 if chunks_before == 4 else 1)
    kept = [chunks.folder_of(tmp_path / name, cell.key) for name in ("whole", "parts")]
    assert (kept[0] / "samples.npy").read_bytes() == (kept[1] / "samples.npy").read_bytes()


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was to be done without sampling")


def more_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second metric of the extractor that there is, and one of another extractor."""
    other = fakes.TinyExtractor(seed=1)
    other.name = "other"
    monkeypatch.setitem(METRICS, "cs_tiny", fakes.TINY["cs_tiny"])
    spec = replace(fakes.TINY["cs_tiny"], name="cs_other", extractor=lambda device: other)
    monkeypatch.setitem(METRICS, "cs_other", spec)


@pytest.mark.parametrize("keep", ["nothing", "features", "images"])
def test_what_is_kept_is_not_sampled_again(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    more_metrics(monkeypatch)
    cell, setting = one_cell(sweep), replace(Setting.of(sweep.plan()), keep=keep)
    first = run_cell(cell, setting, tmp_path)
    kept = sorted(path.name for path in chunks.kept_of(tmp_path, cell.key).glob("*"))
    assert kept == [f"chunk-0000{i}.npz" for i in range(4)] * (keep != "nothing")
    assert chunks.finished(chunks.folder_of(tmp_path, cell.key)) == 0
    more = replace(setting, metrics=("fd_tiny", "cs_tiny"))
    assert not is_done(cell, first, more)
    monkeypatch.setattr(Sampling, "chunk", never)
    if keep == "nothing":
        with pytest.raises(CellError) as caught:
            run_cell(cell, more, tmp_path, sample=False)
        assert str(caught.value) == (
            f"Cell {cell.short} ({cell.label}): chunk 0 of its images was not kept, so it needs "
            'sampling again. "bench run" does that.'
        )
        assert results.find(tmp_path, cell.key) == first
        return
    result = run_cell(cell, more, tmp_path)
    assert result.metrics["fd_tiny"] == first.metrics["fd_tiny"]
    assert 1 < result.metrics["cs_tiny"]["value"] < 10
    assert result.metrics["cs_tiny"]["better"] == "higher"
    assert (result.images, result.nfe) == (first.images, first.nfe)
    assert is_done(cell, result, more)
    assert set(influences.read(tmp_path, result)) == {"fd_tiny", "cs_tiny"}


@pytest.mark.parametrize("keep", ["features", "images"])
def test_features_of_another_network_need_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: str, caplog: pytest.LogCaptureFixture
) -> None:
    more_metrics(monkeypatch)
    sweep = fakes.make_sweep(tmp_path)
    cell, setting = one_cell(sweep), replace(Setting.of(sweep.plan()), keep=keep)
    run_cell(cell, setting, tmp_path)
    # Names of references are looked up by extractor, paths are of one.
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for name in ("fd_tiny", "cs_other"):
        extractor = METRICS[name].extractor("cpu")
        model = models.load(models.describe(cell.model), "cpu")
        made = reference.from_model(model, "mine", extractor, count=500)
        reference.save(reference.place("mine", extractor), made)
    more = replace(setting, metrics=("fd_tiny", "cs_other"), reference="mine")
    sampled = run_cell(cell, more, tmp_path / "sampled")
    if keep == "images":
        monkeypatch.setattr(Sampling, "chunk", never)
    result = run_cell(cell, more, tmp_path)
    assert scores(result) == scores(sampled)
    path = chunks.path_of(chunks.kept_of(tmp_path, cell.key), 0)
    said = f"{path} is without features of other, and has no images. It is computed again."
    assert (said in caplog.messages) == (keep == "features")


def test_images_of_a_cell_are_those_kept_and_those_sampled(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, setting = one_cell(sweep), replace(Setting.of(sweep.plan()), keep="images")
    sampled = np.concatenate(list(cells.images(cell, setting, tmp_path)))
    assert (sampled.shape, sampled.dtype) == ((200, *fakes.SHAPE), np.uint8)
    run_cell(cell, setting, tmp_path)
    monkeypatch.setattr(Sampling, "chunk", never)
    kept = np.concatenate(list(cells.images(cell, setting, tmp_path)))
    assert (kept == sampled).all()
    samples = np.load(chunks.folder_of(tmp_path, cell.key) / chunks.SAMPLES)
    assert (samples == kept[:64]).all()


def test_facts_about_images_are_in_the_record(sweep: Sweep, tmp_path: Path) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    facts = run_cell(cell, setting, tmp_path).images
    assert facts is not None
    assert facts["near_constant"] == facts["duplicates"] == 0
    images = np.concatenate(list(cells.images(cell, setting, tmp_path)))
    assert facts["saturated"] == pytest.approx(np.isin(images, (0, 255)).mean(), abs=1e-6)


def test_damaged_chunk_is_computed_again_and_said(
    sweep: Sweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    whole = run_cell(cell, setting, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_cell(cell, setting, tmp_path, check=interrupt_after(3))
    path = chunks.path_of(chunks.folder_of(tmp_path, cell.key), 1)
    path.write_bytes(path.read_bytes()[:1000])
    assert scores(run_cell(cell, setting, tmp_path)) == scores(whole)
    assert caplog.messages == [
        f"{path} is damaged or cut short (1000 bytes). It is computed again."
    ]
    events = [(entry["event"], entry["chunk"]) for entry in ledger(tmp_path, cell)]
    first = [("computed", 0), ("computed", 1), ("computed", 2)]
    assert events == [*first, ("refused", 1), ("computed", 1), ("computed", 3)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch": 64}, "another numerics"),
        ({"chunk": 32}, "another chunk"),
    ],
)
def test_chunks_of_other_numerics_are_not_used(
    sweep: Sweep,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    change: dict[str, int],
    named: str,
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    other = replace(setting, **change)
    with pytest.raises(Interrupted):
        run_cell(cell, setting, tmp_path, check=interrupt_after(2))
    result = run_cell(cell, other, tmp_path)
    assert scores(result) == scores(run_cell(cell, other, tmp_path / "whole"))
    assert len(caplog.messages) == 2
    assert named in caplog.messages[0]


def test_numerics_are_set_and_not_inherited(sweep: Sweep, tmp_path: Path) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    expected = scores(run_cell(cell, setting, tmp_path / "one"))
    torch.set_num_threads(2)
    with pinned(1):
        assert torch.get_num_threads() == 1
        assert {
            pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"
        } == {1}
        with pinned(3):
            assert torch.get_num_threads() == 3
            with pinned(3):
                pass
            assert torch.get_num_threads() == 3, "the inner block ends nothing"
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    assert scores(run_cell(cell, setting, tmp_path / "two")) == expected


def halvings(folder: Path, cell: Cell) -> list[int]:
    return [entry["batch"] for entry in ledger(folder, cell) if entry["event"] == "halved"]


@pytest.mark.parametrize(
    ("most", "batch", "chunk", "tried"),
    [
        (32, 32, 64, []),
        (31, 32, 64, [16]),
        (10, 32, 64, [16, 8]),
        (1, 32, 64, [16, 8, 4, 2, 1]),
        (10, 25, 75, [5]),  # what divides a chunk
        (150, 500, 500, [100]),  # of 200 images no batch is larger
    ],
)
def test_a_batch_that_does_not_fit_is_halved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    batch: int,
    chunk: int,
    tried: list[int],
) -> None:
    cell = one_cell(sweep := fakes.make_sweep(tmp_path, batch=batch, chunk=chunk))
    setting, used = Setting.of(sweep.plan()), (tried or [batch])[-1]
    expected = run_cell(cell, replace(setting, batch=used), tmp_path / "at once")
    monkeypatch.setattr(Setting, "load", fakes.small_memory(Setting.load, most))
    result = run_cell(cell, setting, tmp_path / "halved")
    assert halvings(tmp_path / "halved", cell) == tried
    assert result.provenance["numerics"] == expected.provenance["numerics"]
    assert result.provenance["numerics"]["batch"] == used
    assert scores(result) == scores(expected)
    kept = [chunks.folder_of(tmp_path / name, cell.key) for name in ("at once", "halved")]
    assert (kept[0] / "samples.npy").read_bytes() == (kept[1] / "samples.npy").read_bytes()
    assert is_done(cell, result, setting)


@pytest.mark.parametrize("most", [10, 1000], ids=["same machine", "larger machine"])
def test_a_halved_cell_goes_on_with_its_batch(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    cell, setting, real = one_cell(sweep), Setting.of(sweep.plan()), Setting.load
    expected = run_cell(cell, replace(setting, batch=8), tmp_path / "at once")
    monkeypatch.setattr(Setting, "load", fakes.small_memory(real, 10))
    with pytest.raises(Interrupted):
        # Before 32 and 16 images fail, and twice around each of two chunks.
        run_cell(cell, setting, tmp_path, check=interrupt_after(3))
    monkeypatch.setattr(Setting, "load", fakes.small_memory(real, most))
    assert cells.has_chunks(cell, setting, tmp_path, range(2))
    result = run_cell(cell, setting, tmp_path)
    assert scores(result) == scores(expected)
    assert result.provenance["numerics"]["batch"] == 8
    assert [e["chunk"] for e in ledger(tmp_path, cell) if e["event"] == "computed"] == [0, 1, 2, 3]
    images = np.concatenate(list(cells.images(cell, setting, tmp_path)))
    samples = np.load(chunks.folder_of(tmp_path, cell.key) / chunks.SAMPLES)
    assert (images[:64] == samples).all()


def test_a_cell_with_chunks_keeps_its_batch(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    with pytest.raises(Interrupted):
        run_cell(cell, setting, tmp_path, check=interrupt_after(1))
    real = Setting.load
    monkeypatch.setattr(Setting, "load", fakes.small_memory(real, 10))
    with pytest.raises(CellError) as caught:
        run_cell(cell, setting, tmp_path)
    assert str(caught.value) == (
        f"Cell {cell.short} ({cell.label}): there was not enough memory for a batch of 32 "
        "(OutOfMemoryError: no room for 32 images), and 1 of its 4 chunks are of such batches "
        "already, so that it cannot be halved. Ask for more memory, or write a smaller batch in "
        "the sweep, which begins the cell anew."
    )
    assert halvings(tmp_path, cell) == []
    result = run_cell(cell, replace(setting, batch=8), tmp_path)
    assert result.provenance["numerics"]["batch"] == 8


def test_no_room_for_a_single_image(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    monkeypatch.setattr(Setting, "load", fakes.small_memory(Setting.load, 0))
    with pytest.raises(CellError) as caught:
        run_cell(cell, setting, tmp_path)
    assert str(caught.value) == (
        f"Cell {cell.short} ({cell.label}): there was not enough memory for a single image "
        "(OutOfMemoryError: no room for 1 images). Ask for more memory, or take a smaller model or "
        "dtype."
    )
    assert halvings(tmp_path, cell) == [16, 8, 4, 2, 1]


def test_another_batch_in_the_sweep_ends_the_halved_one(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, setting, real = one_cell(sweep), Setting.of(sweep.plan()), Setting.load
    monkeypatch.setattr(Setting, "load", fakes.small_memory(real, 10))
    run_cell(cell, setting, tmp_path)
    monkeypatch.setattr(Setting, "load", real)
    results.path_of(tmp_path, cell.key).unlink()
    again = run_cell(cell, replace(setting, batch=64), tmp_path)
    assert again.provenance["numerics"]["batch"] == 64


def test_kept_chunks_of_a_halved_cell_serve_without_its_work_folder(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more_metrics(monkeypatch)
    cell, setting = one_cell(sweep), replace(Setting.of(sweep.plan()), keep="features")
    monkeypatch.setattr(Setting, "load", fakes.small_memory(Setting.load, 10))
    first = run_cell(cell, setting, tmp_path)
    shutil.rmtree(tmp_path / "work")
    monkeypatch.setattr(Sampling, "chunk", never)
    result = run_cell(cell, replace(setting, metrics=("fd_tiny", "cs_tiny")), tmp_path)
    assert result.metrics["fd_tiny"] == first.metrics["fd_tiny"]
    assert result.provenance["numerics"]["batch"] == 8


@pytest.mark.parametrize("text", ["", "{}", "8", '{"batch": 8}'])
def test_a_note_of_a_batch_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    folder = chunks.folder_of(tmp_path, "key")
    folder.mkdir(parents=True)
    (folder / chunks.BATCH).write_text(text)
    assert chunks.batch_of(tmp_path, "key", 32) == 32
    chunks.note_batch(folder, 8, 32)
    assert chunks.batch_of(tmp_path, "key", 32) == 8


def test_images_that_are_not_finite(tmp_path: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, spoiled=True)
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    with pytest.raises(CellError) as caught:
        run_cell(cell, setting, tmp_path)
    assert str(caught.value) == (
        f"Cell {cell.short} (ddim eta=1 spacing=uniform steps=5): 32 of the 32 images 0 to 31 "
        "(chunk 0) are not finite, the first is sample 0, at step 1 of 5 (sigma 0.999). "
        "Look at the model's output there, or take smaller steps."
    )
    assert results.find(tmp_path, cell.key) is None


def test_which_image_and_which_call_are_not_finite(sweep: Sweep) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    sound = setting.load(cell)

    def pair(x: torch.Tensor, point: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x0, eps = sound.pair(x, point)
        if point.t < 500:
            x0[[3, 9]] = torch.inf
        return x0, eps

    sampling = Sampling(cell, replace(sound, pair=pair), 32, "cpu")
    with pytest.raises(CellError) as caught:
        sampling.chunk(2, range(128, 192), {})
    assert (
        "2 of the 32 images 128 to 159 (chunk 2) are not finite, the first is sample 131, "
        "at step 3 of 5 (sigma 0.8"
    ) in str(caught.value)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", "6.55e+04"), ("bfloat16", "3.39e+38")])
def test_overflow_of_a_short_dtype_names_step_sample_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, largest: str
) -> None:
    """A real network in that dtype, whose second half of the steps is too large for it."""
    (tmp_path / "too_large.py").write_text(
        "def make():\n"
        "    def network(x, time):\n"
        "        large = (time < 500).to(x.dtype).view(-1, 1, 1, 1)\n"
        "        return x * (1 + large * (1e5 if x.dtype.itemsize < 4 else 0)) * (\n"
        "            1 + large * (1e38 if str(x.dtype) == 'torch.bfloat16' else 0)\n"
        "        )\n\n"
        "    return network\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plan = fakes.make_sweep(tmp_path).plan()
    network = {
        "kind": "torch",
        "path": "too_large:make",
        "target": "eps",
        "schedule": "vp-linear",
        "time": "real",
        "shape": [3, 4, 4],
        "dtype": dtype,
    }
    heun = "[{sampler: [ddim, heun], spacing: logsnr, steps: 5}]"
    cell, other = (
        replace(one, model=network)
        for one in fakes.make_sweep(tmp_path, grid=heun).cells()
        if one.sampler != "exact"
    )
    with pytest.raises(CellError) as caught:
        run_cell(cell, Setting.of(plan), tmp_path)
    found = re.search(
        r"the first is sample 0, at step (\d) of 5 \(sigma 0\.\d+\)\. (.*)", str(caught.value)
    )
    assert found is not None
    step = int(found[1])
    assert cell.grid().points[step - 2].t >= 500 > cell.grid().points[step - 1].t
    assert found[2] == (
        f"{dtype} holds numbers up to {largest}, and the network may need larger ones: write "
        "dtype: float32."
    )
    with pytest.raises(CellError, match=r"at model call \d of 9 \(sigma"):
        run_cell(other, Setting.of(plan), tmp_path)
    sound = replace(cell, model={**network, "dtype": "float32"})
    assert run_cell(sound, Setting.of(plan), tmp_path).status == "done"


def test_images_that_no_metric_takes_are_refused_before_they_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of another resolution than the metric's."""
    sweep = fakes.make_sweep(tmp_path)
    cell = one_cell(sweep)
    setting = replace(Setting.of(sweep.plan()), metrics=("fd_cifar",), reference="cifar10-mixture")
    monkeypatch.setattr(Sampling, "chunk", never)
    with pytest.raises(CellError) as caught:
        run_cell(cell, setting, tmp_path)
    assert str(caught.value) == (
        f"Cell {cell.short} ({cell.label}): its model gives images of 3 x 4 x 4. Images are 4 x 4 "
        'pixels; fd_cifar is defined for 32 x 32. For other sizes ask for the metric "fid", which '
        "resizes."
    )


def test_nfe_that_is_not_as_declared(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    lying = replace(REGISTRY["ddim"], calls=lambda steps, ends_at_zero, params: steps + 1)
    monkeypatch.setitem(REGISTRY, "ddim", lying)
    with pytest.raises(CellError, match="called the model 5 times and declares 6"):
        run_cell(cell, setting, tmp_path)


def test_calls_of_a_sampler_that_chooses_its_steps_are_counted_for_each_image(
    tmp_path: Path,
) -> None:
    rows = "[{sampler: rk45, spacing: linspace, steps: 2, rtol: 0.01, atol: 0.01}]"
    sweep = fakes.make_sweep(tmp_path, grid=rows)
    cell, setting = sweep.cells()[-1], Setting.of(sweep.plan())
    assert cell.nfe is None
    whole = run_cell(cell, setting, tmp_path)
    assert whole.nfe["declared"] is None
    counted = whole.nfe["counted"]
    assert 10 < counted["min"] < counted["mean"] < counted["max"] < 200
    assert results.load(tmp_path)["nfe"].tolist() == [round(counted["mean"])]
    # Neither images nor calls depend on who shares the batch.
    other = run_cell(cell, replace(setting, batch=7, chunk=21), tmp_path / "other")
    assert other.nfe == whole.nfe


def test_exact_row_draws_from_the_model(sweep: Sweep, tmp_path: Path) -> None:
    exact, setting = one_cell(sweep, "exact"), Setting.of(sweep.plan())
    result = run_cell(exact, setting, tmp_path)
    other = run_cell(one_cell(sweep), setting, tmp_path)
    assert result.nfe == {"declared": 0, "counted": {"mean": 0.0, "min": 0, "max": 0}}
    assert result.metrics["fd_tiny"]["value"] < 0.3 * other.metrics["fd_tiny"]["value"]
    network: Model = replace(setting.load(exact), exact_draw=None)
    with pytest.raises(CellError, match="the model has no exact draws"):
        Sampling(exact, network, 32, "cpu").chunk(0, range(32), {})


@pytest.mark.parametrize("network", [False, True], ids=["shipped-mixture", "network"])
def test_batch_sizes_and_slices_give_the_same_images(tmp_path: Path, network: bool) -> None:
    """99.9 % of the pixels to 1e-4 in float32, before rounding."""
    description: dict[str, Any] = {"kind": "mixture", "name": "cifar10-mixture"}
    if network:
        unet = {"sample_size": 32, "block_out_channels": (16, 32)}
        description = {"kind": "diffusers", "path": str(write_folder(tmp_path, unet=unet))}
    count = 64 if network else 500
    cell = Cell(
        model=models.describe(description).canonical(),
        sampler="ddim",
        params={"eta": 1.0},
        spacing="uniform",
        spacing_params={},
        steps=5,
        final="zero",
        seed=3,
        samples=count,
    )
    cell = replace(cell, params=REGISTRY["ddim"].complete(cell.params))
    model = models.load(models.describe(cell.model), "cpu")

    def images(batch: int, begin: int = 0) -> torch.Tensor:
        sampling = Sampling(cell, model, batch, "cpu")
        batches = sampling._batches(range(begin, count))
        return torch.cat([sampling._sample(batch)[0] for batch in batches])

    with pinned(1), torch.no_grad():
        whole, *others = (images(batch) for batch in (count, 32, 20))
        of_slice = images(32, begin=32)
    for other in others:
        assert ((other - whole).abs() <= 1e-4).double().mean() >= 0.999
    assert torch.equal(of_slice, others[0][32:])
    assert whole.std() > 0.1


def test_batch_sizes_give_the_same_metrics(tmp_path: Path) -> None:
    """Differences are below a twentieth of the spread over seeds."""
    grid = "[{sampler: ddim, eta: 1, steps: 5}]"
    sweep = fakes.make_sweep(tmp_path, grid=grid, samples=500, batch=500, chunk=500)
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())

    def value(cell: Cell, **change: int) -> float:
        setting_ = replace(setting, **change)
        result = run_cell(cell, setting_, tmp_path / str(change))
        return float(result.metrics["fd_tiny"]["value"])

    spread = np.std([value(replace(cell, seed=seed)) for seed in range(8)], ddof=1)
    by_500 = value(cell)
    assert spread > 0
    assert abs(value(cell, batch=100) - by_500) < spread / 20
    assert abs(value(cell, batch=32, chunk=512) - by_500) < spread / 20


def test_done_means_same_fingerprint_digests_and_metrics(sweep: Sweep, tmp_path: Path) -> None:
    cell, setting = one_cell(sweep), Setting.of(sweep.plan())
    result = run_cell(cell, setting, tmp_path)
    assert is_done(cell, result, setting)
    assert not is_done(cell, None, setting)
    assert not is_done(cell, replace(result, status="failed"), setting)
    assert not is_done(cell, replace(result, metrics={}), setting)

    def made_with(**changes: Any) -> Result:
        return replace(result, provenance=result.provenance | changes)

    assert is_done(cell, made_with(commit="another", dirty=True, host="elsewhere"), setting)
    assert not is_done(cell, made_with(model_digest="another"), setting)
    moved = [x + 1e-6 for x in result.provenance["fingerprint"]]
    assert not is_done(cell, made_with(fingerprint=moved), setting)
    for digest in ("extractor_digest", "reference_digest"):
        entry = result.metrics["fd_tiny"] | {digest: "another"}
        assert not is_done(cell, replace(result, metrics={"fd_tiny": entry}), setting)


def test_fingerprint_shows_the_samplers_arithmetic(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = {cell.label: fingerprints.fingerprint(cell) for cell in sweep.cells()}
    assert len(set(prints.values())) == 5
    cell = one_cell(sweep)
    more = replace(cell, samples=10 * cell.samples)
    assert fingerprints.fingerprint(more) == prints[cell.label]
    assert fingerprints.fingerprint(replace(cell, seed=1)) != prints[cell.label]
    ddim = REGISTRY["ddim"]

    def changed(*args: Any, **kwargs: Any) -> torch.Tensor:
        return ddim.function(*args, **kwargs) * (1 + 1e-7)

    monkeypatch.setitem(REGISTRY, "ddim", replace(ddim, function=changed))
    fingerprints.fingerprint.cache_clear()
    assert not results.same_fingerprint(fingerprints.fingerprint(cell), prints[cell.label])


def test_fingerprint_of_a_sampler_that_diverges(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    ddim = REGISTRY["ddim"]
    broken = replace(ddim, function=lambda denoise, x, grid, noise, **_: x / 0)
    monkeypatch.setitem(REGISTRY, "ddim", broken)
    with pytest.raises(CellError, match="on a small Gaussian mixture in float64 the sampler ends"):
        fingerprints.fingerprint(one_cell(sweep))


def test_provenance_knows_the_checkout() -> None:
    told = provenance.describe()
    assert set(told["versions"]) == {"bench", "python", "torch", "numpy"}
    assert told["time"].endswith("+00:00")
    commit = told["commit"]
    assert commit is None or len(commit) == 40
    assert (commit is None) == (told["dirty"] is None)


def test_compiling_is_part_of_the_numerics(sweep: Sweep) -> None:
    plan = sweep.plan()
    cell = sweep.cells()[0]
    made_with = []
    for compiled in (False, True):
        launch = plan["launch"] | {"compile": compiled}
        setting = Setting.of(plan | {"launch": launch})
        made_with.append(cells._made_with(cell, setting, setting.load(cell))["numerics"])
    assert made_with[1] == made_with[0] | {"compiled": True}


def test_a_device_that_is_not_there_is_named(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = sweep.plan()
    setting = Setting.of(plan | {"launch": plan["launch"] | {"device": "cuda"}})
    with pytest.raises(CellError, match=r'launch\.device is "cuda".*write device: cpu'):
        setting.bind()
