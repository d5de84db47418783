"""Reference statistics: the moments of the images that samples are compared with.

A file is an npz with `mu` (d,), `sigma` (d, d, divided by n - 1) and `n`, as other tools read them,
and `certificate`: JSON that says how they were made (from what, with which extractor, rounded
how). A file that does not fit the extractor in use is refused before anything is sampled.
The features themselves may be kept beside it (`bench.metrics.kept_features`).

Statistics under a name are looked for among the user's own (`cache_folder`), which win, and among
those that ship with the package; statistics under a path are read from there.
"""

import hashlib
import io
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import bench
from bench import atomic
from bench.diffusion.noise import Noise
from bench.errors import MetricError, nearest
from bench.metrics import kept_features
from bench.metrics.image_files import open_images
from bench.metrics.images import QUANTISER, batches, read_arrays, to_uint8
from bench.metrics.kept_features import Features
from bench.metrics.manifold import radii
from bench.metrics.moments import Array, Moments
from bench.metrics.protocol import Extractor

FORMAT = 1
AS_STORED = "as stored"
"""In place of a quantiser: the images were bytes to begin with."""
DRAWS = 50_000
"""Exact draws in the statistics of a model: as many as CIFAR-10 has training images."""
DRAWS_SEED = 2**63
"""Seed of these draws, out of the way of the seeds of sweeps: a cell that shared its noise with the
reference would look better than it is."""
CIFAR10 = {"cifar10-train": True, "cifar10-test": False}
_BATCH = 500

