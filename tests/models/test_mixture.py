"""The exact model against dense linear algebra, mpmath, its own gradient and its own draws.

The expected values never come from the code under test: they are computed from the moments, with
full covariance matrices where the model has a basis, axes and a remainder.
"""

import re
from pathlib import Path

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import scipy.linalg
import scipy.special
import scipy.stats
import torch
from torch import Tensor

import bench
from bench.diffusion.schedule import make_schedule
from bench.errors import ModelError
from bench.models import mixture
from bench.models.mixture import Mixture

Array = npt.NDArray[np.float64]

SHIPPED = Path(bench.__file__).parent / "assets" / "cifar10-mixture.safetensors"
SHAPE = (3, 2, 2)
REMAINDER = 0.04


def levels() -> list[tuple[float, float]]:
    """(alpha, sigma) over the whole range of the three kinds of schedule, ends included."""
    vp = make_schedule("vp-linear")
    points = [vp.at(t=float(t)) for t in (0, 1, 10, 100, 250, 400, 700, 999)]
    flow = [(1 - t, t) for t in (0.0, 1e-4, 0.1, 0.5, 0.9, 1.0)]
    edm = [(1.0, s) for s in (0.002, 0.1, 1.0, 5.0, 80.0)]
    return [(p.alpha, p.sigma) for p in points] + flow + edm


class Dense:
    """The same mixture by its moments alone, in numpy."""

    def __init__(self, weights: Array, means: Array, covariances: Array) -> None:
        self.weights, self.means, self.covariances = weights, means, covariances

    def log_joint(self, x: Array, alpha: float, sigma: float) -> Array:
        noise = sigma**2 * np.eye(self.means.shape[1])
        parts = [
            np.log(w) + scipy.stats.multivariate_normal(alpha * m, alpha**2 * c + noise).logpdf(x)
            for w, m, c in zip(self.weights, self.means, self.covariances, strict=True)
        ]
        return np.stack(parts, axis=-1)

    def denoise(self, x: Array, alpha: float, sigma: float) -> tuple[Array, Array]:
        share = scipy.special.softmax(self.log_joint(x, alpha, sigma), axis=-1)
        x0, eps = np.zeros_like(x), np.zeros_like(x)
        for k, (m, c) in enumerate(zip(self.means, self.covariances, strict=True)):
            total = alpha**2 * c + sigma**2 * np.eye(len(m))
            solved = scipy.linalg.solve(total, (x - alpha * m).T, assume_a="pos").T
            x0 += share[:, k, None] * (m + alpha * solved @ c)
            eps += share[:, k, None] * sigma * solved
        return x0, eps

    def noisy(self, count: int, alpha: float, sigma: float) -> Array:
        rng = np.random.default_rng(7)
        which = rng.choice(len(self.weights), size=count, p=self.weights)
        x0 = np.stack([rng.multivariate_normal(self.means[k], self.covariances[k]) for k in which])
        return alpha * x0 + sigma * rng.standard_normal(x0.shape)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three components in 4 of 12 dimensions; every number is exact in float32."""
    rng = np.random.default_rng(0)

    def exact(*shape: int) -> Tensor:
        return torch.tensor(rng.standard_normal(shape).astype(np.float32).astype(np.float64))

    hadamard = torch.tensor(scipy.linalg.hadamard(4) / 2.0)
    basis = torch.block_diag(hadamard, hadamard, hadamard)[:, [1, 4, 6, 11]]
    path = tmp_path_factory.mktemp("mixture") / "small.safetensors"
    mixture.save(
        path,
        shape=SHAPE,
        weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
        spectrum=exact(3, 4).square().float().double() + 0.0625,
        remainder=REMAINDER,
        mean=exact(12) / 4,
        basis=basis,
        centres=exact(3, 4),
        axes=torch.stack([hadamard, hadamard[:, [2, 0, 3, 1]], torch.eye(4).double()]),
        notes={"recipe": "by hand"},
    )
    return path


@pytest.fixture(scope="module")
def small(file: Path) -> tuple[Mixture, Dense]:
    """A mixture with basis, axes and remainder, and its dense twin from the file's own numbers."""
    parts = {k: v.double().numpy() for k, v in safetensors.torch.load_file(file).items()}
    basis = parts["basis"]
    outside = REMAINDER * (np.eye(12) - basis @ basis.T)
    covariances = [
        basis @ v @ np.diag(variances) @ v.T @ basis.T + outside
        for v, variances in zip(parts["axes"], parts["spectrum"], strict=True)
    ]
    means = parts["mean"] + parts["centres"] @ basis.T
    return Mixture.load(file, dtype=torch.float64), Dense(
        parts["weights"], means, np.stack(covariances)
    )


