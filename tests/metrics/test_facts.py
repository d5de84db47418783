"""Facts about images that need no network."""

import numpy as np
import pytest
import torch

from bench.metrics.facts import CONSTANT, ImageFacts
from tests.metrics.fakes import colours


def images(count: int = 10) -> torch.Tensor:
    return colours(0, count) + 1


def test_nothing_to_say() -> None:
    assert ImageFacts.of(images()).record() == {
        "near_constant": 0,
        "duplicates": 0,
        "saturated": 0.0,
    }


def test_near_constant_in_every_channel() -> None:
    x = images()
    x[0] = 100
    x[1] = torch.tensor([50, 120, 200])[:, None, None]  # of one colour
    x[2] = 100
    x[2, 1, 3, 4] = 100 + CONSTANT
    x[3] = 100
    x[3, 1, 3, 4] = 100 + CONSTANT + 1
    x[4, 0] = 7  # but for one channel it shows something
    assert ImageFacts.of(x).near_constant == 3


def test_black_and_white_together_are_not_constant() -> None:
    """A difference of bytes must not wrap around."""
    x = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    x[:, :, ::2] = 255
    assert ImageFacts.of(x).near_constant == 0


def test_duplicates_are_those_beyond_the_first() -> None:
    x = images()
    x[3] = x[7] = x[1]
    x[8] = x[0]
    assert ImageFacts.of(x).record()["duplicates"] == 3


def test_mirrored_is_no_duplicate() -> None:
    x = images()
    assert ImageFacts.of(torch.cat([x, x.flip(-1)])).record()["duplicates"] == 0


def test_saturated_is_a_share_of_the_bytes() -> None:
    x = images(2)
    x[0, 0, :2] = 255
    x[1, 2, 0] = 0
    assert ImageFacts.of(x).record()["saturated"] == round(24 / 384, 6)


@pytest.mark.parametrize("sizes", [[10], [3, 7], [1] * 10, [0, 10]])
def test_merged_is_the_whole(sizes: list[int]) -> None:
    x = images()
    x[9], x[5], x[2, 1] = x[0], 30, 255
    whole = ImageFacts.of(x)
    merged = ImageFacts.merged([ImageFacts.of(part) for part in x.split(sizes)])
    assert merged.record() == whole.record()
    assert whole.record() == {"near_constant": 1, "duplicates": 1, "saturated": 0.033333}
    np.testing.assert_array_equal(merged.digests, whole.digests)


def test_where_images_lie_in_memory_does_not_matter() -> None:
    x = images()
    moved = x.to(memory_format=torch.channels_last)
    np.testing.assert_array_equal(ImageFacts.of(moved).digests, ImageFacts.of(x).digests)
