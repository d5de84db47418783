"""What the whole path must show on the shipped mixture, metric and statistics.

Claims about quality on real components: a sampler, a spacing or a metric that is wrong in a way
that no unit test sees shows here as a table in another order.
"""

from functools import cache
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from bench import launch, models, report, results, samplers
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import vp_linear
from bench.diffusion.spacing import make_grid
from bench.metrics import reference
from bench.metrics.registry import METRICS
from bench.models.exact import ASSETS
from bench.models.mixture import Mixture
from bench.sweep import parse
from tests import inception_file
from tests.models.test_diffusers import write_folder

pytestmark = pytest.mark.slow

HEAD = """
name: evidence
model: cifar10-mixture
metrics: [fd_cifar]
reference: cifar10-mixture
launch: {executor: inline}
"""
FLOW_FROM_T = "heun spacing=karras rho=7 steps=60"
Values = dict[str, float]


def values(folder: Path, body: str) -> Values:
    """fd_cifar by the label of the cell."""
    sweep = parse(HEAD + body)
    summary = launch.run(sweep, folder)
    assert summary.complete, summary
    frame = results.load(folder)
    return dict(zip(frame["label"], frame["metric.fd_cifar"].astype(float), strict=True))


@cache
def principal() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances of the shipped mixture along its principal directions, and the first of these."""
    mixture = Mixture.load(ASSETS / "cifar10-mixture.safetensors", dtype=torch.float64)
    rank = mixture.basis.shape[1]
    axes = mixture.axes.view(rank, -1, rank).permute(1, 0, 2)  # (K, d, d)
    inner = (axes * mixture.spectrum[:, None]) @ axes.mT
    centred = mixture.centres - mixture.weights @ mixture.centres
    inner = inner + centred[:, :, None] * centred[:, None]
    values, vectors = torch.linalg.eigh((mixture.weights[:, None, None] * inner).sum(0))
    outside = torch.full((len(mixture.basis) - rank,), mixture.remainder, dtype=torch.float64)
    return (
        torch.cat([values.flip(0), outside]).numpy(),
        (mixture.basis @ vectors[:, -1]).numpy(),
    )


def frechet(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Fréchet distance of centred Gaussians with these variances along the same directions."""
    return float(np.square(np.sqrt(one) - np.sqrt(other)).sum())


def ddim_variance(spectrum: NDArray[np.float64], steps: int, eta: float) -> NDArray[np.float64]:
    """Of what ddim makes of N(0, I) on the quadratic spacing, where the data are Gaussian.

    Eq. 12 and 16 of arXiv:2010.02502 in alpha-bar: each direction is multiplied and gets noise.
    """
    variance = np.ones_like(spectrum)
    for a, b in make_grid(vp_linear(), "quadratic", steps).steps():
        abar_a, abar_b = a.alpha**2, b.alpha**2
        injected = eta**2 * (1 - abar_b) / (1 - abar_a) * (1 - abar_a / abar_b)
        total = abar_a * spectrum + 1 - abar_a
        of_x0, of_eps = np.sqrt(abar_a) * spectrum / total, np.sqrt(1 - abar_a) / total
        gain = np.sqrt(abar_b) * of_x0 + np.sqrt(1 - abar_b - injected) * of_eps
        variance = gain**2 * variance + injected
    return variance


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Values:
    return values(
        tmp_path_factory.mktemp("table"),
        """
samples: 2000
grid:
  - {sampler: ddim, eta: [0, 1], spacing: uniform, steps: [5, 10]}
  - {sampler: dpm-solver++, order: 2, spacing: logsnr, steps: [10, 50]}
  - {sampler: heun, spacing: [karras, quadratic], steps: 60}
  - {sampler: ddim, eta: [0, 1], spacing: quadratic, steps: 200}
""",
    )


def test_the_deterministic_limit_wins_on_a_coarse_grid(table: Values) -> None:
    for steps in (5, 10):
        deterministic = table[f"ddim eta=0 spacing=uniform steps={steps}"]
        assert 1.1 * deterministic < table[f"ddim eta=1 spacing=uniform steps={steps}"]


def test_second_order_wins_at_ten_calls(table: Values) -> None:
    second = table["dpm-solver++ order=2 eta=0 spacing=logsnr steps=10"]
    assert 2 * second < table["ddim eta=0 spacing=uniform steps=10"]


def test_grids_from_T_to_zero_come_down_to_the_exact_floor(table: Values) -> None:
    for label in ("dpm-solver++ order=2 eta=0 spacing=logsnr steps=50", FLOW_FROM_T):
        assert table[label] < 1.1 * table["exact"]


def test_a_start_at_index_800_costs_what_the_exact_flow_from_there_loses(table: Values) -> None:
    # Heun with 60 steps is the flow, to a few percent of its distance; equal seeds make the two
    # starts a pair.
    flow = table["heun spacing=quadratic steps=60"]
    assert table[FLOW_FROM_T] < flow
    deterministic = table["ddim eta=0 spacing=quadratic steps=200"]
    assert deterministic == pytest.approx(flow, rel=0.2)
    # Noise heals some of it, here by more than eta = 1 costs in steps.
    assert table["ddim eta=1 spacing=quadratic steps=200"] < deterministic


