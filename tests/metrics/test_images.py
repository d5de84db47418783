"""The quantiser at its boundaries, and what readers refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.errors import MetricError
from bench.metrics import images


def quantised(*values: float) -> list[int]:
    x = torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return images.to_uint8(x).flatten().tolist()


def test_ends_and_middle() -> None:
    assert quantised(-1, 0, 1) == [0, 128, 255]


def test_outside_is_clamped() -> None:
    assert quantised(-1.01, -7, 1.01, 1e30) == [0, 0, 255, 255]


def test_every_byte_comes_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(images.to_uint8(every.float() / 127.5 - 1), every)


@pytest.mark.parametrize("byte", [0, 1, 127, 128, 200, 254])
def test_rounds_at_the_half(byte: int) -> None:
    half = (byte + 0.5) / 127.5 - 1
    step = 1e-5
    assert quantised(half - step, half + step) == [byte, byte + 1]


def test_low_precision_is_rounded_once() -> None:
    x = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8).to(torch.bfloat16)
    assert torch.equal(images.to_uint8(x), images.to_uint8(x.double()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_finite_is_refused(value: float) -> None:
    x = torch.zeros(4, 3, 2, 2)
    x[1, 0, 0, 0] = x[3, 2, 1, 1] = value
    with pytest.raises(MetricError) as error:
        images.to_uint8(x)
    assert str(error.value) == (
        "2 of 4 images are not finite, first image 1 of this batch. "
        "The sampler diverged or the model is damaged."
    )


def test_floats_are_no_images() -> None:
    with pytest.raises(MetricError) as error:
        images.check_images(torch.zeros(2, 3, 8, 8))
    assert str(error.value) == (
        "Images are float32; expected uint8. Convert floats in [-1, 1] with "
        "bench.metrics.images.to_uint8, which rounds as the reference statistics were rounded."
    )


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 1, 8, 8), (3, 8, 8)])
def test_wrong_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MetricError) as error:
        images.check_images(torch.zeros(shape, dtype=torch.uint8))
    assert str(error.value) == (
        f"Images have the shape {shape}; expected (B, 3, H, W): colour channels second."
    )


def test_npz_of_images(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", stored, np.arange(5))
    read = images.read_npz(tmp_path / "images.npz")
    parts = list(images.batches(read, 2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.cat(parts).shape == (5, 3, 4, 6)
    assert torch.cat(parts)[4, 2, 3, 5] == stored[4, 3, 5, 2]


class Bomb:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"pixels": np.zeros((2, 4, 4, 3), np.uint8)},
            '{path} holds "pixels"; expected the images as arr_0, uint8 (N, H, W, 3). '
            "Write it with numpy.savez(path, images).",
        ),
        (
            {"arr_0": np.zeros((2, 4, 4, 3), np.float32)},
            "{path}: arr_0 is float32; expected uint8 images of 0..255. "
            "Round floats yourself, as the images that they are compared with were rounded.",
        ),
        (
            {"arr_0": np.zeros((2, 3, 4, 4), np.uint8)},
            "{path}: arr_0 has the shape (2, 3, 4, 4); expected (N, H, W, 3): "
            "colour channels last.",
        ),
        (
            {"arr_0": np.zeros((1, 4, 4, 3), np.uint8)},
            "{path}: at least two images are needed; arr_0 holds 1.",
        ),
    ],
)
def test_npz_of_something_else(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    with pytest.raises(MetricError) as error:
        images.read_npz(path)
    assert str(error.value) == message.format(path=path)


def test_npz_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    path, touched = tmp_path / "images.npz", tmp_path / "touched"
    np.savez(path, arr_0=np.array([Bomb(touched), None], dtype=object), allow_pickle=True)
    with pytest.raises(MetricError) as error:
        images.read_npz(path)
    assert str(error.value) == (
        f"{path}: arr_0 holds Python objects; expected plain numbers. Objects are not loaded, "
        "since unpickling a file can run anything in it."
    )
    assert not touched.exists()


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MetricError) as error:
        images.read_npz(tmp_path / "none.npz")
    assert str(error.value) == f"There is no file {tmp_path / 'none.npz'}."


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_truncated_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, np.zeros((2, 16, 16, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MetricError) as error:
        images.read_npz(path)
    assert str(error.value) == (
        f"{path} is not an npz file, or only a part of one. Write or copy it again."
    )


def test_damaged_array(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    np.savez(path, np.zeros((2, 16, 16, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(MetricError, match=r"arr_0 is damaged \(Bad CRC-32.*Copy the file again\."):
        images.read_npz(path)


def test_single_array_file(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(MetricError, match="is a single array"):
        images.read_npz(tmp_path / "images.npy")
