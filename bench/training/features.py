"""The recipe behind the feature network of `fd_cifar`: `bench train features`.

Thirty-two epochs over the 50,000 training images, in float32 on the CPU, about 5e14
floating-point operations (65 minutes of both cores of a two-core machine without bf16 units):

- the first eight epochs see images shrunk to 24 x 24, at half the cost.
- convolutions by Muon (see `bench.training.muon`); filters are rescaled to unit norm on average
  before each step. Everything else by Adam. Both learning rates fall linearly to one half
  over the shrunk epochs and to zero at epoch twenty.
- twelve further epochs go on at 0.15 of the rates, with fresh optimisers, larger shifts and a
  hidden square of 7 x 7 pixels (DeVries and Taylor, 2017, arXiv:1708.04552). The mean of their
  ends (Izmailov et al., 2018, arXiv:1803.05407) is better than any of them, and halfway between
  it and the end of the first twenty epochs lies the network, better than both.
- label smoothing 0.2; shifts by up to two pixels, four in the further epochs; mirror images by the
  alternating rule of Jordan, 2024, arXiv:2404.00498: an image is mirrored in every second epoch, so
  that two epochs show both.
- a batch of 500 is four parts of 125 that are normalised apart ("ghost" batches) and computed by
  one thread each. On a busy machine this is two to three times as fast as OpenMP threads inside
  one convolution, which wait for one another. The sum of the parts is taken in their order: the
  weights do not depend on the number of threads.
- after the last step the batch norms are recalibrated: their statistics become the plain average
  over training images.

The shipped weights know 97.9 % of the first 5000 training images and 93.0 % of the test images
(93.7 % over six views of each).

Deterministic for a seed on one machine; an interrupted run that resumes from its checkpoint ends
with the weights of an uninterrupted one.
"""

import json
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.atomic import write_bytes
from bench.errors import TrainingError
from bench.metrics.cifar_net import MEAN, WIDTHS, CifarNet, digest_of
from bench.training.inputs import Labelled, read_checkpoint, write_checkpoint
from bench.training.muon import Muon

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """What determines the weights, beside the data and the machine's arithmetic."""

    epochs: int = 20
    seed: int = 0
    widths: tuple[int, int, int] = WIDTHS
    batch: int = 500
    part: int = 125
    muon_rate: float = 0.1
    muon_momentum: float = 0.9
    adam_rate: float = 4e-3
    label_smoothing: float = 0.2
    shift: int = 2  # pixels
    small: int = 24  # pixels, the side of the images in the first epochs
    small_epochs: int = 8
    whiten_epochs: int = 3  # the first layer's bias learns this long; its filters are fixed
    further_epochs: int = 12
    further_share: float = 0.15  # of the learning rates
    further_shift: int = 4  # pixels
    further_hidden: int = 7  # pixels, the side of the hidden square

    def share(self, time: float) -> float:
        """The part of the learning rates in use after `time` epochs."""
        if time >= self.epochs:
            return self.further_share
        return float(np.interp(time, [0, self.small_epochs, self.epochs], [1, 0.5, 0]))


def train_features(
    data: Path,
    out: Path,
    *,
    test: Path | None = None,
    recipe: Recipe | None = None,
    checkpoint: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Trains the feature network on `data` and writes its weights to `out` (safetensors).

    Progress goes to the logger `bench.training.features` at level INFO, one line an epoch.

    Args:
        data: npz of training images (see `Labelled.read`), at least one batch of them.
        out: the file to write; its certificate says how it was made.
        test: npz of test images; the accuracy on them goes into the certificate.
        recipe: what to do; the shipped weights come from the defaults.
        checkpoint: written after each epoch, read at the start if it is there, removed at the end.
        threads: parts of a batch computed at the same time; all cores if not given. Changes the
            speed only.

    Returns:
        The certificate written into `out`: recipe, data, accuracy, digest of the tensors.

    Raises:
        TrainingError: unusable data, or a checkpoint of another recipe or data set.
    """
    recipe = recipe or Recipe()
    train = Labelled.read(data)
    held_out = Labelled.read(test) if test is not None else None
    if len(train.images) < recipe.batch:
        raise TrainingError(
            f"{data}: {len(train.images)} images are less than one batch of {recipe.batch}."
        )
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # the parts of a batch are what runs in parallel
    try:
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            net = _fit(train, recipe, checkpoint, pool)
            recalibrate(net, train.images)
            certificate = _certificate(net, recipe, train, held_out, pool)
    finally:
        torch.set_num_threads(before)
    out.parent.mkdir(parents=True, exist_ok=True)
    # One entry: the order of several in the file changes from run to run.
    metadata = {"certificate": json.dumps(certificate)}
    write_bytes(out, safetensors.torch.save(_tensors(net), metadata))
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    log.info("wrote %s (%.1f MB)", out, out.stat().st_size / 1e6)
    return certificate


@torch.no_grad()
def recalibrate(net: CifarNet, images: Tensor, count: int = 10_000, batch: int = 500) -> None:
    """Sets the norms' statistics to their average over `count` of `images`, (N, 3, 32, 32).

    The images are drawn at random: files are often sorted or interleaved by class.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    net.train()
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:count]
    for part in torch.split(chosen, batch):
        net(images[part])
    for norm in norms:
        norm.momentum = 0.0