Certificate = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the number of images done and of all."""


class Named(Protocol):
    """The part of an extractor that the name of a file needs."""

    @property
    def name(self) -> str:
        """See `bench.metrics.protocol.Extractor`."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Moments of reference images with their birth certificate.

    Args:
        name: what a sweep calls it.
        moments: of the features of the images.
        certificate: source, count, extractor, quantiser, versions; empty for statistics of other
            tools, which say nothing about themselves.
        digest: sha256 of the numbers, whatever file they are in.
        features: those that the moments are of, float32 (n, d), where they were kept.
    """

    name: str
    moments: Moments
    certificate: Certificate
    digest: str
    features: Features | None = None

    @cached_property
    def radii(self) -> Array:
        """See `manifold.radii`; made once, since it costs as much as a precision."""
        assert self.features is not None
        return radii(self.features)


def load(
    reference: str, extractor: Extractor, metric: str, *, with_features: bool = False
) -> Reference:
    """The statistics that a sweep calls `reference`, in the features of `extractor`; see `find`."""
    return find(reference, extractor, metric, with_features=with_features)[1]


def find(
    reference: str, extractor: Extractor, metric: str, *, with_features: bool = False
) -> tuple[Path, Reference]:
    """The statistics that a sweep calls `reference`, with the file that they are in.

    Args:
        reference: a name (`cifar10-train`) or the path of an npz.
        extractor: what the samples will go through.
        metric: the metric that asks, for the command that a message recommends.
        with_features: whether the metric needs the features too.

    Raises:
        MetricError: nothing under this name; a file that is damaged, of another extractor,
            quantiser or dimension, or without features that are needed. The message says how to
            build the right one.
    """

    def problem_with(found: Reference) -> str:
        lacks = with_features and found.features is None
        return mismatch(found, extractor) or (
            f"has no features of its images beside it, which {metric} needs" if lacks else ""
        )

    if is_path(reference):
        found = read(Path(reference), with_features=with_features)
        problem = problem_with(found)
        if problem:
            source = found.certificate.get("source", "IMAGES.npz")
            raise MetricError(
                f"{reference} {problem}. Rebuild with "
                f'"bench reference {source} --metric {metric} --out {reference}".'
            )
        return Path(reference), found
    problems = []
    for path in (place(reference, extractor), shipped(reference, extractor)):
        if path.is_file():
            found = read(path, with_features=with_features)
            problem = problem_with(found)
            if not problem:
                return path, found
            problems.append(f"{path} {problem}.")
    if problems:
        raise MetricError(
            f'{" ".join(problems)} Rebuild with "bench reference {reference} --metric {metric}".'
        )
    raise MetricError(
        f'There are no statistics of "{reference}" in the features of {extractor.name}.'
        f'{nearest(reference, _known(extractor) - {reference})} Build them with "bench reference '
        f'{reference} --metric {metric}", or give the path of an npz file.'
    )


def is_path(reference: str) -> bool:
    """Whether a sweep means a file by this, rather than a name."""
    return reference.endswith(".npz") or "/" in reference or os.sep in reference


def read(path: Path, *, with_features: bool = False) -> Reference:
    """The statistics in an npz file, whoever made it.

    Args:
        path: the file.
        with_features: whether to look for the features beside it, and to check that they belong.

    Raises:
        MetricError: not such a file, numbers that no covariance can have, or features of other
            statistics.
    """
    arrays = read_arrays(
        path,
        needed=("mu", "sigma"),
        hint=f'"mu" and "sigma". Statistics of images are made by "bench reference {path}".',
        also=("certificate",),
    )
    mu, sigma = arrays["mu"], arrays["sigma"]
    for name, values in (("mu", mu), ("sigma", sigma)):
        if values.dtype.kind != "f":
            raise MetricError(f"{path}: {name} is {values.dtype}; expected floating point.")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise MetricError(
                f"{path}: {bad} of {values.size} numbers of {name} are not finite. Build it again."
            )
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise MetricError(
            f"{path}: mu has the shape {mu.shape} and sigma {sigma.shape}; "
            "expected (d,) and (d, d). Build it again."
        )
    if sigma.dtype != np.float64:
        raise MetricError(
            f"{path}: sigma is {sigma.dtype}; expected float64, since rounding in a covariance "
            "moves the distance by more than samplers differ. Build it again."
        )
    mean, covariance = mu.astype(np.float64), sigma.astype(np.float64)
    skew = float(np.abs(covariance - covariance.T).max(initial=0.0))
    if skew > 1e-9 * float(np.abs(covariance).max(initial=0.0)):
        raise MetricError(
            f"{path}: sigma is not symmetric (off by {skew:.3g}); no covariance is that. "
            "Build it again."
        )
    certificate = _certificate(str(arrays["certificate"]), path) if "certificate" in arrays else {}
    # Other tools do not say how many images they had. That it was more than d is what makes their
    # covariance usable at all, and the count is used for nothing but the rank.
    count = int(certificate["count"]) if certificate else len(mean) + 1
    features = None
    if with_features and kept_features.place(path).exists():
        features = kept_features.read(
            path,
            (count, len(mean)),
            certificate.get("features_sha256"),
            certificate.get("source", "IMAGES"),
        )
    return Reference(
        name=certificate.get("name", path.stem),
        moments=Moments(count, mean, covariance * (count - 1)),
        certificate=certificate,
        digest=_digest(count, mean, covariance),
        features=features,
    )


def mismatch(reference: Reference, extractor: Extractor) -> str:
    """Why `reference` cannot be used with `extractor`, as the end of a sentence; "" if it can."""
    found, expected = reference.moments.dim, extractor.dim
    if found != expected:
        return f"holds {found}-dimensional statistics; {extractor.name} gives {expected}"
    certificate = reference.certificate
    if not certificate:
        # The only statistics without a certificate in circulation are those of the FID.
        if extractor.name == "inception-v3":
            return ""
        return (
            "does not say how it was made, so it can only be taken for statistics of the published "
            f"Inception-v3; the extractor is {extractor.name}"
        )
    made = certificate["extractor"]
    for key, value in _describe(extractor).items():
        if made.get(key) != value:
            return (
                f"was made with {made.get('name')} of another {key} ({_short(made.get(key))}); "
                f"{extractor.name} has {_short(value)}"
                if key != "name"
                else f"was made with {made.get('name')}; the extractor is {value}"
            )
    quantiser = certificate["quantiser"]
    if quantiser not in (AS_STORED, QUANTISER):
        return f'was made from images quantised by "{quantiser}"; expected "{QUANTISER}"'
    return ""


def save(path: Path, reference: Reference) -> None:
    """Write statistics and certificate to `path`, and features, if there are any, beside it.

    Each file is replaced in one step. Features of other statistics that lie there are removed.

    Raises:
        ResultError: a file cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        mu=reference.moments.mean,
        sigma=reference.moments.covariance,
        n=np.int64(reference.moments.count),
        certificate=np.array(json.dumps(reference.certificate, sort_keys=True)),
    )
    atomic.make_folder(path.parent)
    beside = kept_features.place(path)
    if reference.features is not None:
        kept_features.write(beside, reference.features)
    else:
        with atomic.explained(beside):
            beside.unlink(missing_ok=True)
    atomic.write_bytes(path, buffer.getvalue())


