"""What a sweep will cost, and which batch to write for it."""

from pathlib import Path

import pytest
import torch

from bench import estimate
from bench.estimate import Cost
from bench.metrics.registry import METRICS
from bench.sweep import Sweep
from tests import fakes


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Four cells of 300 images."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    return fakes.make_sweep(tmp_path, samples=300, batch=50, chunk=200)


def cost(**seconds: float) -> Cost:
    calls = {int(batch[1:]): value for batch, value in seconds.items()}
    return Cost("cpu", 100, {"m": calls}, 0.0, 0.0)


def test_the_batch_of_the_sweep_stays_where_no_other_is_faster() -> None:
    assert cost(_100=1.0).proposed("m") == 100
    assert cost(_25=0.25, _100=1.0, _500=4.9).proposed("m") == 100, "2 % are noise"


def test_the_smallest_of_the_fastest_batches_is_proposed() -> None:
    found = cost(_25=0.20, _50=0.5, _100=1.0, _200=1.25, _500=3.0)
    assert found.proposed("m") == 200, "160 images/s, where the fastest makes 167"
    assert found.speed("m", 200) == 160


def test_batches_are_tried_up_to_the_first_that_takes_too_long(
    tiny: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def call(model: object, batch: int, device: str) -> float:
        tried.append(batch)
        return batch / 15

    monkeypatch.setattr(estimate, "_call", call)
    found = estimate.measure(tiny)
    assert tried == [50, 25, 100], "200 are not tried after 6.7 s"
    (label,) = found.calls
    assert found.calls[label] == {50: 50 / 15, 25: 25 / 15, 100: 100 / 15}
    work = sum(cell.work for cell in tiny.cells())
    assert found.total == pytest.approx(300 / 50 * (work * 50 / 15 + 4 * found.features))


def test_batches_are_tried_up_to_the_first_that_does_not_fit(
    tiny: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(model: object, batch: int, device: str) -> float:
        if batch > 100:
            raise torch.OutOfMemoryError("no room")
        return 1.0

    monkeypatch.setattr(estimate, "_call", call)
    found = estimate.measure(tiny)
    (label,) = found.calls
    assert list(found.calls[label]) == [50, 25, 100]
    assert found.proposed(label) == 100


def test_only_divisors_of_a_chunk_are_tried(tiny: Sweep) -> None:
    found = estimate.measure(tiny)
    (label,) = found.calls
    assert sorted(found.calls[label]) == [25, 50, 100, 200]
