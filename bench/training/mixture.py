"""How `cifar10-mixture` was made: a Gaussian mixture fitted to images by EM.

1. Scale the images to [-1, 1] (u8 / 127.5 - 1) and take their mean and principal directions in
   float64. The first `rank` become the shared basis; the mean variance of the others is the one
   remainder variance (the maximum-likelihood estimate of Tipping & Bishop 1999, eq. 8).
2. Inside the basis, scaled to unit variance, run EM with full covariances from a k-means start.
3. Write basis, centres, axes and variances to safetensors, with a certificate as metadata.

Everything is float64 up to the file, which is float32. The file is a function of the images and
the arguments, to the byte on one machine with one number of threads; elsewhere rounding differs,
and EM amplifies that slowly. On CIFAR-10 it takes about 100 EM steps: 14 minutes of one busy core.

References: Dempster, Laird & Rubin 1977 (EM); Arthur & Vassilvitskii 2007 (k-means++);
Fraley & Raftery 2007 (the inverse-Wishart prior that keeps covariances from collapsing).
"""

from __future__ import annotations

import hashlib
import logging
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import bench
from bench.errors import TrainingError
from bench.models import mixture as model

log = logging.getLogger(__name__)

# Weight of the prior on each covariance, in images of the data's own covariance. One image in
# thousands changes nothing where there is data, and keeps a starved component from collapsing.
_PRIOR_IMAGES: Final = 1.0
# Responsibilities below this move no covariance by more than float64 rounding; without them the
# M-step reads a few thousand rows a component instead of all.
_NEGLIGIBLE: Final = 1e-14
_LLOYD_ROUNDS: Final = 10
_ROWS: Final = 2048  # images worked on at a time


@dataclass(frozen=True)
class Basis:
    """Mean and principal directions of images.

    Attributes:
        mean: (D,) mean image.
        directions: (D, d) orthonormal columns, largest variance first.
        variances: (d,) their variances.
        remainder: mean variance of the D - d directions outside.
        share: part of the total variance inside the basis.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    remainder: float
    share: float


@dataclass(frozen=True)
class Components:
    """Gaussians: weights (K,), means (K, d), covariances (K, d, d), all float64."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True)
class Certificate:
    """What is recorded beside the weights. Log-likelihoods are nats per dimension of [-1, 1] data.

    Attributes:
        log_likelihood: of the training images under the mixture.
        log_likelihood_single: the same for one Gaussian of the same form.
        share: part of the variance that lies inside the basis.
        remainder: variance of each direction outside.
        images, images_sha256: count, and digest of the uint8 pixels.
        iterations: EM steps taken until the gain fell below the tolerance.
    """

    log_likelihood: float
    log_likelihood_single: float
    share: float
    remainder: float
    images: int
    images_sha256: str
    components: int
    rank: int
    seed: int
    iterations: int
    tolerance: float
    versions: dict[str, str]


