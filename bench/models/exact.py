"""Models of kind `mixture`: Gaussian mixtures, whose denoising and draws are exact."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.diffusion.denoiser import Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import SCHEDULES, NoiseSchedule, Point, make_schedule
from bench.errors import ModelError, nearest
from bench.models.base import Model, ModelFiles, ModelSpec, one_of, only_keys
from bench.models.mixture import Mixture

ASSETS = Path(__file__).parents[1] / "assets"
SHIPPED = ("cifar10-mixture",)
KEYS = {
    "name": "the name of a shipped mixture, or the path of a .safetensors file",
    "schedule": "any schedule; default vp-linear",
}
"""The keys of a model of this kind, with what is expected of each."""


@dataclass(frozen=True)
class MixtureSpec(ModelSpec):
    """A mixture by name (a shipped one) or by its safetensors file, seen through a schedule.

    Being exact at every noise level, a mixture serves on any schedule; vp-linear is that of the
    CIFAR-10 networks in the literature.
    """

    name: str
    schedule_name: str
    exact: ClassVar[bool] = True
    exact_score: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """Name for reports; the schedule is told where it is not the usual one."""
        name = Path(self.name).stem
        return name if self.schedule_name == "vp-linear" else f"{name} ({self.schedule_name})"

    def canonical(self) -> dict[str, Any]:
        """See `ModelSpec`."""
        return {"kind": "mixture", "name": self.name, "schedule": self.schedule_name}

    def schedule(self) -> NoiseSchedule:
        """See `ModelSpec`."""
        return make_schedule(self.schedule_name)

    def load(self, device: torch.device | str) -> Model:
        """See `ModelSpec`."""
        mixture = Mixture.load(_file(self.name), device=torch.device(device))

        def pair(x: Tensor, point: Point) -> Pair:
            return mixture.denoise(x, point.alpha, point.sigma)

        def draw(noise: Noise) -> Tensor:
            z = noise()
            # The uniform that chooses the component: one normal of the next draw, through its
            # own distribution function.
            normal = noise()[:, 0, 0, 0].double()
            return mixture.draw(z, 0.5 * torch.erfc(-normal / math.sqrt(2.0)))

        return Model(
            pair=pair,
            shape=mixture.shape,
            schedule=self.schedule(),
            digest=mixture.digest,
            notes={"target": "exact posterior mean", "time": "real"},
            exact_draw=draw,
        )


def describe(description: Mapping[str, Any]) -> MixtureSpec:
    """The spec of `{kind: mixture, name: NAME | FILE.safetensors, schedule: vp-linear}`.

    Raises:
        ModelError: an unknown key, name or schedule, or a file that does not exist.
    """
    only_keys(description, KEYS)
    return mixture_at(description, "name")


def files(description: Mapping[str, Any], key: str = "name") -> ModelFiles:
    """The file of the mixture that a description names under `key`.

    Raises:
        ModelError: the name is no text.
    """
    name = description.get(key)
    if not isinstance(name, str):
        raise _no_name(key, name)
    path = _file(name)
    if path.is_file():
        return ModelFiles(name, path, path)
    return ModelFiles(
        name,
        path,
        None,
        missing=(path.name,),
        remedy=f"Copy the file to {path}, or make one: bench train mixture --out {path}.",
    )


def mixture_at(description: Mapping[str, Any], key: str) -> MixtureSpec:
    """The mixture that a description names under `key`, seen through its schedule.

    Raises:
        ModelError: an unknown name or schedule, or a file that does not exist.
    """
    name = description.get(key)
    if not isinstance(name, str):
        raise _no_name(key, name)
    if name not in SHIPPED and not Path(name).is_file():
        raise ModelError(
            f'There is no mixture "{name}", neither shipped nor as a file.{nearest(name, SHIPPED)} '
            f"Shipped: {', '.join(SHIPPED)}; a file is made by: bench train mixture."
        )
    schedule = one_of("schedule", description.get("schedule", "vp-linear"), tuple(SCHEDULES))
    return MixtureSpec(name, schedule)


def _no_name(key: str, name: object) -> ModelError:
    return ModelError(
        f"model.{key} is {name!r}; a mixture needs the name of a shipped one "
        f"({', '.join(SHIPPED)}) or the path of a .safetensors file."
    )


def _file(name: str) -> Path:
    return ASSETS / f"{name}.safetensors" if name in SHIPPED else Path(name)
