"""Models of kind `diffusers`: unconditional UNet2DModel networks from a folder or the hub.

Weights, noise schedule and parametrisation come from the folder's own files, in either of the two
layouts in the wild:

    unet/config.json, unet/diffusion_pytorch_model.safetensors, scheduler/scheduler_config.json
    config.json, diffusion_pytorch_model.safetensors, scheduler_config.json

What belongs to a sampler and not to the network is not taken: `clip_sample`, `variance_type`,
`timestep_spacing` and the like are parameters of a sweep here.

Time: the network was trained at indices 0..T-1, but a sinusoidal embedding takes any number.
`time: real` (the default) passes the grid's own t, so that the network is told the noise level it
really sees; `time: rounded` passes the nearest trained index, as diffusers' samplers do. Embeddings
learned per index know no other way, and refuse `real`.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bench.diffusion.denoiser import Parametrisation, each, each_rounded, from_network
from bench.diffusion.schedule import (
    SCHEDULES,
    DiscreteVP,
    NoiseSchedule,
    Point,
    make_schedule,
    vp_from_betas,
)
from bench.errors import ModelError, ScheduleError, nearest
from bench.models.base import DTYPES, Model, ModelFiles, ModelSpec, one_of, only_keys

TARGETS: dict[str, Parametrisation] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2", "trained_betas")

KEYS = {
    "path": "a folder of this machine, or a hub name like google/ddpm-cifar10-32",
    "dtype": f"{' or '.join(DTYPES)}; default float32",
    "time": "real (the grid's own t) or rounded (to the nearest trained index); default real, "
    "rounded where the network learned an embedding per index",
    "schedule": "no choice: where it is given, it is held against that of the folder",
}
"""The keys of a model of this kind, with what is expected of each."""

# In the order of preference, which is diffusers' own.
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# Beside weights that `bench train unet` made: how, and their digest.
CERTIFICATE = "certificate.json"
SHIPPED = {"cifar10-unet": Path(__file__).parents[1] / "assets" / "cifar10-unet"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COPY = (
    "Copy the checkpoint's folder (config.json, scheduler_config.json and "
    "diffusion_pytorch_model.safetensors, at the top or in unet/ and scheduler/) to this machine "
    "and write path: ./FOLDER"
)


@dataclass(frozen=True)
class DiffusersSpec(ModelSpec):
    """A UNet2DModel by folder or hub name, its configuration read and checked.

    Attributes:
        path, dtype, time: as in the sweep.
        parametrisation: what the network predicts.
        noise: its noise schedule.
        shape: (C, H, W) of an image.
        learned_variance: the network gives a second set of channels, which is not used.
        config: where the network's config.json lies.
        settings: both configuration files, as one canonical text.
    """

    path: str
    dtype: str
    time: str
    parametrisation: Parametrisation
    noise: NoiseSchedule
    shape: tuple[int, int, int]
    learned_variance: bool
    config: Path
    settings: str
    exact: ClassVar[bool] = False
    exact_score: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The name for reports; the dtype is told where it is not float32."""
        name = self.path if _HUB_NAME.fullmatch(self.path) else Path(self.path).resolve().name
        return name if self.dtype == "float32" else f"{name} ({self.dtype})"

    def canonical(self) -> dict[str, Any]:
        """See `ModelSpec`."""
        return {"kind": "diffusers", "path": self.path, "dtype": self.dtype, "time": self.time}

    def schedule(self) -> NoiseSchedule:
        """See `ModelSpec`."""
        return self.noise

    def load(self, device: torch.device | str) -> Model:
        """See `ModelSpec`.

        Raises:
            ModelError: weights that are missing, torn or of another network.
        """
        weights = _weights(self.path, self.config)
        dtype, channels, rounded = DTYPES[self.dtype], self.shape[0], self.time == "rounded"
        # Channels last is the layout of the fast convolutions on CPUs and GPUs alike.
        network = _network(self.config, dtype).to(torch.device(device))
        network = network.to(memory_format=torch.channels_last)

        @torch.no_grad()
        def predict(x: Tensor, point: Point) -> Tensor:
            time = each_rounded(point.t, x) if rounded else each(point.t, x)
            stacked = x.to(dtype, memory_format=torch.channels_last)
            output: Tensor = network(stacked, time, return_dict=False)[0]
            return output[:, :channels].to(x.dtype, memory_format=torch.contiguous_format)

        notes = {
            "target": self.parametrisation,
            "time": "rounded to trained indices" if rounded else "real",
        }
        if self.learned_variance:
            notes["variance"] = "learned by the network, not used"
        return Model(
            pair=from_network(predict, self.parametrisation),
            shape=self.shape,
            schedule=self.noise,
            digest=self._digest(weights),
            dtype=self.dtype,
            notes=notes,
            network=network,
        )

    def _digest(self, weights: Path) -> str:
        """Of the weights, and of the configuration that gives them their meaning."""
        digest = hashlib.sha256(self.settings.encode())
        with weights.open("rb") as file:
            own = hashlib.file_digest(file, "sha256")
        _certified(weights, own.hexdigest())
        digest.update(own.digest())
        return digest.hexdigest()


