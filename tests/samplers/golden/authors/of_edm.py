"""EDM: the general sampler of the paper's code, as NVIDIA has it in its weather models' package.

With its defaults it is algorithm 1, with churn algorithm 2.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from common import START, Case, Draws, denoise, load
from torch import Tensor

SOURCE = (
    "nvidia-physicsnemo 1.0.1, physicsnemo/utils/generative/deterministic_sampler.py: "
    "deterministic_sampler"
)
CHURN = {"S_churn": 3.0, "S_min": 0.01, "S_max": 50.0, "S_noise": 1.003}
OUR_CHURN = {"s-churn": 3.0, "s-min": 0.01, "s-max": 50.0, "s-noise": 1.003}


class Net:
    """A network without limits to sigma, which notes the levels it is asked at."""

    sigma_min, sigma_max = 0.0, float("inf")

    def __init__(self) -> None:
        self.levels: list[float] = []

    def round_sigma(self, sigma: Tensor) -> Tensor:
        return sigma

    def __call__(self, x: Tensor, condition: None, sigma: Tensor, labels: None) -> Tensor:
        self.levels.append(float(sigma))
        return denoise(x, torch.ones_like(sigma), sigma)[0]


def cases(root: Path) -> Iterator[Case]:
    # Their own class of networks needs much else; the function asks whether Net is one.
    models = ModuleType("physicsnemo.models.diffusion")
    models.EDMPrecond = type("EDMPrecond", (), {})
    sys.modules[models.__name__] = models
    sampler = load(root, "physicsnemo.utils.generative.deterministic_sampler").deterministic_sampler

    def run(used: list[bool], **given: object) -> tuple[Tensor, list[float]]:
        net = Net()
        ends = sampler(net, START, None, num_steps=len(used), randn_like=Draws(used), **given)
        return ends, net.levels

    for steps in (2, 6, 18):
        none = [False] * steps
        # Euler's steps ask at the grid's levels, once each; the ends are off by rounding.
        ends, levels = run(none, solver="euler")
        times = [min(max(level, 0.002), 80.0) for level in levels] + [0.0]
        grid = {"schedule": "edm", "times": times, "spacing": ("edm", {})}
        yield Case(SOURCE, "euler", {}, ends=ends, **grid)
        ends, _ = run(none)
        yield Case(SOURCE, "heun", {}, ends=ends, **grid)
        if steps == 6:
            used = [CHURN["S_min"] <= t <= CHURN["S_max"] for t in times[:-1]]
            ends, _ = run(used, **CHURN)
            yield Case(SOURCE, "edm", OUR_CHURN, ends=ends, **grid)
