"""Images from folders, archives and npz files: order, pixels, and everything that is refused."""

import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.errors import MetricError
from bench.metrics import image_files
from bench.metrics.image_files import ImageFiles, open_images
from tests.metrics.fakes import colours

PIXELS = colours(0, 4, size=6)


def encoded(pixels: torch.Tensor, kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """An image file of uint8 (3, H, W), converted to a mode of PIL."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).convert(mode)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "b/2.png": encoded(PIXELS[2]),
    "a.BMP": encoded(PIXELS[0], "BMP"),
    "c.ppm": encoded(PIXELS[3], "PPM"),
    "a/x.webp": encoded(PIXELS[1], "WEBP", lossless=True),
    "labels.csv": b"2.png,cat",
    ".a.png": b"a thumbnail",
}
SORTED = [0, 1, 2, 3]
STORED = [2, 0, 3, 1]


def folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def pixels(images: ImageFiles, size: int = 3) -> torch.Tensor:
    return torch.cat(list(images.batches(size)))


def message(path: Path) -> str:
    with pytest.raises(MetricError) as error:
        open_images(path)
    return str(error.value)


def test_folder_is_sorted_by_path(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path / "mine", FILES))
    assert (images.count, images.size, images.lossy, images.name) == (4, (6, 6), 0, "mine")
    assert [len(batch) for batch in images.batches(3)] == [3, 1]
    assert torch.equal(pixels(images), PIXELS[SORTED])
    assert torch.equal(pixels(images), PIXELS[SORTED])  # and again


@pytest.mark.parametrize("name", ["mine.tar", "mine.tar.gz", "mine.tgz"])
def test_archive_keeps_its_order(tmp_path: Path, name: str) -> None:
    images = open_images(archive(tmp_path / name, FILES))
    assert (images.count, images.size, images.lossy, images.name) == (4, (6, 6), 0, "mine")
    assert [len(batch) for batch in images.batches(2)] == [2, 2]
    assert torch.equal(pixels(images), PIXELS[STORED])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", PIXELS.permute(0, 2, 3, 1).numpy())
    images = open_images(tmp_path / "mine.npz")
    assert (images.count, images.size, images.lossy, images.name) == (4, (6, 6), 0, "mine")
    assert torch.equal(pixels(images), PIXELS)


def test_images_of_a_reference_batch_of_guided_diffusion(tmp_path: Path) -> None:
    stored = PIXELS.permute(0, 2, 3, 1).numpy()
    moments = {"mu": np.zeros(8), "sigma": np.eye(8), "mu_s": np.zeros(9), "sigma_s": np.eye(9)}
    np.savez(tmp_path / "batch.npz", stored, **moments)
    assert torch.equal(pixels(open_images(tmp_path / "batch.npz")), PIXELS)


@pytest.mark.parametrize("make", [folder, archive])
def test_a_batch_is_all_that_is_read(tmp_path: Path, make: Callable[..., Path]) -> None:
    files = {f"{i}.png": encoded(PIXELS[0]) for i in range(4)}
    images = open_images(make(tmp_path / "x.tar", files))
    assert len(next(images.batches(2))) == 2
    # What comes later may be gone by then, and only the batch that needs it says so.
    make(tmp_path / "x.tar", files | {"3.png": b""})
    batches = images.batches(2)
    next(batches)
    with pytest.raises(MetricError, match=r"3\.png cannot be read"):
        next(batches)


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_greyscale_and_palettes_become_rgb(tmp_path: Path, mode: str) -> None:
    data = encoded(PIXELS[0], mode=mode)
    (batch,) = open_images(folder(tmp_path, {"a.png": data, "b.png": data})).batches(2)
    expected = Image.open(io.BytesIO(data)).convert("RGB")
    assert np.array_equal(batch[0].permute(1, 2, 0), expected)
    assert len(np.unique(batch)) > 1


def test_lossy_files_are_counted(tmp_path: Path) -> None:
    files = {
        "a.jpg": encoded(PIXELS[0], "JPEG"),
        "b.JPEG": encoded(PIXELS[0], "JPEG", mode="L"),
        "c.png": encoded(PIXELS[0], "JPEG"),  # whatever it is called
        "d.webp": encoded(PIXELS[0], "WEBP"),
        "e.webp": encoded(PIXELS[0], "WEBP", lossless=True),
        "f.webp": encoded(PIXELS[0], "WEBP", exif=b"Exif\0\0MM"),
        "g.webp": encoded(PIXELS[0], "WEBP", lossless=True, exif=b"Exif\0\0MM"),
        "h.png": encoded(PIXELS[0]),
    }
    images = open_images(folder(tmp_path, files))
    assert (images.lossy, images.count) == (5, 8)


def png(bits: int, colour: int, channels: int) -> bytes:
    """A black PNG of 6 x 6 pixels, of a depth that PIL cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 6, 6, bits, colour, 0, 0, 0)
    rows = bytes(6 * (1 + 6 * channels * bits // 8))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


ALPHA = (
    "{name} has an alpha channel or a transparent colour; expected opaque pixels. Put it on a "
    "background of your choice and save it as RGB."
)
DEEP = (
    "{name} has 16 bits a channel; expected 8. Round it yourself, as the images that it is "
    "compared with were rounded."
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(PIXELS[0], mode="RGBA"), ALPHA),
        (encoded(PIXELS[0], mode="LA"), ALPHA),
        (encoded(PIXELS[0], "WEBP", mode="RGBA"), None),  # opaque, so PIL writes it without
        (encoded(PIXELS[0], mode="P", transparency=3), ALPHA),
        (encoded(PIXELS[0], transparency=(1, 2, 3)), ALPHA),
        (png(16, 0, 1), DEEP),
        (png(16, 2, 3), DEEP),
        (png(16, 6, 4), DEEP),
        (b"P6 6 6 65535\n" + bytes(216), DEEP),
        (b"P6 6 6 127\n" + bytes(108), None),
        (
            encoded(PIXELS[0], "JPEG", mode="CMYK"),
            "{name} is CMYK; expected RGB or greyscale. Convert it to RGB yourself.",
        ),
    ],
)
def test_what_would_need_a_decision(tmp_path: Path, data: bytes, expected: str | None) -> None:
    files = {"a.png": encoded(PIXELS[0]), "b.png": data}
    for path, name in (
        (folder(tmp_path / "mine", files), f"{tmp_path}/mine/b.png"),
        (archive(tmp_path / "mine.tar", files), f"{tmp_path}/mine.tar: member ./b.png"),
    ):
        if expected is None:
            assert open_images(path).count == 2
        else:
            assert message(path) == expected.format(name=name)


