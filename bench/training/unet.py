"""A small network with real errors to compare samplers on: `bench train unet`.

A DDPM (Ho et al. 2020, arXiv:2006.11239): a diffusers `UNet2DModel` of ten million parameters that
predicts eps on the linear VP schedule of 1000 steps, trained with the simple loss, eq. 14, on the
training images and their mirror images. It departs from the paper in what makes it learn sooner:

- times are spread over a batch, one in each of B equal parts of 0..999 (Kingma et al. 2021,
  arXiv:2107.00630, appendix I.1): the same expectation as independent ones, with less variance.
- weights of hidden layers are stepped by Muon (see `bench.training.muon`), the others by Adam.
  Their rates rise, stay, and fall linearly to zero over the last part of the steps (Hägele et al.
  2024, arXiv:2405.18392). What is kept is the mean of the weights (EMA).
- matrix products in bfloat16 under autocast, the weights in float32; channels last; on a GPU, a
  step is one CUDA graph.

The order of the images, mirrors, times and noise are functions of (seed, step). So a run goes on
from its last checkpoint as if it had not been stopped, and on one CPU ends with the same bytes.

`cifar10-unet` has seen 4.4 million images. On the H100 that it was trained on, with torch 2.11,
these took 400 seconds (11,000 images/s), after two minutes of compiling.
"""

import hashlib
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from bench import samplers
from bench.atomic import write_bytes
from bench.diffusion.denoiser import Denoiser, from_network
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, vp_linear
from bench.diffusion.spacing import make_grid
from bench.errors import TrainingError
from bench.metrics import registry as metrics
from bench.metrics.images import to_uint8
from bench.models.diffusers import CERTIFICATE
from bench.training.inputs import Labelled, read_checkpoint, write_checkpoint
from bench.training.muon import Muon

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]  # noisy images, times, the noise in them

_CHECKED = 100  # steps until the loss is next known to be finite; to know it waits for the device
_KEPT = 300.0  # seconds of training that a kill may cost at most, and a few steps
_AT_ONCE = 500  # images for the progress in a batch
_SAMPLER = ("dpm-solver++", "logsnr", 10)  # what images for the progress are made with


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, beside the data and the machine's arithmetic."""

    images: int = 10_000_000  # seen in training
    batch: int = 256
    seed: int = 0
    channels: tuple[int, ...] = (64, 128, 256)  # at 32, 16 and 8 pixels; attention at 16
    layers: int = 1  # residual blocks a resolution on the way down, one more on the way up
    rate: float = 8e-4  # of Adam
    muon_rate: float = 0.02
    warmup: int = 1000  # steps
    falling: float = 0.4  # the share of the steps in which the rate falls
    mean: float = 0.9995  # decay of the mean of the weights
    clip: float = 1.0  # the largest norm of a gradient
    dtype: str = "bfloat16"  # of matrix products

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.images // self.batch

    def share_at(self, step: int) -> float:
        """The part of the learning rates in use at a step, from 0 on."""
        left = (self.steps - step) / max(1.0, self.falling * self.steps)
        return min(1.0, (step + 1) / max(1, self.warmup), left)

    def network(self) -> nn.Module:
        """The network with its random start."""
        torch.manual_seed(self.seed)
        down = ["DownBlock2D"] * len(self.channels)
        up = ["UpBlock2D"] * len(self.channels)
        down[1], up[-2] = "AttnDownBlock2D", "AttnUpBlock2D"
        network = UNet2DModel(  # type: ignore[no-untyped-call]
            sample_size=32,
            block_out_channels=self.channels,
            layers_per_block=self.layers,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=64,
        )
        assert isinstance(network, nn.Module)
        return network.to(memory_format=torch.channels_last)