@pytest.fixture(scope="module")
def shipped() -> Mixture:
    return Mixture.load(SHIPPED)


def images(x: Array) -> Tensor:
    return torch.tensor(x).view(-1, *SHAPE)


@pytest.mark.parametrize(("alpha", "sigma"), levels())
def test_x0_and_eps_equal_dense_linear_algebra(
    small: tuple[Mixture, Dense], alpha: float, sigma: float
) -> None:
    model, dense = small
    x = dense.noisy(40, alpha, sigma)
    x0, eps = model.denoise(images(x), alpha, sigma)
    expected_x0, expected_eps = dense.denoise(x, alpha, sigma)
    np.testing.assert_allclose(x0.flatten(1), expected_x0, rtol=0, atol=1e-11)
    np.testing.assert_allclose(eps.flatten(1), expected_eps, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("alpha", "sigma"), [(1.0, 1e-7), (1e-7, 1.0), (1.0, 1e4), (0.6, 0.6), (0.0, 1.0), (1.0, 0.0)]
)
def test_extremes_equal_fifty_digits(alpha: float, sigma: float) -> None:
    weights, means = [0.25, 0.75], [[-1.0, 0.5], [2.0, 0.25]]
    covariances = [[[0.5, 0.125], [0.125, 0.25]], [[0.0625, 0.0], [0.0, 1.0]]]
    model = Mixture.from_moments(
        torch.tensor(weights), torch.tensor(means), torch.tensor(covariances), (1, 1, 2)
    )
    x = [0.375 * alpha + 0.5 * sigma, -0.25 * alpha + 1.5 * sigma]
    x0, eps = model.denoise(torch.tensor([[[x]]], dtype=torch.float64), alpha, sigma)
    with mpmath.workdps(50):
        a, s = mpmath.mpf(alpha), mpmath.mpf(sigma)
        densities, x0s, epss = [], [], []
        for w, m, c in zip(weights, means, covariances, strict=True):
            mean, covariance = mpmath.matrix(m), mpmath.matrix(c)
            total = a**2 * covariance + s**2 * mpmath.eye(2)
            off = mpmath.matrix(x) - a * mean
            solved = total**-1 * off
            distance = (off.T * solved)[0]
            densities.append(w * mpmath.exp(-distance / 2) / mpmath.sqrt(mpmath.det(total)))
            x0s.append(mean + a * covariance * solved)
            epss.append(s * solved)
        total_density = sum(densities)
        for i in range(2):
            right_x0 = sum(p * v[i] for p, v in zip(densities, x0s, strict=True)) / total_density
            right_eps = sum(p * v[i] for p, v in zip(densities, epss, strict=True)) / total_density
            # x itself is a rounded number: at sigma = 1e4 that is all there is to 1e-12
            assert abs(x0[0, 0, 0, i].item() - right_x0) < 1e-13 * max(1, sigma)
            assert abs(eps[0, 0, 0, i].item() - right_eps) < 1e-13


@pytest.mark.parametrize(("alpha", "sigma"), [level for level in levels() if level[1] > 0])
def test_eps_is_minus_sigma_times_the_score(
    small: tuple[Mixture, Dense], alpha: float, sigma: float
) -> None:
    model, dense = small
    x = dense.noisy(20, alpha, sigma)
    state = images(x).requires_grad_()
    log_prob = model.log_prob(state, alpha, sigma)
    expected = scipy.special.logsumexp(dense.log_joint(x, alpha, sigma), axis=-1)
    np.testing.assert_allclose(log_prob.detach(), expected, rtol=1e-11, atol=1e-11)
    (score,) = torch.autograd.grad(log_prob.sum(), state)
    _, eps = model.denoise(state.detach(), alpha, sigma)
    torch.testing.assert_close(eps, -sigma * score, rtol=0, atol=1e-10)


