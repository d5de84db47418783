"""What can be measured in the features of any extractor, by name, and measuring it.

| name        | value                                                   | better | module     |
| ----------- | ------------------------------------------------------- | ------ | ---------- |
| `fd`        | Fréchet distance                                        | lower  | frechet    |
| `fd_inf`    | Fréchet distance extrapolated to infinitely many images | lower  | frechet    |
| `kd`        | kernel distance                                         | lower  | kernel     |
| `cs`        | classifier score                                        | higher | classifier |
| `precision` | share of the samples inside the reference's manifold    | higher | manifold   |
| `recall`    | share of the reference inside the samples' manifold     | higher | manifold   |
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.errors import MetricError
from bench.metrics import classifier, frechet, kernel, manifold
from bench.metrics.measured import Measured
from bench.metrics.reference import Reference


@dataclass(frozen=True)
class Measure:
    """A number that features have.

    Args:
        name: see the module's docstring.
        summary: in words.
        paper: where it was proposed.
        better: which values are better.
        needs_features: whether moments of the reference are not enough.
        needs_head: whether the extractor must come with a classifier.
    """

    name: str
    summary: str
    paper: str
    better: Literal["lower", "higher"] = "lower"
    needs_features: bool = False
    needs_head: bool = False


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("fd", "Fréchet distance", "Heusel et al. 2017, arXiv:1706.08500"),
        Measure(
            "fd_inf",
            "Fréchet distance extrapolated to infinitely many images",
            "Chong and Forsyth 2020, arXiv:1911.07023",
        ),
        Measure(
            "kd",
            "kernel distance (squared MMD, cubic kernel)",
            "Bińkowski et al. 2018, arXiv:1801.01401",
            needs_features=True,
        ),
        Measure(
            "cs",
            "classifier score (Inception Score)",
            "Salimans et al. 2016, arXiv:1606.03498",
            better="higher",
            needs_head=True,
        ),
        Measure(
            "precision",
            "share of the samples inside the reference's manifold",
            "Kynkäänniemi et al. 2019, arXiv:1904.06991",
            better="higher",
            needs_features=True,
        ),
        Measure(
            "recall",
            "share of the reference inside the samples' manifold",
            "Kynkäänniemi et al. 2019, arXiv:1904.06991",
            better="higher",
            needs_features=True,
        ),
    )
}


def measure(
    asked: Collection[str],
    features: NDArray[np.float32],
    reference: Reference,
    head: NDArray[np.float32] | None,
) -> dict[str, Measured]:
    """The measures asked for, work that they share being done once.

    Args:
        asked: names in `MEASURES`.
        features: of the samples, (n, d).
        reference: with features (m, d) where a measure needs them.
        head: the extractor's classifier (classes, d) where a measure needs one.

    Raises:
        MetricError: too few images for a measure, or features that are not finite.
    """
    _check_finite(features)
    found: dict[str, Measured] = {}
    if {"fd", "fd_inf"} & set(asked):
        plain, extrapolated = frechet.measure(
            features, reference.moments, extrapolate="fd_inf" in asked
        )
        found["fd"] = plain
        if extrapolated is not None:
            found["fd_inf"] = extrapolated
    others = reference.features
    if "kd" in asked and others is not None:
        found["kd"] = kernel.measure(features, others)
    if "cs" in asked and head is not None:
        found["cs"] = classifier.measure(classifier.logits(features, head))
    if "precision" in asked and others is not None:
        found["precision"] = manifold.precision(features, others, reference.radii)
    if "recall" in asked and others is not None:
        found["recall"] = manifold.recall(features, others)
    return {name: found[name] for name in MEASURES if name in asked}


def _check_finite(features: NDArray[np.float32]) -> None:
    # A sum is finite only if all are: float64 has room for any number of float32, and the features
    # of 50,000 images are too many to make as many booleans of them.
    with np.errstate(invalid="ignore"):  # of infinities of both signs
        bad = int((~np.isfinite(features.sum(axis=1, dtype=np.float64))).sum())
    if bad:
        raise MetricError(
            f"Features of {bad} of {len(features)} images are not finite. "
            "Look at these images and at the extractor's weights."
        )
