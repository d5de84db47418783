"""The recipe of the feature network, on separable images of the test's own."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.errors import TrainingError
from bench.metrics.cifar_net import CifarNet
from bench.metrics.extractor import CifarFeatures
from bench.training import features
from bench.training.features import Labelled, Recipe, recalibrate, train_features

TINY = Recipe(
    epochs=2,
    further_epochs=1,
    widths=(24, 24, 32),
    batch=40,
    part=20,
    small_epochs=1,
    adam_rate=0.02,
)


def write(path: Path, count: int, seed: int) -> Path:
    """Ten classes, told apart by the colours of two quadrants, below a good deal of noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    colours = np.random.default_rng(99).integers(60, 196, size=(10, 2, 2, 3))
    clean = colours[labels].repeat(16, axis=1).repeat(16, axis=2)
    noisy = clean + generator.normal(0, 30, size=clean.shape)
    np.savez(path, arr_0=noisy.clip(0, 255).astype(np.uint8), arr_1=labels)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "train.npz", 160, seed=0)


def test_learns_and_writes_what_the_extractor_reads(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "new" / "weights.safetensors"
    checkpoint = tmp_path / "checkpoint.pt"
    test = write(tmp_path / "test.npz", 100, seed=1)
    with caplog.at_level(logging.INFO):
        certificate = train_features(data, out, test=test, recipe=TINY, checkpoint=checkpoint)
    assert certificate["test_accuracy"] > 0.5  # chance is 0.1
    assert certificate["recipe"]["further_epochs"] == 1
    assert not checkpoint.exists()
    assert "epoch 3 of 3" in caplog.text
    extractor = CifarFeatures(out, "cpu")
    assert extractor(Labelled.read(test).images[:3]).shape == (3, 32)


class Interrupted(Exception):
    pass


def test_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    train_features(data, whole, recipe=TINY)

    checkpoint = tmp_path / "checkpoint.pt"
    batches = features._batches

    def stop_in_the_last_epoch(train, recipe, epoch):  # type: ignore[no-untyped-def]
        for i, batch in enumerate(batches(train, recipe, epoch)):
            if (epoch, i) == (2, 2):
                raise Interrupted
            yield batch

    monkeypatch.setattr(features, "_batches", stop_in_the_last_epoch)
    with pytest.raises(Interrupted):
        train_features(data, resumed, recipe=TINY, checkpoint=checkpoint)
    assert checkpoint.exists()
    assert not resumed.exists()
    monkeypatch.undo()

    # Another number of threads must not matter either.
    train_features(data, resumed, recipe=TINY, checkpoint=checkpoint, threads=1)
    assert resumed.read_bytes() == whole.read_bytes()


def test_seed_changes_the_weights(data: Path, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=1)
    train_features(data, tmp_path / "a", recipe=recipe)
    train_features(data, tmp_path / "b", recipe=replace(recipe, seed=1))
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_every_image_is_seen_once_an_epoch_and_mirrored_every_second_one(data: Path) -> None:
    train = Labelled.read(data)
    left_bright = torch.zeros(160, 3, 32, 32, dtype=torch.uint8)
    left_bright[..., :16] = torch.arange(160).view(-1, 1, 1, 1) + 50  # brightness = identity
    train = replace(train, images=left_bright, labels=torch.arange(160))
    recipe = replace(TINY, shift=0)
    sides: list[torch.Tensor] = []
    for epoch in (0, 1):
        images, labels = (
            torch.cat(part) for part in zip(*features._batches(train, recipe, epoch), strict=True)
        )
        order = labels.argsort()
        assert torch.equal(labels[order], torch.arange(160))
        assert not torch.equal(labels, torch.arange(160))
        sides.append((images[order][..., 0] > images[order][..., -1])[:, 0, 0])
        brightest = images[order].amax((1, 2, 3))
        assert torch.allclose(brightest, torch.arange(160.0) + 50, atol=0.5)
    assert torch.equal(sides[0], ~sides[1])
    assert 0.3 < sides[0].float().mean() < 0.7


def test_recalibration_sees_every_class_of_a_file_interleaved_by_class() -> None:
    torch.manual_seed(0)
    net = CifarNet((24, 24, 24))
    net.set_whitening(torch.randint(0, 256, (50, 3, 32, 32)))
    colours = torch.arange(10).view(-1, 1, 1, 1) * 25.0  # class k has brightness 25 k
    images = (colours + torch.rand(10, 3, 32, 32)).repeat(60, 1, 1, 1)
    means = []
    for count in (600, 120):  # all of them; a fifth, which must not be two classes of ten
        recalibrate(net, images, count=count, batch=60)
        means.append(net.get_buffer("blocks.0.norm1.running_mean").clone())
    spread = net.get_buffer("blocks.0.norm1.running_var").sqrt()
    assert (means[0] - means[1]).abs().max() < 0.2 * spread.max()
    recalibrate(net, images[::5], count=120, batch=60)  # what an even stride would have drawn
    biased = net.get_buffer("blocks.0.norm1.running_mean")
    assert (means[0] - biased).abs().max() > 0.3 * spread.max()


def broken_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_data_files_that_cannot_be_used(tmp_path: Path) -> None:
    good = np.zeros((4, 32, 32, 3), np.uint8)
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    cases = {
        tmp_path / "absent.npz": "cannot be read",
        text: "cannot be read",
        broken_npz(tmp_path / "a.npz", images=good): "cannot be read",
        broken_npz(tmp_path / "b.npz", arr_0=good): "cannot be read",
        broken_npz(tmp_path / "c.npz", arr_0=good.astype(float), arr_1=np.arange(4)): "is float64",
        broken_npz(tmp_path / "d.npz", arr_0=good[:, :28], arr_1=np.arange(4)): r"28, 32, 3\)",
        broken_npz(tmp_path / "e.npz", arr_0=good, arr_1=np.arange(3)): r"int64 \(3,\)",
        broken_npz(tmp_path / "f.npz", arr_0=good, arr_1=np.arange(8, 12)): "from 8 to 11",
        broken_npz(tmp_path / "g.npz", arr_0=good, arr_1=np.ones(4)): "is float64",
        broken_npz(tmp_path / "h.npz", arr_0=good, arr_1=np.arange(4)): "less than one batch of 40",
    }
    for path, message in cases.items():
        with pytest.raises(TrainingError, match=message) as caught:
            train_features(path, tmp_path / "out", recipe=TINY)
        assert str(path) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_checkpoint_of_another_run_is_refused(data: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    torch.save({"identity": "something else"}, checkpoint)
    with pytest.raises(TrainingError, match="another recipe or other data"):
        train_features(data, tmp_path / "out", recipe=TINY, checkpoint=checkpoint)
    checkpoint.write_bytes(b"torn")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        train_features(data, tmp_path / "out", recipe=TINY, checkpoint=checkpoint)