def test_a_level_per_image_equals_a_call_per_image(small: tuple[Mixture, Dense]) -> None:
    model, dense = small
    alpha, sigma = torch.tensor(levels(), dtype=torch.float64).T.reshape(2, -1, 1, 1, 1)
    x = images(np.concatenate([dense.noisy(1, *level) for level in levels()]))
    together = model.denoise(x, alpha, sigma)
    densities = model.log_prob(x, alpha, sigma)
    for i, (a, s) in enumerate(levels()):
        alone = model.denoise(x[i : i + 1], a, s)
        torch.testing.assert_close(together[0][i], alone[0][0], rtol=0, atol=1e-12)
        torch.testing.assert_close(together[1][i], alone[1][0], rtol=0, atol=1e-12)
        alone_density = model.log_prob(x[i : i + 1], a, s)[0]
        torch.testing.assert_close(densities[i], alone_density, rtol=1e-12, atol=0)


def test_no_noise_is_the_image_and_no_image_is_the_mean(small: tuple[Mixture, Dense]) -> None:
    model, dense = small
    x = images(dense.noisy(5, 1.0, 0.0))
    x0, eps = model.denoise(0.5 * x, 0.5, 0.0)
    torch.testing.assert_close(x0, x, rtol=0, atol=1e-15)
    assert not eps.any()
    x0, eps = model.denoise(x, 0.0, 2.0)
    mean = torch.tensor(dense.weights @ dense.means).view(1, *SHAPE)
    torch.testing.assert_close(x0, mean.expand_as(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(eps, x / 2, rtol=0, atol=0)


def test_draws_have_the_moments_of_the_mixture(small: tuple[Mixture, Dense]) -> None:
    model, dense = small
    n = 200_000
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    drawn = model.draw(z, torch.rand(n, generator=generator)).flatten(1).numpy()
    mean = dense.weights @ dense.means
    off = dense.means - mean
    covariance = np.einsum("k,kij->ij", dense.weights, dense.covariances)
    covariance += np.einsum("k,ki,kj->ij", dense.weights, off, off)
    centred = drawn - mean
    mean_error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(centred.mean(0)) < 5 * mean_error).all()
    second = np.einsum("ni,nj->ij", centred, centred) / n
    fourth = np.einsum("ni,nj->ij", centred**2, centred**2) / n
    assert (np.abs(second - covariance) < 5 * np.sqrt((fourth - second**2) / n)).all()
    # moments do not tell the components apart: compare the mean log-density too
    entropy = scipy.special.logsumexp(dense.log_joint(drawn, 1.0, 0.0), axis=-1)
    rng = np.random.default_rng(3)
    which = rng.choice(3, size=20_000, p=dense.weights)
    counts = np.bincount(which, minlength=3)
    other = np.concatenate(
        [
            rng.multivariate_normal(m, c, size=count)
            for m, c, count in zip(dense.means, dense.covariances, counts, strict=True)
        ]
    )
    expected = scipy.special.logsumexp(dense.log_joint(other, 1.0, 0.0), axis=-1)
    error = np.hypot(entropy.std() / n**0.5, expected.std() / len(other) ** 0.5)
    assert abs(entropy.mean() - expected.mean()) < 5 * error


def test_the_uniform_alone_chooses_the_component(small: tuple[Mixture, Dense]) -> None:
    model, dense = small
    u = torch.tensor([1e-6, 0.4999, 0.5001, 0.7999, 0.8001, 1 - 1e-7])
    drawn = model.draw(torch.zeros(6, *SHAPE, dtype=torch.float64), u)
    expected = images(dense.means[[0, 0, 1, 1, 2, 2]])
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-14)


