"""The metrics that a sweep may ask for, and scoring with them.

`bind` opens everything that the metrics of a sweep need and refuses what is missing or does not
fit, before the first image is sampled; `score` turns the moments of a cell into its record.

| name           | features                                                    | paper             |
| -------------- | ----------------------------------------------------------- | ----------------- |
| `fd_cifar`     | penultimate layer of the small CIFAR-10 network of bench    | arXiv:1706.08500  |
| `fid`          | Inception-v3 of the FID paper, published weights, TF1 resize | arXiv:1706.08500 |
| `fd_inception` | the same network with any weights: never called FID         |                   |
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.errors import MetricError, nearest
from bench.metrics import reference as references
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import QUANTISER
from bench.metrics.moments import Moments
from bench.metrics.protocol import Extractor
from bench.metrics.reference import Reference

if TYPE_CHECKING:
    from bench.metrics.inception import Inception

Record = dict[str, Any]
"""A metric in the record of a cell: value, n, reference, reference_digest, extractor,
extractor_digest, quantiser, and notes: sentences that belong below every table that shows it."""


@dataclass(frozen=True)
class MetricSpec:
    """A Fréchet distance in the features of one extractor; smaller is better.

    Args:
        name: as a sweep and a record say it.
        title: for axes and headings.
        summary: what the features are.
        extractor: opens the extractor on a device, or raises a MetricError.
    """

    name: str
    title: str
    summary: str
    extractor: Callable[[str], Extractor]


@dataclass(frozen=True)
class BoundMetric:
    """A metric with its extractor and reference at hand."""

    spec: MetricSpec
    extractor: Extractor
    reference: Reference


@cache
def _cifar(device: str) -> Extractor:
    from bench.metrics.extractor import cifar_features

    return cifar_features(device)


@cache
def _open_inception(path: Path, device: str) -> "Inception":
    from bench.metrics.inception import Inception

    return Inception(path, device)


def _inception(device: str) -> "Inception":
    from bench.metrics.inception import find_weights

    return _open_inception(find_weights(), device)


def _published_inception(device: str) -> Extractor:
    from bench.metrics.inception import FILE, PUBLISHED, find_weights

    extractor = _inception(device)
    if not extractor.published:
        raise MetricError(
            f"The Inception weights at {find_weights()} are not the published ones: their sha256 "
            f"begins with {extractor.digest[:8]}, not {PUBLISHED}. Put {FILE} there, or ask for "
            'the metric "fd_inception", which takes any weights and is never called FID.'
        )
    return extractor


METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        MetricSpec(
            "fd_cifar",
            "Fréchet distance in CIFAR-10 network features (fd_cifar)",
            "penultimate features of the small network that ships with bench",
            _cifar,
        ),
        MetricSpec(
            "fid",
            "FID",
            "Inception-v3 of the FID paper (torch-fidelity): published weights, TF1 resize",
            _published_inception,
        ),
        MetricSpec(
            "fd_inception",
            "Fréchet distance in Inception features of other weights (fd_inception)",
            "Inception-v3 of the FID paper with the weights of BENCH_INCEPTION, whatever they are",
            _inception,
        ),
    )
}


def get(name: str) -> MetricSpec:
    """The metric of this name.

    Raises:
        MetricError: there is none; the message names the nearest one.
    """
    if name not in METRICS:
        raise MetricError(
            f'There is no metric "{name}".{nearest(name, METRICS)} '
            f"Metrics are {', '.join(METRICS)}."
        )
    return METRICS[name]


def bind(
    names: Iterable[str], reference: str, device: torch.device | str = "cpu"
) -> tuple[BoundMetric, ...]:
    """Open extractors and statistics, so that nothing can be missing after sampling.

    Args:
        names: metrics, as in `METRICS`.
        reference: name or path of the reference statistics, see `bench.metrics.reference.load`.
        device: where the extractors shall compute.

    Raises:
        MetricError: an unknown metric, weights or statistics that are absent or damaged, or
            statistics of another extractor.
    """
    bound = []
    for name in names:
        spec = get(name)
        extractor = spec.extractor(str(device))
        found = references.load(reference, extractor, name)
        _ = found.moments.factor  # kept for every distance; refuses what is no covariance
        bound.append(BoundMetric(spec, extractor, found))
    return tuple(bound)


def extractors(bound: Sequence[BoundMetric]) -> dict[str, Extractor]:
    """The extractors of the metrics by name, each once however many metrics share it."""
    return {metric.extractor.name: metric.extractor for metric in bound}


def score(moments: Mapping[str, Moments], bound: Sequence[BoundMetric]) -> dict[str, Record]:
    """The records of the metrics of one cell.

    Args:
        moments: of all images of the cell, by the name of the extractor.
        bound: from `bind`.

    Returns:
        By the name of the metric; plain JSON values.

    Raises:
        MetricError: fewer than two images, or statistics that are not those of a covariance.
    """
    return {metric.spec.name: _record(moments[metric.extractor.name], metric) for metric in bound}


def _record(moments: Moments, metric: BoundMetric) -> Record:
    return {
        "value": frechet_distance(moments, metric.reference.moments),
        "n": moments.count,
        "reference": metric.reference.name,
        "reference_digest": metric.reference.digest,
        "extractor": metric.extractor.name,
        "extractor_digest": metric.extractor.digest,
        "quantiser": QUANTISER,
        "notes": _notes(moments, metric),
    }


def _notes(moments: Moments, metric: BoundMetric) -> list[str]:
    notes = []
    if moments.count <= moments.dim:
        notes.append(
            f"{moments.count} images for {moments.dim} features: the covariance is singular and "
            "the distance far too large"
        )
    certificate = metric.reference.certificate
    if not certificate:
        notes.append("the reference does not say with which extractor and resize it was made")
    elif certificate["count"] <= moments.dim:
        notes.append(f"the reference is of only {certificate['count']} images")
    if metric.spec.name == "fd_inception" and metric.extractor.name != "inception-v3":
        weights = metric.extractor.digest[:8]
        notes.append(f"Inception weights {weights} are not the published ones: this is not a FID")
    return notes