def fit_mixture(
    data: Path,
    out: Path,
    *,
    components: int = 16,
    rank: int = 192,
    iterations: int = 500,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> Certificate:
    """Fit a mixture to the images in an npz file and write it as safetensors.

    Args:
        data: npz with `arr_0`, uint8 (n, H, W, 3).
        out: file to write; it is replaced only when the new one is complete.
        components: K, at least 1.
        rank: d, directions of the shared basis, from 1 to min(n, D) - 1.
        iterations: EM steps at most.
        tolerance: stop when a step gains less than this many nats an image.
        seed: of the k-means++ start, the only random choice.

    Raises:
        TrainingError: unreadable or unfit images, or a component that lost all its images.
    """
    images = read_images(data)
    n, height, width, channels = images.shape
    dims = height * width * channels
    if not 1 <= rank < min(n, dims):
        raise TrainingError(
            f"{data} holds {n} images of {dims} numbers, which leaves no room for rank {rank}; "
            f"ask for a rank from 1 to {min(n, dims) - 1}."
        )
    if not 1 <= components <= n:
        raise TrainingError(
            f"{data} holds {n} images, which cannot start {components} components; "
            f"ask for 1 to {n}."
        )
    basis = principal_basis(images, rank)
    log.info("basis of %d directions holds %.2f %% of the variance", rank, 100 * basis.share)
    scale = basis.variances.sqrt()
    points = torch.cat([((rows - basis.mean) @ basis.directions) / scale for rows in _scan(images)])
    # k-means sees the images at their own scale: at unit variance, a single strange image is far
    # from everything and keeps a component to itself.
    labels = kmeans(points * scale, components, seed=seed)
    fitted, history = expectation_maximisation(
        points, labels, iterations=iterations, tolerance=tolerance
    )
    # log|d points / d images| of the scaling, and the entropy-like constant of the remainder
    outside = -0.5 * (dims - rank) * (math.log(2 * math.pi * basis.remainder) + 1)
    constant = outside - float(scale.log().sum())
    single = -0.5 * rank * (math.log(2 * math.pi) + 1)
    certificate = Certificate(
        log_likelihood=(float(log_density(points, fitted).logsumexp(1).mean()) + constant) / dims,
        log_likelihood_single=(single + constant) / dims,
        share=basis.share,
        remainder=basis.remainder,
        images=n,
        images_sha256=hashlib.sha256(images.tobytes()).hexdigest(),
        components=components,
        rank=rank,
        seed=seed,
        iterations=len(history),
        tolerance=tolerance,
        versions={"bench": bench.__version__, "torch": str(torch.__version__)},
    )
    order = fitted.weights.argsort(descending=True)
    spectrum, axes = torch.linalg.eigh(scale[:, None] * fitted.covariances[order] * scale[None, :])
    model.save(
        out,
        shape=(channels, height, width),
        weights=fitted.weights[order],
        spectrum=spectrum,
        remainder=basis.remainder,
        mean=basis.mean,
        basis=basis.directions,
        centres=fitted.means[order] * scale,
        axes=axes,
        notes={"recipe": "bench train mixture", **vars(certificate)},
    )
    return certificate


def read_images(path: Path) -> npt.NDArray[np.uint8]:
    """The uint8 images (n, H, W, 3) of an npz file.

    Raises:
        TrainingError: the file is missing, is no npz, or holds something else.
    """
    expected = "expected an npz whose arr_0 is uint8 of shape (n, height, width, 3)"
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise TrainingError(f"{path} is a single .npy array; {expected}.")
            if "arr_0" not in archive:
                found = ", ".join(archive.files) or "nothing"
                raise TrainingError(f"{path} holds {found}, but no arr_0; {expected}.")
            images: npt.NDArray[Any] = archive["arr_0"]
    except FileNotFoundError:
        raise TrainingError(
            f"There is no file {path}. Give the training images with --data; {expected}."
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path} cannot be read ({error}); {expected}.") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise TrainingError(
            f"arr_0 of {path} is {images.dtype} of shape {images.shape}; {expected}."
        )
    return images


def principal_basis(images: npt.NDArray[np.uint8], rank: int) -> Basis:
    """Mean, the `rank` directions of largest variance, and what is left (D <= a few thousand)."""
    n = len(images)
    dims = images[0].size
    mean = torch.zeros(dims, dtype=torch.float64)
    for rows in _scan(images):
        mean += rows.sum(0) / n
    scatter = torch.zeros(dims, dims, dtype=torch.float64)
    for rows in _scan(images):
        centred = rows - mean
        scatter.addmm_(centred.T, centred)
    variances, directions = torch.linalg.eigh(scatter / n)  # ascending
    inside = variances[-rank:].flip(0)
    total = float(variances.sum())
    outside = max(total - float(inside.sum()), 0.0)
    remainder = outside / (dims - rank)
    if not float(inside[-1]) > 0 or not remainder > 0:
        raise TrainingError(
            f"The images vary in fewer than {rank + 1} directions; give more images or a rank "
            "below the number of directions in which they differ."
        )
    return Basis(
        mean=mean,
        directions=directions[:, -rank:].flip(1).contiguous(),
        variances=inside,
        remainder=remainder,
        share=1 - outside / total,
    )


def expectation_maximisation(
    points: Tensor, labels: Tensor, *, iterations: int, tolerance: float
) -> tuple[Components, list[float]]:
    """Fit full-covariance Gaussians to points of about unit variance.

    What increases at every step is the log-likelihood plus the log-prior
    -nu/2 sum_k (log|S_k| + tr S_k^-1), with nu = 1 image.

    Args:
        points: (n, d) float64.
        labels: (n,) integers, the component 0..K-1 that each point starts in.
        iterations: steps at most.
        tolerance: stop when a step gains less than this, in nats a point.

    Returns:
        The components, and that objective (nats a point) before each step.

    Raises:
        TrainingError: a component is left without points.
    """
    shares = torch.nn.functional.one_hot(labels).to(points.dtype)
    history: list[float] = []
    while True:
        fitted = _maximise(points, shares)
        joint = log_density(points, fitted)
        evidence = joint.logsumexp(1, keepdim=True)
        history.append(float(evidence.mean()) + _log_prior(fitted) / len(points))
        gain = history[-1] - history[-2] if len(history) > 1 else math.inf
        log.info("EM step %d: %.4f nats an image, gain %.2g", len(history), history[-1], gain)
        if gain < tolerance or len(history) >= iterations:
            return fitted, history
        shares = (joint - evidence).exp()