def cache_folder() -> Path:
    """Where statistics and data sets of this user are kept: BENCH_CACHE, else ~/.cache/bench."""
    named = os.environ.get("BENCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bench"


def data_folder() -> Path:
    """Where data sets are kept: CIFAR-10 in its folder `cifar-10-batches-py`."""
    return cache_folder() / "data"


def place(name: str, extractor: Named) -> Path:
    """Where `bench reference` keeps statistics of this name."""
    return cache_folder() / "reference" / f"{name}.{extractor.name}.npz"


def shipped(name: str, extractor: Named) -> Path:
    """Where statistics of this name are in the package, if it has them."""
    return Path(str(resources.files(bench))) / "assets/reference" / f"{name}.{extractor.name}.npz"


class Drawable(Protocol):
    """The part of a model that statistics need: exact draws from its distribution."""

    @property
    def digest(self) -> str:
        """Of its weights and settings."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""

    def draw(self, noise: Noise, /) -> torch.Tensor | None:
        """Images (B, C, H, W) in [-1, 1], or None where the model has no exact draws."""


def from_cifar10(
    source: str,
    extractor: Extractor,
    *,
    name: str | None = None,
    data: Path | None = None,
    keep_features: bool = False,
    progress: Progress | None = None,
) -> Reference:
    """Statistics of CIFAR-10's training or test images, through torchvision.

    Args:
        source: `cifar10-train` or `cifar10-test`.
        extractor: whose features.
        name: what a sweep calls it; by default the source.
        data: folder with torchvision's `cifar-10-batches-py`; downloaded to it if absent.
        keep_features: whether the features are kept too.
        progress: see `Progress`.

    Raises:
        MetricError: the data set is not there and cannot be downloaded.

    Reference: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    details = {"dataset": "CIFAR-10", "split": source.removeprefix("cifar10-")}
    return from_images(
        cifar10_images(source, data),
        extractor,
        name=name or source,
        source=source,
        details=details,
        keep_features=keep_features,
        progress=progress,
    )


def cifar10_images(source: str, data: Path | None = None) -> NDArray[np.uint8]:
    """The images of `cifar10-train` or `cifar10-test`, uint8 (N, 32, 32, 3).

    Args:
        source: which.
        data: folder with torchvision's `cifar-10-batches-py`; downloaded to it if absent.

    Raises:
        MetricError: the data set is not there and cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

    folder = data or data_folder()
    try:
        dataset = TorchvisionCIFAR10(str(folder), train=CIFAR10[source], download=True)
    except (OSError, RuntimeError) as error:
        raise MetricError(
            f"CIFAR-10 is not in {folder} and could not be downloaded ({error}). Put the folder "
            "cifar-10-batches-py there (https://www.cs.toronto.edu/~kriz/cifar.html), or give an "
            f'npz of its images: "bench reference IMAGES.npz --name {source}".'
        ) from None
    return np.asarray(dataset.data, dtype=np.uint8)


def from_files(
    path: Path,
    extractor: Extractor,
    *,
    name: str | None = None,
    keep_features: bool = False,
    progress: Progress | None = None,
) -> Reference:
    """Statistics of the images in a folder, archive or npz, see `bench.metrics.image_files`.

    Args:
        path: where they are.
        extractor: whose features.
        name: what a sweep calls it; by default that of the folder or file, without its ending.
        keep_features: whether the features are kept too.
        progress: see `Progress`.

    Raises:
        MetricError: there are no images, or some that cannot be taken as they are.
    """
    images = open_images(path)
    return _build(
        images.batches(_BATCH),
        images.count,
        extractor,
        name=name or images.name,
        source=str(path),
        quantiser=AS_STORED,
        details={"lossy": images.lossy} if images.lossy else {},
        keep_features=keep_features,
        progress=progress,
    )


def from_images(
    images: np.ndarray[Any, np.dtype[np.uint8]],
    extractor: Extractor,
    *,
    name: str,
    source: str,
    details: Certificate,
    keep_features: bool = False,
    progress: Progress | None = None,
) -> Reference:
    """Statistics of stored images, uint8 of shape (N, H, W, 3).

    Args:
        images: at least two.
        extractor: whose features.
        name: of the reference.
        source: what `bench reference` was given, so that a message can say how to repeat it.
        details: more facts for the certificate (data set, split).
        keep_features: whether the features are kept too.
        progress: see `Progress`.
    """
    return _build(
        batches(images, _BATCH),
        len(images),
        extractor,
        name=name,
        source=source,
        quantiser=AS_STORED,
        details=details,
        keep_features=keep_features,
        progress=progress,
    )


def from_model(
    model: Drawable,
    name: str,
    extractor: Extractor,
    *,
    source: str | None = None,
    count: int = DRAWS,
    seed: int = DRAWS_SEED,
    device: torch.device | str = "cpu",
    keep_features: bool = False,
    progress: Progress | None = None,
) -> Reference:
    """Statistics of exact draws from a model, rounded as samples are.

    A sampler that solved the model's equations perfectly would have these statistics, so the
    distance to them is the sampler's error alone.

    Args:
        model: one with exact draws.
        name: of the model, and of the reference.
        extractor: whose features.
        source: what `bench reference` was given, if not the name.
        count: number of draws. Statistics of few images are noisy, and the noise adds to every
            distance about as much as that of `count` samples does.
        seed: of the draws; no sweep that is compared with them may use it.
        device: where the model is.
        keep_features: whether the features are kept too.
        progress: see `Progress`.

    Raises:
        MetricError: the model has no exact draws.
    """

    def draws() -> Iterator[torch.Tensor]:
        for start in range(0, count, _BATCH):
            samples = range(start, min(start + _BATCH, count))
            x = model.draw(Noise(seed, samples, model.shape, device=device))
            if x is None:
                raise MetricError(
                    f'The model "{name}" has no exact draws, so it cannot be its own reference. '
                    "Use the images that it was trained on."
                )
            yield to_uint8(x)

    return _build(
        draws(),
        count,
        extractor,
        name=name,
        source=source or name,
        quantiser=QUANTISER,
        details={"model_digest": model.digest, "seed": str(seed)},
        keep_features=keep_features,
        progress=progress,
    )


def _build(
    images: Iterable[torch.Tensor],
    total: int,
    extractor: Extractor,
    *,
    name: str,
    source: str,
    quantiser: str,
    details: Certificate,
    keep_features: bool,
    progress: Progress | None,
) -> Reference:
    moments = Moments.empty(extractor.dim)
    features = np.empty((total, extractor.dim), dtype=np.float32) if keep_features else None
    for batch in images:
        part = extractor(batch).cpu().numpy()
        if features is not None:
            features[moments.count : moments.count + len(part)] = part
        moments += Moments.from_features(part)
        if progress:
            progress(moments.count, total)
    certificate = {
        "format": FORMAT,
        "name": name,
        "source": source,
        **details,
        "count": moments.count,
        "extractor": _describe(extractor),
        "quantiser": quantiser,
        "versions": {
            "bench": bench.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
        },
    }
    if features is not None:
        certificate["features_sha256"] = kept_features.digest(features)
    digest = _digest(moments.count, moments.mean, moments.covariance)
    return Reference(name, moments, certificate, digest, features)


def _describe(extractor: Extractor) -> dict[str, str]:
    return {
        "name": extractor.name,
        "digest": extractor.digest,
        "numerics": extractor.numerics,
        "resize": extractor.resize,
    }


def _certificate(text: str, path: Path) -> Certificate:
    try:
        certificate = json.loads(text)
        version = certificate["format"]
    except (ValueError, TypeError, KeyError):
        raise MetricError(f"{path}: its certificate cannot be read. Build it again.") from None
    if version != FORMAT:
        raise MetricError(
            f"{path} has a certificate of format {version}; this version of bench reads "
            f"{FORMAT}. Build the file again, or update bench."
        )
    missing = {"name", "source", "count", "extractor", "quantiser"} - set(certificate)
    if missing:
        raise MetricError(
            f"{path}: its certificate lacks {', '.join(sorted(missing))}. Build it again."
        )
    return dict(certificate)


def _digest(count: int, mean: Array, covariance: Array) -> str:
    digest = hashlib.sha256(str(count).encode())
    for values in (mean, covariance):
        digest.update(np.ascontiguousarray(values, dtype="<f8").tobytes())
    return digest.hexdigest()


def _known(extractor: Extractor) -> set[str]:
    ending = f".{extractor.name}.npz"
    folders = (place("x", extractor).parent, shipped("x", extractor).parent)
    files = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return {*CIFAR10, *(file.removesuffix(ending) for file in files if file.endswith(ending))}


def _short(value: object) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 else f'"{text}"'