def test_two_sizes(tmp_path: Path) -> None:
    files = {"a.png": encoded(PIXELS[0]), "b.png": encoded(PIXELS[0][:, :5])}
    mine = folder(tmp_path / "mine", files)
    assert message(mine) == (
        f"{mine}/b.png has 5 x 6 pixels (height x width), and {mine}/a.png 6 x 6; all images must "
        "have one size. Resize or crop them yourself, since how this is done moves the distance."
    )
    tar = archive(tmp_path / "mine.tar", files)
    assert message(tar).startswith(
        f"{tar}: member ./b.png has 5 x 6 pixels (height x width), and {tar}: member ./a.png 6 x 6;"
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no image of a known kind"),
        (b"<html>Please log in</html>", "no image of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n", "no image of a known kind"),
        (FILES["b/2.png"][:70], "Truncated File Read"),
        (FILES["b/2.png"][:80] + b"!" + FILES["b/2.png"][81:], "bad header checksum"),
    ],
)
def test_damaged_image(tmp_path: Path, data: bytes, reason: str) -> None:
    files = {"a.png": encoded(PIXELS[0]), "b.png": data}
    for path, name in (
        (folder(tmp_path / "mine", files), f"{tmp_path}/mine/b.png"),
        (archive(tmp_path / "mine.tgz", files), f"{tmp_path}/mine.tgz: member ./b.png"),
    ):
        found = message(path)
        assert found.startswith(f"{name} cannot be read: it is damaged, incomplete or no image (")
        assert reason in found
        assert found.endswith("). Write or copy it again, or take it away.")


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "PPM"])
def test_images_without_checksum_are_found_damaged_on_their_way(tmp_path: Path, kind: str) -> None:
    whole = encoded(colours(1, 1, size=32)[0], kind)
    files = {"a.png": whole, "b.png": whole[:-40]}
    images = open_images(folder(tmp_path, files))
    with pytest.raises(MetricError) as error:
        list(images.batches(2))
    assert str(error.value).startswith(
        f"{tmp_path}/b.png cannot be read: it is damaged, incomplete or no image ("
    )


