"""How the shipped models and networks were made."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import Device, device_of, train
from bench.cli.terminal import show_log


class Narrow(StrEnum):
    """Arithmetic of matrix products."""

    bfloat16 = "bfloat16"
    float32 = "float32"


@train.command()
def mixture(
    data: Annotated[Path, typer.Option(help="npz with arr_0: uint8 images (n, H, W, 3).")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(
        "cifar10-mixture.safetensors"
    ),
    components: Annotated[int, typer.Option(help="Number of Gaussians.")] = 16,
    rank: Annotated[int, typer.Option(help="Directions of the shared basis.")] = 192,
    seed: Annotated[int, typer.Option(help="Of the start of EM.")] = 0,
) -> None:
    """Fit a Gaussian mixture to images; a sweep names it by its file.

    \b
    Example:
        bench train mixture --data cifar10_train.npz
    and in a sweep:
        model: {kind: mixture, name: ./cifar10-mixture.safetensors}
    """
    from bench.training.mixture import fit_mixture

    show_log()
    made = fit_mixture(data, out, components=components, rank=rank, seed=seed)
    print(
        f"{out}: {made.components} components, rank {made.rank}, log-likelihood "
        f"{made.log_likelihood:.4f} nats a dimension (one Gaussian: "
        f"{made.log_likelihood_single:.4f})."
    )


@train.command()
def features(
    data: Annotated[Path, typer.Option(help="npz of labelled training images: arr_0, arr_1.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(
        "cifar-features.safetensors"
    ),
    test: Annotated[
        Path | None, typer.Option(help="npz of labelled test images, for the accuracy.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Written after each epoch; an interrupted run goes on.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
) -> None:
    """Train the network behind fd_cifar.

    \b
    Example:
        bench train features --data cifar10_train.npz --test cifar10_test.npz
    """
    from bench.training.features import train_features

    show_log()
    made = train_features(data, out, test=test, checkpoint=checkpoint, threads=threads)
    accuracy = made.get("test_accuracy")
    print(f"{out}" + (f": {accuracy:.2%} test accuracy." if accuracy is not None else "."))


@train.command()
def unet(
    data: Annotated[Path, typer.Option(help="npz of labelled training images: arr_0, arr_1.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("cifar10-unet"),
    images: Annotated[
        int | None, typer.Option(help="Images to see in training. Default: 10 million.")
    ] = None,
    dtype: Annotated[
        Narrow, typer.Option(help="Of matrix products. bfloat16 is slow on CPUs without units.")
    ] = Narrow.bfloat16,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Written every few minutes; an interrupted run goes on.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to train.")] = Device.auto,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile the network first.")
    ] = True,
) -> None:
    """Train a small DDPM on CIFAR-10; a sweep names it by its folder.

    \b
    Example:
        bench train unet --data cifar10_train.npz --checkpoint unet.pt
    and in a sweep:
        model: {kind: diffusers, path: ./cifar10-unet}
    """
    from bench.training.unet import Recipe, train_unet

    show_log()
    recipe = Recipe(images=images or Recipe.images, dtype=dtype)
    made = train_unet(
        data, out, recipe=recipe, checkpoint=checkpoint, device=device_of(device), compiled=compiled
    )
    print(f"{out}: fd_cifar {made['curve'][-1]['fd_cifar']:.2f} in 10 steps.")
