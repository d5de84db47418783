"""A step of our samplers against a step of diffusers' schedulers, side by side in one process.

    python tests/benchmarks/step_speed.py [--threads 2] [--rounds 15] [--steps 20]

Promise: beyond the model's calls, a step of every sampler costs less than that of the matching
scheduler. The model here returns what it has at hand, so what is timed is the sampler; noise is
left out of both (one tensor, made before). The two take turns at n and at 2n steps, and a step
costs the difference of their shortest times over n, so that setting up is left out too. Prints
ours / theirs for batches of 1, 64 and 512 images of 3 x 32 x 32; exit code 1 if a ratio is above 1.
"""

import argparse
import sys
import time
import warnings

import torch
from torch import Tensor

from bench import samplers
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.parameters import as_keywords

BATCHES = (1, 64, 512)
# Ours, its parameters; diffusers' class, its parameters; spacing.
Side = tuple[str, dict[str, object]]
PAIRS: list[tuple[Side, Side, str]] = [
    (("ddim", {}), ("DDIMScheduler", {"clip-sample": False}), "uniform"),
    (("ddpm", {"variance": "small"}), ("DDPMScheduler", {"clip-sample": False}), "uniform"),
    (("euler", {}), ("EulerDiscreteScheduler", {}), "uniform"),
    (("heun", {}), ("HeunDiscreteScheduler", {}), "linspace"),
    (("ab", {}), ("LMSDiscreteScheduler", {}), "linspace"),
    (("plms", {}), ("PNDMScheduler", {"skip-prk-steps": True}), "uniform"),
    (("pndm", {}), ("PNDMScheduler", {}), "uniform"),
    (("dpm-solver++", {}), ("DPMSolverMultistepScheduler", {}), "linspace"),
    (
        ("dpm-solver++", {"order": 3}),
        ("DPMSolverMultistepScheduler", {"solver-order": 3}),
        "linspace",
    ),
    (
        ("dpm-solver++", {"eta": 1}),
        ("DPMSolverMultistepScheduler", {"algorithm-type": "sde-dpmsolver++"}),
        "linspace",
    ),
    (
        ("dpm-solver++", {"method": "singlestep"}),
        ("DPMSolverSinglestepScheduler", {}),
        "linspace",
    ),
    # Their order counts the values of eps, ours the degree of the polynomial through them.
    (("deis", {"order": 2}), ("DEISMultistepScheduler", {"solver-order": 3}), "linspace"),
    (("unipc", {}), ("UniPCMultistepScheduler", {"solver-order": 3}), "linspace"),
]


class Still(Noise):
    """The same draw again and again: the cost of noise is neither's."""

    def __init__(self, z: Tensor) -> None:
        super().__init__(0, range(len(z)), tuple(z.shape[1:]))
        self._z = z

    def __call__(self) -> Tensor:
        """The draw."""
        return self._z


def seconds(side: Side, grid: TimeGrid, z: Tensor) -> float:
    """Of one run over the grid."""
    name, given = side
    sampler = samplers.get(name)
    params = as_keywords(sampler.complete(given))

    def pair(x: Tensor, point: Point) -> Pair:
        return z, z

    began = time.perf_counter()
    sampler.function(Denoiser(pair), z, grid, Still(z), **params)
    return time.perf_counter() - began


def ratio(
    ours: Side, theirs: Side, grids: tuple[TimeGrid, TimeGrid], batch: int, rounds: int
) -> float:
    """What a step of ours costs in steps of theirs; the second grid has more steps."""
    z = torch.randn(batch, 3, 32, 32)
    times: dict[tuple[int, int], list[float]] = {(i, j): [] for i in range(2) for j in range(2)}
    for _ in range(rounds + 1):  # the first pays for what happens once
        for i, side in enumerate((ours, theirs)):
            for j, grid in enumerate(grids):
                times[i, j].append(seconds(side, grid, z))
    first, second = (min(times[i, 1][1:]) - min(times[i, 0][1:]) for i in range(2))
    return first / second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", category=DeprecationWarning)

    schedule, worst = make_schedule("vp-linear"), 0.0
    print(f"{'ours':34}{'theirs':32}" + "".join(f"{f'batch {b}':>12}" for b in BATCHES))
    for ours, (scheduler, given), spacing in PAIRS:
        theirs = (f"diffusers:{scheduler}", given)
        grids = tuple(make_grid(schedule, spacing, k * options.steps) for k in (1, 2))
        ratios = [ratio(ours, theirs, grids, batch, options.rounds) for batch in BATCHES]
        said = " ".join([ours[0], *(f"{k}={v}" for k, v in ours[1].items())])
        print(f"{said:34}{scheduler:32}" + "".join(f"{r:12.2f}" for r in ratios), flush=True)
        worst = max(worst, *ratios)
    print(f"worst: {worst:.2f}")
    return int(worst > 1)


if __name__ == "__main__":
    sys.exit(main())