def describe(description: Mapping[str, Any]) -> DiffusersSpec:
    """The spec of `{kind: diffusers, path: FOLDER | HUB/NAME, dtype: float32, time: real}`.

    Reads the two configuration files alone; those of a hub name are fetched once and cached. A
    `schedule` is no choice, but is held against the one that they state.

    Raises:
        ModelError: an unknown key or value; files that are missing, or that describe something
            else than an unconditional RGB UNet2DModel on a discrete VP schedule.
    """
    only_keys(description, KEYS)
    path = _path(description)
    dtype = one_of("dtype", description.get("dtype", "float32"), tuple(DTYPES))
    config, network = _read(path, "unet", "config.json")
    _, scheduler = _read(path, "scheduler", "scheduler_config.json")
    _check_network(network, path)
    target = scheduler.get("prediction_type", "epsilon")
    if target not in TARGETS:
        raise ModelError(
            f'{path}: scheduler_config.json has prediction_type "{target}"; expected '
            f"{' or '.join(TARGETS)}.{nearest(str(target), TARGETS)}"
        )
    learned = network.get("time_embedding_type") == "learned"
    time = one_of(
        "time", description.get("time", "rounded" if learned else "real"), ("real", "rounded")
    )
    if learned and time == "real":
        raise ModelError(
            f"model.time is real, but the network in {path} learned an embedding per index. "
            f"Leave time out, or write time: rounded."
        )
    noise = _schedule(scheduler, path)
    if "schedule" in description:
        _check_claim(one_of("schedule", description["schedule"], tuple(SCHEDULES)), noise, path)
    return DiffusersSpec(
        path=path,
        dtype=dtype,
        time=time,
        parametrisation=TARGETS[target],
        noise=noise,
        shape=_shape(network, path),
        learned_variance=network.get("out_channels", 3) == 6,
        config=config,
        settings=json.dumps({"network": network, "scheduler": scheduler}, sort_keys=True),
    )


def files(description: Mapping[str, Any]) -> ModelFiles:
    """The configuration and the weights of a folder or of the hub's cache.

    Raises:
        ModelError: the path is no text.
    """
    path = _path(description)
    config = _on_disk(path, _places("unet", "config.json"))
    scheduler = _on_disk(path, _places("scheduler", "scheduler_config.json"))
    weights = _on_disk(path, _places("unet", *WEIGHTS), _revision(path, config))
    found = {"config.json": config, "scheduler_config.json": scheduler, WEIGHTS[0]: weights}
    missing = tuple(name for name, file in found.items() if file is None)
    folder = _folder(path)
    if folder.is_dir() or not _HUB_NAME.fullmatch(path):
        return ModelFiles(path, folder, weights, missing, f"{_COPY}.")
    repository = repo_folder_name(repo_id=path, repo_type="model")
    place = Path(constants.HF_HUB_CACHE) / repository
    by_hand = (
        f"Copy the folder {place} from a machine that has it (HF_HOME names another place than "
        f"{constants.HF_HOME}). Or: {_COPY[0].lower()}{_COPY[1:]}."
    )
    return ModelFiles(path, place, weights, missing, by_hand, lambda: _download(path))


def _download(path: str) -> None:
    """All files of a hub name into its cache, weights and configuration of one revision."""
    config, _ = _read(path, "unet", "config.json")
    _read(path, "scheduler", "scheduler_config.json")
    _weights(path, config)


def _path(description: Mapping[str, Any]) -> str:
    path = description.get("path")
    if not isinstance(path, str):
        raise ModelError(
            f"model.path is {path!r}; expected a folder of this machine or a hub name such as "
            f"google/ddpm-cifar10-32."
        )
    return path


