"""Somebody's images, in whatever they came: a folder, a tar archive or an npz.

Every file is looked at once before the first image is handed out, since a fault should not show
after an hour of features: the headers of all, and the checksums of PNG. Then images stream; of a
folder or an archive no more than a batch is in memory.

Pixels are taken as they are stored. Greyscale and palettes become RGB, which changes no value.
What would have to be decided (a background behind transparency, rounding of 16 bits, a profile for
CMYK, a resize) is refused: each of these moves a Fréchet distance, and is the user's to say.
"""

import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.errors import MetricError
from bench.metrics.images import batches, read_npz

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
ARCHIVES = (".tar.gz", ".tgz", ".tar")
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
_PLAIN = ("RGB", "L", "P", "1")
"""Modes of PIL that become RGB without a decision."""
_ENDINGS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"

# Whatever PIL's readers raise on a damaged file.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error),
    Image.DecompressionBombError,
)

_Entries = Iterator[tuple[str, BinaryIO]]
"""Image files, each by the name that messages give it; open until the next one is asked for."""


@dataclass(frozen=True)
class ImageFiles:
    """Images of one size, in an order that is always the same.

    A folder's are sorted by their paths in it, an archive's and an npz's come as they are stored.

    Attributes:
        path: the folder, archive or npz.
        count: how many images, at least two.
        size: (H, W) of each.
        lossy: how many of them are JPEG or lossy WebP files. Compression moves a Fréchet distance,
            so a caller should say so.
    """

    path: Path
    count: int
    size: tuple[int, int]
    lossy: int
    _read: Callable[[int], Iterator[torch.Tensor]] = field(repr=False)

    def batches(self, size: int) -> Iterator[torch.Tensor]:
        """All images as uint8 tensors of shape (<= size, 3, H, W); each call starts anew.

        Raises:
            MetricError: an image whose pixels are damaged, or that is gone by now.
        """
        return self._read(size)

    @property
    def name(self) -> str:
        """Of the folder or file, without its ending."""
        return _without_ending(self.path)


def means_files(source: str) -> bool:
    """Whether a source of images is a place on the disk, rather than the name of something."""
    is_place = "/" in source or Path(source).exists()
    return source.endswith((".npz", *ARCHIVES)) or (
        is_place and not source.endswith(".safetensors")
    )


def open_images(path: Path) -> ImageFiles:
    """The images at `path`: a folder (with its folders), a .tar, .tar.gz or .tgz, or an npz.

    In folders and archives, files with another ending than that of an image are passed over, as are
    hidden ones. An npz holds them as `arr_0`, see `bench.metrics.images.read_npz`.

    Raises:
        MetricError: nothing there, fewer than two images, two sizes, or an image that is damaged,
            has transparency, more than 8 bits or other colours than RGB. The message names it.
    """
    if path.suffix == ".npz":
        images = read_npz(path)
        height, width = images.shape[1:3]
        return ImageFiles(path, len(images), (height, width), 0, partial(batches, images))
    if path.is_dir():
        found = path.rglob("*")
        files = [file for file in found if _is_image(file.relative_to(path)) and file.is_file()]
        files.sort(key=lambda file: file.relative_to(path).as_posix())
        return _surveyed(path, partial(_of_folder, files))
    if not path.exists():
        raise MetricError(f"There is no folder or file {path}.")
    if path.name.endswith(ARCHIVES):
        return _surveyed(path, partial(_of_archive, path))
    raise MetricError(
        f"{path} is neither a folder of images nor a file that ends in .npz, .tar, .tar.gz or .tgz."
    )


