"""Features of a folder of images, ours against torch-fidelity's, side by side in one process.

    python tests/benchmarks/inception_speed.py --data cifar10_test.npz [--images 64] [--rounds 5]

Promise: the same features, to 1e-5 of the largest, in at most 1/1.8 of the time. Both start at a
folder of PNG files of 32 x 32 pixels, compute in float32 on one CPU thread and read the same file
of random weights; reading that file is left out. torch-fidelity runs as `calculate_metrics` runs it
(its own data set, batches and extractor), without worker processes to read files, since those
would be more threads. The two take turns, the first one alternating, and what counts is the median
of their ratios. Exit code 1 if the promise is broken.
"""

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.defaults import DEFAULTS
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.metrics.image_files import open_images
from bench.metrics.images import read_npz
from bench.metrics.inception import FEW, Inception, resized
from tests.inception_file import write

FASTER, DIFFERENCE = 1.8, 1e-5


def read_folder(folder: Path) -> Tensor:
    """Its images: uint8 (N, 3, H, W)."""
    files = open_images(folder)
    return next(files.batches(files.count))


def timed(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds, and what was computed."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def processor() -> str:
    """As Linux names it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    vectors = [name for name in ("avx2", "avx512f", "amx_tile") if name in facts.get("flags", "")]
    return f"{facts.get('model name', platform.processor()).strip()} ({', '.join(vectors)})"


def compare(folder: Path, weights: Path, rounds: int) -> int:
    """Prints the comparison; 1 if the promise is broken."""
    options = {"input1": str(folder), "cuda": False, "save_cpu_ram": True, "verbose": False}
    network = create_feature_extractor(
        "inception-v3-compat",
        ["2048"],
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
    )
    extractor = Inception(weights, "cpu")
    images = read_folder(folder)
    theirs_at_once, count = DEFAULTS["batch_size"], len(images)

    def theirs() -> Tensor:
        return extract_featuresdict_from_input_id(1, network, **options)["2048"]

    def ours() -> Tensor:
        return extractor(read_folder(folder))

    def their_resize() -> Tensor:
        for part in images.split(theirs_at_once):
            x = part.float()
            x = interpolate_bilinear_2d_like_tensorflow1x(x, (299, 299), align_corners=False)
            x = (x - 128) / 128
        return x

    def our_resize() -> Tensor:
        for part in images.split(FEW):
            x = resized(part)
        return x

    pairs, reading, resizes = [], [], []
    for turn in range(rounds + 1):
        order = (theirs, ours) if turn % 2 else (ours, theirs)
        results = {work: timed(work) for work in order}
        pairs.append((results[theirs][0], results[ours][0]))
        reading.append(timed(lambda: read_folder(folder))[0])
        resizes.append((timed(their_resize)[0], timed(our_resize)[0]))
    pairs, reading, resizes = pairs[1:], reading[1:], resizes[1:]  # the first pays for once
    difference = results[ours][1] - results[theirs][1]
    largest = float(difference.abs().max() / results[theirs][1].abs().max())
    normwise = float(difference.norm() / results[theirs][1].norm())

    print(f"{count} images, {rounds} rounds, one thread, float32; torch {torch.__version__}")
    print(f"{processor()}; {platform.platform()}")
    print(f"{'':16}images/s    ms an image: all   resize  network and reading")
    for name, column in (("torch-fidelity", 0), ("ours", 1)):
        whole = statistics.median(pair[column] for pair in pairs) / count * 1e3
        resize = statistics.median(pair[column] for pair in resizes) / count * 1e3
        print(f"{name:16}{1e3 / whole:8.2f} {whole:19.1f} {resize:8.1f} {whole - resize:20.1f}")
    print(f"reading, of ours: {statistics.median(reading) / count * 1e3:.2f} ms an image")
    ratios = sorted(first / second for first, second in pairs)
    ratio = statistics.median(ratios)
    print(
        f"ratio {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); promised: at least {FASTER}\n"
        f"features differ by {largest:.1e} of the largest, {normwise:.1e} of their norm; "
        f"promised: at most {DIFFERENCE:.0e} of the largest"
    )
    return int(ratio < FASTER or largest > DIFFERENCE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="npz of images, (N, 32, 32, 3)")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        for i, image in enumerate(read_npz(options.data)[: options.images]):
            Image.fromarray(image).save(folder / f"{i:06d}.png")
        weights = Path(name) / "weights.pth"
        write(weights)
        return compare(folder, weights, options.rounds)


if __name__ == "__main__":
    sys.exit(main())