def test_an_image_depends_on_nothing_in_its_batch(shipped: Mixture) -> None:
    generator = torch.Generator().manual_seed(2)
    z, u = torch.randn(33, 3, 32, 32, generator=generator), torch.rand(33, generator=generator)
    x = shipped.draw(z, u)
    for i in (0, 7, 32):
        torch.testing.assert_close(shipped.draw(z[i, None], u[i, None])[0], x[i], rtol=0, atol=1e-5)
    noisy = 0.6 * x + 0.8 * z.flip(0)
    x0, eps = shipped.denoise(noisy, 0.6, 0.8)
    for part in (slice(0, 1), slice(5, 16), slice(30, 33)):
        alone_x0, alone_eps = shipped.denoise(noisy[part], 0.6, 0.8)
        torch.testing.assert_close(alone_x0, x0[part], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone_eps, eps[part], rtol=0, atol=1e-5)


def test_float32_stays_near_float64(shipped: Mixture) -> None:
    """Measured over all 1000 levels: 2.4e-6 in x0 (index 488), 3.0e-6 in eps (index 37)."""
    double = Mixture.load(SHIPPED, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    z = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    noise = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
    x0 = double.draw(z, torch.rand(8, generator=generator))
    schedule = make_schedule("vp-linear")
    for t in [*range(0, 1000, 11), 999]:
        point = schedule.at(t=float(t))
        x = (point.alpha * x0 + point.sigma * noise).float()
        exact = double.denoise(x.double(), point.alpha, point.sigma)
        single = shipped.denoise(x, point.alpha, point.sigma)
        for value, right in zip(single, exact, strict=True):
            assert (value.double() - right).abs().max() < 1e-5, f"index {t}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shipped_mixture_is_finite_and_consistent_at_every_level(dtype: torch.dtype) -> None:
    model = Mixture.load(SHIPPED, dtype=dtype)
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(4, *model.shape, generator=generator, dtype=dtype)
    data = model.draw(z, torch.rand(4, generator=generator))
    for alpha, sigma in levels():
        x = alpha * data + sigma * z.flip(0)
        x0, eps = model.denoise(x, alpha, sigma)
        assert x0.shape == eps.shape == x.shape
        assert x0.dtype == eps.dtype == dtype
        assert x0.isfinite().all()
        assert eps.isfinite().all()
        rounding = 8 * torch.finfo(dtype).eps * float(x.abs().max())
        torch.testing.assert_close(alpha * x0 + sigma * eps, x, rtol=0, atol=rounding)
        wrong = 3.0 * torch.randn(4, *model.shape, generator=generator, dtype=dtype)  # off the data
        assert all(v.isfinite().all() for v in model.denoise(wrong, alpha, sigma))


def test_shipped_mixture_is_what_the_package_promises(shipped: Mixture) -> None:
    assert SHIPPED.stat().st_size <= 6_000_000
    assert shipped.shape == (3, 32, 32)
    assert shipped.spectrum.shape == (16, 192)
    assert float(shipped.weights.sum()) == pytest.approx(1, abs=1e-12)
    double = Mixture.load(SHIPPED, dtype=torch.float64)
    gram = double.basis.T @ double.basis
    torch.testing.assert_close(gram, torch.eye(192, dtype=torch.float64), rtol=0, atol=1e-12)


def test_random_mixture_repeats_with_its_seed() -> None:
    one, same, other = (Mixture.random((1, 1, 3), components=4, seed=s) for s in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    assert torch.equal(one.axes, same.axes)


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    expected = (
        f"There is no mixture at {path}. Fit a new one with `bench train mixture`, or reinstall "
        "for the one that ships."
    )
    with pytest.raises(ModelError, match=f"^{re.escape(expected)}$"):
        Mixture.load(path)


@pytest.mark.parametrize("keep", [0, 6, 400, -1])
def test_cut_file(file: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"cut\.safetensors is not a whole safetensors file \("):
        Mixture.load(path)


def test_changed_file(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ModelError, match=r"changed since it was written: the digest of its numbers is [0-9a-f]{16}"
    ):
        Mixture.load(path)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "does not say what it is"),
        ({"bench": '{"format": "other/3"}'}, 'says it is "other/3"'),
    ],
)
def test_file_of_something_else(tmp_path: Path, metadata: dict[str, str] | None, said: str) -> None:
    path = tmp_path / "features.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, metadata)
    expected = f'{path} {said}; expected "bench-mixture/1". Fit a new one'
    with pytest.raises(ModelError, match=f"^{re.escape(expected)}"):
        Mixture.load(path)
