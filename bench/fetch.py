"""What a sweep needs on the disk, and how to bring it there.

Its cells read weights of models, weights of extractors and reference statistics; and statistics
that have to be built need a data set. `needs` looks for all of it without asking a network, so that
on a machine without one a person reads, before any job is queued, which file to copy to which
place.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench import models, yaml_lines
from bench.errors import BenchError, MetricError, SweepError, nearest
from bench.metrics import kept_features, registry
from bench.metrics import reference as references
from bench.metrics.image_files import means_files
from bench.metrics.protocol import Extractor
from bench.metrics.reference import CIFAR10, DRAWS, Progress, Reference
from bench.metrics.registry import METRICS, MetricSpec
from bench.models import ModelFiles
from bench.sweep_file import Head, validated
from bench.yaml_lines import Document

Bring = Callable[[str, Progress], object]
"""Given a device and a callback, brings something to its place or raises a BenchError."""


@dataclass(frozen=True)
class Need:
    """Something that the cells of a sweep read.

    Attributes:
        what: in words.
        place: where it is, or where it would be.
        present: whether it is there and can be used.
        size: in bytes, where it is there.
        digest: sha256 (hex) as records have it, where it is there: of a file of weights, or of the
            numbers in statistics.
        remedy: what is wrong and what to do by hand; "" where it is present.
        bring: downloads or builds it; None where that cannot be done from here.
    """

    what: str
    place: Path
    present: bool
    size: int | None = None
    digest: str | None = None
    remedy: str = ""
    bring: Bring | None = field(default=None, repr=False, compare=False)

    def facts(self) -> dict[str, Any]:
        """As JSON data; `automatic` says whether "bench fetch" can bring it."""
        return {
            "what": self.what,
            "place": str(self.place),
            "present": self.present,
            "size": self.size,
            "digest": self.digest,
            "remedy": self.remedy,
            "automatic": self.bring is not None,
        }


def needs(file: Path | str) -> list[Need]:
    """What the sweep in a YAML file needs, in the order in which it can be brought.

    Extractors are opened, but only where their weights are there; nothing is downloaded.

    Raises:
        SweepError: the file names a model or metric that there is not, or is no sweep.
    """
    document = yaml_lines.read(file)
    head = validated(Head, document, document.data, ())
    files = list(_model_files(document))
    specs = list(_metrics(document, head.metrics if head else ()))
    document.stop_at_problems()
    assert head is not None
    statistics = list(_statistics(head.reference, specs))
    data = head.reference in CIFAR10 and not all(need.present for need in statistics)
    return [
        *map(_model, {one.place: one for one in files}.values()),
        *_inception(specs),
        *([_cifar10(head.reference)] if data else []),
        *statistics,
    ]


def build_reference(
    source: str,
    extractor: Extractor,
    *,
    name: str | None = None,
    data: Path | None = None,
    count: int = DRAWS,
    device: str = "cpu",
    keep_features: bool = False,
    progress: Progress | None = None,
) -> Reference:
    """Reference statistics of whatever `source` names.

    Args:
        source: a name of CIFAR-10, images (a folder, archive or npz), or a model with exact draws,
            by its name or .safetensors file. A name wins over a folder that is called the same.
        extractor: whose features.
        name: what a sweep calls the statistics; by default by the source.
        data: folder of torchvision's CIFAR-10; by default the cache's.
        count: number of draws, where the source is a model.
        device: where a model computes.
        keep_features: whether the features are kept too.
        progress: see `bench.metrics.reference.Progress`.

    Raises:
        SweepError: nothing is called so.
        MetricError, ModelError: it cannot be had, or is not what statistics can be made of.
    """
    if source in CIFAR10:
        return references.from_cifar10(
            source, extractor, name=name, data=data, keep_features=keep_features, progress=progress
        )
    is_file = source.endswith(".safetensors")
    if is_file or source in models.NAMES:
        spec = models.describe({"kind": "mixture", "name": source} if is_file else source)
        return references.from_model(
            models.load(spec, device),
            name or Path(source).stem,
            extractor,
            source=source,
            count=count,
            device=device,
            keep_features=keep_features,
            progress=progress,
        )
    if means_files(source):
        return references.from_files(
            Path(source), extractor, name=name, keep_features=keep_features, progress=progress
        )
    names = [*CIFAR10, *(name for name in models.NAMES if models.describe(name).exact)]
    raise SweepError(
        f'"{source}" is neither a folder or file of images nor one of {", ".join(names)}.'
        f"{nearest(source, names)}"
    )


def _model_files(document: Document) -> Iterator[ModelFiles]:
    given = document.data.get("model")
    for k, model in enumerate(given if isinstance(given, list) else [given]):
        if isinstance(model, str | dict):  # anything else is a problem already
            try:
                yield models.files(model)
            except BenchError as error:
                document.problem(("model", k), f"{error}")


def _metrics(document: Document, names: tuple[str, ...]) -> Iterator[MetricSpec]:
    for k, name in enumerate(names):
        try:
            yield registry.get(name)
        except BenchError as error:
            document.problem(("metrics", k), f"{error}")


def _model(files: ModelFiles) -> Need:
    what = f"model {files.label}"
    if files.missing or files.weights is None:
        remedy = f"Missing: {', '.join(files.missing)}. {files.remedy}"
        download = files.download
        bring = None if download is None else (lambda device, progress: download())
        return Need(what, files.place, False, remedy=remedy, bring=bring)
    with files.weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Need(what, files.place, True, files.weights.stat().st_size, digest)


def _inception(specs: list[MetricSpec]) -> Iterator[Need]:
    """The weights of Inception-v3, if a metric computes with them."""
    # Of those that want the published file and those that take any, the former decide.
    using = [spec for name in _INCEPTION for spec in specs if _same(spec, name)]
    if not using:
        return
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    from bench.metrics.inception import FILE, VARIABLE
    from bench.metrics.inception import place as inception_place

    what, place, named = "Inception-v3 weights", inception_place(), bool(os.environ.get(VARIABLE))
    if not place.is_file():
        remedy = (
            f"{VARIABLE} names this place. Put {FILE} there, from {URL_INCEPTION_V3}, or unset it."
            if named
            else f"Put the file there, from {URL_INCEPTION_V3}, or set {VARIABLE} to where it is."
        )
        yield Need(what, place, False, remedy=remedy, bring=None if named else _bring_inception)
        return
    try:
        digest = using[0].extractor("cpu").digest
        yield Need(what, place, True, place.stat().st_size, digest)
    except MetricError as error:
        yield Need(what, place, False, remedy=str(error))


_INCEPTION = ("fid", "fd_inception")


def _same(spec: MetricSpec, name: str) -> bool:
    """Whether a metric is in the features of another."""
    return spec.extractor is METRICS[name].extractor


def _bring_inception(device: str, progress: Progress) -> None:
    from bench.metrics.inception import download

    download()


def _cifar10(source: str) -> Need:
    from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

    folder = references.data_folder() / TorchvisionCIFAR10.base_folder
    names = [name for name, _ in TorchvisionCIFAR10.train_list + TorchvisionCIFAR10.test_list]
    present = all((folder / name).is_file() for name in names)
    return Need(
        "CIFAR-10, to build the statistics from",
        folder,
        present,
        size=sum((folder / name).stat().st_size for name in names) if present else None,
        remedy=""
        if present
        else f"Put the folder {folder.name} (or {TorchvisionCIFAR10.filename}) into "
        f"{folder.parent}, from {TorchvisionCIFAR10.url}.",
        bring=lambda device, progress: references.cifar10_images(source),
    )


def _statistics(reference: str, specs: list[MetricSpec]) -> Iterator[Need]:
    """The statistics of each extractor, for all metrics in its features."""
    groups: dict[str, list[MetricSpec]] = {}
    for spec in specs:
        groups.setdefault((_opened(spec) or _Unopened()).name, []).append(spec)
    for group in groups.values():
        # The metric that asks for most.
        metric = next((one for one in group if one.measure.needs_features), group[0])
        yield _statistics_for(reference, metric)


@dataclass(frozen=True)
class _Unopened:
    """In place of the published Inception, where its weights are not here yet."""

    name: str = "inception-v3"


def _statistics_for(reference: str, metric: MetricSpec) -> Need:
    extractor = _opened(metric)
    named = extractor or _Unopened()
    what = f"statistics of {reference} in the features of {named.name}"
    is_path = references.is_path(reference)
    place = Path(reference) if is_path else references.place(reference, named)
    with_features = metric.measure.needs_features
    try:
        if extractor is not None:
            path, found = references.find(
                reference, extractor, metric.name, with_features=with_features
            )
        else:
            # Whether they fit can only be told once the extractor is at hand.
            path = place if is_path else _named(reference, named)
            found = references.read(path)
        return Need(what, path, True, _size(path), found.digest)
    except MetricError as error:
        problem = str(error)
    built = not is_path and (reference in CIFAR10 or reference in models.NAMES)
    return Need(
        what,
        place,
        False,
        remedy=f"{problem} {_copy(place, with_features, is_path)}",
        bring=partial(_bring_statistics, reference, metric) if built else None,
    )


def _named(reference: str, extractor: references.Named) -> Path:
    """The file of statistics under a name, whatever is in it.

    Raises:
        MetricError: there is none.
    """
    for path in (references.place(reference, extractor), references.shipped(reference, extractor)):
        if path.is_file():
            return path
    raise MetricError("To build them takes the weights of the network, which come first.")


def _copy(place: Path, with_features: bool, is_path: bool) -> str:
    beside = f" and {kept_features.place(place).name}" if with_features else ""
    text = f"Or copy {place.name}{beside} to {place.parent} from a machine that has it"
    if is_path:
        return f"{text}."
    return f"{text} (BENCH_CACHE names another cache than {references.cache_folder()})."


def _opened(metric: MetricSpec) -> Extractor | None:
    """The extractor; None if it is an Inception without usable weights."""
    if not any(_same(metric, name) for name in _INCEPTION):
        return metric.extractor("cpu")
    from bench.metrics.inception import place

    if not place().is_file():
        return None
    try:
        return metric.extractor("cpu")
    except MetricError:
        return None


def _bring_statistics(reference: str, metric: MetricSpec, device: str, progress: Progress) -> None:
    if _opened(metric) is None:
        raise MetricError(
            f"Statistics of {reference} for {metric.name} cannot be built before the Inception-v3 "
            "weights are there."
        )
    extractor = metric.extractor(device)
    made = build_reference(
        reference,
        extractor,
        device=device,
        keep_features=metric.measure.needs_features,
        progress=progress,
    )
    references.save(references.place(reference, extractor), made)


def _size(statistics: Path) -> int:
    """Of statistics, and of the features beside them."""
    paths = (statistics, kept_features.place(statistics))
    return sum(path.stat().st_size for path in paths if path.is_file())