def kmeans(points: Tensor, clusters: int, *, seed: int) -> Tensor:
    """Labels (n,) of a few Lloyd rounds from a k-means++ start.

    Raises:
        TrainingError: there are fewer distinct points than clusters.
    """
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(len(points), (1,), generator=generator)
    centres = points[first]
    nearest = (points - centres).square().sum(1)
    while len(centres) < clusters:
        if not float(nearest.sum()) > 0:
            raise TrainingError(
                f"There are only {len(centres)} different images for {clusters} components; "
                "give more images or ask for fewer components."
            )
        chosen = points[torch.multinomial(nearest, 1, generator=generator)]
        centres = torch.cat([centres, chosen])
        nearest = torch.minimum(nearest, (points - chosen).square().sum(1))
    labels = torch.cdist(points, centres).argmin(1)
    for _ in range(_LLOYD_ROUNDS):
        for k in (
            torch.bincount(labels).nonzero()[:, 0].tolist()
        ):  # a cluster that lost all points keeps its centre
            centres[k] = points[labels == k].mean(0)
        labels = torch.cdist(points, centres).argmin(1)
    return labels


def log_density(points: Tensor, fitted: Components) -> Tensor:
    """log(w_k N(y; mu_k, S_k)) for points (n, d), as (n, K)."""
    factors = torch.linalg.cholesky(fitted.covariances)
    eye = torch.eye(points.shape[1], dtype=points.dtype)
    whiten = torch.linalg.solve_triangular(factors, eye, upper=False).mT.contiguous()
    constant = (
        fitted.weights.log()
        - factors.diagonal(dim1=1, dim2=2).log().sum(1)
        - 0.5 * points.shape[1] * math.log(2 * math.pi)
    )
    joint = points.new_empty(len(points), len(fitted.weights))
    for start in range(0, len(points), _ROWS):
        rows = points[start : start + _ROWS]
        for k, mean in enumerate(fitted.means):
            distance = ((rows - mean) @ whiten[k]).square().sum(1)
            joint[start : start + _ROWS, k] = constant[k] - 0.5 * distance
    return joint


def _maximise(points: Tensor, shares: Tensor) -> Components:
    """The M-step: moments of the points weighted by their shares (n, K), and the prior."""
    n, dims = points.shape
    counts = shares.sum(0)
    if not bool((counts > _NEGLIGIBLE).all()):
        lost = int(counts.argmin())
        raise TrainingError(
            f"Component {lost + 1} of {len(counts)} has lost all its images; ask for fewer "
            "components or another seed."
        )
    means = points.new_empty(len(counts), dims)
    covariances = points.new_empty(len(counts), dims, dims)
    prior = _PRIOR_IMAGES * torch.eye(dims, dtype=points.dtype)
    for k, count in enumerate(counts):
        used = (shares[:, k] > _NEGLIGIBLE).nonzero()[:, 0]
        rows, weight = points[used], shares[used, k, None]
        means[k] = (weight * rows).sum(0) / count
        centred = rows - means[k]
        covariances[k] = (prior + (weight * centred).T @ centred) / (count + _PRIOR_IMAGES)
    return Components(counts / n, means, covariances)


def _log_prior(fitted: Components) -> float:
    traces = torch.linalg.inv(fitted.covariances).diagonal(dim1=1, dim2=2).sum()
    return -0.5 * _PRIOR_IMAGES * float(torch.logdet(fitted.covariances).sum() + traces)


def _scan(images: npt.NDArray[np.uint8]) -> Iterator[Tensor]:
    """Blocks of images as float64 (b, C H W) in [-1, 1]."""
    for start in range(0, len(images), _ROWS):
        block = torch.from_numpy(images[start : start + _ROWS]).permute(0, 3, 1, 2)
        yield block.flatten(1).to(torch.float64) / 127.5 - 1
