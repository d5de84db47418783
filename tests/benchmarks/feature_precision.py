"""May fd_cifar compute its features in bf16? Distances, features and speed, in both precisions.

    python tests/benchmarks/feature_precision.py --train cifar10_train.npz --test cifar10_test.npz

The reference is the first training images. Compared with it are test images, clean and with
Gaussian noise. Columns: the distance in float32, in bf16 (reference too), and with only the samples
in bf16; the standard error of the float32 distance over images (jackknife over ten blocks); and the
root mean square of the features' difference over their standard deviation. Then images per second.
bf16 is autocast's: products in bf16, everything in channels_last.
"""

import argparse
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.metrics.cifar_net import CifarNet, folded
from bench.metrics.extractor import SLICE, WEIGHTS
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import batches, read_npz
from bench.metrics.moments import Moments

NOISE = (0.0, 2.0, 8.0, 32.0)  # standard deviations, in units of 0..255
BLOCKS = 10


@torch.inference_mode()
def features(net: CifarNet, images: Tensor, *, bf16: bool) -> np.ndarray:
    """Features (N, d) of uint8 images, as float32."""
    with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
        parts = [net.features(part).float() for part in torch.split(images, SLICE)]
    return torch.cat(parts).numpy()


def standard_error(samples: np.ndarray, reference: Moments) -> float:
    """Of the distance, by leaving out one of ten blocks at a time."""
    parts = [Moments.from_features(part) for part in np.array_split(samples, BLOCKS)]
    distances = [
        frechet_distance(Moments.merged(parts[:i] + parts[i + 1 :]), reference)
        for i in range(BLOCKS)
    ]
    return float(np.std(distances) * (BLOCKS - 1) ** 0.5)


def speed(net: CifarNet, images: Tensor, *, bf16: bool) -> float:
    """Images per second, the best of three runs."""
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        features(net, images, bf16=bf16)
        best = max(best, len(images) / (time.perf_counter() - start))
    return best


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    net = folded(CifarNet.of(safetensors.torch.load_file(WEIGHTS)))
    net = net.to(memory_format=torch.channels_last)
    train, test = (
        next(batches(read_npz(path), arguments.images))
        for path in (arguments.train, arguments.test)
    )

    reference = {
        bf16: Moments.from_features(features(net, train, bf16=bf16)) for bf16 in (False, True)
    }
    generator = torch.Generator().manual_seed(0)
    print(f"{len(test)} test images against {len(train)} training images")
    print("noise   float32      bf16  samples only  std. error   features")
    for level in NOISE:
        noisy = test + level * torch.randn(test.shape, generator=generator)
        images = noisy.round().clamp(0, 255).to(torch.uint8)
        full, half = (features(net, images, bf16=bf16) for bf16 in (False, True))
        distances = [
            frechet_distance(Moments.from_features(samples), reference[of])
            for samples, of in ((full, False), (half, True), (half, False))
        ]
        error = standard_error(full, reference[False])
        moved = ((half - full) ** 2).mean() ** 0.5 / full.std(0).mean()
        print(
            "{:5g} {:9.4f} {:9.4f} {:13.4f} {:11.4f} {:10.2%}".format(
                level, *distances, error, moved
            )
        )

    print("images per second    float32    bf16")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rates = [speed(net, train[:500], bf16=bf16) for bf16 in (False, True)]
        print("{} thread(s) {:16.0f} {:7.0f}".format(threads, *rates))


if __name__ == "__main__":
    main()