def test_image_that_is_gone(tmp_path: Path) -> None:
    images = open_images(folder(tmp_path, FILES))
    (tmp_path / "b/2.png").unlink()
    with pytest.raises(MetricError) as error:
        list(images.batches(2))
    assert str(error.value) == f"{tmp_path}/b/2.png cannot be read: No such file or directory."


def test_no_images(tmp_path: Path) -> None:
    text = "holds no images; expected files that end in .png, .jpg, .jpeg, .bmp, .webp or .ppm."
    mine = folder(tmp_path / "mine", {"x.txt": b"", "y.gif": b""})
    assert message(mine) == f"{mine} {text}"
    tar = archive(tmp_path / "mine.tar", {"x.txt": b""})
    assert message(tar) == f"{tar} {text}"


def test_one_image(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", {"a.png": encoded(PIXELS[0])})
    assert message(mine) == f"{mine}: at least two images are needed; it holds 1."


def test_nothing_there(tmp_path: Path) -> None:
    for name in ("mine", "mine.tar"):
        assert message(tmp_path / name) == f"There is no folder or file {tmp_path / name}."
    assert message(tmp_path / "mine.npz") == f"There is no file {tmp_path / 'mine.npz'}."


def test_something_else(tmp_path: Path) -> None:
    path = tmp_path / "mine.zip"
    path.write_bytes(b"PK")
    assert message(path) == (
        f"{path} is neither a folder of images nor a file that ends in .npz, .tar, .tar.gz or .tgz."
    )


@pytest.mark.parametrize("name", ["mine.tar", "mine.tgz"])
def test_archive_of_something_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<html>Please log in</html>" * 100)
    found = message(path)
    assert found.startswith(f"{path} is not a tar archive, or only a part of one (")
    assert found.endswith("). Write or copy it again.")


@pytest.mark.parametrize("name", ["mine.tar", "mine.tgz"])
def test_archive_cut_short(tmp_path: Path, name: str) -> None:
    """Wherever it was cut, also between two members, where tarfile sees nothing amiss."""
    noise = np.random.default_rng(0).integers(0, 256, 1500, dtype=np.uint8).tobytes()
    files = {"a.png": encoded(PIXELS[0]), "b.png": encoded(PIXELS[1]), "c.txt": noise}
    path = archive(tmp_path / name, files)
    whole = path.read_bytes()
    end = 512 * 7 if name == "mine.tar" else len(whole)
    for keep in range(600, end, 128):
        path.write_bytes(whole[:keep])
        assert message(path).startswith(f"{path} is not a tar archive, or only a part of one (")


def test_damage_that_only_the_archive_knows_of(tmp_path: Path) -> None:
    files = {f"{i}.ppm": encoded(PIXELS[i], "PPM") for i in range(4)}
    path = archive(tmp_path / "mine.tgz", files)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the checksum of all
    path.write_bytes(data)
    assert message(path).startswith(
        f"{path} is not a tar archive, or only a part of one (CRC check failed "
    )


def test_archive_damaged_between_members(tmp_path: Path) -> None:
    files = {f"{i}.png": encoded(PIXELS[i]) for i in range(4)}
    path = archive(tmp_path / "mine.tar", files)
    data = bytearray(path.read_bytes())
    data[2048 + 150] ^= 1  # the checksum of the third header: each member has two blocks
    path.write_bytes(data)
    assert message(path) == (
        f"{path} is not a tar archive, or only a part of one (it has no end). "
        "Write or copy it again."
    )


def test_what_means_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path, {"here/a.png": b""}))
    for source in ("x.npz", "x.tar", "x.tar.gz", "x.tgz", "here", "./there"):
        assert image_files.means_files(source), source
    for source in ("cifar10-train", "there", "mine.safetensors", "./mine.safetensors"):
        assert not image_files.means_files(source), source
