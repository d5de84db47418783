"""The problem of `scalar.py` as the authors' code takes it: float64 tensors of shape (5, 1, 1, 1).

Nothing of `bench` is imported here or in the files beside.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))
from scalar import MODEL, NOISE, STARTS

# Their tables of noise levels are made in the default dtype.
torch.set_default_dtype(torch.float64)


def column(values: list[str]) -> Tensor:
    return torch.tensor([float(v) for v in values]).view(-1, 1, 1, 1)


START = column(STARTS)


@dataclass(frozen=True)
class Case:
    """Where their function ends on one grid, and the sampler of ours that is the same."""

    source: str
    sampler: str
    params: dict[str, object]
    schedule: str
    times: list[float]
    ends: Tensor
    spacing: tuple[str, dict[str, float]] | None = None
    """Ours, where they made the grid themselves: its name and its parameters."""
    within: float = 1e-10


def load(root: Path, name: str) -> ModuleType:
    """The module `name` under `root`, without what its packages' `__init__` would import."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        package = ModuleType(".".join(parts[:i]))
        package.__path__ = [str(root.joinpath(*parts[:i]))]
        sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(name)


def denoise(x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """E[x0 | x] and E[eps | x] for x (B, 1, 1, 1), at one noise level or one a sample."""
    alpha, sigma = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    weights, means, variances = (
        torch.tensor([float(v) for v in MODEL[k]]) for k in ("weights", "means", "variances")
    )
    total = alpha**2 * variances + sigma**2  # the last dimension is that of the components
    logits = weights.log() - total.log() / 2 - (x - alpha * means) ** 2 / (2 * total)
    centres = (means * sigma**2 + alpha * variances * x) / total
    x0 = (logits.softmax(-1) * centres).sum(-1, keepdim=True)
    return x0, (x - alpha * x0) / sigma


class Draws:
    """The noise, a row a call; where theirs draws and does not use it, `used` is False."""

    def __init__(self, used: list[bool] | None = None) -> None:
        self._rows = iter(NOISE)
        self._used = iter([True] * len(NOISE) if used is None else used)

    def __call__(self, *_: object) -> Tensor:
        return column(next(self._rows)) if next(self._used) else torch.zeros_like(START)


def abar() -> Tensor:
    """alpha^2 of the schedule vp-linear."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0)


def indices(t: Tensor) -> list[float]:
    """Times of vp-linear from the t = (i + 1) / 1000 of DPM-Solver and UniPC.

    Their ways from t to lambda and back do not quite cancel, hence the clamp.
    """
    return (1000 * t - 1).clamp(0, 999).tolist()


SPACINGS: dict[str, tuple[str, dict[str, float]] | None] = {
    "logSNR": ("logsnr", {}),
    "time_uniform": ("time-power", {"power": 1.0}),
    "time_quadratic": None,  # ours is quadratic in the index, theirs in the index + 1
}
"""The spacings of DPM-Solver and UniPC."""
