"""The distance against closed forms, high precision, and the tools of the literature."""

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from bench.errors import MetricError
from bench.metrics import frechet
from bench.metrics.frechet import frechet_distance, influences, measure
from bench.metrics.moments import Moments


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features whose spectrum falls over four decades, as an extractor's does."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((d, d)))[0]
    x = rng.standard_normal((n, d)) * np.logspace(0, -2, d) @ axes
    return (x + shift).astype(np.float32)


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """The distance from the features themselves: the trace is a nuclear norm of XYᵀ.

    No square root is taken of anything near zero, so this is good to 1e-14 at every rank.
    """
    x, y = x.astype(np.float64), y.astype(np.float64)
    a = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    b = (y - y.mean(0)) / np.sqrt(len(y) - 1)
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    delta = x.mean(0) - y.mean(0)
    return float(delta @ delta + (a**2).sum() + (b**2).sum() - 2 * trace)


def in_high_precision(x: np.ndarray, y: np.ndarray) -> float:
    """The textbook formula with 60 digits."""
    with mpmath.workdps(60):
        means, covariances = [], []
        for f in (x, y):
            rows = mpmath.matrix(f.astype(np.float64).tolist())
            n, d = rows.rows, rows.cols
            mean = [mpmath.fsum(rows[i, j] for i in range(n)) / n for j in range(d)]
            centred = mpmath.matrix([[rows[i, j] - mean[j] for j in range(d)] for i in range(n)])
            means.append(mpmath.matrix(mean))
            covariances.append(centred.T * centred / (n - 1))
        values, vectors = mpmath.eigsy(covariances[1])
        roots = mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values])
        root = vectors * roots * vectors.T
        inner = mpmath.eigsy(root * covariances[0] * root, eigvals_only=True)
        trace = mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in inner)
        delta = means[0] - means[1]
        spread = mpmath.fsum(c[i, i] for c in covariances for i in range(c.rows))
        return float((delta.T * delta)[0] + spread - 2 * trace)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return frechet_distance(Moments.from_features(x), Moments.from_features(y))


def test_commuting_gaussians() -> None:
    # With common axes the distance is |δ|² + Σ(√λ - √κ)².
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    first, second = rng.uniform(0.1, 4, 5), rng.uniform(0.1, 4, 5)
    delta = rng.standard_normal(5)
    a = Moments(11, delta, 10 * (axes * first) @ axes.T)
    b = Moments(11, np.zeros(5), 10 * (axes * second) @ axes.T)
    expected = delta @ delta + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-13)


def test_only_the_means_differ() -> None:
    x = features(60, 8, seed=2)
    assert distance(x + np.float32(0.5), x) == pytest.approx(8 * 0.25, rel=1e-6)


def test_zero_against_itself_and_not_against_another() -> None:
    x, y = features(100, 16, seed=2), features(100, 16, seed=3)
    scale = float(np.trace(Moments.from_features(x).covariance))
    assert 0 <= distance(x, x) < 1e-13 * scale
    assert distance(x, y) > 1e-3 * scale


@pytest.mark.parametrize(
    ("n", "m"), [(30, 40), (4, 30), (30, 4), (4, 6), (3, 3)], ids=lambda n: str(n)
)
def test_high_precision(n: int, m: int) -> None:
    x, y = features(n, 7, seed=2), features(m, 7, seed=3, shift=0.2)
    exact = in_high_precision(x, y)
    assert distance(x, y) == pytest.approx(exact, rel=1e-13)
    assert by_singular_values(x, y) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize(("n", "m"), [(300, 400), (50, 400), (400, 50), (50, 60)])
def test_any_rank(n: int, m: int) -> None:
    x, y = features(n, 128, seed=2), features(m, 128, seed=3, shift=0.01)
    assert distance(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-11)


def test_symmetric() -> None:
    x, y = features(40, 32, seed=2), features(20, 32, seed=3, shift=0.2)
    assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-12)


def test_a_feature_that_never_varies() -> None:
    x, y = features(60, 12, seed=2), features(70, 12, seed=3)
    for f in (x, y):
        f[:, 5] = 1
    assert distance(x, y) == pytest.approx(by_singular_values(x, y), rel=1e-12)


def test_order_of_images_does_not_matter() -> None:
    x, y = features(100, 16, seed=2), features(100, 16, seed=3)
    shuffled = np.random.default_rng(0).permutation(x)
    assert distance(shuffled, y) == pytest.approx(distance(x, y), rel=1e-12)


