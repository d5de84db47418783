"""What every kind of model gives: a cheap description, and the loaded thing."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, Pair, each
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import NoiseSchedule, Point
from bench.errors import ModelError, nearest
from bench.numerics import is_out_of_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Arithmetic that a network may be asked to compute in, where it has no say of its own."""


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model, ready to be called.

    Attributes:
        pair: (x, point) -> (x0, eps); `denoiser()` counts its calls.
        shape: (C, H, W) of an image, pixel values in [-1, 1].
        schedule: the noise levels it knows.
        digest: sha256 (hex) of what determines its output: weights and settings.
        dtype: arithmetic of the model, like "float32"; samples stay in float32.
        notes: what a reader of the record should know (target of the network, use of time).
        exact_draw: exact draws of the model's own distribution, where it has them.
        network: what `pair` calls, where that can be compiled.
    """

    pair: Callable[[Tensor, Point], Pair]
    shape: tuple[int, int, int]
    schedule: NoiseSchedule
    digest: str
    dtype: str = "float32"
    notes: Mapping[str, str] = field(default_factory=dict)
    exact_draw: Callable[[Noise], Tensor] | None = None
    network: torch.nn.Module | None = None

    def denoiser(self) -> Denoiser:
        """A denoiser whose counter stands at 0."""
        return Denoiser(self.pair)

    def draw(self, noise: Noise) -> Tensor | None:
        """Exact draws (B, C, H, W), one per sample of `noise`; None for a network."""
        return None if self.exact_draw is None else self.exact_draw(noise)


class ModelSpec(ABC):
    """A validated model of a sweep: everything that a grid and a key need, without weights."""

    exact: ClassVar[bool]
    """Whether the model has exact draws."""

    exact_score: ClassVar[bool]
    """Whether x0 is the exact posterior mean at every noise level, also between the schedule's."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The name for tables and messages; settings that are not usual are told with it."""

    @abstractmethod
    def canonical(self) -> dict[str, Any]:
        """The description with all defaults filled in; `describe` takes it back."""

    @abstractmethod
    def schedule(self) -> NoiseSchedule:
        """The model's noise schedule."""

    @abstractmethod
    def load(self, device: torch.device | str) -> Model:
        """The model with its weights on `device`."""


@dataclass(frozen=True)
class ModelFiles:
    """What a model needs on the disk, found without opening it and without a network.

    Attributes:
        label: how a sweep calls the model.
        place: the file or folder where they are, or would be.
        weights: the file of the weights, if it is there.
        missing: the names of those that are not there, in words.
        remedy: how to bring them there by hand.
        download: brings them there or raises a ModelError; None where they are no one's to give.
    """

    label: str
    place: Path
    weights: Path | None
    missing: tuple[str, ...] = ()
    remedy: str = ""
    download: Callable[[], object] | None = None


def only_keys(description: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Refuse keys other than `kind` and `keys`.

    Raises:
        ModelError: naming the first such key, the nearest and all known ones.
    """
    known = ("kind", *keys)
    for key in description:
        if key not in known:
            raise ModelError(
                f'model of kind {description["kind"]}: there is no key "{key}".'
                f"{nearest(key, known)} Known are: {', '.join(known)}."
            )


def one_of(key: str, value: object, known: tuple[str, ...]) -> str:
    """`value`, where it is one of `known`.

    Raises:
        ModelError: naming key, value and what is possible.
    """
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else ""
        raise ModelError(f'model.{key} is "{value}"; expected {" or ".join(known)}.{hint}')
    return value


def noise_level(point: Point, x: Tensor) -> Tensor:
    """The level sigma / alpha for each image of `x`, float32 (B,); inf at alpha = 0."""
    # Not point.s, which asks whether alpha is above 0 and so takes a number alone.
    return (each(point.sigma, x, torch.float64) / each(point.alpha, x, torch.float64)).float()


def probed(
    predict: Callable[[Tensor, Point], Tensor],
    schedule: NoiseSchedule,
    shape: tuple[int, int, int],
    device: torch.device | str,
    name: str,
    remedy: str,
) -> None:
    """Call a network of unknown origin with one image, before a job waits for its first batch.

    Args:
        predict: (x, point) -> prediction.
        schedule: whose middle the image is at.
        shape: (C, H, W).
        device: where the network is.
        name: of the model, for messages.
        remedy: what to do, for messages.

    Raises:
        ModelError: it fails, or does not give a prediction of the image's shape.
    """
    x = torch.zeros(1, *shape, device=device)
    point = schedule.at(t=(schedule.t_min + schedule.t_max) / 2)
    try:
        output = predict(x, point)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{name}: the network fails for an image of shape {tuple(x.shape)} "
            f"({type(error).__name__}: {error}). {remedy}"
        ) from error
    if output.shape != x.shape:
        raise ModelError(
            f"{name}: the network gives {tuple(output.shape)} for an image of shape "
            f"{tuple(x.shape)}; expected the same. {remedy}"
        )
