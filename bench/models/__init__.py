"""Models: from a name or a short description in a sweep to a denoiser.

model: cifar10-mixture
model: cifar10-unet
model: {kind: mixture, name: ./mine.safetensors, schedule: vp-cosine}
model: {kind: consistency, of: cifar10-mixture, schedule: edm}
model: {kind: diffusers, path: google/ddpm-cifar10-32, dtype: float32, time: real}
model: {kind: edm, path: ./edm-cifar10-32x32-uncond-vp.pkl, trust: true}
model: {kind: torch, path: mypackage.nets:make, target: eps, schedule: vp-linear, time: real,
        shape: [3, 32, 32]}
"""

from collections.abc import Mapping
from typing import Any

import torch

from bench.errors import ModelError, nearest
from bench.models import consistency, diffusers, edm, exact, function
from bench.models.base import Model, ModelFiles, ModelSpec

__all__ = [
    "KEYS",
    "KINDS",
    "NAMES",
    "Model",
    "ModelFiles",
    "ModelSpec",
    "describe",
    "files",
    "load",
]

KINDS = {
    "mixture": exact.describe,
    "consistency": consistency.describe,
    "diffusers": diffusers.describe,
    "edm": edm.describe,
    "torch": function.describe,
}
_FILES = {
    "mixture": exact.files,
    "consistency": consistency.files,
    "diffusers": diffusers.files,
    "edm": edm.files,
    "torch": function.files,
}
KEYS = {
    "mixture": exact.KEYS,
    "consistency": consistency.KEYS,
    "diffusers": diffusers.KEYS,
    "edm": edm.KEYS,
    "torch": function.KEYS,
}
NAMES = {name: {"kind": "mixture", "name": name} for name in exact.SHIPPED} | {
    name: {"kind": "diffusers", "path": name} for name in diffusers.SHIPPED
}


def describe(model: str | Mapping[str, Any]) -> ModelSpec:
    """The validated model of a sweep, without its weights.

    Args:
        model: one of `NAMES`, or a mapping whose `kind` is one of `KINDS`.

    Raises:
        ModelError: an unknown name, kind or key, or configuration files that cannot be used.
    """
    kind, description = _kind(model)
    return KINDS[kind](description)


def files(model: str | Mapping[str, Any]) -> ModelFiles:
    """The files that a model needs, whether they are there or not; asks no network.

    Args:
        model: as `describe` takes it. What says nothing of files is not looked at.

    Raises:
        ModelError: an unknown name or kind, or a path that is no text.
    """
    kind, description = _kind(model)
    return _FILES[kind](description)


def load(spec: ModelSpec, device: torch.device | str, *, compiled: bool = False) -> Model:
    """The model of `spec` with its weights on `device`; `compiled`, its network if it has one."""
    model = spec.load(device)
    if compiled and model.network is not None:
        # One graph for each batch size: a cell has two at most, and dynamic ones are slower.
        model.network.compile(dynamic=False)
    return model


def _kind(model: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind of a model, and its description."""
    if isinstance(model, str):
        if model not in NAMES:
            raise ModelError(
                f'There is no model "{model}".{nearest(model, NAMES)} Known are: '
                f"{', '.join(NAMES)}; a network is {{kind: diffusers, path: FOLDER or HUB/NAME}}."
            )
        model = NAMES[model]
    kind = model.get("kind")
    if kind is None:
        raise ModelError(f"model has no key kind; expected {' or '.join(KINDS)}.")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(kind, KINDS) if isinstance(kind, str) else ""
        raise ModelError(f'model.kind is "{kind}"; expected {" or ".join(KINDS)}.{hint}')
    return kind, model