# The start's loss sits in the images' first principal directions, of which fd_cifar sees little
# (0.015 on a floor of 0.145); so the next two tests look at the images themselves.


def test_noise_heals_what_a_start_at_index_800_loses_by_the_exact_recursion() -> None:
    """On a Gaussian with the mixture's covariance, whose Fréchet distance is a sum over directions.

    The deterministic sampler comes down to what the exact flow from its start loses, and no
    further; with eta = 1 the distance falls below that from 100 steps on.
    """
    spectrum = principal()[0]
    start = make_grid(vp_linear(), "quadratic", 50).points[0]
    flow = spectrum / (start.alpha**2 * spectrum + start.sigma**2)
    lost = frechet(flow, spectrum)
    assert lost == pytest.approx(4.35, abs=0.01)  # a quarter of the first direction's variance
    assert flow[0] / spectrum[0] == pytest.approx(0.75, abs=0.01)

    def after(steps: int, eta: float) -> float:
        return frechet(ddim_variance(spectrum, steps, eta), spectrum)

    at_zero = [after(steps, 0) for steps in (20, 50, 100, 200, 1000)]
    assert at_zero == sorted(at_zero, reverse=True)
    assert lost < at_zero[-1] < 1.05 * lost
    assert after(20, 1) > after(20, 0)  # there its own error is the larger one
    assert after(50, 1) < after(50, 0)
    assert after(100, 1) < lost
    assert after(1000, 1) < 0.1 * lost


def test_noise_heals_what_a_start_at_index_800_loses_in_the_images() -> None:
    """The variance along the first principal direction of 2,000 images, against exact draws."""
    model = models.load(models.describe("cifar10-mixture"), "cpu")
    first = torch.from_numpy(principal()[1]).float()

    def variance(eta: float) -> float:
        grid = make_grid(model.schedule, "quadratic", 50)
        sampler = samplers.get("ddim")
        params = sampler.complete({"eta": eta})
        along = []
        for begin in range(0, 2000, 500):
            noise = Noise(0, range(begin, begin + 500), model.shape)
            x = samplers.sample(sampler, model.denoiser(), grid, noise, final="zero", params=params)
            along.append(x.flatten(1) @ first)
        return float(torch.cat(along).var())

    exact = principal()[0][0]
    error = exact * (2 / 2000) ** 0.5
    deterministic, healed = variance(0), variance(1)
    assert deterministic + 4 * error < exact
    assert deterministic + 2 * error < healed < exact


def test_batch_size_moves_the_metric_by_less_than_a_twentieth_of_its_spread(
    tmp_path: Path,
) -> None:
    row = "\nsamples: 1000\ngrid: [{sampler: ddim, spacing: uniform, steps: 10}]\n"
    label = "ddim eta=0 spacing=uniform steps=10"
    spread = stdev(
        value
        for name, value in values(tmp_path / "seeds", row + "seed: [0, 1, 2, 3, 4, 5]\n").items()
        if name.startswith("ddim")
    )
    by_batch = [
        values(tmp_path / f"batch-{batch}", f"{row}batch: {batch}\nchunk: {chunk}\n")[label]
        for batch, chunk in ((32, 320), (100, 500), (500, 500))
    ]
    assert max(by_batch) - min(by_batch) < spread / 20


def test_the_cluster_sweep_is_walked_with_a_random_network_and_random_inception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sweeps/cifar10-fid.yaml through the real loaders of both files, small and in this process."""
    weights = tmp_path / "inception.pth"
    inception_file.write(weights)
    monkeypatch.setenv("BENCH_INCEPTION", str(weights))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", arr_0=pictures)
    extractor = METRICS["fd_inception"].extractor("cpu")
    built = reference.from_files(tmp_path / "images.npz", extractor, name="cifar10-train")
    reference.save(reference.place(built.name, extractor), built)

    shipped = yaml.safe_load((Path(__file__).parents[1] / "sweeps/cifar10-fid.yaml").read_text())
    network = write_folder(tmp_path / "network", flat=True)
    small = {
        "model": {"kind": "diffusers", "path": str(network)},
        "samples": 4,
        "metrics": ["fd_inception"],  # random weights do not give a FID
        "launch": {"executor": "inline"},
    }
    shipped["grid"][0]["steps"] = [10]
    shipped["grid"][1]["eta"] = [0]
    sweep = parse(yaml.safe_dump(shipped | small))
    assert launch.run(sweep, tmp_path / "results").complete
    frame = results.load(tmp_path / "results")
    assert len(frame) == 11
    assert frame["metric.fd_inception"].gt(0).all()
    text = report.build(tmp_path / "results", tmp_path / "report").read_text()
    assert "are not the published ones: this is not a FID" in text
