"""Small real components for tests of cells and launching: a mixture, an extractor, a sweep.

They are what a sweep uses, only smaller: the mixture is a safetensors file that goes through the
real loader, the extractor gives 16 numbers an image, the reference is made by the real builder.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import models, sweep
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import Point
from bench.metrics import reference
from bench.metrics.measures import MEASURES
from bench.metrics.registry import METRICS, MetricSpec
from bench.models import Model, mixture
from bench.models.mixture import Mixture
from bench.sweep import Sweep
from bench.worker import Job

SHAPE = (3, 4, 4)


class TinyExtractor:
    """Sixteen numbers of an image of 4 x 4 pixels: a fixed random layer and a tanh."""

    name = "tiny"
    dim = 16
    numerics = "float32"
    resize = "none"

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._layer = torch.randn(48, self.dim, generator=generator) / 4
        self.head = torch.randn(10, self.dim, generator=generator).numpy()
        self.digest = hashlib.sha256(self._layer.numpy().tobytes()).hexdigest()

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        return torch.tanh((images.flatten(1).float() / 127.5 - 1) @ self._layer)


TINY = {
    f"{measure}_tiny": MetricSpec(
        f"{measure}_tiny", MEASURES[measure], "16 random features", lambda device: TinyExtractor()
    )
    for measure in MEASURES
}
FD_TINY = TINY["fd_tiny"]


def register() -> None:
    """Makes the metric `fd_tiny` known to this process."""
    METRICS["fd_tiny"] = FD_TINY


GATE = "BENCH_TEST_GATE"
"""Names a file; jobs begin when it is there."""


class TinyJob(Job):
    """A job in whose process `fd_tiny` is known."""

    def __call__(self) -> str:
        register()
        while GATE in os.environ and not Path(os.environ[GATE]).exists():
            time.sleep(0.05)
        return super().__call__()


def write_mixture(path: Path, *, seed: int = 0, spoiled: bool = False) -> Path:
    """A mixture of 4 x 4 images; a spoiled one has a mean that is not finite."""
    made = Mixture.random(SHAPE, components=3, seed=seed, dtype=torch.float32)
    components, rank = made.spectrum.shape
    mixture.save(
        path,
        shape=made.shape,
        weights=made.weights,
        spectrum=made.spectrum,
        remainder=made.remainder,
        mean=made.mean * torch.nan if spoiled else made.mean,
        basis=made.basis,
        centres=made.centres,
        axes=made.axes.view(rank, components, rank).permute(1, 0, 2),
        notes={},
    )
    return path


def small_memory(load: Callable[..., Model], most: int) -> Callable[..., Model]:
    """`Setting.load` on a machine where batches of more than `most` images do not fit."""

    def loaded(*args: Any) -> Model:
        model = load(*args)

        def pair(x: torch.Tensor, point: Point) -> Pair:
            if len(x) > most:
                raise torch.OutOfMemoryError(f"no room for {len(x)} images")
            return model.pair(x, point)

        return replace(model, pair=pair)

    return loaded


def write_reference(path: Path, model: Path, count: int = 2000) -> Path:
    """Statistics of exact draws of the mixture `model` in tiny features."""
    loaded = models.load(models.describe({"kind": "mixture", "name": str(model)}), "cpu")
    made = reference.from_model(loaded, "tiny-mixture", TinyExtractor(), count=count)
    reference.save(path, made)
    return path


def sweep_text(
    folder: Path,
    *,
    grid: str = "[{sampler: ddim, eta: [0, 1], steps: [3, 5]}]",
    launch: str = "{executor: inline}",
    samples: int = 200,
    batch: int = 32,
    chunk: int = 64,
    seeds: str = "0",
    spoiled: bool = False,
) -> str:
    """The file of a sweep of the tiny mixture, whose model and reference it makes in `folder`."""
    model, statistics = folder / "tiny.safetensors", folder / "tiny.npz"
    if not model.exists():
        write_mixture(model)
        write_reference(statistics, model)
        if spoiled:
            write_mixture(model, spoiled=True)
    return (
        f"# Does anything get lost?\nname: tiny\nmodel: {{kind: mixture, name: {model}}}\n"
        f"samples: {samples}\nseed: [{seeds}]\nmetrics: [fd_tiny]\nreference: {statistics}\n"
        f"batch: {batch}\nchunk: {chunk}\ngrid: {grid}\nlaunch: {launch}\n"
    )


def make_sweep(folder: Path, **options: Any) -> Sweep:
    """The sweep of `sweep_text`."""
    return sweep.parse(sweep_text(folder, **options))
