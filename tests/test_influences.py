import doctest
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench import influences
from bench.errors import ResultError
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

IMAGES = 50_000
METRICS = ("fid", "fid_inf", "kid/10k")
RESULT = records.record(Cell("ddim", 5, samples=IMAGES), METRICS)


def gaussian(seed: int = 0, size: int = IMAGES) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=size)


def test_doctest() -> None:
    assert doctest.testmod(influences).failed == 0


def test_they_come_back_by_metric(tmp_path: Path) -> None:
    # As small as those of a kernel distance, as large as those of FID, and with the tails that
    # outliers among the images make.
    tails = np.random.default_rng(3).standard_t(2, size=IMAGES) ** 3
    given = dict(zip(METRICS, (gaussian(1) * 1e-9, gaussian(2) * 1e4, tails), strict=True))
    influences.write(tmp_path, RESULT, given)
    found = influences.read(tmp_path, RESULT)
    assert list(found) == list(METRICS)
    for name, values in given.items():
        assert found[name].dtype == np.float32
        assert found[name].std() == pytest.approx(values.std(), rel=1e-3)
        near = 1e-6 * math.sqrt(np.mean(values**2))
        assert np.all(np.abs(found[name] - values) <= np.abs(values) / 500 + near)


def test_fifty_thousand_images_take_little_room(tmp_path: Path) -> None:
    influences.write(tmp_path, RESULT, {name: gaussian(n) for n, name in enumerate(METRICS)})
    assert influences.path_of(tmp_path, RESULT.key).stat().st_size <= 250_000


@pytest.mark.parametrize("correlation", [0.0, 0.9, 0.999])
def test_the_spread_of_a_difference_survives(tmp_path: Path, correlation: float) -> None:
    a = gaussian(1)
    b = correlation * a + math.sqrt(1 - correlation**2) * gaussian(2)
    influences.write(tmp_path, RESULT, {"fid": a, "fid_inf": b})
    found = influences.read(tmp_path, RESULT)
    expected = (a - b).std() / math.sqrt(IMAGES)
    assert influences.paired_error(a, b) == pytest.approx(expected, rel=1e-12)
    assert influences.paired_error(found["fid"], found["fid_inf"]) == pytest.approx(
        expected, rel=0.01
    )


def test_influences_of_nothing_are_zeros(tmp_path: Path) -> None:
    influences.write(tmp_path, RESULT, {"fid": np.zeros(IMAGES)})
    assert not influences.read(tmp_path, RESULT)["fid"].any()


def test_there_may_be_none(tmp_path: Path) -> None:
    assert influences.read(tmp_path, RESULT) == {}
    influences.write(tmp_path, RESULT, {})
    assert influences.read(tmp_path, RESULT) == {}


@pytest.mark.parametrize(
    "change", [{"value": 2.0}, {"n": 10}, {"reference_digest": "-"}, {"extractor_digest": "-"}]
)
def test_those_of_another_value_are_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    influences.write(tmp_path, RESULT, {"fid": gaussian(1), "fid_inf": gaussian(2)})
    changed = RESULT.metrics | {"fid": RESULT.metrics["fid"] | change}
    assert list(influences.read(tmp_path, replace(RESULT, metrics=changed))) == ["fid_inf"]
    dropped = {"fid_inf": RESULT.metrics["fid_inf"]}
    assert list(influences.read(tmp_path, replace(RESULT, metrics=dropped))) == ["fid_inf"]
    # What does not touch the value does not cut the tie.
    noted = RESULT.metrics | {"fid": RESULT.metrics["fid"] | {"notes": ["x"], "reference": "y"}}
    assert len(influences.read(tmp_path, replace(RESULT, metrics=noted))) == 2


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    small: Result = replace(RESULT, metrics={"fid": RESULT.metrics["fid"]})
    influences.write(tmp_path, small, {"fid": gaussian(size=100)})
    path = influences.path_of(tmp_path, small.key)
    good = path.read_bytes()
    flipped = [
        good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :]
        for place in range(0, len(good), 7)
    ]
    for damaged in [b"", good[:20], good[:-1], good + b"x", *flipped]:
        path.write_bytes(damaged)
        with pytest.raises(ResultError) as caught:
            influences.read(tmp_path, small)
        assert str(caught.value) == (
            f"{path} is damaged or cut short ({len(damaged)} bytes). "
            "Remove the file: cells are then compared without pairs."
        )


def test_a_file_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(influences, "FORMAT", 2)
    influences.write(tmp_path, RESULT, {"fid": gaussian()})
    monkeypatch.undo()
    path = influences.path_of(tmp_path, RESULT.key)
    with pytest.raises(ResultError, match=re.escape(f"{path} has format 2; this version")):
        influences.read(tmp_path, RESULT)


def test_what_cannot_be_read_or_written_says_so(tmp_path: Path) -> None:
    influences.path_of(tmp_path, RESULT.key).mkdir(parents=True)
    with pytest.raises(ResultError, match="cannot be read"):
        influences.read(tmp_path, RESULT)
    with pytest.raises(ResultError, match="could not be written"):
        influences.write(tmp_path, RESULT, {"fid": gaussian()})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_a_bug(tmp_path: Path, bad: float) -> None:
    with pytest.raises(ValueError, match="fid: not every influence is finite"):
        influences.write(tmp_path, RESULT, {"fid": np.array([1.0, bad])})
    assert not influences.path_of(tmp_path, RESULT.key).exists()


def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    influences.write(tmp_path, RESULT, {"fid": gaussian(1), "fid_inf": gaussian(2)})
    influences.write(tmp_path, RESULT, {"fid": gaussian(3)})
    assert list(influences.read(tmp_path, RESULT)) == ["fid"]
    assert [path.name for path in (tmp_path / "influences").iterdir()] == [f"{RESULT.key}.npz"]
