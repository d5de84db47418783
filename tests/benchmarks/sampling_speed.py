"""Images of one cell, ours against diffusers' pipeline and against the bare network, side by side.

    python tests/benchmarks/sampling_speed.py [--device cpu] [--dtype float32] [--images 64]
        [--batch 32] [--steps 10] [--rounds 5] [--compile]

Promises, for DDIM (eta 0) on `cifar10-unet` at equal precision: at least 1.5 times the images/s of
`DDIMPipeline`; of a cell's time at most 2 % on a CPU, 3 % on a GPU, is not the network's (10 calls
and more); cost grows with the number of images and of calls to powers within 0.03 of 1; sampling
needs as much memory for many images as for few.

All take turns in one process, and what counts is the median over rounds: of the ratios of a round,
of the seconds of a size. The bare network is called as often on a batch of the same size and
layout, and nothing else is done: no way to sample it can gain more on the pipeline than that. Exit
code 1 if a promise is broken.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import models, sweep
from bench.models.base import DTYPES
from bench.models.diffusers import SHIPPED
from bench.numerics import pinned
from bench.sampling import Sampling
from tests.benchmarks.inception_speed import processor

FASTER, SLACK = 1.5, 0.03
OWN = {"cpu": 0.02, "cuda": 0.03}
SWEEP = """
name: speed
model: {{kind: diffusers, path: cifar10-unet, dtype: {dtype}}}
samples: {images}
metrics: [fd_cifar]
reference: cifar10-train
batch: {batch}
chunk: {images}
grid: [{{sampler: ddim, spacing: uniform, steps: {steps}}}]
"""


class Ours:
    """The harness' own way to the images of a cell, without the metric's network."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        description = {"kind": "diffusers", "path": "cifar10-unet", "dtype": given.dtype}
        self.model = models.load(models.describe(description), given.device, compiled=given.compile)

    def __call__(self, images: int, steps: int) -> None:
        given = self._given
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "speed.yaml"
            file.write_text(SWEEP.format(**vars(given) | {"images": images, "steps": steps}))
            (cell,) = sweep.load(file).cells()
        Sampling(cell, self.model, given.batch, given.device).chunk(0, range(images), {})


def pipeline(given: argparse.Namespace) -> Callable[[int, int], None]:
    """DDIMPipeline as its documentation runs it, in the same precision."""
    network = UNet2DModel.from_pretrained(SHIPPED["cifar10-unet"])
    # The pipeline gives its images to numpy, which has no bfloat16: there it runs under autocast.
    cast = given.dtype == "bfloat16"
    network = network.to(given.device, torch.float32 if cast else DTYPES[given.dtype])
    made = DDIMPipeline(unet=network, scheduler=DDIMScheduler(clip_sample=False))
    made.set_progress_bar_config(disable=True)

    def run(images: int, steps: int) -> None:
        with torch.autocast(given.device, DTYPES[given.dtype], enabled=cast):
            for _ in range(images // given.batch):
                made(given.batch, num_inference_steps=steps, output_type="np")

    return run


def bare(given: argparse.Namespace, model: models.Model) -> Callable[[int, int], None]:
    """The network alone, called as often; what no sampler can be faster than."""
    assert model.network is not None
    network, dtype = model.network, DTYPES[given.dtype]
    x = torch.randn(given.batch, *model.shape, device=given.device, dtype=dtype)
    x = x.to(memory_format=torch.channels_last)
    when = torch.tensor(500.0, device=given.device)

    @torch.no_grad()
    def run(images: int, steps: int) -> None:
        for _ in range(images // given.batch * steps):
            network(x, when, return_dict=False)

    return run


def timed(work: Callable[[int, int], None], images: int, steps: int, device: str) -> float:
    """Seconds."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work(images, steps)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def exponent(sizes: list[int], seconds: Callable[[int], float], rounds: int) -> float:
    """The power with which the time grows."""
    taken = [[seconds(size) for size in sizes] for _ in range(rounds)]
    return float(np.polyfit(np.log(sizes), np.log(np.median(taken, axis=0)), 1)[0])


def peak(work: Callable[[int, int], None], images: int, device: str) -> float:
    """The most memory in MB: of the allocator on a GPU, else of this process in all its life."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    work(images, 2)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(given: argparse.Namespace) -> int:
    """Prints the comparison; 1 if a promise is broken."""
    ours = Ours(given)
    ours(given.batch, 2)
    one, eight = (peak(ours, images, given.device) for images in (given.batch, 8 * given.batch))
    print(f"peak memory {one:.0f} MB for one batch, {eight:.0f} MB for eight")

    theirs, limit = pipeline(given), bare(given, ours.model)
    ways: dict[str, Callable[[int, int], None]] = {"ours": ours, "theirs": theirs, "bare": limit}
    for work in ways.values():
        work(given.batch, 2)
    rounds = []
    for i in range(given.rounds):
        order = list(ways)[i % 3 :] + list(ways)[: i % 3]
        seconds = {
            name: timed(ways[name], given.images, given.steps, given.device) for name in order
        }
        rounds.append(seconds)
    best = {name: given.images / min(took[name] for took in rounds) for name in ways}
    faster, possible = (
        statistics.median(took["theirs"] / took[name] for took in rounds)
        for name in ("ours", "bare")
    )
    own = statistics.median(1 - took["bare"] / took["ours"] for took in rounds)
    print(f"{best['ours']:.1f} images/s against {best['theirs']:.1f} of DDIMPipeline: {faster:.2f}")
    print(f"bare network {best['bare']:.1f}, {possible:.2f} times the pipeline")
    print(f"our own share {own:.2%} (at most {OWN[given.device]:.0%})")

    def of_images(images: int) -> float:
        return timed(ours, images, given.steps, given.device)

    def of_calls(steps: int) -> float:
        return timed(ours, given.images, steps, given.device)

    images = exponent([given.images * k for k in (1, 2, 4)], of_images, given.rounds)
    calls = exponent([given.steps * k for k in (1, 2, 4)], of_calls, given.rounds)
    print(f"cost grows with images to the {images:.3f}, calls to the {calls:.3f}")
    return int(
        faster < FASTER
        or own > OWN[given.device]
        or max(abs(images - 1), abs(calls - 1)) > SLACK
        or eight > 1.01 * one
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    where = torch.cuda.get_device_name() if given.device == "cuda" else processor()
    print(f"{where}, torch {torch.__version__}, {vars(given)}")
    with pinned(given.threads):
        sys.exit(compare(given))


if __name__ == "__main__":
    main()
