"""The exact consistency function against closed forms on a Gaussian, and scipy on mixtures."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import sweep
from bench.cell import Setting, run_cell
from bench.certify.problems import SHAPE, Blobs, Gaussian, integrate
from bench.diffusion.denoiser import Pair, per_sample
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ModelError, SweepError
from bench.metrics.registry import METRICS
from bench.models import Model, describe, load
from bench.models.exact import ASSETS
from bench.models.mixture import Mixture, save
from bench.samplers.registry import get, sample
from tests import fakes

SCHEDULES = ["vp-linear", "vp-cosine", "edm", "flow"]


def write(
    path: Path, weights: Sequence[float], centres: Sequence[Sequence[float]], spectrum: Tensor
) -> str:
    """A mixture of four channels whose components lie along the axes."""
    count = len(weights)
    save(
        path,
        shape=SHAPE,
        weights=torch.tensor(weights, dtype=torch.float64),
        spectrum=spectrum,
        remainder=1.0,
        mean=torch.zeros(4),
        basis=torch.eye(4),
        centres=torch.tensor(centres),
        axes=torch.eye(4).repeat(count, 1, 1),
        notes={},
    )
    return str(path)


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of `Gaussian()`, whose flow is known in closed form."""
    path = tmp_path_factory.mktemp("models") / "gaussian.safetensors"
    return write(path, [1.0], [Gaussian().mean], torch.tensor([Gaussian().variance]))


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of `Blobs()`."""
    path = tmp_path_factory.mktemp("models") / "blobs.safetensors"
    spectrum = torch.tensor(Blobs().variances)[:, None].expand(3, 4)
    return write(path, Blobs().weights, Blobs().centres, spectrum)


def consistency(of: str, schedule: str, **settings: Any) -> Model:
    description = {"kind": "consistency", "of": of, "schedule": schedule, **settings}
    return load(describe(description), "cpu")


def levels(model: Model) -> list[Point]:
    """From the top, alpha = 0 on flow, to the least noise."""
    schedule = model.schedule
    inside = [schedule.at(lam=lam) for lam in (-2.0, 0.0, 2.0)]
    return [schedule.at(t=schedule.t_max), *inside, schedule.at(t=schedule.t_min)]


def images(point: Point, count: int = 8) -> Tensor:
    """Noisy images (B, 4, 1, 1) about as they are at `point`, and some far from there."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(count, *SHAPE, generator=generator)
    return (point.alpha + 2 * point.sigma) * z


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_on_a_gaussian_it_is_the_closed_form(gaussian: str, schedule: str) -> None:
    model = consistency(gaussian, schedule, tolerance=1e-6)
    end = model.schedule.at(t=model.schedule.t_min)
    for point in levels(model):
        x = images(point)
        denoise = model.denoiser()
        x0, eps = denoise(x, point)
        expected = Gaussian().flow(x.double(), point, end) / end.alpha
        torch.testing.assert_close(x0.double(), expected, rtol=3e-5, atol=3e-5)
        torch.testing.assert_close(point.alpha * x0 + point.sigma * eps, x, rtol=1e-6, atol=1e-6)
        assert denoise.nfe_of(len(x)) == [1] * len(x)


