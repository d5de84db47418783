"""Write a file with the layout of the FID paper's Inception weights and random contents.

    python tests/inception_file.py weights.pth

A test points BENCH_INCEPTION to it and goes through the real loader and the real network. The
published file cannot be had without a network, and no test should need it.
"""

import argparse
import math
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class Untrained(FeatureExtractorInceptionV3):
    """The network before it reads its weights."""

    def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
        """The constructor calls this; there is nothing to load yet."""


def write(path: Path, *, seed: int = 0, images: int = 8) -> None:
    """Random weights whose features are of the order of one, as those of the real file are.

    With torch's default initialisation the signal dies on its way (features of 1e-8), so the
    convolutions get He's, and each batch norm the mean and variance of a few random images. Its
    outputs have mean 1: around 0 a random network is chaotic, and what float32 rounds in the first
    layers would move the features by 5e-5, which hides what a test looks for.

    Args:
        path: the file to write, 96 MB.
        seed: of weights and images.
        images: how many images the batch norms see.
    """
    torch.save({}, path)
    network = Untrained("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            deviation = math.sqrt(2 / module.weight[0].numel())
            module.weight.normal_(std=deviation, generator=generator)
        if isinstance(module, torch.nn.Linear):
            module.weight.normal_(std=module.in_features**-0.5, generator=generator)
            module.bias.zero_()
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.fill_(1)
            module.momentum = None  # a plain average over all that it sees
    noise = torch.randint(0, 256, (images, 3, 32, 32), generator=generator, dtype=torch.uint8)
    # Half of them in large patches, since images are smooth where noise is not.
    patches = noise[::2, :, ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        network.train()(torch.cat([noise[1::2], patches]))
    torch.save(network.state_dict(), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path)
    write(parser.parse_args().path)