def accuracy(net: CifarNet, data: Labelled, pool: ThreadPoolExecutor, *, views: bool) -> float:
    """Share of `data` that `net` gets right; with `views`, logits averaged over six views.

    The views are the image and its shifts by one pixel to the upper left and lower right, and
    their mirror images (test-time augmentation; half the weight is on the unshifted pair).
    """
    net.eval()

    @torch.inference_mode()
    def right(part: tuple[Tensor, Tensor]) -> int:
        images, labels = part
        logits = net(images)
        if views:
            padded = F.pad(images.float(), (1, 1, 1, 1), mode="reflect")
            logits = 2 * (logits + net(images.flip(3)))
            for d in (0, 2):
                moved = padded[:, :, d : d + 32, d : d + 32]
                logits = logits + net(moved) + net(moved.flip(3))
        return int((logits.argmax(1) == labels).sum())

    parts = zip(torch.split(data.images, 250), torch.split(data.labels, 250), strict=True)
    return sum(pool.map(right, parts)) / len(data.labels)


def _fit(
    train: Labelled, recipe: Recipe, checkpoint: Path | None, pool: ThreadPoolExecutor
) -> CifarNet:
    torch.manual_seed(recipe.seed)
    net = CifarNet(recipe.widths)
    net.set_whitening(train.images[:5000])
    net = net.to(memory_format=torch.channels_last)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # the running statistics are made by `recalibrate`
    matrices = [p for p in net.blocks.parameters() if p.ndim == 4]
    others = [p for p in net.parameters() if p.requires_grad and p.ndim != 4]
    muon, adam = _optimisers(matrices, others, recipe)
    ends: list[dict[str, Tensor]] = []

    identity = json.dumps([asdict(recipe), train.sha256])
    first = 0
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint, identity)
        first = state["epoch"]
        net.load_state_dict(state["net"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        ends = state["ends"]
        log.info("resuming from %s after epoch %d", checkpoint, first)

    steps = len(train.images) // recipe.batch
    epochs = recipe.epochs + recipe.further_epochs
    for epoch in range(first, epochs):
        start, losses = perf_counter(), 0.0
        if epoch == recipe.epochs:
            muon, adam = _optimisers(matrices, others, recipe)
        net.train()
        net.whiten.requires_grad_(False)
        if epoch < recipe.whiten_epochs:  # later, nothing is computed for its sake
            net.whiten.bias.requires_grad_(True)  # type: ignore[union-attr]
        for i, (images, labels) in enumerate(_batches(train, recipe, epoch)):
            share = recipe.share(epoch + i / steps)
            muon.param_groups[0]["lr"] = recipe.muon_rate * share
            adam.param_groups[0]["lr"] = recipe.adam_rate * share
            losses += _gradient(net, images, labels, recipe, [*matrices, *others], pool)
            _rescale(matrices)
            muon.step()
            adam.step()
        log.info(
            "epoch %d of %d: loss %.4f, %.0f s",
            epoch + 1, epochs, losses / steps, perf_counter() - start,
        )  # fmt: skip
        if epoch + 1 >= recipe.epochs:
            ends.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        if checkpoint is not None:
            _write_checkpoint(checkpoint, identity, epoch + 1, net, muon, adam, ends)
    net.load_state_dict(_mean([ends[0], _mean(ends[1:])]))
    return net


def _optimisers(
    matrices: list[nn.Parameter], others: list[nn.Parameter], recipe: Recipe
) -> tuple[Muon, torch.optim.Adam]:
    return (
        Muon(matrices, recipe.muon_rate, momentum=recipe.muon_momentum, steps=3),
        torch.optim.Adam(others, lr=recipe.adam_rate, betas=(0.9, 0.99)),
    )


def _mean(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of network states; of counters, the last."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0)
        if last.is_floating_point()
        else last
        for name, last in states[-1].items()
    }


def _gradient(
    net: CifarNet,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    parameters: list[nn.Parameter],
    pool: ThreadPoolExecutor,
) -> float:
    """Puts the gradient of a batch's mean loss into `parameters` that learn; returns the loss."""
    learning = [p for p in parameters if p.requires_grad]

    def one(part: tuple[Tensor, Tensor]) -> tuple[float, tuple[Tensor, ...]]:
        loss = F.cross_entropy(net(part[0]), part[1], label_smoothing=recipe.label_smoothing)
        return loss.item(), torch.autograd.grad(loss, learning)

    parts = zip(torch.split(images, recipe.part), torch.split(labels, recipe.part), strict=True)
    results = list(pool.map(one, parts))
    for parameter in parameters:
        parameter.grad = None
    for i, parameter in enumerate(learning):
        parameter.grad = torch.stack([gradient[i] for _, gradient in results]).mean(0)
    return sum(loss for loss, _ in results) / len(results)


def _batches(train: Labelled, recipe: Recipe, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The shuffled, shifted and mirrored batches of an epoch: a function of (seed, epoch) alone."""
    count, further = len(train.images), epoch >= recipe.epochs
    shift = recipe.further_shift if further else recipe.shift
    first = torch.Generator().manual_seed(recipe.seed)
    parity = torch.randint(2, (count,), generator=first)  # who is mirrored in even epochs
    generator = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch + 1)
    order = torch.randperm(count, generator=generator)
    for i, index in enumerate(torch.split(order, recipe.batch)):
        if len(index) < recipe.batch:
            return
        images = train.images[index]
        mirrored = (parity[index] + epoch) % 2 == 1
        images[mirrored] = images[mirrored].flip(3)
        padded = F.pad(images.float(), (shift,) * 4, mode="reflect")
        windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)  # (B, 3, dy, dx, 32, 32), a view
        dy, dx = torch.randint(2 * shift + 1, (2, len(index)), generator=generator)
        images = windows[torch.arange(len(index)), :, dy, dx]
        if epoch < recipe.small_epochs:
            images = F.interpolate(images, size=recipe.small, mode="bilinear", antialias=True)
        if further:
            images = _hide(
                images, recipe.further_hidden, seed=100_000 * recipe.seed + 1000 * epoch + i
            )
        yield images, train.labels[index]


def _hide(images: Tensor, side: int, seed: int) -> Tensor:
    """Images (B, 3, H, W), 0..255, each with a square at a random place in the mean colour.

    The square may stick out over the border.
    """
    generator = torch.Generator().manual_seed(seed)
    near = torch.arange(images.shape[-1])
    y, x = torch.randint(images.shape[-1], (2, len(images), 1, 1, 1), generator=generator)
    hidden = ((near.view(-1, 1) - y).abs() <= side // 2) & ((near - x).abs() <= side // 2)
    return torch.where(hidden, torch.tensor(MEAN).view(1, 3, 1, 1), images)


@torch.no_grad()
def _rescale(filters: list[nn.Parameter]) -> None:
    """Gives each filter bank the norm sqrt(out), so that learning rates are relative to it."""
    for bank in filters:
        bank.mul_(len(bank) ** 0.5 / bank.norm())


def _tensors(net: CifarNet) -> dict[str, Tensor]:
    """The weights in the ordinary memory layout, the only one that safetensors holds."""
    return {name: tensor.contiguous() for name, tensor in net.state_dict().items()}


def _certificate(
    net: CifarNet,
    recipe: Recipe,
    train: Labelled,
    test: Labelled | None,
    pool: ThreadPoolExecutor,
) -> dict[str, Any]:
    certificate = {
        "format": 1,
        "network": "CifarNet",
        "recipe": asdict(recipe),
        "tensors_sha256": digest_of(_tensors(net)),
        "data_sha256": train.sha256,
        "torch": str(torch.__version__),
        "licence": "Weights: as the package. Trained on CIFAR-10 (Krizhevsky, 2009), "
        "whose images are not part of it.",
    }
    if test is not None:
        plain = accuracy(net, test, pool, views=False)
        views = accuracy(net, test, pool, views=True)
        log.info("test accuracy %.2f %%, over six views %.2f %%", 100 * plain, 100 * views)
        certificate |= {
            "test_accuracy": round(plain, 4),
            "test_accuracy_six_views": round(views, 4),
            "test_sha256": test.sha256,
        }
    return certificate


def _write_checkpoint(
    path: Path,
    identity: str,
    epoch: int,
    net: CifarNet,
    muon: Muon,
    adam: torch.optim.Adam,
    ends: list[dict[str, Tensor]],
) -> None:
    state = {
        "epoch": epoch,
        "net": net.state_dict(),
        "muon": muon.state_dict(),
        "adam": adam.state_dict(),
        "ends": ends,
    }
    write_checkpoint(path, identity, state)
