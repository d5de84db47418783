"""Samplers from outside, as sweeps of the tests name them: one that is slow, one that fails."""

import os
import signal
import time

import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import TimeGrid

NAP = "BENCH_TEST_NAP"
"""Names the seconds that `napping` sleeps before every call: time in which to disturb it."""


def napping(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """DDIM without noise; how long it takes is not in its numbers."""
    nap = float(os.environ.get(NAP, "0"))
    for a, b in grid.steps():
        time.sleep(nap)
        x0, eps = denoise(x, a)
        x = b.alpha * x0 + b.sigma * eps
    return x


def broken(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """The same, with images that are not finite."""
    return napping(denoise, x, grid, noise) / 0.0


def greedy(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """The same, with three gigabytes that it does not need."""
    held = torch.ones(3 * 2**28)
    return napping(denoise, x, grid, noise) + 0 * held[0]


def deaf(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """The same, as if it hung: it does not hear that its time is over."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    return napping(denoise, x, grid, noise)