def train_unet(
    data: Path,
    out: Path,
    *,
    recipe: Recipe | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    compiled: bool = True,
    looks: int = 10,
    looked_at: int = 2000,
) -> dict[str, Any]:
    """Trains the network on `data` and writes the folder `out`, in the layout of diffusers.

    Progress goes to the logger `bench.training.unet` at level INFO.

    Args:
        data: npz of training images (see `Labelled.read`; labels are not used).
        out: the folder to write: weights in half precision, configurations, certificate and card.
        recipe: what to do.
        checkpoint: written at each look, read at the start if it is there, removed at the end.
        device: "cpu" or "cuda".
        compiled: whether the network is compiled first (a C++ compiler is needed for it).
        looks: how often loss and fd_cifar are looked at, at even distances.
        looked_at: images for each fd_cifar.

    Returns:
        The certificate, as it stands in the folder.

    Raises:
        TrainingError: unusable data, a checkpoint of another recipe or data set, or a loss that is
            not finite.
    """
    recipe = recipe or Recipe()
    train = Labelled.read(data)
    if len(train.images) < recipe.batch:
        raise TrainingError(
            f"{data}: {len(train.images)} images are less than one batch of {recipe.batch}."
        )
    if recipe.steps < looks:
        raise TrainingError(f"{recipe.images} images are less than {looks} batches.")
    run = _Run(train, recipe, device, compiled)
    identity = json.dumps([asdict(recipe), train.sha256])
    if checkpoint is not None and checkpoint.exists():
        run.load(read_checkpoint(checkpoint, identity))
        log.info("resuming from %s after step %d of %d", checkpoint, run.step, recipe.steps)
    score = _scorer(run.mean, recipe, device, looked_at)
    kept = perf_counter()
    looked = {recipe.steps * (i + 1) // looks for i in range(looks)}
    while run.step < recipe.steps:
        run.until(min(stop for stop in {*looked, run.step + _CHECKED} if stop > run.step))
        if run.step in looked:
            run.look(*score())
        if checkpoint is not None and (run.step in looked or perf_counter() - kept > _KEPT):
            write_checkpoint(checkpoint, identity, run.state())
            kept = perf_counter()
    certificate = _write(run, train, out, device)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return certificate


class _Run:
    """A training between two of its steps."""

    def __init__(self, train: Labelled, recipe: Recipe, device: str, compiled: bool) -> None:
        self.recipe, self._device = recipe, device
        self._images = train.images.to(device)
        self.net = recipe.network().to(device)
        self.mean = recipe.network().to(device)
        self.mean.eval().requires_grad_(False)
        # Tensors, because a recorded step reads them where they lie.
        self._rates = torch.zeros(2, device=device).unbind()
        self._weight, self._losses = torch.zeros(2, device=device).unbind()
        hidden, others = _hidden(self.net)
        self._optimisers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] = (
            Muon(hidden, self._rates[0], dtype=getattr(torch, recipe.dtype)),
            torch.optim.Adam(others, self._rates[1], fused=True, capturable=device == "cuda"),
        )
        self._played: Callable[[Batch], None] | None = None
        self.step, self.seconds, self._since = 0, 0.0, 0
        self.curve: list[dict[str, float]] = []
        schedule = vp_linear()
        points = [schedule.at(t=float(t)) for t in range(schedule.num_train)]
        self._alpha = torch.tensor([p.alpha for p in points], device=device)
        self._sigma = torch.tensor([p.sigma for p in points], device=device)
        self._order = _Order(len(train.images), recipe)
        if compiled:
            self.net.compile(dynamic=False)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "net": self.net.state_dict(),
            "mean": self.mean.state_dict(),
            "optimisers": [one.state_dict() for one in self._optimisers],
            "curve": self.curve,
            "seconds": self.seconds,
            "losses": self._losses,
            "since": self._since,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Goes back to where a checkpoint was written."""
        self.step, self.curve, self.seconds = state["step"], state["curve"], state["seconds"]
        self._losses.copy_(state["losses"])
        self._since = state["since"]
        self.net.load_state_dict(state["net"])
        self.mean.load_state_dict(state["mean"])
        for one, rate, past in zip(self._optimisers, self._rates, state["optimisers"], strict=True):
            one.load_state_dict(past)
            one.param_groups[0]["lr"] = rate

    def until(self, stop: int) -> None:
        """Trains up to a step.

        Raises:
            TrainingError: a loss that is not finite.
        """
        began = perf_counter()
        self.net.train()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            while self.step < stop:
                self._one()
                self.step += 1
                self._since += 1
        if not self._losses.isfinite():
            raise TrainingError(
                f"The loss is no finite number any more by step {self.step}. Take a smaller rate "
                f"than {self.recipe.rate:g} and start anew."
            )
        self.seconds += perf_counter() - began

    def look(self, fd_cifar: float, error: float) -> None:
        """Adds a point to the curve, with the mean loss since the last, and tells of it."""
        images, loss = self.step * self.recipe.batch, float(self._losses) / self._since
        self._losses.zero_()
        self._since = 0
        self.curve.append(
            {
                "images": images,
                "loss": round(loss, 5),
                "fd_cifar": round(fd_cifar, 4),
                "standard_error": round(error, 4),
                "seconds": round(self.seconds, 1),
            }
        )
        log.info(
            "%.2f of %.2f million images, loss %.4f, fd_cifar %.2f ± %.2f, %.0f images/s, "
            "%.1f min left",
            *(images / 1e6, self.recipe.images / 1e6, loss, fd_cifar, error),
            images / self.seconds,
            self.seconds / self.step * (self.recipe.steps - self.step) / 60,
        )

    def _one(self) -> None:
        """One optimiser step."""
        share = self.recipe.share_at(self.step)
        for tensor, rate in zip(
            self._rates, (self.recipe.muon_rate, self.recipe.rate), strict=True
        ):
            tensor.fill_(share * rate)
        # The mean of a few steps is the mean of a start; so it looks back less far at first.
        self._weight.fill_(1 - min(self.recipe.mean, (1 + self.step) / (10 + self.step)))
        batch = self._batch()
        if self._device == "cpu":
            self._update(batch)
            return
        if self._played is None:
            self._played = self._recorded(batch)
        self._played(batch)

    def _batch(self) -> Batch:
        """What the network sees at this step: a function of (seed, step)."""
        device, steps = self._device, len(self._alpha)
        index = torch.from_numpy(self._order.batch(self.step)).to(device)
        random = torch.Generator(device).manual_seed(self.recipe.seed * 2**32 + self.step)
        x0 = self._images[index].to(memory_format=torch.channels_last) / 127.5 - 1
        mirrored = torch.rand(len(x0), 1, 1, 1, generator=random, device=device) < 0.5
        x0 = torch.where(mirrored, x0.flip(3), x0)
        part = torch.arange(len(x0), device=device) / len(x0)
        first = torch.rand(1, generator=random, device=device)
        time = ((part + first) % 1 * steps).long().clamp_(max=steps - 1)
        eps = torch.randn(x0.shape, generator=random, device=device)
        alpha, sigma = (table[time].view(-1, 1, 1, 1) for table in (self._alpha, self._sigma))
        return alpha * x0 + sigma * eps, time, eps

    def _update(self, batch: Batch) -> None:
        """Changes the weights, their mean and the sum of the losses."""
        x, time, eps = batch
        self.net.zero_grad()
        with _autocast(self.recipe, self._device):
            predicted = self.net(x, time, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), eps)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip)
        for one in self._optimisers:
            one.step()
        with torch.no_grad():
            self._losses += loss
            mean: list[Tensor] = [*self.mean.parameters()]
            change = [*torch._foreach_sub([*self.net.parameters()], mean)]
            torch._foreach_mul_(change, self._weight)
            torch._foreach_add_(mean, change)

    def _recorded(self, batch: Batch) -> Callable[[Batch], None]:
        """`_update` as one CUDA graph: its thousand kernels are launched at once.

        Three steps are run to have everything allocated and tuned, and undone.
        """
        before = {name: part.clone() for name, part in self._tensors().items()}
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._update(batch)
        torch.cuda.current_stream().wait_stream(aside)
        self.net.zero_grad()
        graph = torch.cuda.CUDAGraph()
        inputs = (batch[0].clone(), batch[1].clone(), batch[2].clone())
        with torch.cuda.graph(graph):
            self._update(inputs)
        for name, part in self._tensors().items():
            part.copy_(before[name]) if name in before else part.zero_()

        def play(batch: Batch) -> None:
            for place, part in zip(inputs, batch, strict=True):
                place.copy_(part)
            graph.replay()

        return play

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by a name; an optimiser's exist from its first step."""
        found = {"losses": self._losses}
        for prefix, net in (("net.", self.net), ("mean.", self.mean)):
            found |= {prefix + name: part for name, part in net.state_dict().items()}
        for i, one in enumerate(self._optimisers):
            for j, state in enumerate(one.state.values()):
                found |= {f"optimiser.{i}.{j}.{key}": part for key, part in state.items()}
        return found


