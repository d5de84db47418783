"""The certificate of the grids: nothing is wrong, and what is made wrong is found where it is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.certify import grids
from bench.certify.checks import Finding
from bench.diffusion import schedule, spacing
from bench.diffusion.schedule import SCHEDULES, make_schedule
from bench.diffusion.spacing import SPACINGS, make_grid
from bench.errors import ScheduleError

NAMED = [name for name in SPACINGS if name != "file"]  # a sweep makes it explicit times
GOLDEN, EVERY, FINAL = "golden values", "every number of steps", "final"
BACK = "t of lambda and s of t"
VP = ("schedule vp-linear", "schedule vp-cosine", "schedule vp-scaled-linear")


@pytest.fixture(scope="module")
def found() -> list[Finding]:
    return list(grids.findings())


def test_nothing_is_wrong(found: list[Finding]) -> None:
    assert [finding for finding in found if not finding.ok] == []


def test_every_schedule_and_spacing_is_asked_everything(found: list[Finding]) -> None:
    expected = {(f"schedule {name}", check) for name in SCHEDULES for check in (GOLDEN, BACK)}
    expected |= {(f"spacing {name}", check) for name in NAMED for check in (GOLDEN, EVERY, FINAL)}
    assert {(finding.settings, finding.check) for finding in found} == expected


@pytest.mark.parametrize("name", NAMED)
def test_golden_values_are_on_every_schedule_that_a_spacing_admits(name: str) -> None:
    on_file = {each["schedule"] for each in grids._on_file()["grids"] if each["spacing"] == name}
    for other in set(SCHEDULES) - on_file:
        with pytest.raises(ScheduleError, match=other):
            make_grid(make_schedule(other), name, 5)


def wrong(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    monkeypatch.setattr(grids, "_STEPS", (1, 2, 3, 7))
    return {(each.settings, each.check) for each in grids.findings() if not each.ok}


Times = Callable[..., list[float]]


def without_the_first_of_seven(times: Times) -> Times:
    return lambda schedule, n: times(schedule, n)[n == 7 :]


def rounded(times: Times) -> Times:
    """uniform, to the nearest index."""
    return lambda schedule, n: [float(round(i * 1000 / n)) for i in range(n)][::-1]


def ends_swapped(times: Times) -> Times:
    return lambda schedule, n: times(schedule, n)[::-1]


@pytest.mark.parametrize(
    ("name", "fault", "checks"),
    [
        ("trailing", without_the_first_of_seven, {EVERY}),
        ("uniform", rounded, {GOLDEN}),
        ("logsnr", ends_swapped, {GOLDEN, EVERY, FINAL}),
    ],
)
def test_a_fault_of_one_spacing_is_found_there_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, fault: Callable[[Times], Times], checks: set[str]
) -> None:
    rule = SPACINGS[name]
    monkeypatch.setitem(SPACINGS, name, replace(rule, times=fault(rule.times)))
    assert wrong(monkeypatch) == {(f"spacing {name}", check) for check in checks}


@pytest.mark.parametrize(
    ("owner", "name", "value", "expected"),
    [
        (spacing, "_QUADRATIC_TOP", 0.9, {("spacing quadratic", GOLDEN)}),
        (spacing, "_EDM_SIGMA_MAX", 79.0, {("spacing edm", GOLDEN)}),
        (
            spacing,
            "_falling",  # and so with what falls on one index
            lambda indices: np.sort(indices)[::-1].tolist(),
            {("spacing quadratic", GOLDEN), ("spacing quadratic-full", GOLDEN)},
        ),
        (
            schedule.Flow,
            "_rates",  # f sigma^2 once
            lambda self, t: (-1 / (1 - t), 2 * t + t**2 / (1 - t)),
            {("schedule flow", GOLDEN)},
        ),
        (
            schedule.DiscreteVP,
            "_rates",  # of the noisier side
            lambda self, t: (f := np.log1p(-self.betas[min(int(t) + 1, 999)]) / 2, -2 * f),
            {(name, GOLDEN) for name in VP},
        ),
        (
            schedule.DiscreteVP,
            "prior_std",
            lambda self, start: start.sigma,
            {(name, GOLDEN) for name in VP},
        ),
    ],
)
def test_a_fault_is_found_where_it_is_alone(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    value: object,
    expected: set[tuple[str, str]],
) -> None:
    monkeypatch.setattr(owner, name, value)
    assert wrong(monkeypatch) == expected


def test_a_wrong_inverse_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = schedule.DiscreteVP._at_lam

    def to_the_nearest_index(self: schedule.DiscreteVP, lam: float) -> schedule.Point:
        return self._at_t(float(round(right(self, lam).t)))

    monkeypatch.setattr(schedule.DiscreteVP, "_at_lam", to_the_nearest_index)
    assert wrong(monkeypatch) >= {(name, check) for name in VP for check in (GOLDEN, BACK)}


def test_denoise_with_the_clean_image_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_clean(*args: Any, final: spacing.Final, **kwargs: Any) -> spacing.TimeGrid:
        return make_grid(*args, final="zero" if final == "denoise" else final, **kwargs)

    monkeypatch.setattr(grids, "make_grid", with_clean)
    assert {name for name, check in wrong(monkeypatch) if check == FINAL} == {
        f"spacing {name}" for name in NAMED
    }


def test_what_has_no_golden_values_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPACINGS, "new", replace(SPACINGS["linspace"], name="new"))
    monkeypatch.setitem(SCHEDULES, "new", schedule.Flow)
    assert {("spacing new", GOLDEN), ("schedule new", GOLDEN)} <= wrong(monkeypatch)