def _check_network(network: Mapping[str, Any], path: str) -> None:
    """Refuse what is not an unconditional UNet2DModel that knows time by an index."""
    kind = network.get("_class_name")
    if kind != "UNet2DModel":
        raise ModelError(
            f"{path}: config.json describes a {kind}; only unconditional UNet2DModel networks can "
            f"be run."
        )
    for key in ("num_class_embeds", "class_embed_type"):
        if network.get(key) is not None:
            raise ModelError(
                f"{path} is class-conditional (config.json has {key} {network[key]}); only "
                "unconditional networks can be run. Take an unconditional one, or give it labels "
                "in a function of your own, kind: torch."
            )
    if network.get("time_embedding_type") == "fourier":
        raise ModelError(
            f"{path} embeds the noise level, not an index (config.json has time_embedding_type "
            f"fourier); only networks of a discrete VP schedule can be run."
        )


def _shape(network: Mapping[str, Any], path: str) -> tuple[int, int, int]:
    """(3, H, W) of an image; extractors take RGB."""
    inputs, outputs = network.get("in_channels", 3), network.get("out_channels", 3)
    if inputs != 3 or outputs not in (3, 6):
        raise ModelError(
            f"{path}: the network takes {inputs} channels and gives {outputs}; expected 3 (RGB) "
            f"and 3, or 6 where it learned its variance."
        )
    size = network.get("sample_size")
    match size if isinstance(size, list) else [size, size]:
        case [int(height), int(width)] if height > 0 and width > 0:
            return 3, height, width
    raise ModelError(
        f"{path}: config.json has sample_size {size}; expected pixels, such as 32 or [32, 32]."
    )


def _check_claim(claim: str, noise: DiscreteVP, path: str) -> None:
    """Refuse a sweep that takes the network for one of another schedule.

    Raises:
        ModelError: with what is different.
    """
    other = make_schedule(claim)
    if not isinstance(other, DiscreteVP):
        difference = f"{claim} has no betas, and it was trained on {noise.num_train}"
    elif other.num_train != noise.num_train:
        difference = f"{claim} has {other.num_train} betas, and it was trained on {noise.num_train}"
    elif not np.allclose(other.betas, noise.betas, rtol=1e-6, atol=0):
        theirs, ours = (f"{s.betas[0]:.4g} to {s.betas[-1]:.4g}" for s in (noise, other))
        difference = f"the betas of {claim} run from {ours}, and it was trained on {theirs}"
    else:
        return
    raise ModelError(
        f"model.schedule is {claim}, and that of {path} is {noise.name} by its "
        f"scheduler_config.json: {difference}. Leave schedule out: it is read from there."
    )


def _schedule(config: Mapping[str, Any], path: str) -> DiscreteVP:
    """The schedule that diffusers' schedulers build of the same settings, in float64."""
    given, name = config.get("trained_betas"), config.get("beta_schedule")
    steps = config.get("num_train_timesteps", 1000)
    low, high = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    where = f"{path}: scheduler_config.json"
    if given is None and name is None:
        raise ModelError(
            f"{where} describes a {config.get('_class_name')} without a beta_schedule; only "
            f"networks of a discrete VP schedule can be run."
        )
    if config.get("rescale_betas_zero_snr"):
        raise ModelError(
            f"{where} has rescale_betas_zero_snr true; a network that starts at alpha = 0 cannot "
            f"be run."
        )
    if given is not None:
        name, betas = "trained_betas", np.asarray(given, dtype=np.float64)
    elif name == "linear":
        betas = np.linspace(low, high, steps)
    elif name == "scaled_linear":
        betas = np.linspace(math.sqrt(low), math.sqrt(high), steps) ** 2
    elif name == "squaredcos_cap_v2":
        level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - level[1:] / level[:-1], 0.999)
    else:
        raise ModelError(
            f'{where} has beta_schedule "{name}"; expected {", ".join(BETAS)}.'
            f"{nearest(str(name), BETAS)}"
        )
    try:
        return vp_from_betas(betas.tolist(), f"vp-{name}".replace("_", "-"))
    except ScheduleError as error:
        raise ModelError(f"{where}: {error}") from error


