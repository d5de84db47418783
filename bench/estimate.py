"""What a sweep will cost: one model call and one batch of features, timed on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from bench import models
from bench.cell import Setting
from bench.diffusion.noise import Noise
from bench.errors import SweepError
from bench.metrics.images import to_uint8
from bench.metrics.registry import extractors
from bench.models import Model
from bench.numerics import is_out_of_memory, pinned
from bench.sweep import Sweep

_REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """Seconds on one worker.

    Attributes:
        device: where this was measured.
        batch: images per model call, the sweep's own.
        calls: one call of each model for a batch, by the model's label.
        features: all features of a batch.
        total: the whole sweep, whatever of it is done already.
    """

    device: str
    batch: int
    calls: dict[str, float]
    features: float
    total: float


def measure(sweep: Sweep) -> Cost:
    """Times the models and extractors of `sweep` at its own batch size, threads and device.

    Raises:
        ModelError, MetricError: something that the sweep needs cannot be had here.
        SweepError: its batch does not fit into memory.
    """
    try:
        return _measured(sweep)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        batch = min(sweep.batch, sweep.samples)
        raise SweepError(
            f"{sweep.file}: there is not enough memory here for a batch of {batch} "
            f"({type(error).__name__}: {error}). A run would halve it; write a smaller batch to "
            "measure with."
        ) from error


def _measured(sweep: Sweep) -> Cost:
    setting = Setting.of(sweep.plan())
    bound = extractors(setting.bind())
    batch = min(sweep.batch, sweep.samples)
    calls: dict[str, float] = {}
    features = total = 0.0
    with pinned(setting.threads):
        for cell in sweep.cells():
            label = models.describe(cell.model).label
            if label not in calls:
                model = setting.load(cell)
                x = Noise(0, range(batch), model.shape, device=setting.device)()
                calls[label] = _seconds(partial(_call, model, x), setting.device)
                images = to_uint8(x)
                features = sum(
                    _seconds(partial(extractor, images), setting.device)
                    for extractor in bound.values()
                )
            total += cell.samples / batch * (cell.work * calls[label] + features)
    return Cost(setting.device, batch, calls, features, total)


def _call(model: Model, x: torch.Tensor) -> None:
    # As much noise as signal: no corner case of the model is timed.
    model.denoiser()(x, model.schedule.at(lam=0.0))


def _seconds(call: Callable[[], object], device: str) -> float:
    """The shortest of a few calls, after one that pays for what happens once."""
    times = []
    for _ in range(_REPEATS + 1):
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[1:])