def _hidden(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices between hidden layers, and all other parameters."""
    hidden: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        outer = name.startswith(("conv_in.", "conv_out."))
        (hidden if parameter.ndim > 1 and not outer else others).append(parameter)
    return hidden, others


class _Order:
    """Which images make the batch of a step: a function of (seed, step)."""

    def __init__(self, count: int, recipe: Recipe) -> None:
        self._count, self._recipe = count, recipe
        self._epoch, self._shuffled = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> np.ndarray:
        """Indices of the images, int64 (B,); what is left over of an epoch is left out."""
        size = self._recipe.batch
        epoch, i = divmod(step, self._count // size)
        if epoch != self._epoch:
            random = np.random.Generator(np.random.Philox(key=[self._recipe.seed, epoch]))
            self._epoch, self._shuffled = epoch, random.permutation(self._count)
        return self._shuffled[i * size : (i + 1) * size]


def _autocast(recipe: Recipe, device: str) -> torch.autocast:
    """Matrix products in the recipe's dtype."""
    narrow = recipe.dtype != "float32"
    # Without its cache: a recorded step must narrow the weights anew each time.
    return torch.autocast(device, getattr(torch, recipe.dtype), enabled=narrow, cache_enabled=False)


def _scorer(
    net: nn.Module, recipe: Recipe, device: str, count: int
) -> Callable[[], tuple[float, float]]:
    """fd_cifar of `count` images of `net` as it is when called, and its standard error."""
    bound = metrics.bind(("fd_cifar",), "cifar10-train", device)
    (extractor,) = metrics.extractors(bound).values()
    name, spacing, steps = _SAMPLER
    grid, sampler = make_grid(vp_linear(), spacing, steps), samplers.get(name)

    def predict(x: Tensor, point: Point) -> Tensor:
        time = torch.tensor(point.t, device=device)
        with _autocast(recipe, device):
            output: Tensor = net(x, time, return_dict=False)[0]
        return output.float()

    @torch.no_grad()
    def score() -> tuple[float, float]:
        features = []
        for rows in np.array_split(np.arange(count), -(-count // _AT_ONCE)):
            noise = Noise(recipe.seed, rows.tolist(), (3, 32, 32), device=device)
            denoise = Denoiser(from_network(predict, "eps"))
            x = samplers.sample(
                sampler, denoise, grid, noise, final="zero", params=sampler.complete({})
            )
            features.append(extractor(to_uint8(x)).cpu().numpy())
        found = metrics.score({extractor.name: np.concatenate(features)}, bound)
        record = found.records["fd_cifar"]
        return record["value"], record["standard_error"]

    return score


def _write(run: _Run, train: Labelled, out: Path, device: str) -> dict[str, Any]:
    """The folder, the certificate in it last: what has one is whole."""
    out.mkdir(parents=True, exist_ok=True)
    run.mean.half().save_pretrained(out)  # type: ignore[operator]
    schedule = DDPMScheduler(beta_schedule="linear", clip_sample=False)  # type: ignore[no-untyped-call]
    schedule.save_pretrained(out)  # type: ignore[attr-defined]
    weights = (out / "diffusion_pytorch_model.safetensors").read_bytes()
    certificate = {
        "format": 1,
        "recipe": asdict(run.recipe),
        "parameters": sum(p.numel() for p in run.mean.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "data_sha256": train.sha256,
        "seconds": round(run.seconds, 1),
        "hardware": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "torch": str(torch.__version__),
        "curve": run.curve,
    }
    write_bytes(out / "README.md", _card(certificate).encode())
    write_bytes(out / CERTIFICATE, json.dumps(certificate, indent=1).encode())
    log.info("wrote %s (%.1f MB of weights)", out, len(weights) / 1e6)
    return certificate


def _card(made: dict[str, Any]) -> str:
    """The model card: what a reader must know before using the network for anything."""
    recipe = made["recipe"]
    rows = "\n".join(
        f"| {p['images'] / 1e6:.2f} | {p['loss']:.4f} | {p['fd_cifar']:.2f} ± "
        f"{p['standard_error']:.2f} | {p['seconds'] / 60:.1f} |"
        for p in made["curve"]
    )
    name, spacing, steps = _SAMPLER
    return f"""# {recipe["images"] / 1e6:.1f} million images of CIFAR-10: an unconditional DDPM

A diffusers `UNet2DModel` of {made["parameters"] / 1e6:.1f} million parameters that predicts eps on
the linear VP schedule, T = 1000; images 3 x 32 x 32 in [-1, 1]. The weights are the mean (EMA), in
half precision.

- **Data**: the 50,000 training images of CIFAR-10 (Krizhevsky 2009; sha256 of the file
  `{made["data_sha256"][:16]}`) and their mirror images. No image is part of the weights' licence.
- **Recipe**: {recipe["images"]:,} images in batches of {recipe["batch"]}, Muon at
  {recipe["muon_rate"]:g} and Adam at {recipe["rate"]:g}, {recipe["dtype"]}; all of it in
  `certificate.json`, and the code in `bench/training/unet.py`. Made again by
  `bench train unet --data cifar10_train.npz --images {recipe["images"]}`.
- **Cost**: {made["seconds"] / 60:.1f} minutes of training on {made["hardware"]}, torch
  {made["torch"]}.
- **Licence**: that of the package (MIT).
- **Limits**: it is small and was trained for minutes, to compare samplers on a network with
  real errors. It is no good generator of images; its numbers say nothing of larger networks.

| million images | loss | fd_cifar | minutes |
| --- | --- | --- | --- |
{rows}

The loss is the mean since the row before; fd_cifar is of few images by {name} in {steps} steps
({spacing}), against the training images, and only shows that the training moves.
"""
