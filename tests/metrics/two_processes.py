"""One of several processes that share a metric: two_processes.py RENDEZVOUS RANK SIZE.

Writes the distance that this process gets after all have been added up.
"""

import sys

import torch.distributed

from bench.metrics.reference import from_images
from bench.metrics.torchmetric import FrechetDistance
from tests.metrics.fakes import Projection, colours


def main(rendezvous: str, rank: int, size: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size
    )
    projection = Projection()
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    reference = from_images(images, projection, name="grey", source="grey", details={})
    metric = FrechetDistance(projection, reference)
    # Unequal parts: the first process has one batch more than the second.
    for batch in colours(1, 50, brightness=20).split(10)[rank::size]:
        metric.update(batch)
    sys.stdout.write(repr(float(metric.compute())))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
