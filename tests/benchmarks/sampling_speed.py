"""Images of one cell, ours against diffusers' pipeline and against the bare network, side by side.

    python tests/benchmarks/sampling_speed.py [--device cpu] [--dtype float32] [--images 64]
        [--batch 32] [--steps 10] [--rounds 5] [--threads 1] [--compile]

Promises, for DDIM (eta 0) on `cifar10-unet` at equal precision: at least 1.5 times the images/s of
`DDIMPipeline`; of a cell's time at most 2 % on a CPU, 3 % on a GPU, is not spent in the network's
forward passes (10 calls and more); cost grows with the number of images and of calls to powers
within 0.03 of 1; sampling needs as much memory for many images as for few, within 3 %.

All take turns in one process, and what counts is the median over rounds of the ratios of a round.
The bare network is called as often on a batch of the same size and layout, and nothing else is
done: no way to sample it can gain more on the pipeline than that. Exit code 1 if a promise is
broken.
"""

import argparse
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import models, sweep
from bench.models.base import DTYPES
from bench.models.diffusers import SHIPPED
from bench.numerics import pinned
from bench.sampling import Sampling
from tests.benchmarks.inception_speed import processor

FASTER, SLACK, GROWN = 1.5, 0.03, 4
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

Work = Callable[[int, int], None]
"""Makes a number of images, in a number of steps."""


class Timed(UNet2DModel):
    """The network, which adds up the seconds of its forward passes."""

    spent = 0.0

    def __call__(self, x: torch.Tensor, *given: Any, **named: Any) -> Any:
        began = clock(x.device.type)
        output = super().__call__(x, *given, **named)
        self.spent += clock(x.device.type) - began
        return output


def shipped(given: argparse.Namespace) -> models.Model:
    """The shipped network as a cell has it."""
    description = {"kind": "diffusers", "path": "cifar10-unet", "dtype": given.dtype}
    model = models.load(models.describe(description), given.device, compiled=given.compile)
    assert model.network is not None
    model.network.__class__ = Timed
    return model


def harness(given: argparse.Namespace, model: models.Model, batch: int) -> Work:
    """The harness' own way to the images of a cell, without the metric's network."""

    def run(images: int, steps: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "speed.yaml"
            facts = {"dtype": given.dtype, "images": images, "steps": steps, "batch": batch}
            file.write_text(SWEEP.format(**facts))
            (cell,) = sweep.load(file).cells()
        Sampling(cell, model, batch, given.device).chunk(0, range(images), {})

    return run


def pipeline(given: argparse.Namespace) -> Work:
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


def bare(given: argparse.Namespace, model: models.Model) -> Work:
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


def timed(work: Work, images: int, steps: int, device: str) -> float:
    """Seconds."""
    began = clock(device)
    work(images, steps)
    return clock(device) - began


def clock(device: str) -> float:
    """Seconds, once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(work: Work, images: int, device: str) -> float:
    """The most memory in MB: of the allocator on a GPU, else of this process in all its life."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    work(images, 2)
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def compare(given: argparse.Namespace) -> int:
    """Prints the comparison; 1 if a promise is broken."""
    model = shipped(given)
    assert isinstance(model.network, Timed)
    batch, images, steps = given.batch, given.images, given.steps
    cell, quarter = harness(given, model, batch), harness(given, model, batch // 4)
    cell(batch, 2)
    one, eight = (peak(cell, n, given.device) for n in (batch, 8 * batch))
    print(f"peak memory {one:.0f} MB for one batch, {eight:.0f} MB for eight")

    turns: dict[str, tuple[Work, int, int]] = {
        "ours": (cell, images, steps),
        "theirs": (pipeline(given), images, steps),
        "bare": (bare(given, model), images, steps),
        "more images": (cell, GROWN * images, steps),
        "more calls": (cell, images, GROWN * steps),
        "a quarter": (quarter, images, steps),
    }
    for work, *_ in turns.values():
        work(batch, 2)
    rounds = []
    for i in range(given.rounds):
        took = {}
        for name in [*turns][i % len(turns) :] + [*turns][: i % len(turns)]:
            model.network.spent = 0.0
            took[name] = timed(*turns[name], given.device)
            if name == "ours":
                took["passes"] = model.network.spent
        rounds.append(took)

    def ratio(one: str, other: str) -> float:
        return statistics.median(took[one] / took[other] for took in rounds)

    best = {name: images / min(took[name] for took in rounds) for name in ("ours", "theirs")}
    faster, own = ratio("theirs", "ours"), 1 - ratio("passes", "ours")
    powers = [math.log(ratio(f"more {what}", "ours"), GROWN) for what in ("images", "calls")]
    print(f"{best['ours']:.1f} images/s against {best['theirs']:.1f} of DDIMPipeline: {faster:.2f}")
    print(f"the bare network: {ratio('theirs', 'bare'):.2f} times the pipeline")
    print(f"our own share {own:.2%} (at most {OWN[given.device]:.0%})")
    print(f"a quarter of the batch: {ratio('ours', 'a quarter'):.2f} times the images/s")
    print(f"cost grows with images to the {powers[0]:.3f}, calls to the {powers[1]:.3f}")
    return int(
        faster < FASTER
        or own > OWN[given.device]
        or max(abs(power - 1) for power in powers) > SLACK
        or eight > (1 + SLACK) * one
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
