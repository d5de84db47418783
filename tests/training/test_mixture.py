"""The fit of a mixture: it finds what was planted, never loses likelihood, explains bad files."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import safetensors
import scipy.stats
import torch

from bench.errors import TrainingError
from bench.models.mixture import Mixture
from bench.training import mixture as recipe
from bench.training.mixture import fit_mixture

Array = npt.NDArray[np.float64]

RANK, SIDE = 4, 4
DIMS = 3 * SIDE * SIDE
WEIGHTS = np.array([0.5, 0.3, 0.2])


class Planted:
    """Three Gaussians in four directions of a 4 x 4 image, and a little noise in all others."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.standard_normal((DIMS, RANK)))[0]
        roots = 0.2 * rng.standard_normal((3, RANK, RANK)) + 0.2 * np.eye(RANK)
        corners = np.array([[1.5, 0, 0, 0], [-1, 1, 0, 0.5], [-1, -1, 0.5, 0]])
        self.means = 0.1 + corners @ basis.T
        noise = 0.02**2 * (np.eye(DIMS) - basis @ basis.T)
        self.covariances = np.stack([basis @ r @ r.T @ basis.T + noise for r in roots])

    def pixels(self, count: int) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(1)
        which = rng.choice(3, size=count, p=WEIGHTS)
        parts = np.empty((count, DIMS))
        for k in range(3):
            rows = which == k
            parts[rows] = rng.multivariate_normal(
                self.means[k], self.covariances[k], size=int(rows.sum())
            )
        scaled = np.clip(np.round((parts + 1) * 127.5), 0, 255).astype(np.uint8)
        return scaled.reshape(count, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "images.npz"
    np.savez(path, arr_0=Planted().pixels(6000), arr_1=np.zeros(6000))
    return path


def scaled(path: Path) -> Array:
    """The images as the model sees them, made the long way round."""
    images = np.load(path)["arr_0"].astype(np.float64) / 127.5 - 1
    return np.stack([image.transpose(2, 0, 1).ravel() for image in images])


def test_finds_the_planted_mixture(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.safetensors"
    fit_mixture(data, out, components=3, rank=RANK, seed=0)
    model = Mixture.load(out, dtype=torch.float64)
    np.testing.assert_allclose(model.weights, WEIGHTS, atol=0.025)
    means = model.mean + model.centres @ model.basis.T
    planted = Planted()
    np.testing.assert_allclose(means, planted.means, atol=0.02)
    axes = model.axes.reshape(RANK, 3, RANK)
    for k in range(3):
        lift = model.basis @ axes[:, k]
        outside = torch.eye(DIMS) - model.basis @ model.basis.T
        found = ((lift * model.spectrum[k]) @ lift.T + model.remainder * outside).numpy()
        error = np.linalg.norm(found - planted.covariances[k])
        assert error < 0.1 * np.linalg.norm(planted.covariances[k])


def test_certificate_states_the_likelihood_of_the_data(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "fit.safetensors"
    certificate = fit_mixture(data, out, components=3, rank=RANK, seed=0)
    model = Mixture.load(out, dtype=torch.float64)
    x = scaled(data)
    log_prob = model.log_prob(torch.tensor(x).view(-1, 3, SIDE, SIDE), 1.0, 0.0)
    assert float(log_prob.mean()) / DIMS == pytest.approx(certificate.log_likelihood, abs=1e-5)
    # one Gaussian: the sample covariance inside the basis, the mean of the rest outside
    variances, directions = np.linalg.eigh(np.cov(x.T, bias=True))
    flat = np.where(np.arange(DIMS) < DIMS - RANK, variances[:-RANK].mean(), variances)
    single = scipy.stats.multivariate_normal(x.mean(0), (directions * flat) @ directions.T)
    assert single.logpdf(x).mean() / DIMS == pytest.approx(
        certificate.log_likelihood_single, abs=1e-9
    )
    assert certificate.log_likelihood > certificate.log_likelihood_single + 0.01
    assert certificate.share == pytest.approx(variances[-RANK:].sum() / variances.sum(), abs=1e-9)
    with safetensors.safe_open(out, framework="np") as file:
        label = json.loads(file.metadata()["bench"])
    assert label["recipe"] == "bench train mixture"
    assert vars(certificate).items() <= label.items()


def test_objective_never_decreases(data: Path) -> None:
    points = torch.tensor(scaled(data)[:1500, :6])
    points = (points - points.mean(0)) / points.std(0)
    labels = recipe.kmeans(points, 5, seed=0)
    _, history = recipe.expectation_maximisation(points, labels, iterations=60, tolerance=0.0)
    steps = np.diff(history)
    assert len(steps) > 20
    assert steps.min() > -1e-11
    assert history[-1] > history[0] + 0.05


def test_lone_point_does_not_collapse_its_component() -> None:
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points[0] = 40.0
    labels = torch.zeros(200, dtype=torch.int64)
    labels[0] = 1
    fitted, _ = recipe.expectation_maximisation(points, labels, iterations=50, tolerance=0.0)
    assert float(fitted.weights[1]) == pytest.approx(1 / 200)
    # half an image's own (zero) scatter, half the prior's
    torch.testing.assert_close(
        fitted.covariances[1], 0.5 * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_same_seed_same_bytes_and_seed_matters(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    with caplog.at_level(logging.INFO, "bench.training.mixture"):
        for file, seed in zip(files, (0, 0, 3), strict=True):
            fit_mixture(data, file, components=4, rank=6, iterations=3, tolerance=0.0, seed=seed)
    contents = [file.read_bytes() for file in files]
    assert contents[0] == contents[1] != contents[2]
    assert sum("EM step 3: " in message for message in caplog.messages) == 3


EXPECTED = "expected an npz whose arr_0 is uint8 of shape (n, height, width, 3)."


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((5, 4, 4, 3), np.uint8)}, "{path} holds images, but no arr_0; "),
        ({}, "{path} holds nothing, but no arr_0; "),
        (
            {"arr_0": np.zeros((5, 4, 4, 3), np.float32)},
            "arr_0 of {path} is float32 of shape (5, 4, 4, 3); ",
        ),
        (
            {"arr_0": np.zeros((5, 3, 4, 4), np.uint8)},
            "arr_0 of {path} is uint8 of shape (5, 3, 4, 4); ",
        ),
    ],
)
def test_wrong_arrays(
    tmp_path: Path, arrays: dict[str, npt.NDArray[np.generic]], message: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=f"^{re.escape(message.format(path=path) + EXPECTED)}$"):
        fit_mixture(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_missing_broken_and_other_files(data: Path, tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(TrainingError) as caught:
            fit_mixture(path, tmp_path / "out.safetensors")
        return str(caught.value)

    missing = tmp_path / "none.npz"
    assert complaint(missing) == (
        f"There is no file {missing}. Give the training images with --data; {EXPECTED}"
    )
    cut = tmp_path / "cut.npz"
    cut.write_bytes(data.read_bytes()[:5000])
    assert complaint(cut).startswith(f"{cut} cannot be read (")
    assert complaint(cut).endswith(EXPECTED)
    text = tmp_path / "text.npz"
    text.write_text("hello")
    assert complaint(text).startswith(f"{text} cannot be read (")
    single = tmp_path / "single.npy"
    np.save(single, np.zeros((5, 4, 4, 3), np.uint8))
    assert complaint(single) == f"{single} is a single .npy array; {EXPECTED}"


def test_too_much_asked_of_the_images(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(
        TrainingError,
        match=r"holds 6000 images of 48 numbers, which leaves no room for rank 48; ask for a rank "
        r"from 1 to 47\.$",
    ):
        fit_mixture(data, out, rank=48)
    with pytest.raises(TrainingError, match=r"cannot start 0 components; ask for 1 to 6000\.$"):
        fit_mixture(data, out, rank=4, components=0)


def test_too_little_in_the_images(tmp_path: Path) -> None:
    path, out = tmp_path / "flat.npz", tmp_path / "out.safetensors"
    np.savez(path, arr_0=np.full((50, 4, 4, 3), 7, np.uint8))
    with pytest.raises(TrainingError, match=r"^The images vary in fewer than 3 directions; "):
        fit_mixture(path, out, rank=2, components=2)
    three = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3)).astype(np.uint8)
    np.savez(path, arr_0=np.repeat(three, 20, axis=0))
    with pytest.raises(
        TrainingError,
        match=r"^There are only 3 different images for 4 components; give more images or ask for "
        r"fewer components\.$",
    ):
        fit_mixture(path, out, rank=1, components=4)
