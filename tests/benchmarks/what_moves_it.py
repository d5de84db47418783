"""Why two papers give two FIDs for one model: what each choice moves, beside the standard error.

    python tests/benchmarks/what_moves_it.py --test cifar10_test.npz [--images 10000]

First in the features of fd_cifar, with trained weights: test images against the statistics of the
training images, and exact draws of the mixture against its own; number of images, the quantiser,
JPEG, and the best of three runs. Then the resize before Inception-v3, where random weights of the
real layout must do: the pixels, and how far features move, of torchmetrics' default and of the
half-pixel filter against the one of the FID paper. Tables in Markdown.
"""

import argparse
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.image.fid import FrechetInceptionDistance

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import models
from bench.diffusion.noise import Noise
from bench.metrics.images import batches, read_npz, to_uint8
from bench.metrics.registry import bind, score
from tests.inception_file import write

BATCH = 500
RUNS = 30
"""Sets of 1,000 draws behind the line on the best of three."""


def truncated(x: Tensor) -> Tensor:
    """The other quantiser, floor(127.5 x + 127.5)."""
    return (x * 127.5 + 127.5).floor().clamp(0, 255).to(torch.uint8)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Images (B, 3, H, W) after a round through JPEG files."""
    through = []
    for image in images.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        through.append(np.asarray(Image.open(buffer)))
    return torch.from_numpy(np.stack(through)).permute(0, 3, 1, 2).contiguous()


class Distance:
    """fd_cifar and its extrapolation against one reference."""

    def __init__(self, reference: str) -> None:
        self._bound = bind(["fd_cifar", "fd_cifar_inf"], reference)

    def features(self, images: Tensor) -> np.ndarray:
        extractor = self._bound[0].extractor
        return torch.cat([extractor(part) for part in images.split(BATCH)]).numpy()

    def row(self, what: str, features: np.ndarray) -> None:
        """Print a line of the table."""
        both = score({self._bound[0].extractor.name: features}, self._bound).records
        plain, far = both["fd_cifar"], both["fd_cifar_inf"]
        print(
            f"| {what} | {len(features):,} | {plain['value']:.4f} ± {plain['standard_error']:.4f} "
            f"| {far['value']:.4f} |"
        )

    def value(self, features: np.ndarray) -> tuple[float, float]:
        """Distance and standard error."""
        record = score({self._bound[0].extractor.name: features}, self._bound).records["fd_cifar"]
        return record["value"], record["standard_error"]


def head(title: str) -> None:
    print(f"\n{title}\n\n| what | images | fd_cifar | fd_cifar_inf |\n| --- | ---: | ---: | ---: |")


def of_test_images(path: Path, count: int) -> None:
    distance = Distance("cifar10-train")
    images = next(batches(read_npz(path)[:count], count))
    whole = distance.features(images)
    head("CIFAR-10 test images against the 50,000 training images")
    for n in (1000, 2000, 5000, len(images)):
        distance.row("as they are", whole[:n])
    for quality in (95, 90, 75):
        distance.row(f"through JPEG of quality {quality}", distance.features(jpeg(images, quality)))


def of_draws(count: int) -> None:
    distance = Distance("cifar10-mixture")
    model = models.load(models.describe("cifar10-mixture"), "cpu")

    def draws(seed: int, n: int, quantise: Callable[[Tensor], Tensor]) -> np.ndarray:
        parts = []
        for start in range(0, n, BATCH):
            samples = range(start, min(start + BATCH, n))
            x = model.draw(Noise(seed, samples, model.shape))
            assert x is not None
            parts.append(distance.features(quantise(x)))
        return np.concatenate(parts)

    head("Exact draws of the mixture against 50,000 others: the truth is 0")
    for seed in range(2):
        distance.row(f"rounded, seed {seed}", draws(seed, count, to_uint8))
    distance.row("truncated, seed 0", draws(0, count, truncated))
    values, errors = zip(
        *(distance.value(draws(seed, 1000, to_uint8)) for seed in range(RUNS)), strict=True
    )
    best = np.mean([min(values[i : i + 3]) for i in range(0, RUNS, 3)])
    print(
        f"\n{RUNS} runs of 1,000 draws: mean {np.mean(values):.4f}, standard deviation "
        f"{np.std(values, ddof=1):.4f} (predicted {np.mean(errors):.4f}); the best of three, on "
        f"average: {best:.4f}."
    )


def of_resize(path: Path, weights: Path, count: int) -> None:
    images = next(batches(read_npz(path)[:count], count))
    x = images.float()
    size = {"size": (299, 299), "mode": "bilinear", "align_corners": False}
    paper = interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
    resized = {
        "half-pixel bilinear": torch.nn.functional.interpolate(x, **size),
        "half-pixel bilinear, antialiased (torchmetrics)": torch.nn.functional.interpolate(
            x, **size, antialias=True
        ),
    }
    pixels = {name: float((other - paper).abs().mean() / 127.5) for name, other in resized.items()}

    def features(**options: bool) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = FrechetInceptionDistance(
                feature_extractor_weights_path=str(weights), **options
            ).inception
        with torch.no_grad():
            return torch.cat([theirs(part) for part in images.split(32)])

    of_paper, default = features(antialias=False), features()
    moved = float((default - of_paper).norm() / (of_paper - of_paper.mean(0)).norm())
    print(f"\nThe resize of {count} CIFAR-10 images to 299 x 299\n")
    print("| filter | mean difference of pixels to the paper's, of [-1, 1] |\n| --- | ---: |")
    for name, difference in pixels.items():
        print(f"| {name} | {difference:.3f} |")
    print(
        f"\nFeatures of torchmetrics' default move by {moved:.0%} of their spread over images "
        "against its antialias=False (random weights)."
    )


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", type=Path, required=True, help="npz of CIFAR-10's test images")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resized", type=int, default=64, help="images for Inception")
    options = parser.parse_args()
    of_test_images(options.test, options.images)
    of_draws(options.images)
    with tempfile.TemporaryDirectory() as name:
        weights = Path(name) / "weights.pth"
        write(weights)
        of_resize(options.test, weights, options.resized)


if __name__ == "__main__":
    main()