def _is_image(path: Path) -> bool:
    """Whether this is the name of an image; hidden files are none (macOS leaves ._x.png about)."""
    hidden = any(part.startswith(".") for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _of_folder(files: list[Path]) -> _Entries:
    for file in files:
        try:
            stream = file.open("rb")
        except OSError as error:
            raise MetricError(f"{file} cannot be read: {error.strerror or error}.") from None
        with stream:
            yield str(file), stream


def _of_archive(path: Path) -> _Entries:
    """The images of an archive in its order, read in one go and never extracted."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if _is_image(Path(member.name)):
                    file = archive.extractfile(member)
                    if file is not None:  # a folder may be called x.png
                        yield f"{path}: member {member.name}", BytesIO(file.read())
            # tarfile takes a file that was cut off between two members for a whole one.
            assert archive.fileobj is not None
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE).count(tarfile.NUL) != tarfile.BLOCKSIZE:
                raise EOFError("it has no end")
            while archive.fileobj.read(1 << 20):
                pass  # of gzip: the checksum comes last
    except (tarfile.TarError, zlib.error, EOFError, OSError, KeyError) as error:
        raise MetricError(
            f"{path} is not a tar archive, or only a part of one ({error}). Write or copy it again."
        ) from None


def _surveyed(path: Path, entries: Callable[[], _Entries]) -> ImageFiles:
    """Look at every file without decoding it."""
    count = lossy = 0
    first = size = None
    for name, stream in entries():
        found, is_lossy = _facts(name, stream)
        if size is None:
            first, size = name, found
        if found != size:
            raise MetricError(
                f"{name} has {found[0]} x {found[1]} pixels (height x width), and {first} "
                f"{size[0]} x {size[1]}; all images must have one size. Resize or crop them "
                "yourself, since how this is done moves the distance."
            )
        count += 1
        lossy += is_lossy
    if size is None:
        raise MetricError(f"{path} holds no images; expected files that end in {_ENDINGS}.")
    if count < 2:
        raise MetricError(f"{path}: at least two images are needed; it holds 1.")
    return ImageFiles(path, count, size, lossy, partial(_decoded, entries))


def _facts(name: str, stream: BinaryIO) -> tuple[tuple[int, int], bool]:
    """(H, W), and whether the compression was lossy.

    Raises:
        MetricError: the file is damaged, or its pixels are not plain RGB or greyscale.
    """
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            _check_pixels(name, image)
            lossy = _is_lossy(image.format, stream)
            image.verify()
            return (image.height, image.width), lossy
    except _DAMAGE as error:
        raise _damaged(name, error) from None


def _check_pixels(name: str, image: Image.Image) -> None:
    """Refuse what cannot become RGB bytes without a decision."""
    if _is_deep(image):
        raise MetricError(
            f"{name} has 16 bits a channel; expected 8. Round it yourself, as the images that it "
            "is compared with were rounded."
        )
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        raise MetricError(
            f"{name} has an alpha channel or a transparent colour; expected opaque pixels. Put it "
            "on a background of your choice and save it as RGB."
        )
    if image.mode not in _PLAIN:
        raise MetricError(
            f"{name} is {image.mode}; expected RGB or greyscale. Convert it to RGB yourself."
        )


def _is_deep(image: Image.Image) -> bool:
    """Whether the file has more than 8 bits a channel, which PIL may cut down without a word."""
    if image.mode.startswith(("I", "F")):
        return True
    for tile in getattr(image, "tile", ()):
        arguments = tile[3]
        if isinstance(arguments, str) and "16" in arguments:
            return True
        # Of PPM: its greatest value.
        if image.format == "PPM" and isinstance(arguments, tuple) and arguments[1] > 255:
            return True
    return False


def _is_lossy(kind: str | None, stream: BinaryIO) -> bool:
    """JPEG (as MPO too, a camera's file of several), and WebP unless it says lossless."""
    if kind == "WEBP":
        stream.seek(12)
        while len(head := stream.read(8)) == 8:
            if head[:3] == b"VP8" and head[:4] != b"VP8X":
                return head[:4] != b"VP8L"
            length = int.from_bytes(head[4:], "little")
            stream.seek(length + length % 2, 1)
    return kind in ("JPEG", "MPO", "WEBP")


def _decoded(entries: Callable[[], _Entries], size: int) -> Iterator[torch.Tensor]:
    part: list[NDArray[np.uint8]] = []
    for name, stream in entries():
        part.append(_pixels(name, stream))
        if len(part) == size:
            yield from batches(np.stack(part), size)
            part = []
    if part:
        yield from batches(np.stack(part), size)


def _pixels(name: str, stream: BinaryIO) -> NDArray[np.uint8]:
    """uint8 (H, W, 3)."""
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            return np.asarray(image.convert("RGB"))
    except _DAMAGE as error:
        raise _damaged(name, error) from None


def _damaged(name: str, error: Exception) -> MetricError:
    # PIL's own words on a file that it does not know are the address of an object.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "no image of a known kind" if unknown else str(error)
    return MetricError(
        f"{name} cannot be read: it is damaged, incomplete or no image ({reason}). "
        "Write or copy it again, or take it away."
    )


def _without_ending(path: Path) -> str:
    for ending in (".npz", *ARCHIVES):
        if path.name.endswith(ending):
            return path.name.removesuffix(ending)
    return path.resolve().name
