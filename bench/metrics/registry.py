"""The metrics that a sweep may ask for, and scoring with them.

A metric is a measure (see `bench.metrics.measures`) in the features of an extractor. `bind` opens
everything that the metrics of a sweep need and refuses what is missing or does not fit, before the
first image is sampled; `score` turns the features of a cell into its record.

| measure            | small CIFAR-10 network | Inception-v3 of the FID | the same, any weights  |
| ------------------ | ---------------------- | ----------------------- | ---------------------- |
| Fréchet distance   | `fd_cifar`             | `fid`                   | `fd_inception`         |
| - extrapolated     | `fd_cifar_inf`         | `fid_inf`               | `fd_inception_inf`     |
| kernel distance    | `kd_cifar`             | `kid`                   | `kd_inception`         |
| classifier score   | `cs_cifar`             | `inception_score`       | `cs_inception`         |
| share of samples   | `precision_cifar`      | `precision`             | `precision_inception`  |
| share of reference | `recall_cifar`         | `recall`                | `recall_inception`     |

In features of your own it is `fd@package.module:function`, `kd@...` and so on, by a function that
is given the device and gives an extractor.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.errors import MetricError, nearest
from bench.metrics import reference as references
from bench.metrics.images import QUANTISER
from bench.metrics.measured import Measured
from bench.metrics.measures import MEASURES, Measure, measure
from bench.metrics.protocol import Extractor
from bench.metrics.reference import Reference

if TYPE_CHECKING:
    from bench.metrics.inception import Inception

Record = dict[str, Any]
"""A metric in the record of a cell: value, standard_error, better, n, reference, reference_digest,
extractor, extractor_digest, quantiser, and notes: sentences that belong below every table that
shows it."""

ENOUGH = 10_000
"""Images below which a distance is noted to be of few: its bias is then far from that of the 50,000
that the literature uses."""


@dataclass(frozen=True)
class MetricSpec:
    """A measure in the features of one extractor.

    Args:
        name: as a sweep and a record say it.
        measure: what is measured.
        features: in whose features, in words.
        extractor: opens the extractor on a device, or raises a MetricError.
    """

    name: str
    measure: Measure
    features: str
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


def _family(
    names: Mapping[str, str], features: str, extractor: Callable[[str], Extractor]
) -> list[MetricSpec]:
    return [MetricSpec(n, MEASURES[m], features, extractor) for m, n in names.items()]


def _suffixed(suffix: str) -> dict[str, str]:
    names = {name: f"{name}_{suffix}" for name in MEASURES}
    return names | {"fd_inf": f"fd_{suffix}_inf"}


METRICS: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        *_family(_suffixed("cifar"), "the small CIFAR-10 network of bench", _cifar),
        *_family(
            {
                "fd": "fid",
                "fd_inf": "fid_inf",
                "kd": "kid",
                "cs": "inception_score",
                "precision": "precision",
                "recall": "recall",
            },
            "the Inception-v3 of the FID paper",
            _published_inception,
        ),
        *_family(
            _suffixed("inception"),
            "the same network, whatever its weights are: not FID",
            _inception,
        ),
    )
}


def get(name: str) -> MetricSpec:
    """The metric of this name.

    Raises:
        MetricError: there is none; the message names the nearest one.
    """
    head, at, path = name.partition("@")
    if at and head in MEASURES:
        return MetricSpec(name, MEASURES[head], path, _of_module(path))
    if name not in METRICS:
        raise MetricError(
            f'There is no metric "{name}".{nearest(name, METRICS)} "bench list metrics" shows all '
            f'{len(METRICS)}; in your own features, "{head if head in MEASURES else "fd"}'
            '@package.module:function".'
        )
    return METRICS[name]


@cache
def _of_module(path: str) -> Callable[[str], Extractor]:
    """Opens somebody's extractor: `function(device)` of `package.module:function`."""

    @cache
    def extractor(device: str) -> Extractor:
        module, _, function = path.partition(":")
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise MetricError(
                f'The extractor "{path}" cannot be imported ({error}). It is written '
                "package.module:function, and the module must be importable from where bench runs."
            ) from None
        made: Extractor = make(device)
        lacking = [name for name in _EXTRACTOR if not hasattr(made, name)]
        if lacking or not callable(made):
            raise MetricError(
                f'What "{path}" gave is no extractor: it lacks '
                f"{', '.join(lacking) or 'a call with images'}. See bench.metrics.protocol."
            )
        return made

    return extractor


_EXTRACTOR = ("name", "dim", "digest", "numerics", "resize", "head")


