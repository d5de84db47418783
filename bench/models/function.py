"""Models of kind `torch`: a network that a function of yours makes.

    model:
      kind: torch
      path: mypackage.nets:make      # called without arguments, gives the network
      target: eps                    # what it predicts: eps, x0, v, score, velocity or D
      schedule: vp-linear            # or {name: vp-linear, beta-max: 0.01, T: 400}
      time: real                     # what it is told of the noise level
      shape: [3, 32, 32]
      dtype: float32

The network is a module or any other callable, (x, time) -> prediction: x is (B, C, H, W), with
pixels in [-1, 1] where there is no noise, `time` is (B,), and the prediction is like x. Networks
that give more than that, or take labels, are wrapped by the function.
"""

import hashlib
import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from bench.diffusion.denoiser import Parametrisation, each, each_rounded, from_network
from bench.diffusion.schedule import SCHEDULES, NoiseSchedule, Point, make_schedule
from bench.errors import ModelError, ScheduleError, nearest
from bench.models.base import (
    DTYPES,
    Model,
    ModelFiles,
    ModelSpec,
    noise_level,
    one_of,
    only_keys,
    probed,
)

TARGETS: tuple[Parametrisation, ...] = get_args(Parametrisation)
TIMES = {
    "real": "the schedule's own t: an index, on edm sigma, on flow from 0 to 1",
    "rounded": "the nearest trained index, int64",
    "unit": "(t + 1) / T of an index t",
    "sigma": "the level sigma / alpha",
    "lambda": "log(alpha / sigma)",
}
"""What a network may be told of the noise level, with its meaning; float32 but for `rounded`."""

KEYS = {
    "path": "module:function; called without arguments, it gives the network",
    "target": f"what the network predicts: {' or '.join(TARGETS)}",
    "schedule": "any schedule, by its name or with settings, as in {name: vp-linear, T: 400}",
    "time": "what the network is told of the noise level: "
    + "; ".join(f"{name} ({meaning})" for name, meaning in TIMES.items()),
    "shape": "[3, height, width] of an image",
    "dtype": f"{' or '.join(DTYPES)}; default float32",
}
"""The keys of a model of this kind, with what is expected of each."""