def test_square_root_of_a_matrix() -> None:
    # The formula as it is usually programmed, where it is well conditioned.
    x, y = features(400, 24, seed=2), features(400, 24, seed=3, shift=0.1)
    a, b = Moments.from_features(x), Moments.from_features(y)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    delta = a.mean - b.mean
    expected = delta @ delta + np.trace(a.covariance + b.covariance - 2 * root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(500, 700), (60, 700)])
def test_tools_of_the_literature(n: int, m: int) -> None:
    """torch-fidelity and torchmetrics, within their own error, which singular values measure."""
    x, y = features(n, 128, seed=2), features(m, 128, seed=3, shift=0.01)
    ours, exact = distance(x, y), by_singular_values(x, y)
    first, second = (
        fid_features_to_statistics(torch.from_numpy(f.astype(np.float64))) for f in (x, y)
    )
    fidelity = fid_statistics_to_metric(first, second, verbose=False)
    theirs = fidelity["frechet_inception_distance"]
    arguments = (torch.from_numpy(s[k]) for s in (first, second) for k in ("mu", "sigma"))
    metrics = float(_compute_fid(*arguments))
    assert ours == pytest.approx(exact, rel=1e-11)
    assert theirs == pytest.approx(ours, rel=1e-5)
    assert metrics == pytest.approx(ours, rel=1e-5)
    assert abs(ours - exact) <= min(abs(theirs - exact), abs(metrics - exact))


def test_bias_falls_as_one_over_n() -> None:
    """Samples of the reference's own law: n times the distance is about constant."""
    reference = Moments.from_features(features(200_000, 8, seed=9))
    products = [
        n * np.mean([frechet_distance(Moments.from_features(features(n, 8, seed)), reference)
                     for seed in range(30)])
        for n in (250, 1000)
    ]  # fmt: skip
    assert products[1] / products[0] == pytest.approx(1, abs=0.2)


def test_different_dimensions() -> None:
    with pytest.raises(MetricError) as error:
        distance(features(10, 5, seed=0), features(10, 6, seed=0))
    assert str(error.value) == (
        "The images have 5 features each, the reference 6. Use one extractor for both."
    )


def test_samples_that_are_no_covariance() -> None:
    good = Moments(10, np.zeros(3), 9 * np.eye(3))
    bad = Moments(10, np.zeros(3), 9 * np.diag([3.0, 2.0, -1.0]))
    with pytest.raises(MetricError) as error:
        frechet_distance(bad, good)
    assert str(error.value) == (
        "An eigenvalue of the product of both covariances is -1, the largest 3; a covariance has "
        "none below zero. The statistics are damaged: rebuild them."
    )


def weighted(samples: Moments, x: np.ndarray, step: float) -> Moments:
    """Moments with a share of `step` moved from all images to the one at x, to first order."""
    u = x.astype(np.float64) - samples.mean
    scatter = samples.scatter + step * ((samples.count - 1) * np.outer(u, u) - samples.scatter)
    return Moments(samples.count, samples.mean + step * u, scatter)


@pytest.mark.parametrize("m", [300, 6, 8], ids=lambda m: f"reference of {m}")
@pytest.mark.parametrize("n", [200, 7, 8], ids=lambda n: f"{n} images")
def test_influence_is_the_derivative_in_the_weight_of_an_image(n: int, m: int) -> None:
    """With 8 features: up to 8 images span fewer directions."""
    x, y = features(n, 8, seed=2), features(m, 8, seed=3, shift=0.2)
    samples, reference = Moments.from_features(x), Moments.from_features(y)
    influence = influences(x, samples, reference)
    assert influence.shape == (n,)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    slopes = []
    for image in range(min(n, 20)):
        up, down = (
            frechet_distance(weighted(samples, x[image], step), reference) for step in (1e-4, -1e-4)
        )
        slopes.append((up - down) / 2e-4)
    # Influences are less their mean, which differs from zero by 1/n: S is divided by n - 1.
    expected = np.array(slopes) - slopes[0] + influence[0]
    assert influence[: len(slopes)] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_influence_is_what_leaving_an_image_out_does() -> None:
    x, y = features(400, 6, seed=2, shift=0.3), features(500, 6, seed=3)
    samples, reference = Moments.from_features(x), Moments.from_features(y)
    whole = frechet_distance(samples, reference)
    left_out = [
        frechet_distance(Moments.from_features(np.delete(x, image, axis=0)), reference)
        for image in range(400)
    ]
    jackknife = 399 * (whole - np.array(left_out))
    influence = influences(x, samples, reference)
    assert np.corrcoef(influence, jackknife)[0, 1] > 0.999
    assert influence.std() == pytest.approx(jackknife.std(), rel=0.02)


