"""The record of the samplers' arithmetic: up to date, sharp, and tied to the changelog."""

import doctest
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench import arithmetic, results
from bench.arithmetic import NOISE, ROUNDING, SCHEDULE, SHARED, SPACING, Cases, Record
from bench.certify.problems import Blobs
from bench.certify.variants import variants_of
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import SCHEDULES, Point
from bench.diffusion.spacing import SPACINGS
from bench.errors import BenchError, ResultError, SweepError
from bench.regression import fingerprints
from bench.samplers import REGISTRY
from tests.certify.defects import DEFECTS, ROOT
from tests.regression.planted import REFACTORINGS, Defect, is_right, named_by

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.fixture(scope="module")
def now() -> dict[str, Cases]:
    return arithmetic.measure()


def test_is_as_on_record(now: dict[str, Cases]) -> None:
    # If that is intended: bench fingerprint --update --reason "...", and the changelog.
    found = arithmetic.compare(now, arithmetic.read().cases)
    assert found.changes == ()
    assert found.cases > 1000


def test_every_change_on_record_is_explained_in_the_changelog() -> None:
    assert arithmetic.unexplained(arithmetic.read(), CHANGELOG) == []


def test_everything_is_on_record(now: dict[str, Cases]) -> None:
    assert now.keys() == {*SHARED, *REGISTRY}
    for name, sampler in REGISTRY.items():
        assert len(now[name]) == len(variants_of(sampler)), name
        assert all(len(grids) >= 3 for grids in now[name].values()), name
    used = {tuple(grid.split()[:2]) for name in REGISTRY for c in now[name].values() for grid in c}
    assert {schedule for schedule, _ in used} == set(SCHEDULES) == now[SCHEDULE].keys()
    # Of a thousand steps no sampler runs them all, and times that are given are not a spacing's.
    assert {spacing for _, spacing in used} == SPACINGS.keys() - {"all", "explicit", "file"}
    assert now[SPACING].keys() == SPACINGS.keys() - {"explicit", "file"}
    numbers = [n for c in now.values() for grids in c.values() for g in grids.values() for n in g]
    assert not any(map(math.isnan, numbers))


def test_last_bits_of_the_model_are_rounding(now: dict[str, Cases]) -> None:
    generator = torch.Generator().manual_seed(0)

    def off(x: Tensor, point: Point) -> Pair:
        x0, eps = Blobs().pair(x, point)
        signs = [2 * torch.rand(x.shape, generator=generator).double() - 1 for _ in range(2)]
        return x0 * (1 + 2e-16 * signs[0]), eps * (1 + 2e-16 * signs[1])

    found = arithmetic.compare(arithmetic.measure(pair=off), now)
    assert found.changes == ()
    assert 0 < found.rounding < ROUNDING / 50


def test_a_wrong_sampler_is_named_with_its_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    right = REGISTRY["ddim"]

    def wrong(denoise, x, grid, noise, *, eta=0.0):  # type: ignore[no-untyped-def]
        x = right.function(denoise, x, grid, noise, eta=eta)
        return x * (1 + 1e-6) if eta == 0.5 else x

    monkeypatch.setitem(REGISTRY, "ddim", replace(right, function=wrong))
    now = arithmetic.measure(["ddim", "heun"])
    found = arithmetic.compare(
        now, {name: each for name, each in arithmetic.read().cases.items() if name in now}
    )
    assert {(change.name, change.settings) for change in found.changes} == {("ddim", "eta=0.5")}
    assert all(1e-8 < (change.size or 0) < 1e-5 for change in found.changes)


def test_a_sampler_that_fails_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(denoise, x, grid, noise):  # type: ignore[no-untyped-def]
        raise ZeroDivisionError

    monkeypatch.setitem(REGISTRY, "ipndm", replace(REGISTRY["ipndm"], function=broken))
    found = arithmetic.compare(arithmetic.measure(["ipndm"]), arithmetic.read().cases)
    mine = found.named()["ipndm"]
    assert {change.what for change in mine} == {"it fails now"}
    assert {change.size for change in mine} == {math.inf}


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(SweepError, match='There is no sampler "dimm"'):
        arithmetic.measure(["dimm"])


def test_records_are_held_to_the_same_threshold() -> None:
    assert results.TOLERANCE == ROUNDING
    assert doctest.testmod(fingerprints).failed == 0


# The comparison of two measurements.

GRID = "vp-linear uniform 7 zero"


def cases(**numbers: float) -> dict[str, Cases]:
    """A sampler, and what it stands on, with the numbers that are given."""
    of = {"schedule": 1.0, "spacing": 1.0, "noise": 1.0, "x": 1.0, **numbers}
    return {
        SCHEDULE: {"vp-linear": {"t 0": (of["schedule"],)}},
        SPACING: {"uniform": {"vp-linear 6 zero": (of["spacing"],)}},
        NOISE: {"seed 5": {"draw 0": (of["noise"],)}},
        "euler": {"base": {GRID: (2.0, of["x"]), "edm karras 6 zero": (2.0, 1.0)}},
    }


@pytest.mark.parametrize(
    ("numbers", "named", "inherited"),
    [
        ({}, [], []),
        ({"x": 1 + 0.9e-9}, [], []),
        ({"x": 1 + 1.1e-9}, ["euler"], []),
        ({"x": math.nan}, ["euler"], []),
        ({"x": math.inf}, ["euler"], []),
        ({"spacing": 2.0, "x": 2.0}, [SPACING], ["euler"]),
        ({"schedule": 2.0, "spacing": 2.0, "x": 2.0}, [SCHEDULE], [SPACING, "euler"]),
        ({"noise": 2.0, "x": 2.0}, [NOISE], ["euler"]),
    ],
)
def test_what_changed_is_named(
    numbers: dict[str, float], named: list[str], inherited: list[str]
) -> None:
    found = arithmetic.compare(cases(**numbers), cases())
    assert list(found.named()) == named
    assert [change.name for change in found.changes if change.inherited] == inherited
    assert found.cases == 5