@dataclass(frozen=True)
class FunctionSpec(ModelSpec):
    """A network by the function that makes it, with what the sweep says of it.

    Attributes:
        path, time, dtype: as in the sweep.
        target: what the network predicts.
        noise: its noise schedule.
        shape: (C, H, W) of an image.
    """

    path: str
    target: Parametrisation
    noise: NoiseSchedule
    time: str
    shape: tuple[int, int, int]
    dtype: str
    exact: ClassVar[bool] = False
    exact_score: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The name for reports; the dtype is told where it is not float32."""
        return self.path if self.dtype == "float32" else f"{self.path} ({self.dtype})"

    def canonical(self) -> dict[str, Any]:
        """See `ModelSpec`."""
        name = self.noise.name
        return {
            "kind": "torch",
            "path": self.path,
            "target": self.target,
            "schedule": name if self.noise == make_schedule(name) else self.noise.describe(),
            "time": self.time,
            "shape": list(self.shape),
            "dtype": self.dtype,
        }

    def schedule(self) -> NoiseSchedule:
        """See `ModelSpec`."""
        return self.noise

    def load(self, device: torch.device | str) -> Model:
        """See `ModelSpec`.

        Raises:
            ModelError: the function fails, or what it gives cannot be called as the sweep says.
        """
        network = self._made()
        digest, of = _digest(network, self.path)
        dtype = DTYPES[self.dtype]
        if isinstance(network, nn.Module):
            network = network.eval().requires_grad_(False).to(torch.device(device), dtype)
        time = _clock(self.time, self.noise)

        @torch.no_grad()
        def predict(x: Tensor, point: Point) -> Tensor:
            output: Tensor = network(x.to(dtype), time(point, x))
            return output.to(x.dtype)

        probed(
            predict,
            self.noise,
            self.shape,
            device,
            self.path,
            "Correct model.shape, or the function.",
        )
        return Model(
            pair=from_network(predict, self.target),
            shape=self.shape,
            schedule=self.noise,
            digest=digest,
            dtype=self.dtype,
            notes={
                "target": self.target,
                "time": "rounded to trained indices" if self.time == "rounded" else self.time,
                "digest": of,
            },
            network=network if isinstance(network, nn.Module) else None,
        )

    def _made(self) -> Callable[..., Tensor]:
        """What the function gives."""
        try:
            network = _function(self.path)()
        except ModelError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise ModelError(
                f"{self.path}() failed: {type(error).__name__}: {error} "
                f"({Path(where.filename).name}:{where.lineno}). It is called without arguments, "
                "and has to give the network."
            ) from error
        if not callable(network):
            raise ModelError(
                f"{self.path}() gives a {type(network).__name__}; expected a torch module, or "
                "another callable (x, time) -> prediction."
            )
        return cast(Callable[..., Tensor], network)


def describe(description: Mapping[str, Any]) -> FunctionSpec:
    """The spec of `{kind: torch, path: MODULE:FUNCTION, target, schedule, time, shape, dtype}`.

    Imports the module, and does not call the function.

    Raises:
        ModelError: an unknown or missing key, a value that is none, or no such function.
    """
    only_keys(description, KEYS)
    path = _path(description)
    target = one_of("target", description.get("target"), TARGETS)
    noise = _schedule(description.get("schedule"))
    time = one_of("time", description.get("time"), tuple(TIMES))
    if time in ("rounded", "unit") and noise.num_train is None:
        raise ModelError(
            f"model.time is {time}, and {noise.name} has no trained indices. Write time: real for "
            f"its own t, from {noise.t_min:g} to {noise.t_max:g}."
        )
    shape = _shape(description.get("shape"))
    dtype = one_of("dtype", description.get("dtype", "float32"), tuple(DTYPES))
    _function(path)
    return FunctionSpec(path, cast(Parametrisation, target), noise, time, shape, dtype)


def files(description: Mapping[str, Any]) -> ModelFiles:
    """The source file of the module; which weights the function opens is not known.

    Raises:
        ModelError: the path is no text of the form module:function.
    """
    path = _path(description)
    module = path.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        return ModelFiles(path, Path(module), None, (module,), _INSTALL)
    return ModelFiles(path, Path(found.origin), Path(found.origin))


_INSTALL = "It must be installed, or on PYTHONPATH, here and where the cells run."


def _path(description: Mapping[str, Any]) -> str:
    path = description.get("path")
    if not isinstance(path, str) or not all(path.partition(":")):
        raise ModelError(
            f"model.path is {path!r}; expected module:function, such as mypackage.nets:make."
        )
    return path


def _function(path: str) -> Callable[[], object]:
    """The function that `path` names.

    Raises:
        ModelError: there is no such module or function.
    """
    module, _, attribute = path.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ModelError(
            f'model.path is "{path}", and {module} cannot be imported ({type(error).__name__}: '
            f"{error}). {_INSTALL}"
        ) from error
    made = getattr(found, attribute, None)
    if not callable(made):
        functions = [name for name, value in vars(found).items() if inspect.isfunction(value)]
        raise ModelError(
            f'model.path is "{path}", and {found.__file__} has no function "{attribute}".'
            f"{nearest(attribute, functions)}"
        )
    return cast(Callable[[], object], made)


def _schedule(given: object) -> NoiseSchedule:
    """A schedule by its name, or by a mapping of its name and settings."""
    settings = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = one_of("schedule", settings.pop("name", None), tuple(SCHEDULES))
    try:
        return make_schedule(name, settings)
    except ScheduleError as error:
        raise ModelError(f"model.schedule: {error}") from error


def _shape(given: object) -> tuple[int, int, int]:
    """(3, H, W) of an image; extractors take RGB."""
    match given:
        case [3, int(height), int(width)] if height > 0 and width > 0:
            return 3, height, width
    raise ModelError(
        f"model.shape is {given}; expected channels (3, RGB), height and width, such as "
        "[3, 32, 32]."
    )


def _clock(time: str, schedule: NoiseSchedule) -> Callable[[Point, Tensor], Tensor]:
    """(point, x) -> what the network is told, (B,); see `TIMES`."""
    match time:
        case "rounded":
            return lambda point, x: each_rounded(point.t, x)
        case "unit":
            trained = schedule.num_train
            assert trained is not None  # describe has refused the others
            return lambda point, x: (each(point.t, x) + 1) / trained
        case "sigma":
            return noise_level
        case "lambda":
            return lambda point, x: each(point.lam, x)
    return lambda point, x: each(point.t, x)


def _digest(network: object, path: str) -> tuple[str, str]:
    """sha256 (hex) of what the output depends on, as far as can be found, and of what it is.

    The weights of a module; of what has none its own `digest`, if there is one; else the source.
    """
    tensors = network.state_dict() if isinstance(network, nn.Module) else {}
    if tensors:
        digest = hashlib.sha256()
        for name, value in sorted(tensors.items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                # By way of bytes, because numpy has no bfloat16.
                flat = value.cpu().contiguous().reshape(-1)
                digest.update(flat.view(torch.uint8).numpy().tobytes())
        return digest.hexdigest(), "of the module's weights (state_dict)"
    own = getattr(network, "digest", None)
    if isinstance(own, str) and own:
        return own, "as the network gives it"
    module = importlib.import_module(path.partition(":")[0])
    source = Path(str(module.__file__)).read_bytes()
    return hashlib.sha256(source).hexdigest(), f"of the source of {module.__name__}"
