"""The recipe of the small DDPM, on a network of a few thousand weights."""

import hashlib
import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bench.diffusion.schedule import vp_linear
from bench.errors import ModelError, TrainingError
from bench.models import describe
from bench.training import unet
from bench.training.inputs import Labelled
from bench.training.unet import Recipe, _Order, _Run, train_unet

TINY = Recipe(images=16, batch=2, channels=(32, 64), layers=1, warmup=2, dtype="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "train.npz"
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    np.savez(path, arr_0=images, arr_1=np.arange(10))
    return path


def train(data: Path, out: Path, recipe: Recipe = TINY, **more: object) -> None:
    train_unet(data, out, recipe=recipe, compiled=False, looks=2, looked_at=4, **more)  # type: ignore[arg-type]


def run(data: Path, recipe: Recipe = TINY) -> _Run:
    return _Run(Labelled.read(data), recipe, "cpu", compiled=False)


def test_writes_a_folder_that_sweeps_can_name(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, checkpoint = tmp_path / "net", tmp_path / "checkpoint.pt"
    with caplog.at_level(logging.INFO):
        train(data, out, checkpoint=checkpoint)
    assert not checkpoint.exists()
    made = json.loads((out / "certificate.json").read_text())
    assert [point["images"] for point in made["curve"]] == [8, 16]
    assert all(math.isfinite(point["fd_cifar"]) for point in made["curve"])
    assert made["recipe"]["batch"] == 2
    weights = out / "diffusion_pytorch_model.safetensors"
    assert made["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.float16}
    assert "0.00 of 0.00 million images, loss" in caplog.text
    card = (out / "README.md").read_text()
    assert made["data_sha256"][:16] in card
    assert f"{made['curve'][1]['fd_cifar']:.2f} ±" in card

    model = describe({"kind": "diffusers", "path": str(out)}).load("cpu")
    assert model.shape == (3, 32, 32)
    assert model.schedule.at(t=500.0) == vp_linear().at(t=500.0)
    x = torch.randn(2, 3, 32, 32)
    x0, eps = model.denoiser()(x, model.schedule.at(t=500.5))
    point = model.schedule.at(t=500.5)
    assert torch.allclose(point.alpha * x0 + point.sigma * eps, x, atol=1e-5)


def test_weights_that_are_not_those_of_the_certificate_are_refused(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net"
    train(data, out)
    spec = describe({"kind": "diffusers", "path": str(out)})
    weights = out / "diffusion_pytorch_model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(ModelError, match="has been changed since it was written"):
        spec.load("cpu")
    (out / "certificate.json").write_text("{}")
    with pytest.raises(ModelError, match=r"certificate\.json says nothing of the weights"):
        spec.load("cpu")


class Interrupted(Exception):
    pass


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between two looks: a checkpoint is written whenever time has passed."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(data, whole)
    checkpoint = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(unet, "_CHECKED", 1)
    monkeypatch.setattr(unet, "_KEPT", 0.0)
    original = _Run._batch

    def stop_at_the_seventh(self: _Run) -> unet.Batch:
        if self.step == 6:
            raise Interrupted
        return original(self)

    monkeypatch.setattr(_Run, "_batch", stop_at_the_seventh)
    with pytest.raises(Interrupted):
        train(data, resumed, checkpoint=checkpoint)
    assert torch.load(checkpoint, weights_only=True)["step"] == 6
    assert not resumed.exists()
    monkeypatch.undo()
    train(data, resumed, checkpoint=checkpoint)
    name = "diffusion_pytorch_model.safetensors"
    assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    curves = [
        json.loads((out / "certificate.json").read_text())["curve"] for out in (whole, resumed)
    ]
    assert [point["loss"] for point in curves[0]] == [point["loss"] for point in curves[1]]


def test_what_the_network_sees_is_a_noisy_image_at_its_time(data: Path) -> None:
    one = run(data, replace(TINY, batch=5))
    x, time, eps = one._batch()
    points = [vp_linear().at(t=float(t)) for t in time]
    alpha, sigma = (
        torch.tensor([getattr(point, name) for point in points]).view(-1, 1, 1, 1)
        for name in ("alpha", "sigma")
    )
    pixels = ((x - sigma * eps) / alpha + 1) * 127.5
    pixels = pixels[time < 700]  # later, alpha is too small to get an image back in float32
    known = Labelled.read(data).images.float()
    either = torch.cat([known, known.flip(3)])
    distance = torch.cdist(pixels.flatten(1), either.flatten(1))
    assert (distance.amin(1) < 1.0).all()  # over 3072 pixels
    assert len(set((time // 200).tolist())) == 5  # one in each fifth
    again = run(data, replace(TINY, batch=5))._batch()
    assert all(torch.equal(a, b) for a, b in zip((x, time, eps), again, strict=True))


def test_every_image_is_seen_once_an_epoch() -> None:
    order = _Order(10, replace(TINY, batch=3))
    epochs = [[order.batch(3 * epoch + i) for i in range(3)] for epoch in range(2)]
    seen = [np.concatenate(epoch).tolist() for epoch in epochs]
    assert all(len(set(epoch)) == 9 for epoch in seen)
    assert seen[0] != seen[1]
    assert _Order(10, replace(TINY, batch=3)).batch(4).tolist() == seen[1][3:6]


def test_the_rate_rises_stays_and_falls_to_nearly_zero() -> None:
    recipe = Recipe(images=1000, batch=1, warmup=100, falling=0.5)
    shares = [recipe.share_at(step) for step in range(recipe.steps)]
    assert shares[:2] == [0.01, 0.02]
    assert set(shares[100:501]) == {1.0}
    assert shares[750] == pytest.approx(0.5)
    assert 0 < shares[-1] < 0.003


def test_a_step_follows_the_gradient_and_moves_the_mean(data: Path) -> None:
    one = run(data)
    before = [p.detach().clone() for p in one.net.parameters()]
    one.until(1)
    after = [p.detach() for p in one.net.parameters()]
    mean = [*one.mean.parameters()]
    # The first step of Adam is the rate, in the direction of the sign; of Muon, see there.
    hidden, others = (
        torch.cat(
            [
                (parameter.detach() - old).flatten()
                for (name, parameter), old in zip(one.net.named_parameters(), before, strict=True)
                if (parameter.ndim > 1 and not name.startswith(("conv_in", "conv_out"))) == inside
            ]
        )
        for inside in (True, False)
    )
    share = TINY.share_at(0)
    assert float(others.abs().max()) == pytest.approx(share * TINY.rate, rel=1e-3)
    assert 0 < float(hidden.abs().max()) < 2 * share * TINY.muon_rate
    for a, b, between in zip(before, after, mean, strict=True):
        assert torch.allclose(between, torch.lerp(a, b, 0.9), atol=1e-7)  # 1 - 1 / 10 of it


def test_losses_that_are_not_finite_stop_the_run(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no finite number any more by step .*smaller rate"):
        train(data, tmp_path / "net", recipe=replace(TINY, rate=math.inf))
    assert not (tmp_path / "net").exists()


def test_what_is_too_little_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="10 images are less than one batch of 11"):
        train(data, tmp_path / "net", recipe=replace(TINY, batch=11))
    with pytest.raises(TrainingError, match="2 images are less than 2 batches"):
        train(data, tmp_path / "net", recipe=replace(TINY, images=2))


def test_checkpoint_of_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"identity": "something else"}, checkpoint)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        train(data, tmp_path / "net", checkpoint=checkpoint)


@pytest.mark.gpu
def test_a_recorded_step_is_the_step(data: Path) -> None:
    """Eagerly and as a CUDA graph: the same weights, to rounding, after some steps."""
    runs = [_Run(Labelled.read(data), TINY, "cuda", compiled=False) for _ in range(2)]
    runs[0]._recorded = lambda batch: runs[0]._update  # type: ignore[method-assign]
    for one in runs:
        one.until(4)
    for a, b in zip(runs[0].mean.parameters(), runs[1].mean.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
