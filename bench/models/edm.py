"""Models of kind `edm`: the networks of NVIDIA's EDM from their pickles.

A network gives D(y; s), the clean image that it sees in y = x0 + s eps (Karras et al. 2022,
arXiv:2206.00364, eq. 2), for any s in its range: sigma itself on the schedule `edm`, x / alpha and
sigma / alpha on any other. The pickle holds the averaged weights ("ema") and none else.

The file is code: see `bench.models.edm_pickle`. What a sweep is checked with is read without
running it; that it may be run at all is what `trust: true` says.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from bench.diffusion.denoiser import from_network
from bench.diffusion.schedule import SCHEDULES, NoiseSchedule, Point, make_schedule
from bench.errors import ModelError
from bench.models import edm_pickle
from bench.models.base import (
    Model,
    ModelFiles,
    ModelSpec,
    noise_level,
    one_of,
    only_keys,
    probed,
)
from bench.models.edm_pickle import Facts

DTYPES = ("float32", "float16")
KEYS = {
    "path": "a .pkl file of this machine",
    "trust": "true: the file may run its code",
    "schedule": "one within the network's range; default edm, which is that range",
    "dtype": "float32, or float16 on a GPU for networks saved with use_fp16; default float32",
}
"""The keys of a model of this kind, with what is expected of each."""

# Table 1 of arXiv:2206.00364; a network may know less, or say that it knows all.
_SIGMA_MIN, _SIGMA_MAX = 0.002, 80.0


@dataclass(frozen=True)
class EdmSpec(ModelSpec):
    """An EDM network by its file, with what the file says of it.

    Attributes:
        path, dtype: as in the sweep; its trust is given.
        schedule_name: as in the sweep.
        noise: that schedule, on the network's range.
        facts: what the file says of the network.
    """

    path: str
    schedule_name: str
    dtype: str
    noise: NoiseSchedule
    facts: Facts
    exact: ClassVar[bool] = False
    exact_score: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The name for reports; schedule and dtype are told where they are not the usual ones."""
        usual = {"edm", "float32"}
        said = [word for word in (self.schedule_name, self.dtype) if word not in usual]
        name = Path(self.path).stem
        return f"{name} ({', '.join(said)})" if said else name

    def canonical(self) -> dict[str, Any]:
        """See `ModelSpec`."""
        return {
            "kind": "edm",
            "path": self.path,
            "trust": True,
            "schedule": self.schedule_name,
            "dtype": self.dtype,
        }

    def schedule(self) -> NoiseSchedule:
        """See `ModelSpec`."""
        return self.noise

    def load(self, device: torch.device | str) -> Model:
        """See `ModelSpec`; runs the code in the file.

        Raises:
            ModelError: the file cannot be loaded, its network cannot be called, or float16 is asked
                for where there is no GPU.
        """
        half = self.dtype == "float16"
        if half and torch.device(device).type != "cuda":
            raise ModelError(
                f"{self.path}: dtype is float16, and these networks compute in it on a GPU only; "
                f"the device is {device}. Write dtype: float32."
            )
        network = edm_pickle.load(Path(self.path)).to(torch.device(device))
        shape = (self.facts.channels, self.facts.resolution, self.facts.resolution)

        @torch.no_grad()
        def predict(y: Tensor, point: Point) -> Tensor:
            output: Tensor = network(y, noise_level(point, y), force_fp32=not half)
            return output.to(y.dtype)

        probed(predict, self.noise, shape, device, self.path, "It is not one of EDM's networks.")
        rounds = _rounds(network)
        with Path(self.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Model(
            pair=from_network(predict, "D"),
            shape=shape,
            schedule=self.noise,
            digest=digest,
            dtype=self.dtype,
            notes={
                "target": "D",
                "network": self.facts.network,
                "weights": "ema",
                "time": "rounded to trained noise levels by the network" if rounds else "real",
                "digest": "of the file",
            },
            network=network,
        )


def describe(description: Mapping[str, Any]) -> EdmSpec:
    """The spec of `{kind: edm, path: FILE.pkl, trust: true, schedule: edm, dtype: float32}`.

    Reads the file, and runs no code of it.

    Raises:
        ModelError: an unknown key or value; no trust; a file that is missing, torn or something
            else; a network with classes, of other channels, or that does not know the schedule.
    """
    only_keys(description, KEYS)
    path = _path(description)
    if not Path(path).is_file():
        raise ModelError(f'There is no file "{path}". {_COPY}.')
    trust = description.get("trust", False)
    if trust is not True:
        raise ModelError(
            f"model.trust is {trust!r}, and {path} is a pickle: to load it runs Python code out of "
            "the file, which can do whatever you can. If you know who made it and that it has not "
            "been changed since, write trust: true."
        )
    schedule = one_of("schedule", description.get("schedule", "edm"), tuple(SCHEDULES))
    dtype = one_of("dtype", description.get("dtype", "float32"), DTYPES)
    facts = edm_pickle.facts(Path(path))
    _check(facts, path, dtype)
    return EdmSpec(path, schedule, dtype, _schedule(schedule, facts, path), facts)


def files(description: Mapping[str, Any]) -> ModelFiles:
    """The file.

    Raises:
        ModelError: the path is no text.
    """
    path = _path(description)
    place = Path(path)
    if place.is_file():
        return ModelFiles(place.stem, place, place)
    return ModelFiles(place.stem, place, None, (place.name,), f"{_COPY}.")


_COPY = (
    "Copy it there by hand: pickles are not fetched. NVIDIA's are at "
    "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/"
)


def _path(description: Mapping[str, Any]) -> str:
    path = description.get("path")
    if not isinstance(path, str):
        raise ModelError(f"model.path is {path!r}; expected the path of a .pkl file of EDM's.")
    return path


def _check(facts: Facts, path: str, dtype: str) -> None:
    """Refuse a network that cannot be run here."""
    if facts.labels:
        raise ModelError(
            f"{path} is class-conditional ({facts.labels} classes); only unconditional networks "
            "can be run. Take an unconditional one, or give it labels in a function of your own, "
            "kind: torch."
        )
    if facts.channels != 3:
        raise ModelError(
            f"{path}: the network takes {facts.channels} channels; expected 3 (RGB). Latents and "
            "grey images cannot be scored."
        )
    if dtype == "float16" and not facts.use_fp16:
        raise ModelError(
            f"model.dtype is float16, and {path} was saved without (use_fp16 is false). Write "
            "dtype: float32."
        )


def _schedule(name: str, facts: Facts, path: str) -> NoiseSchedule:
    """The schedule on the network's range; EDM's own range where the network knows all of it.

    Raises:
        ModelError: the schedule has noise levels that the network does not know.
    """
    if name == "edm":
        low = facts.sigma_min if facts.sigma_min > 0 else _SIGMA_MIN
        high = facts.sigma_max if math.isfinite(facts.sigma_max) else _SIGMA_MAX
        return make_schedule(name, {"sigma-min": low, "sigma-max": high})
    schedule = make_schedule(name)
    low, high = schedule.at(t=schedule.t_min).s, schedule.at(t=schedule.t_max).s
    if low < facts.sigma_min or high > facts.sigma_max or not math.isfinite(high):
        raise ModelError(
            f"model.schedule is {name}, whose noise levels sigma / alpha run from {low:.3g} to "
            f"{high:.3g}, and the {facts.network} in {path} knows {facts.sigma_min:.3g} to "
            f"{facts.sigma_max:.3g}. Leave schedule out: edm keeps to the network's range."
        )
    return schedule


def _rounds(network: nn.Module) -> bool:
    """Whether the network takes noise levels for the nearest of those that it was trained on."""
    round_sigma = getattr(network, "round_sigma", None)
    if round_sigma is None:
        return False
    levels = torch.tensor([0.0123, 0.345, 6.78], device=_device(network))
    return not torch.allclose(cast(Tensor, round_sigma(levels)), levels)


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