def bind(
    names: Iterable[str], reference: str, device: torch.device | str = "cpu"
) -> tuple[BoundMetric, ...]:
    """Open extractors and statistics, so that nothing can be missing after sampling.

    Args:
        names: metrics, as `get` takes them.
        reference: name or path of the reference statistics, see `bench.metrics.reference.load`.
        device: where the extractors shall compute.

    Raises:
        MetricError: an unknown metric, weights or statistics that are absent or damaged,
            statistics of another extractor, statistics without the features that the metric
            needs, or an extractor without the classifier that it needs.
    """
    specs = [get(name) for name in names]
    opened = [(spec, spec.extractor(str(device))) for spec in specs]
    # Metrics of one extractor share the statistics, with what is computed of them once.
    found: dict[str, Reference] = {}
    for spec, extractor in sorted(opened, key=lambda pair: not pair[0].measure.needs_features):
        if spec.measure.needs_head and extractor.head is None:
            raise MetricError(
                f"{spec.name} needs a classifier, and {extractor.name} has none (its head is None)."
            )
        if extractor.name not in found:
            needed = spec.measure.needs_features
            made = references.load(reference, extractor, spec.name, with_features=needed)
            _ = made.moments.factor  # kept for every distance; refuses what is no covariance
            found[extractor.name] = made
    return tuple(BoundMetric(spec, one, found[one.name]) for spec, one in opened)


def extractors(bound: Sequence[BoundMetric]) -> dict[str, Extractor]:
    """The extractors of the metrics by name, each once however many metrics share it."""
    return {metric.extractor.name: metric.extractor for metric in bound}


@dataclass(frozen=True, eq=False)
class Scores:
    """What the metrics of one set of images came out as.

    Args:
        records: by the name of the metric; plain JSON values.
        influences: of each image, by the name of the metric; float64 (n,). The extrapolated
            distance has those of the plain one.
    """

    records: dict[str, Record]
    influences: dict[str, NDArray[np.float64]]


def score(features: Mapping[str, NDArray[np.float32]], bound: Sequence[BoundMetric]) -> Scores:
    """The metrics of one set of images.

    Args:
        features: of all images, (n, d), by the name of the extractor.
        bound: from `bind`.

    Raises:
        MetricError: too few images, features that are not finite, or statistics that are not
            those of a covariance.
    """
    found: dict[str, dict[str, Measured]] = {}
    for name, extractor in extractors(bound).items():
        same = [one for one in bound if one.extractor.name == name]
        asked = {one.spec.measure.name for one in same}
        found[name] = measure(asked, features[name], same[0].reference, extractor.head)
    records: dict[str, Record] = {}
    influences: dict[str, NDArray[np.float64]] = {}
    for metric in bound:
        name = metric.extractor.name
        measured = found[name][metric.spec.measure.name]
        records[metric.spec.name] = _record(measured, len(features[name]), metric)
        if measured.influence is not None:
            influences[metric.spec.name] = measured.influence
    return Scores(records, influences)


def _record(measured: Measured, n: int, metric: BoundMetric) -> Record:
    return {
        "value": measured.value,
        "standard_error": measured.standard_error,
        "better": metric.spec.measure.better,
        "n": n,
        "reference": metric.reference.name,
        "reference_digest": metric.reference.digest,
        "extractor": metric.extractor.name,
        "extractor_digest": metric.extractor.digest,
        "quantiser": QUANTISER,
        "notes": _notes(n, metric),
    }


def _notes(n: int, metric: BoundMetric) -> list[str]:
    notes = []
    dim, certificate = metric.extractor.dim, metric.reference.certificate
    distance = metric.spec.measure.name in ("fd", "fd_inf")
    if distance and n <= dim:
        notes.append(
            f"{n} images for {dim} features: the covariance is singular and the distance far too "
            "large"
        )
    elif metric.spec.measure.name == "fd_inf" and n <= 2 * dim:
        notes.append(
            f"{n:,} images for {dim:,} features: half of them do not span the space, and a part of "
            "the bias stays"
        )
    elif metric.spec.measure.name == "fd" and n < ENOUGH:
        notes.append(f"fewer than {ENOUGH:,} images ({n:,}), so biased upwards")
    if not certificate:
        notes.append("the reference does not say with which extractor and resize it was made")
    elif distance and certificate["count"] <= dim:
        notes.append(f"the reference is of only {certificate['count']} images")
    name = metric.extractor.name
    if name.startswith("inception-") and name != "inception-v3":
        weights = metric.extractor.digest[:8]
        notes.append(f"Inception weights {weights} are not the published ones: this is not a FID")
    return notes
