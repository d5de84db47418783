"""From the `model:` of a sweep to a denoiser, for mixtures; networks are in test_diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.diffusion.noise import Noise
from bench.errors import ModelError
from bench.models import NAMES, describe, load
from bench.models.mixture import Mixture, save


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two components in a plane of 3 x 2 x 2 images, far apart, little remainder."""
    path = tmp_path / "tiny.safetensors"
    basis = torch.zeros(12, 2)
    basis[0, 0] = basis[1, 1] = 1.0
    save(
        path,
        shape=(3, 2, 2),
        weights=torch.tensor([0.25, 0.75]),
        spectrum=torch.full((2, 2), 0.01),
        remainder=0.01,
        mean=torch.zeros(12),
        basis=basis,
        centres=torch.tensor([[-5.0, 0.0], [5.0, 0.0]]),
        axes=torch.eye(2).repeat(2, 1, 1),
        notes={},
    )
    return path


def test_a_name_is_short_for_a_mixture() -> None:
    assert describe("cifar10-mixture").canonical() == {
        "kind": "mixture",
        "name": "cifar10-mixture",
        "schedule": "vp-linear",
    }
    assert describe("cifar10-mixture").label == "cifar10-mixture"


@pytest.mark.parametrize("name", NAMES)
def test_shipped_models_are_there_and_run(name: str) -> None:
    model = load(describe(name), "cpu")
    noise = Noise(0, [0, 1], model.shape)
    x0, eps = model.denoiser()(noise(), model.schedule.at(t=500.0))
    assert x0.shape == eps.shape == (2, *model.shape)
    assert x0.isfinite().all()


def test_description_round_trip(file: Path) -> None:
    given = {"kind": "mixture", "name": str(file), "schedule": "edm"}
    spec = describe(given)
    assert spec.canonical() == given
    assert describe(spec.canonical()) == spec
    assert spec.exact
    assert spec.label == "tiny (edm)"
    assert spec.schedule().name == "edm"


@pytest.mark.parametrize("schedule", ["vp-linear", "vp-cosine", "edm", "flow"])
def test_model_denoises_as_the_mixture_does(file: Path, schedule: str) -> None:
    model = load(describe({"kind": "mixture", "name": str(file), "schedule": schedule}), "cpu")
    denoise, point = model.denoiser(), model.schedule.at(lam=0.5)
    x = torch.randn(4, *model.shape, generator=torch.Generator().manual_seed(0))
    expected = Mixture.load(file).denoise(x, point.alpha, point.sigma)
    torch.testing.assert_close(denoise(x, point), expected, rtol=0, atol=0)
    assert (denoise.nfe, model.denoiser().nfe) == (1, 0)


def test_exact_draws_follow_sample_and_seed_and_the_weights(file: Path) -> None:
    model = load(describe({"kind": "mixture", "name": str(file)}), "cpu")
    draws = model.draw(Noise(7, range(4000), model.shape))
    assert draws is not None
    again = model.draw(Noise(7, range(100, 200), model.shape))
    torch.testing.assert_close(again, draws[100:200], rtol=0, atol=1e-6)
    first = draws[:, 0, 0, 0]
    # Standard error of the share 0.0068, of a component's mean 0.1 / sqrt(3000) = 0.0018.
    assert (first > 0).double().mean().item() == pytest.approx(0.75, abs=0.03)
    assert first[first > 0].mean().item() == pytest.approx(5.0, abs=0.008)
    # The choice of a component says nothing about where in it the draw lies.
    inside = (first - first.sign() * 5.0) / 0.1
    correlation = torch.corrcoef(torch.stack([inside, first.sign()]))[0, 1]
    assert abs(correlation.item()) < 0.06


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (
            "cifar10-mixtures",
            'There is no model "cifar10-mixtures". Did you mean "cifar10-mixture"? Known are: '
            "cifar10-mixture, cifar10-unet; a network is "
            "{kind: diffusers, path: FOLDER or HUB/NAME}.",
        ),
        (
            {"name": "x"},
            "model has no key kind; expected mixture or consistency or diffusers or edm or torch.",
        ),
        (
            {"kind": "difusers"},
            'model.kind is "difusers"; expected mixture or consistency or diffusers or edm or '
            'torch. Did you mean "diffusers"?',
        ),
        (
            {"kind": "mixture", "name": "cifar10-mix"},
            'There is no mixture "cifar10-mix", neither shipped nor as a file. '
            'Did you mean "cifar10-mixture"? Shipped: cifar10-mixture; a file is made by: '
            "bench train mixture.",
        ),
        (
            {"kind": "mixture"},
            "model.name is None; a mixture needs the name of a shipped one (cifar10-mixture) or "
            "the path of a .safetensors file.",
        ),
        (
            {"kind": "mixture", "name": "cifar10-mixture", "shedule": "edm"},
            'model of kind mixture: there is no key "shedule". Did you mean "schedule"? Known are: '
            "kind, name, schedule.",
        ),
        (
            {"kind": "mixture", "name": "cifar10-mixture", "schedule": "vp-linera"},
            'model.schedule is "vp-linera"; expected vp-linear or vp-cosine or vp-scaled-linear or '
            'edm or flow. Did you mean "vp-linear"?',
        ),
    ],
)
def test_wrong_descriptions(description: str | dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe(description)
    assert str(caught.value) == message