def test_influence_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(100, 8, seed=2), Moments.from_features(features(90, 8, seed=3))
    whole = influences(x, Moments.from_features(x), y)
    monkeypatch.setattr(frechet, "BLOCK", 7)
    assert influences(x, Moments.from_features(x), y) == pytest.approx(whole, rel=1e-10)


@pytest.mark.parametrize("noise", [1.0, 1e-2, 1e-4])
def test_influence_near_the_reference(noise: float) -> None:
    """It is small there, and its products are in float32: against the formula in float64."""
    y = features(400, 12, seed=2)
    x = y + np.float32(noise) * features(400, 12, seed=3, shift=0.1)
    samples, reference = Moments.from_features(x), Moments.from_features(y)
    root = scipy.linalg.sqrtm(reference.covariance)
    middle = scipy.linalg.sqrtm(root @ samples.covariance @ root)
    u = x.astype(np.float64) - samples.mean
    squares = (u * (u @ (np.eye(12) - root @ np.linalg.inv(middle) @ root))).sum(axis=1)
    expected = squares - squares.mean() + 2 * u @ (samples.mean - reference.mean)
    found = influences(x, samples, reference)
    assert np.abs(found - expected).max() < 1e-5 * expected.std()


def test_a_reference_that_is_all_the_same() -> None:
    """The map onto a point moves every image there: the influence is what the distance was."""
    x, y = features(50, 4, seed=2), np.full((9, 4), 0.5, np.float32)
    found, _ = measure(x, Moments.from_features(y), extrapolate=False)
    squares = ((x.astype(np.float64) - 0.5) ** 2).sum(axis=1)
    assert found.influence == pytest.approx(squares - squares.mean(), rel=1e-5)


def halves_by_hand(x: np.ndarray, reference: Moments) -> list[float]:
    order = np.random.default_rng(0).permutation(len(x))
    parts = order[: len(x) // 2], order[len(x) // 2 :]
    return [frechet_distance(Moments.from_features(x[part]), reference) for part in parts]


@pytest.mark.parametrize("n", [200, 201, 9, 4])
def test_extrapolation_is_from_the_halves(n: int) -> None:
    x, reference = features(n, 8, seed=2), Moments.from_features(features(300, 8, seed=3))
    plain, extrapolated = measure(x, reference, extrapolate=True)
    assert extrapolated is not None
    assert plain.value == pytest.approx(distance(x, features(300, 8, seed=3)), rel=1e-12)
    expected = 2 * plain.value - np.mean(halves_by_hand(x, reference))
    assert extrapolated.value == pytest.approx(expected, rel=1e-10)
    assert extrapolated.standard_error == plain.standard_error
    assert extrapolated.influence is plain.influence


def test_extrapolation_does_not_move_the_value() -> None:
    x, reference = features(101, 8, seed=2), Moments.from_features(features(300, 8, seed=3))
    alone, nothing = measure(x, reference, extrapolate=False)
    beside, _ = measure(x, reference, extrapolate=True)
    assert nothing is None
    assert alone.value == beside.value
    np.testing.assert_array_equal(alone.influence, beside.influence)


def test_standard_error_is_that_of_the_influences() -> None:
    x, reference = features(100, 8, seed=2), Moments.from_features(features(300, 8, seed=3))
    found, _ = measure(x, reference, extrapolate=False)
    assert found.influence is not None
    assert found.standard_error == pytest.approx(found.influence.std(ddof=1) / 10, rel=1e-12)


def test_order_of_images_moves_their_influences_along() -> None:
    x, reference = features(100, 8, seed=2), Moments.from_features(features(300, 8, seed=3))
    order = np.random.default_rng(1).permutation(100)
    found, _ = measure(x, reference, extrapolate=False)
    shuffled, _ = measure(x[order], reference, extrapolate=False)
    assert found.influence is not None
    assert shuffled.value == pytest.approx(found.value, rel=1e-12)
    assert shuffled.influence == pytest.approx(found.influence[order], rel=1e-9)


def test_too_few_to_extrapolate() -> None:
    reference = Moments.from_features(features(300, 8, seed=3))
    with pytest.raises(MetricError) as error:
        measure(features(3, 8, seed=2), reference, extrapolate=True)
    assert str(error.value) == "An extrapolated distance needs at least four images; there are 3."


@pytest.mark.parametrize(("n", "found"), [(0, "there are 0"), (1, "there is 1")])
def test_too_few_to_measure(n: int, found: str) -> None:
    reference = Moments.from_features(features(300, 8, seed=3))
    with pytest.raises(MetricError) as error:
        measure(features(n, 8, seed=2), reference, extrapolate=False)
    assert str(error.value) == (
        f"A covariance needs at least two images; {found}. Ask for more samples."
    )