def _places(part: str, *names: str) -> list[str]:
    """Where the first of `names` may be, in the order of preference."""
    return [place for name in names for place in (f"{part}/{name}", name)]


def _folder(path: str) -> Path:
    """The folder that `path` may name, whether there is one or not."""
    return SHIPPED.get(path, Path(path))


def _on_disk(path: str, places: list[str], revision: str | None = None) -> Path | None:
    """The first of `places` that a folder, or else the hub's cache, has; asks no network."""
    folder = _folder(path)
    if folder.is_dir():
        return next((folder / place for place in places if (folder / place).is_file()), None)
    if _HUB_NAME.fullmatch(path):
        for place in places:
            cached = try_to_load_from_cache(path, place, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
    return None


def _revision(path: str, config: Path | None) -> str | None:
    """The commit that `config` is of; in the hub's cache the folder of a snapshot is named so."""
    if config is None or _folder(path).is_dir():
        return None
    return next(up.name for up in config.parents if up.parent.name == "snapshots")


def _find(path: str, part: str, names: tuple[str, ...], revision: str | None = None) -> Path | None:
    """The first of `names`, in the sub-folder `part` or at the top; None where there is none.

    Raises:
        ModelError: `path` is no folder and the hub's files of that name cannot be had.
    """
    is_folder = _folder(path).is_dir()
    if not is_folder and not _HUB_NAME.fullmatch(path):
        raise ModelError(f'There is no folder "{path}". {_COPY}, or name a hub repository.')
    # The cache first: a sweep then sees one revision from its first cell to its last.
    found = _on_disk(path, _places(part, *names), revision)
    if found is not None or is_folder:
        return found
    for name in names:
        places = _places(part, name)
        try:
            # Of a whole snapshot, because a single file is tried six times over half a minute
            # where there is no network.
            snapshot = Path(snapshot_download(path, revision=revision, allow_patterns=places))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f'There is no folder "{path}", and the hub does not give one ({reason}). {_COPY}.'
            ) from error
        for place in places:
            if (snapshot / place).is_file():
                return snapshot / place
    return None


def _read(path: str, part: str, name: str) -> tuple[Path, dict[str, Any]]:
    """A configuration file, with where it lies."""
    file = _find(path, part, (name,))
    if file is None:
        raise ModelError(f"{path} has neither {part}/{name} nor {name}. {_COPY}.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} holds a {type(config).__name__}; expected a JSON object.")
    return file, config


def _weights(path: str, config: Path) -> Path:
    """The file of the weights that belongs to `config`, whole."""
    file = _find(path, "unet", WEIGHTS, _revision(path, config))
    if file is None:
        raise ModelError(
            f"{path} has a configuration but no weights. Copy {WEIGHTS[0]} to {config.parent}."
        )
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ModelError(
                f"{file} is not a whole safetensors file ({error}). Copy it again."
            ) from error
    return file


def _certified(weights: Path, digest: str) -> None:
    """Refuse weights that are not those of the certificate beside them, if there is one."""
    try:
        certificate = json.loads((weights.parent / CERTIFICATE).read_text(encoding="utf-8"))
        stated = certificate["weights_sha256"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{weights.parent / CERTIFICATE} says nothing of the weights ({error!r}). Reinstall "
            f"sampler-bench, or make the folder anew: bench train unet."
        ) from error
    if digest != stated:
        raise ModelError(
            f"{weights} has been changed since it was written: its sha256 is {digest[:16]}, "
            f"{CERTIFICATE} says {str(stated)[:16]}. Reinstall sampler-bench, or make the folder "
            f"anew: bench train unet."
        )


def _network(config: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The network in the folder of `config`, on the CPU, for inference."""
    # Seconds to import, and needed only here.
    from diffusers import UNet2DModel

    try:
        # By diffusers' own loader, because it knows the names that older checkpoints give to the
        # attention weights.
        network, info = UNet2DModel.from_pretrained(  # type: ignore[no-untyped-call]
            config.parent, torch_dtype=dtype, output_loading_info=True, low_cpu_mem_usage=False
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{config.parent} cannot be loaded: {error}") from error
    assert isinstance(network, torch.nn.Module)
    missing = info["missing_keys"]
    if missing:
        raise ModelError(
            f"The weights in {config.parent} lack {len(missing)} of the tensors that config.json "
            f"asks for, first {missing[0]}: they belong to another network."
        )
    return network.eval().requires_grad_(False)