def test_differences_are_relative_to_what_is_on_record() -> None:
    (change,) = arithmetic.compare(cases(x=200.5), cases(x=200.0)).changes
    assert change.size == pytest.approx(0.0025)
    assert change.what == "by 0.0025"
    found = arithmetic.compare(cases(x=1 + 3e-10), cases())
    assert found.rounding == pytest.approx(3e-10, rel=1e-3)


def test_what_is_new_or_gone_is_a_change() -> None:
    more = cases() | {"mine": {"base": {GRID: (1.0,)}}}
    (new,) = arithmetic.compare(more, cases()).changes
    assert (new.name, new.size, new.what) == ("mine", None, "not on record")
    (gone,) = arithmetic.compare(cases(), more).changes
    assert (gone.name, gone.size, gone.what) == ("mine", None, "only on record")


def test_other_calls_are_a_change() -> None:
    then = cases()
    then["euler"] = {"base": {**then["euler"]["base"], GRID: (3.0, 1.0)}}
    (change,) = arithmetic.compare(cases(), then).changes
    assert change.size == pytest.approx(1 / 3)


# The record.


def test_an_update_that_changes_numbers_needs_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    arithmetic.update(path, cases())
    before = path.read_bytes()
    with pytest.raises(BenchError) as caught:
        arithmetic.update(path, cases(x=2.0))
    assert "The arithmetic of euler changed." in str(caught.value)
    assert '--reason "..."' in str(caught.value)
    assert path.read_bytes() == before

    arithmetic.update(path, cases(x=2.0), "euler: two is better")
    record = arithmetic.read(path)
    assert record.changes == ({"reason": "euler: two is better", "sizes": {"euler": 1.0}},)
    assert arithmetic.compare(cases(x=2.0), record.cases).changes == ()

    # A test of the repository asks the same of its own record and changelog.
    without = "# Changelog\n\n### Added\n- euler: two is better\n"
    assert arithmetic.unexplained(record, without) == ["euler: two is better"]
    elsewhere = without + "\n### Numbers\n- Nothing.\n\n## [0.1]\n- euler: two is better\n"
    assert arithmetic.unexplained(record, elsewhere) == ["euler: two is better"]
    explained = (
        without + "\n### Numbers\n- `fid` of euler: two\n  is better. euler: two\n  is better\n"
    )
    assert arithmetic.unexplained(record, explained) == []


def test_what_is_new_needs_no_reason_and_what_is_gone_does(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    more = cases() | {"mine": {"base": {GRID: (1.0,)}}}
    arithmetic.update(path, cases())
    arithmetic.update(path, more)
    assert arithmetic.read(path).changes == ()
    with pytest.raises(BenchError, match="The arithmetic of mine changed"):
        arithmetic.update(path, cases())
    arithmetic.update(path, cases(), "mine is gone")
    assert "mine" not in arithmetic.read(path).cases


def test_rounding_leaves_the_record_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    arithmetic.update(path, cases())
    before = path.read_bytes()
    arithmetic.update(path, cases(x=1 + 5e-10))
    assert path.read_bytes() == before


def test_a_record_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    arithmetic.update(path, cases())
    path.write_text(path.read_text().replace('"2 1"', '"2 1.5"', 1))
    with pytest.raises(ResultError) as caught:
        arithmetic.read(path)
    assert f"{path}: the numbers of euler were edited: their digest is " in str(caught.value)
    assert "Restore it from git" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no record of fingerprints"),
        ("[]", "is no record of fingerprints"),
        ('{"format": 2}', "has format 2; this version of bench reads format 1"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_record_says_so(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultError, match=message):
        arithmetic.read(path)


def test_the_record_has_a_line_for_each_case() -> None:
    lines = arithmetic.RECORD.read_text().splitlines()
    record: Record = arithmetic.read()
    count = sum(len(grids) for c in record.cases.values() for grids in c.values())
    assert sum(line.startswith("     ") for line in lines) == count
    assert max(map(len, lines)) < 1500
    assert json.loads("\n".join(lines))["format"] == arithmetic.FORMAT


# Planted.


@pytest.mark.parametrize("planted", REFACTORINGS, ids=lambda d: f"{d.name}: {d.what}")
def test_refactorings_fit_one_place_of_the_code(planted: Defect) -> None:
    source = (ROOT / "bench" / planted.file).read_text("utf-8")
    assert source.count(planted.old) == 1
    assert planted.old != planted.new


def test_there_are_twenty_of_each() -> None:
    assert len(REFACTORINGS) >= 20
    assert len(DEFECTS) >= 20


# A tenth of them; tests/regression/planted.py plants all, which takes ten minutes.
@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS[::9], ids=lambda d: f"{d.name}: {d.what}")
def test_the_right_sampler_is_named(defect: Defect) -> None:
    named, _ = named_by(defect)
    assert is_right(defect, named), named
    assert all(size is None or size > 1000 * ROUNDING for size in named.values())


@pytest.mark.slow
def test_all_refactorings_at_once_are_no_change() -> None:
    named, rounding = named_by(*REFACTORINGS)
    assert named == {}
    assert rounding < ROUNDING / 10