@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
def test_a_trajectory_has_one_value_which_is_its_end(blobs: str, schedule: str) -> None:
    """By scipy, from four levels: those of the same trajectories give the same images."""
    model = consistency(blobs, schedule)
    noise = model.schedule
    top, end = noise.at(lam=-3.0), noise.at(t=noise.t_min)
    x = images(top).double()
    expected = integrate(Blobs().pair, x, noise, top, end) / end.alpha
    for lam in (-3.0, -1.0, 0.5, 2.5):
        point = noise.at(lam=lam)
        x_point = x if point == top else integrate(Blobs().pair, x, noise, top, point)
        x0, _ = model.denoiser()(x_point.float(), point)
        torch.testing.assert_close(x0.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_the_least_noise_it_is_the_identity(blobs: str, schedule: str) -> None:
    model = consistency(blobs, schedule)
    least = levels(model)[-1]
    x = images(least)
    x0, _ = model.denoiser()(x, least)
    torch.testing.assert_close(x0, x / least.alpha, rtol=1e-6, atol=0)


def test_a_level_per_image_is_a_call_per_image(blobs: str) -> None:
    model = consistency(blobs, "flow")
    points = levels(model)
    x = torch.cat([images(point, 1) for point in points])
    together = model.denoiser()(x, per_sample(points, x))
    for i, point in enumerate(points):
        alone = model.denoiser()(x[i : i + 1], point)
        for value, right in zip(together, alone, strict=True):
            torch.testing.assert_close(value[i], right[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_the_default_tolerance_is_far_below_a_grey_level(schedule: str) -> None:
    """Of the shipped mixture, by scipy in float64; rounding to bytes alone costs 0.29 of 255."""
    model = consistency("cifar10-mixture", schedule)
    mixture = Mixture.load(ASSETS / "cifar10-mixture.safetensors", dtype=torch.float64)

    def pair(x: Tensor, point: Point) -> Pair:
        return mixture.denoise(x, point.alpha, point.sigma)

    top, end = levels(model)[0], levels(model)[-1]
    noise = Noise(0, range(8), model.shape)
    x = model.schedule.prior_std(top) * noise()
    x0, _ = model.denoiser()(x, top)
    exact = integrate(pair, x.double(), model.schedule, top, end) / end.alpha
    grey = 127.5 * (x0 - exact).square().flatten(1).mean(1).sqrt()
    assert float(grey.max()) < 0.1


def run(name: str, model: Model, grid: TimeGrid, **params: str) -> Tensor:
    """A sampler's images from the first 6 samples of seed 1."""
    sampler = get(name)
    noise = Noise(1, range(6), model.shape)
    complete = sampler.complete(params)
    final = "zero" if grid.ends_at_zero else "sigma-min"
    return sample(sampler, model.denoiser(), grid, noise, final=final, params=complete)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_one_step_ends_where_the_exact_flow_does(blobs: str, schedule: str) -> None:
    """From the same noise, so that the two have one distribution."""
    noise = make_schedule(schedule)
    grid = TimeGrid(noise, (noise.at(t=noise.t_max), noise.at(t=noise.t_min)))
    mixture = load(describe({"kind": "mixture", "name": blobs, "schedule": schedule}), "cpu")
    found = run("consistency", consistency(blobs, schedule), grid)
    expected = run("exact-flow", mixture, grid)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_reflowed_model_needs_one_step_of_euler(blobs: str) -> None:
    """Straight from x1 to the flow's end, as xbar; the mixture's own flow is curved."""
    noise = make_schedule("flow")
    grid = make_grid(noise, "trailing", 1)
    straight = run("euler", consistency(blobs, "flow"), grid, variable="t")
    mixture = load(describe({"kind": "mixture", "name": blobs, "schedule": "flow"}), "cpu")
    to_the_end = TimeGrid(noise, (grid.points[0], noise.at(t=noise.t_min)))
    expected = run("exact-flow", mixture, to_the_end) / to_the_end.points[-1].alpha
    torch.testing.assert_close(straight, expected, rtol=0, atol=1e-3)
    curved = run("euler", mixture, grid, variable="t")
    assert (curved - expected).abs().max() > 0.5


def test_description_round_trip(blobs: str) -> None:
    spec = describe({"kind": "consistency", "of": blobs})
    assert spec.canonical() == {
        "kind": "consistency",
        "of": blobs,
        "schedule": "vp-linear",
        "tolerance": 1e-5,
    }
    assert describe(spec.canonical()) == spec
    assert spec.label == "consistency of blobs"
    assert (spec.exact, spec.exact_score) == (True, False)
    other = describe({"kind": "consistency", "of": blobs, "schedule": "edm", "tolerance": 0.01})
    assert other.label == "consistency of blobs (edm), tolerance 0.01"
    assert other.schedule().name == "edm"


def test_draws_and_shape_are_the_mixture_s_and_the_digest_is_its_own(blobs: str) -> None:
    mixture = load(describe({"kind": "mixture", "name": blobs}), "cpu")
    model = consistency(blobs, "vp-linear")
    drawn, same = (m.draw(Noise(0, range(50), SHAPE)) for m in (mixture, model))
    assert drawn is not None
    assert same is not None
    assert torch.equal(drawn, same)
    assert model.shape == mixture.shape
    looser = consistency(blobs, "vp-linear", tolerance=1e-3)
    assert len({mixture.digest, model.digest, looser.digest}) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"name": "cifar10-mixture"},
            'model of kind consistency: there is no key "name". Known are: kind, of, schedule, '
            "tolerance.",
        ),
        (
            {},
            "model.of is None; a mixture needs the name of a shipped one (cifar10-mixture) or the "
            "path of a .safetensors file.",
        ),
        (
            {"of": "cifar10-mix"},
            'There is no mixture "cifar10-mix", neither shipped nor as a file. Did you mean '
            '"cifar10-mixture"? Shipped: cifar10-mixture; a file is made by: bench train mixture.',
        ),
        (
            {"of": "cifar10-mixture", "tolerance": "small"},
            'model.tolerance is "small"; expected a number above 0.',
        ),
        (
            {"of": "cifar10-mixture", "tolerance": 0},
            'model.tolerance is "0"; expected a number above 0.',
        ),
        (
            {"of": "cifar10-mixture", "tolerance": True},
            'model.tolerance is "True"; expected a number above 0.',
        ),
    ],
)
def test_wrong_descriptions(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        describe({"kind": "consistency", **given})


HEAD = """\
name: few
model: {model}
samples: 40
metrics: [fd_tiny]
reference: {reference}
batch: 20
chunk: 20
grid:
"""


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sweep on a mixture of 4 x 4 images, up to its model and grid."""
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)
    file = fakes.write_mixture(tmp_path / "tiny.safetensors")
    reference = fakes.write_reference(tmp_path / "reference.npz", file)
    return HEAD.replace("{reference}", str(reference)).replace("FILE", str(file))


def test_sweeps_run_it_and_count_a_call_as_one(head: str, tmp_path: Path) -> None:
    model = f"{{kind: consistency, of: {tmp_path / 'tiny.safetensors'}, schedule: edm}}"
    row = "  - {sampler: consistency, spacing: karras, final: sigma-min, steps: [1, 3]}\n"
    made = sweep.parse(head.replace("{model}", model) + row)
    assert [cell.sampler for cell in made.cells()] == ["exact", "consistency", "consistency"]
    for cell, calls in zip(made.cells(), (0, 1, 3), strict=True):
        result = run_cell(cell, Setting.of(made.plan()), tmp_path)
        assert result.nfe == {"declared": calls, "counted": dict.fromkeys(_SUMMARY, calls)}
        assert result.provenance["model_notes"]["nfe"].startswith("a call counts as 1")
        assert 0 < result.metrics["fd_tiny"]["value"] < 10


_SUMMARY = ("mean", "min", "max")


def test_its_score_is_not_exact_for_the_exact_flow(head: str, tmp_path: Path) -> None:
    model = f"{{kind: consistency, of: {tmp_path / 'tiny.safetensors'}}}"
    with pytest.raises(SweepError, match="score is exact; that of consistency of tiny is not"):
        sweep.parse(head.replace("{model}", model) + "  - {sampler: exact-flow, steps: 5}\n")


def test_rectified_flow_runs_in_a_sweep(head: str, tmp_path: Path) -> None:
    """On the mixture's own flow, the velocity of which is exact: more steps end nearer to it."""
    file = tmp_path / "tiny.safetensors"
    model = f"{{kind: mixture, name: {file}, schedule: flow}}"
    rows = (
        "  - {sampler: [euler, heun], variable: t, spacing: trailing, steps: [1, 30]}\n"
        "  - {sampler: exact-flow, spacing: trailing, steps: 1}\n"
    )
    made = sweep.parse(head.replace("{model}", model) + rows)
    found = {}
    for cell in made.cells():
        result = run_cell(cell, Setting.of(made.plan()), tmp_path)
        found[cell.sampler, cell.steps] = result
    counted = {at: result.nfe["counted"]["mean"] for at, result in found.items()}
    assert (counted["euler", 30], counted["heun", 30]) == (30, 59)
    limit = found["exact-flow", 1].metrics["fd_tiny"]["value"]
    off = {at: abs(r.metrics["fd_tiny"]["value"] - limit) for at, r in found.items()}
    assert off["heun", 30] < off["euler", 30] < 0.1 * off["euler", 1]
