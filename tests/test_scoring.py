"""Images of others, and images for others: what the commands do, without the commands."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import scoring
from bench.errors import MetricError, ResultError
from bench.metrics import kept_features, reference
from bench.metrics.image_files import open_images
from bench.metrics.reference import from_images
from bench.metrics.registry import METRICS, bind
from tests import fakes
from tests.disks import small_disk

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 3, 4, 4), dtype=np.uint8)


def parts() -> Iterator[NDArray[np.uint8]]:
    """As the chunks of a cell come."""
    yield from np.split(IMAGES, [64, 128])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "32k") as place:
        yield place


@pytest.mark.parametrize("form", ["npz", "folder"])
def test_what_is_written_comes_back(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"new/images{'.npz' if form == 'npz' else ''}"
    write = scoring.write_npz if form == "npz" else scoring.write_folder
    assert write(path, parts()) == 150
    files = open_images(path)
    assert (files.count, files.size, files.lossy) == (150, (4, 4), 0)
    found = np.concatenate([batch.numpy() for batch in files.batches(40)])
    assert (found == IMAGES).all()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(MetricError) as error:
        scoring.write_folder(tmp_path, parts())
    assert str(error.value) == (
        f"{tmp_path} is there already. Choose another folder, or move it away."
    )


@pytest.mark.parametrize("form", ["npz", "folder"])
def test_no_room_for_images(disk: Path, form: str) -> None:
    path = disk / ("images.npz" if form == "npz" else "images")
    whole = np.tile(IMAGES, (20, 1, 1, 1))
    write = scoring.write_npz if form == "npz" else scoring.write_folder
    with pytest.raises(ResultError, match=rf"^{path} could not be written: the disk is full\."):
        write(path, iter([whole]))
    assert list(disk.iterdir()) == []


def test_no_room_for_features(disk: Path) -> None:
    """Statistics without their features would look as if they were built without them."""
    pictures = np.tile(IMAGES, (10, 1, 1, 1)).transpose(0, 2, 3, 1)
    made = from_images(
        pictures, fakes.TinyExtractor(), name="x", source="x", details={}, keep_features=True
    )
    path = disk / "x.npz"
    beside = kept_features.place(path)
    with pytest.raises(ResultError, match=rf"^{beside} could not be written: the disk is full\."):
        reference.save(path, made)
    assert list(disk.iterdir()) == []


def test_scores_are_those_of_the_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for name in ("fd_tiny", "fd_inf_tiny", "recall_tiny"):
        monkeypatch.setitem(METRICS, name, fakes.TINY[name])
    pictures = IMAGES[:100].transpose(0, 2, 3, 1)
    made = from_images(
        pictures, fakes.TinyExtractor(), name="x", source="x", details={}, keep_features=True
    )
    reference.save(reference.place("x", fakes.TinyExtractor()), made)
    scoring.write_npz(tmp_path / "images.npz", parts())
    bound = bind(["fd_tiny", "fd_inf_tiny", "recall_tiny"], "x")
    seen: list[tuple[int, int]] = []
    images = open_images(tmp_path / "images.npz")
    done = scoring.score(images, bound, lambda n, total: seen.append((n, total)))
    assert seen[-1] == (150, 150)
    assert list(done.metrics) == ["fd_tiny", "fd_inf_tiny", "recall_tiny"]
    assert done.metrics["fd_tiny"]["value"] > done.metrics["fd_inf_tiny"]["value"]
    assert done.metrics["recall_tiny"]["value"] == 1  # the reference is among the images
    assert done.facts["near_constant"] == done.facts["duplicates"] == 0
    assert done.facts["saturated"] == pytest.approx(np.isin(IMAGES, (0, 255)).mean(), abs=1e-6)
    assert list(scoring.cautions(done, images)) == [
        "fd_tiny: fewer than 10,000 images (150), so biased upwards."
    ]
