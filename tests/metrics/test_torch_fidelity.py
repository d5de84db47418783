"""The numbers of torch-fidelity's `calculate_metrics` on the same features.

Its formulas, given float64, must give our values to 1e-6; given float32, as it computes itself, to
its own rounding. Its FID has a larger error of its own, which singular values show.
"""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from bench.metrics import classifier, kernel, manifold
from bench.metrics.frechet import frechet_distance
from bench.metrics.moments import Moments
from tests.metrics.laws import inception_like

EPS = float(np.finfo(np.float32).eps)

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]

slow = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1500, 64), id="1500x64"),
        pytest.param((2000, 2048), id="2000x2048", marks=slow),
        pytest.param((10_000, 2048), id="10000x2048", marks=slow),
    ],
)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Features of samples and of a reference, as many of either."""
    n, d = request.param
    return inception_like(n, d, 0, shift=0.1), inception_like(n, d, 1)


def tensors(pair: Pair, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.from_numpy(features).to(dtype) for features in pair)
    return first, second


def test_kernel_distance(pair: Pair) -> None:
    def theirs(dtype: torch.dtype) -> float:
        found: dict[str, Any] = kid_features_to_metric(*tensors(pair, dtype), verbose=False)
        return float(found["kernel_inception_distance_mean"])

    ours = kernel.measure(*pair).value
    assert ours > 1e-4
    assert theirs(torch.float64) == pytest.approx(ours, rel=1e-9)
    # A difference of averages of the kernel: their rounding is that of the averages.
    average = float(kernel.kernel(pair[0][:500], pair[1][:500]).mean())
    assert theirs(torch.float32) == pytest.approx(ours, abs=EPS * average)


def test_classifier_score(pair: Pair) -> None:
    features = pair[0]
    head = np.random.default_rng(5).standard_normal((100, features.shape[1])).astype(np.float32)
    head *= 4 / features.shape[1] ** 0.5
    logits = classifier.logits(features, head)

    def theirs(logits: torch.Tensor) -> float:
        return float(isc_features_to_metric(logits)["inception_score_mean"])

    ours = classifier.measure(logits).value
    assert 1.5 < ours < 50
    assert theirs(torch.from_numpy(logits)) == pytest.approx(ours, rel=1e-9)
    # They take logits in float32 and go on in float64.
    product = torch.from_numpy(features) @ torch.from_numpy(head).T
    assert theirs(product) == pytest.approx(ours, rel=100 * EPS)


def test_precision_and_recall(pair: Pair) -> None:
    def theirs(dtype: torch.dtype) -> list[float]:
        found: dict[str, Any] = prc_features_to_metric(
            *tensors(pair, dtype), verbose=False, save_cpu_ram=True, prc_batch_size=2500
        )
        return [found["precision"], found["recall"]]

    samples, reference = pair
    ours = [
        manifold.precision(samples, reference, manifold.radii(reference)).value,
        manifold.recall(samples, reference).value,
    ]
    assert 0.05 < min(ours) <= max(ours) < 0.999
    assert theirs(torch.float64) == pytest.approx(ours, rel=1e-6)
    # Rounding of a distance moves an image that lies on the edge of a ball.
    assert theirs(torch.float32) == pytest.approx(ours, abs=3.1 / len(samples))


def exact(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """The distance by singular values of triangles: no square root of anything near zero."""
    a, b = (f.astype(np.float64) - f.mean(0, dtype=np.float64) for f in (x, y))
    a, b = (np.linalg.qr(f / np.sqrt(len(f) - 1), mode="r") for f in (a, b))
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    delta = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    return float(delta @ delta + (a**2).sum() + (b**2).sum() - 2 * trace)


def test_frechet_distance(pair: Pair) -> None:
    def theirs(dtype: torch.dtype) -> float:
        statistics = [fid_features_to_statistics(f) for f in tensors(pair, dtype)]
        found = fid_statistics_to_metric(*statistics, verbose=False)
        return float(found["frechet_inception_distance"])

    ours = frechet_distance(*map(Moments.from_features, pair))
    right = exact(*pair)
    assert ours == pytest.approx(right, rel=1e-9)
    for dtype in (torch.float64, torch.float32):
        assert theirs(dtype) == pytest.approx(right, rel=1e-4)
        assert abs(ours - right) <= max(abs(theirs(dtype) - right), 1e-12 * right)
