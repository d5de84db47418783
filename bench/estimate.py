"""What a sweep will cost: model calls and one batch of features, timed on this machine."""

import time
from collections.abc import Callable, Sequence
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
from bench.numerics import free_memory, is_out_of_memory, pinned
from bench.sweep import Sweep

_REPEATS = 3
_BATCHES = (25, 50, 100, 200, 500, 1000, 2000)
"""Tried beside the sweep's own, where a chunk of the sweep is a multiple."""
_LONGEST = 5.0
"""Seconds of a call. Such a batch is large enough, and a larger one would only be waited for."""
_ALIKE = 0.95
"""Of the best speed: what is as fast, or noise."""


@dataclass(frozen=True)
class Cost:
    """Seconds on one worker.

    Attributes:
        device: where this was measured.
        batch: images per model call, the sweep's own.
        calls: one call of each model, by the model's label and the images in the call: the sweep's
            own batch, and others as far as they fit.
        features: all features of a batch.
        total: the whole sweep, whatever of it is done already.
    """

    device: str
    batch: int
    calls: dict[str, dict[int, float]]
    features: float
    total: float

    def speed(self, label: str, batch: int) -> float:
        """Images per second of one call of a model."""
        return batch / self.calls[label][batch]

    def proposed(self, label: str) -> int:
        """The batch to write: the sweep's own if that is as fast as any, else the smallest so."""
        speeds = {batch: self.speed(label, batch) for batch in self.calls[label]}
        enough = _ALIKE * max(speeds.values())
        if speeds[self.batch] >= enough:
            return self.batch
        return min(batch for batch, speed in speeds.items() if speed >= enough)


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
    calls: dict[str, dict[int, float]] = {}
    features = total = 0.0
    with pinned(setting.threads):
        for cell in sweep.cells():
            label = models.describe(cell.model).label
            if label not in calls:
                model = setting.load(cell)
                calls[label] = {batch: _call(model, batch, setting.device)}
                fitting = [n for n in _BATCHES if n <= sweep.samples and not sweep.chunk % n]
                others = [n for n in fitting if n != batch]
                calls[label] |= _calls(model, others, setting.device)
                noise = Noise(0, range(batch), model.shape, device=setting.device)
                images = to_uint8(noise())
                features = sum(
                    _seconds(partial(extractor, images), setting.device)
                    for extractor in bound.values()
                )
            total += cell.samples / batch * (cell.work * calls[label][batch] + features)
    return Cost(setting.device, batch, calls, features, total)


def _calls(model: Model, batches: Sequence[int], device: str) -> dict[int, float]:
    """Seconds of a call by batch, up to the first that takes too long or does not fit."""
    found: dict[int, float] = {}
    for batch in batches:
        try:
            found[batch] = _call(model, batch, device)
        except Exception as error:  # of as many types as devices have
            if not is_out_of_memory(error):
                raise
            break
        if found[batch] > _LONGEST:
            break
    free_memory()  # of the batch that did not fit, or the largest
    return found


def _call(model: Model, batch: int, device: str) -> float:
    """Seconds of a call of the model for a batch."""
    x = Noise(0, range(batch), model.shape, device=device)()
    # As much noise as signal: no corner case of the model is timed.
    return _seconds(lambda: model.denoiser()(x, model.schedule.at(lam=0.0)), device)


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
