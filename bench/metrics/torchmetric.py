"""The metrics as torchmetrics `Metric`s, for use in a training loop.

`FrechetDistance` keeps moments only, so its memory does not grow; `Scores` keeps the features and
gives every metric with its standard error.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torchmetrics
from torchmetrics.utilities import dim_zero_cat

from bench.metrics import registry
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


class Scores(torchmetrics.Metric):
    """Any of the metrics of a sweep, with standard errors, from one pass over each network.

    The states are the features of all images, a list an extractor; processes append theirs. They
    take 4 d bytes an image: 400 MB for 50,000 of Inception, 51 MB for `fd_cifar`. The values are
    those that a cell or "bench score" gets from the same images in the same order, and depend on
    the order by a small part of their errors (subsets and halves are drawn from it).

    Input of `update`: uint8 images (B, 3, H, W). Output of `compute`: {name: value, name_error:
    standard error}, float64 scalars.

    Args:
        metrics: names, see `bench.metrics.registry`.
        reference: name or path of the statistics that images are compared with.
        device: where the extractors compute.
        kwargs: of `torchmetrics.Metric`, for example `sync_on_compute`.

    Raises:
        MetricError: what a metric needs cannot be had or does not fit; images of another type or
            shape; too few images at `compute`.

    Example:
        >>> from bench.metrics.images import to_uint8
        >>> scores = Scores(["fd_cifar", "cs_cifar"], "cifar10-train")
        >>> for _ in range(2):  # in the validation loop of a training run
        ...     scores.update(to_uint8(torch.rand(64, 3, 32, 32) * 2 - 1))
        >>> found = scores.compute()
        >>> sorted(found)
        ['cs_cifar', 'cs_cifar_error', 'fd_cifar', 'fd_cifar_error']
        >>> bool(found["fd_cifar"] > 10 * found["fd_cifar_error"])
        True
        >>> scores.reset()
    """

    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        metrics: Iterable[str],
        reference: str,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._bound = registry.bind(metrics, reference, device)
        self._extractors = registry.extractors(self._bound)
        for place in range(len(self._extractors)):
            self.add_state(_state(place), [], dist_reduce_fx="cat")

    def update(self, images: torch.Tensor) -> None:
        """Add uint8 images of shape (B, 3, H, W)."""
        for place, extractor in enumerate(self._extractors.values()):
            getattr(self, _state(place)).append(extractor(images))

    def compute(self) -> dict[str, torch.Tensor]:
        """The metrics of all images so far, of all processes."""
        features = {
            name: dim_zero_cat(getattr(self, _state(place))).cpu().numpy()
            for place, name in enumerate(self._extractors)
        }
        found = {}
        for name, record in registry.score(features, self._bound).records.items():
            found[name] = torch.tensor(record["value"], dtype=torch.float64)
            found[f"{name}_error"] = torch.tensor(record["standard_error"], dtype=torch.float64)
        return found


def _state(place: int) -> str:
    """A name that is fit for an attribute, as that of an extractor need not be."""
    return f"features_{place}"
