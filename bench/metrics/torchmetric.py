"""The Fréchet distance as a torchmetrics `Metric`, for use in a training loop."""

from typing import Any

import numpy as np
import torch
import torchmetrics

from bench.metrics.frechet import frechet_distance
from bench.metrics.moments import Moments
from bench.metrics.protocol import Extractor
from bench.metrics.reference import Reference


class FrechetDistance(torchmetrics.Metric):
    """Fréchet distance of generated images to a reference, updated batch by batch.

    With m_r the reference's mean the states are n, Σ(x - m_r) and Σ(x - m_r)(x - m_r)ᵀ in float64.
    They are sums, so processes add up by the reduction that torchmetrics has for them, and being
    centred on the reference they lose nothing to cancellation while the distance is of interest.
    A cell of a sweep gets the same number from the same images, to rounding.

    Input of `update`: uint8 images (B, 3, H, W). Output of `compute`: a float64 scalar.

    Args:
        extractor: whose features.
        reference: statistics in the features of that extractor.
        kwargs: of `torchmetrics.Metric`, for example `sync_on_compute`.

    Raises:
        MetricError: images of another type or shape; fewer than two images at `compute`.

    Example:
        >>> from bench.metrics.images import to_uint8
        >>> from bench.metrics.registry import bind
        >>> (metric,) = bind(["fd_cifar"], "cifar10-train")
        >>> distance = FrechetDistance(metric.extractor, metric.reference)
        >>> for _ in range(2):  # in the validation loop of a training run
        ...     samples = torch.rand(64, 3, 32, 32) * 2 - 1
        ...     distance.update(to_uint8(samples))
        >>> bool(distance.compute() > 0)
        True
        >>> distance.reset()

    Under distributed data parallel every process updates its own copy with its own images, and
    `compute` gives every process the distance of all of them. A sampler that repeats images to
    fill up the last batch counts them twice.

    Reference: see `bench.metrics.frechet`.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    count: torch.Tensor
    total: torch.Tensor
    products: torch.Tensor

    def __init__(self, extractor: Extractor, reference: Reference, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extractor = extractor
        self.reference = reference
        d = extractor.dim
        zeros = torch.zeros(1 + d + d * d, dtype=torch.float64)
        self.add_state("count", zeros[0].clone(), dist_reduce_fx="sum")
        self.add_state("total", zeros[:d].clone(), dist_reduce_fx="sum")
        self.add_state("products", zeros[: d * d].clone().reshape(d, d), dist_reduce_fx="sum")

    def update(self, images: torch.Tensor) -> None:
        """Add uint8 images of shape (B, 3, H, W)."""
        part = Moments.from_features(self.extractor(images).cpu().numpy())
        shift = part.mean - self.reference.moments.mean
        self.count += part.count
        self.total += self._state(part.count * shift)
        self.products += self._state(part.scatter + part.count * np.outer(shift, shift))

    def compute(self) -> torch.Tensor:
        """The distance of all images so far, of all processes; a float64 scalar."""
        n = int(self.count)
        total = self.total.cpu().numpy()
        shift = total / max(n, 1)
        scatter = self.products.cpu().numpy() - np.outer(total, shift)
        moments = Moments(n, self.reference.moments.mean + shift, scatter)
        distance = frechet_distance(moments, self.reference.moments)
        return torch.tensor(distance, dtype=torch.float64, device=self.count.device)

    def _state(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.count.device)
