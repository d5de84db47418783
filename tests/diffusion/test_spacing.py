"""Spacings: the lists that papers and documents pin, and every number of steps."""

import math
from itertools import pairwise
from pathlib import Path

import mpmath
import numpy as np
import pytest
from diffusers import EDMEulerScheduler

from bench.diffusion.schedule import EDM, SCHEDULES, NoiseSchedule, make_schedule, vp_linear
from bench.diffusion.spacing import (
    FINALS,
    SPACINGS,
    Final,
    TimeGrid,
    get,
    make_grid,
    read_times,
    steps_of,
)
from bench.errors import ScheduleError
from bench.parameters import Value, as_keywords

VP = vp_linear()
INDEX_SPACINGS = ["uniform", "linspace", "trailing", "quadratic", "quadratic-full"]
LEVEL_SPACINGS = ["logsnr", "karras", "edm", "cosine"]
KARRAS_ON_FLOW: dict[str, Value] = {"sigma-max": 80.0, "sigma-min": 0.002}


def times(grid: TimeGrid) -> list[float]:
    return [point.t for point in grid.points]


def test_uniform_in_ten_steps_starts_at_900() -> None:
    expected = [900, 800, 700, 600, 500, 400, 300, 200, 100, 0, -1]
    assert times(make_grid(VP, "uniform", 10)) == expected


@pytest.mark.parametrize("n", [2, 3, 7, 11, 20, 30, 999, 1000])
def test_uniform_is_the_floor_of_its_formula(n: int) -> None:
    expected = [math.floor(i * 1000 / n) for i in range(n)][::-1]
    assert times(make_grid(VP, "uniform", n))[:-1] == expected


def test_linspace_holds_both_ends() -> None:
    expected = [999, 888, 777, 666, 555, 444, 333, 222, 111, 0, -1]
    assert times(make_grid(VP, "linspace", 10)) == expected
    assert times(make_grid(VP, "linspace", 3)) == [999, 500, 0, -1]  # 499.5 to the even index


def test_trailing_is_aligned_to_the_last_index() -> None:
    expected = [999, 899, 799, 699, 599, 499, 399, 299, 199, 99, -1]
    assert times(make_grid(VP, "trailing", 10)) == expected
    assert times(make_grid(VP, "trailing", 7))[0] == 999
    assert times(make_grid(VP, "trailing", 7))[:-1] == [
        round(1000 * i / 7) - 1 for i in range(7, 0, -1)
    ]


def test_quadratic_tops_out_at_800() -> None:
    expected = [800, 632, 483, 355, 246, 158, 88, 39, 9, 0, -1]
    assert times(make_grid(VP, "quadratic", 10)) == expected
    for n in (1, 2, 5, 20, 21, 50, 100, 1000):
        assert times(make_grid(VP, "quadratic", n))[0] == 800


@pytest.mark.parametrize(
    ("asked", "left"),
    [(20, 20), (29, 29), (30, 29), (50, 49), (100, 96), (200, 187), (500, 422), (1000, 688)],
)
def test_quadratic_drops_duplicates_from_30_on(asked: int, left: int) -> None:
    assert len(make_grid(VP, "quadratic", asked)) == left


def test_quadratic_has_no_duplicates_below_30() -> None:
    for n in range(1, 30):
        assert len(make_grid(VP, "quadratic", n)) == n
    for n in (*range(30, 60), 200, 400):
        assert len(make_grid(VP, "quadratic", n)) < n


def test_quadratic_is_the_formula_in_whole_numbers() -> None:
    """floor(800 i^2 / (n - 1)^2) without rounding: a float may fall one short of a square."""
    for n in (2, 5, 10, 20, 21, 41, 50, 100, 201, 500, 1000):
        squares = {800 * i * i // (n - 1) ** 2 for i in range(n)}
        assert times(make_grid(VP, "quadratic", n))[:-1] == sorted(squares, reverse=True)
        full = {999 * i * i // (n - 1) ** 2 for i in range(n)}
        assert times(make_grid(VP, "quadratic-full", n))[:-1] == sorted(full, reverse=True)


def test_quadratic_full_reaches_the_last_index() -> None:
    expected = [999, 789, 604, 444, 308, 197, 111, 49, 12, 0, -1]
    assert times(make_grid(VP, "quadratic-full", 10)) == expected
    for n in (1, 2, 5, 50, 1000):
        assert times(make_grid(VP, "quadratic-full", n))[0] == 999


def test_all_takes_every_index() -> None:
    assert times(make_grid(VP, "all", 1000)) == list(range(999, -2, -1))
    assert times(make_grid(VP, "all", 999, final="sigma-min")) == list(range(999, -1, -1))


def test_logsnr_is_even_in_lambda_between_the_ends() -> None:
    for schedule in (VP, make_schedule("vp-cosine"), EDM()):
        points = make_grid(schedule, "logsnr", 12, final="sigma-min").points
        assert points[0].t == pytest.approx(schedule.t_max, rel=1e-12)
        assert points[-1].t == pytest.approx(schedule.t_min, rel=1e-12, abs=1e-12)
        steps = np.diff([point.lam for point in points])
        even = (points[-1].lam - points[0].lam) / 12
        assert steps == pytest.approx(even, rel=1e-9)


def test_karras_is_eq_5_of_the_edm_paper() -> None:
    grid = make_grid(EDM(), "karras", 18)
    assert len(grid) == 18
    assert grid.points[0].s == pytest.approx(80, rel=1e-12)
    assert grid.points[-2].s == pytest.approx(0.002, rel=1e-12)
    assert grid.points[-1] == EDM().clean
    for i, point in enumerate(grid.points[:-1]):
        low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
        assert point.s == pytest.approx((high + i / 17 * (low - high)) ** 7, rel=1e-11)
    # Digits that stand in copies of that schedule.
    assert grid.points[1].s == pytest.approx(57.586, rel=1e-4)
    assert grid.points[9].s == pytest.approx(1.9233, rel=1e-4)


def test_karras_takes_its_parameters() -> None:
    params: dict[str, Value] = {"rho": 1.0, "sigma-min": 1.0, "sigma-max": 5.0}
    grid = make_grid(VP, "karras", 4, final="sigma-min", params=params)
    assert [point.s for point in grid.points] == pytest.approx([5, 4, 3, 2, 1], rel=1e-11)
    default = make_grid(VP, "karras", 4, final="sigma-min")
    assert default.points[0].t == pytest.approx(999, abs=1e-9)
    assert default.points[-1].t == pytest.approx(0, abs=1e-9)


def test_edm_is_the_published_grid() -> None:
    grid = make_grid(EDM(), "edm", 18)
    assert grid == make_grid(EDM(), "karras", 18)
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    scheduler.set_timesteps(18)
    assert [point.s for point in grid.points] == pytest.approx(scheduler.sigmas.tolist(), rel=1e-6)


def test_edm_is_cut_to_what_the_schedule_reaches() -> None:
    """Eq. 5; the first index of vp-linear has s^2 = 1e-4 / (1 - 1e-4)."""
    top, bottom = mpmath.root(80, 7), mpmath.root(mpmath.mpf(1) / 9999, 14)
    levels = [(top + mpmath.mpf(i) / 9 * (bottom - top)) ** 7 for i in range(10)]
    points = make_grid(VP, "edm", 10).points[:-1]
    assert [point.s for point in points] == pytest.approx([float(s) for s in levels], rel=1e-9)
    assert make_grid(VP, "karras", 10).points[0].t == pytest.approx(999)  # the schedule's own end
    flow = make_grid(make_schedule("flow"), "edm", 5).points
    assert flow[0].t == pytest.approx(80 / 81)
    assert flow[-2].t == pytest.approx(0.002 / 1.002)
    scaled = make_grid(make_schedule("vp-scaled-linear"), "edm", 5).points
    assert (scaled[0].t, scaled[-2].t) == pytest.approx(
        (999, 0), abs=1e-9
    )  # s from 14.6 to 0.029: inside EDM's range


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_cosine_is_even_in_the_angle(schedule: str) -> None:
    points = make_grid(make_schedule(schedule), "cosine", 9, final="sigma-min").points
    angles = [math.atan2(point.sigma, point.alpha) for point in points]
    assert np.diff(angles) == pytest.approx((angles[-1] - angles[0]) / 9, rel=1e-9)


def test_cosine_is_the_truncated_cosine_log_snr() -> None:
    """logsnr(u) = -2 log tan(a u + b) at u = 1, 0.9, ..., 0, with a and b from its two ends."""
    high, low = -2 * mpmath.log(mpmath.mpf("0.002")), -2 * mpmath.log(80)
    b = mpmath.atan(mpmath.exp(-high / 2))
    a = mpmath.atan(mpmath.exp(-low / 2)) - b
    expected = [float(-2 * mpmath.log(mpmath.tan(a * u / 10 + b))) for u in range(10, -1, -1)]
    points = make_grid(EDM(), "cosine", 10, final="sigma-min").points
    assert [2 * point.lam for point in points] == pytest.approx(expected, abs=1e-9)


def test_cosine_is_even_in_time_where_the_schedule_is_a_cosine() -> None:
    """Up to the offset of vp-cosine, which moves its indices by less than five."""
    indices = times(make_grid(make_schedule("vp-cosine"), "cosine", 11))[:-1]
    assert indices == pytest.approx(np.linspace(999, 0, 11), abs=5)
    # On rectified flow these are t = tan(phi) / (1 + tan(phi)), from pure noise on.
    t = times(make_grid(make_schedule("flow"), "cosine", 3, final="sigma-min"))
    assert t[0] == 1
    third = (math.pi / 2 - math.atan2(0.001, 0.999)) / 3
    assert t[1] == pytest.approx(1 - 1 / (math.tan(math.pi / 2 - third) + 1))


def test_time_power_is_the_grid_of_deis() -> None:
    """With kappa = 2 on T = 1, t_0 = 1e-3 (here the flow's): squares between two roots."""
    flow = times(make_grid(make_schedule("flow"), "time-power", 4, final="sigma-min"))
    roots = [1, 0.75 + 0.25 * 0.001**0.5, 0.5 + 0.5 * 0.001**0.5, 0.25 + 0.75 * 0.001**0.5]
    assert flow == pytest.approx([*(root**2 for root in roots), 0.001], rel=1e-12)
    squares = [999 * (1 - i / 5) ** 2 for i in range(5)]
    assert times(make_grid(VP, "time-power", 6))[:-2] == pytest.approx(squares, rel=1e-12)
    floored = [math.floor(t + 1e-9) for t in times(make_grid(VP, "time-power", 10))[:-1]]
    assert floored == times(make_grid(VP, "quadratic-full", 10))[:-1]


def test_time_power_takes_its_power() -> None:
    straight: dict[str, Value] = {"power": 1.0}
    found = times(make_grid(VP, "time-power", 5, final="sigma-min", params=straight))
    assert found == pytest.approx([999, 799.2, 599.4, 399.6, 199.8, 0])
    seven: dict[str, Value] = {"power": 7.0}
    grid = make_grid(EDM(), "time-power", 18, params=seven)  # there t is sigma
    assert [p.s for p in grid.points] == pytest.approx(
        [p.s for p in make_grid(EDM(), "karras", 18).points]
    )


def test_explicit_takes_the_times_as_listed() -> None:
    params: dict[str, Value] = {"times": (999.0, 12.5, 3.0)}
    assert times(make_grid(VP, "explicit", 3, params=params)) == [999, 12.5, 3, -1]
    assert times(make_grid(VP, "explicit", 2, final="sigma-min", params=params)) == [999, 12.5, 3]


def test_linspace_and_trailing_in_continuous_time() -> None:
    flow = make_schedule("flow")
    assert times(make_grid(flow, "trailing", 4)) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert times(make_grid(flow, "linspace", 4, final="sigma-min")) == pytest.approx(
        [1, 0.75025, 0.5005, 0.25075, 0.001]
    )
    assert times(make_grid(EDM(), "trailing", 2)) == [80, 40, 0]


@pytest.mark.parametrize("spacing", [*INDEX_SPACINGS, *LEVEL_SPACINGS, "time-power"])
def test_one_step_starts_at_the_top(spacing: str) -> None:
    grid = make_grid(VP, spacing, 1)
    assert len(grid) == 1
    top = {"quadratic": 800, "edm": VP.at(s=80).t}.get(spacing, 999)
    assert times(grid) == pytest.approx([top, -1], abs=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", ["cosine", "time-power"])
def test_spacings_in_continuous_time_hold_both_ends(schedule: str, spacing: str) -> None:
    levels = make_schedule(schedule)
    for n in (*range(2, 21), 50, 100, 1000):
        found = get(spacing).times(levels, n)
        assert (found[0], found[-1]) == (levels.t_max, levels.t_min)


@pytest.mark.parametrize("spacing", [*INDEX_SPACINGS, *LEVEL_SPACINGS, "time-power"])
def test_sigma_min_is_the_same_formula_with_one_point_more(spacing: str) -> None:
    for n in (1, 2, 5, 28):
        ends_at_zero = make_grid(VP, spacing, n + 1)
        for final in ("sigma-min", "denoise"):
            grid = make_grid(VP, spacing, n, final=final)
            assert len(grid) == n
            assert not grid.ends_at_zero
            assert grid.points == ends_at_zero.points[:-1]
        assert ends_at_zero.ends_at_zero


def falls(found: list[float], schedule: NoiseSchedule) -> bool:
    inside = schedule.t_min <= found[-1] and found[0] <= schedule.t_max
    return inside and all(a > b for a, b in pairwise(found))


def admitted() -> list[tuple[str, str]]:
    refused = {("edm", "uniform"), ("edm", "quadratic"), ("edm", "quadratic-full")}
    refused |= {("flow", name) for _, name in refused} | {("flow", "logsnr")}
    names = [name for name in SPACINGS if name not in ("all", "explicit", "file")]
    return [(s, n) for s in SCHEDULES for n in names if (s, n) not in refused]


def params_of(schedule: str, spacing: str) -> dict[str, Value]:
    return KARRAS_ON_FLOW if (schedule, spacing) == ("flow", "karras") else {}


# Spacings in lambda look up every point in Python; all thousand of those are a slow test.
FEW = [*range(1, 31), 50, 64, 100, 123, 256, 333, 500, 999, 1000]


@pytest.mark.parametrize(("schedule", "spacing"), admitted())
def test_falls_strictly_at_every_number_of_points(schedule: str, spacing: str) -> None:
    levels, params = make_schedule(schedule), params_of(schedule, spacing)
    for n in FEW if spacing in LEVEL_SPACINGS else range(1, 1001):
        found = get(spacing).times(levels, n, **as_keywords(params))
        assert falls(found, levels), n
        duplicates = spacing.startswith("quadratic")
        assert len(found) <= n if duplicates else len(found) == n


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize(("schedule", "spacing"), admitted())
def test_grids_fall_strictly_in_noise(schedule: str, spacing: str, final: Final) -> None:
    for n in (*range(1, 21), 50, 100, 999):
        params = params_of(schedule, spacing)
        grid = make_grid(make_schedule(schedule), spacing, n, final=final, params=params)
        assert all(a.lam < b.lam and a.s > b.s for a, b in grid.steps())
        assert grid.ends_at_zero == (final == "zero")
        assert len(list(grid.steps())) == len(grid) == len(grid.points) - 1


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "spacing"), admitted())
def test_every_grid_up_to_a_thousand_steps(schedule: str, spacing: str) -> None:
    levels, params = make_schedule(schedule), params_of(schedule, spacing)
    for n in range(1, 1001):
        make_grid(levels, spacing, n, params=params)


def refusal(schedule: NoiseSchedule, spacing: str, steps: int, **given: object) -> str:
    with pytest.raises(ScheduleError) as caught:
        make_grid(schedule, spacing, steps, **given)  # type: ignore[arg-type]
    return str(caught.value)


def test_refuses_numbers_of_steps_that_are_none() -> None:
    assert refusal(VP, "uniform", 0) == "steps is 0; a grid has at least 1 step."
    assert refusal(VP, "uniform", -3) == "steps is -3; a grid has at least 1 step."
    assert refusal(VP, "logsnr", 1001) == (
        "steps is 1001; vp-linear has 1000 trained steps, so at most 1000 with final: zero."
    )
    assert refusal(VP, "uniform", 1000, final="sigma-min") == (
        "steps is 1000; vp-linear has 1000 trained steps, so at most 999 with final: sigma-min."
    )


def test_suggests_the_nearest_spacing() -> None:
    assert refusal(VP, "unifrom", 10) == (
        'There is no spacing "unifrom". Did you mean "uniform"? Known are: uniform, linspace, '
        "trailing, quadratic, quadratic-full, all, logsnr, karras, edm, cosine, time-power, "
        "explicit, file."
    )


def test_names_the_spacings_that_a_continuous_schedule_has() -> None:
    assert refusal(EDM(), "uniform", 10) == (
        'Spacing "uniform" speaks of trained indices, and edm has none. '
        "Spacings that work: linspace, trailing, logsnr, karras, edm, cosine, time-power, "
        "explicit, file."
    )


def test_refuses_lambda_spacings_from_pure_noise() -> None:
    flow = make_schedule("flow")
    assert refusal(flow, "logsnr", 10) == (
        'Spacing "logsnr" cannot start at alpha = 0, where flow does. Use linspace or trailing.'
    )
    assert refusal(flow, "karras", 10) == (
        'Spacing "karras" runs from sigma-max = inf to sigma-min = 0.001001; they must be finite '
        "and falling. Give both in the sweep."
    )


def test_refuses_a_karras_range_that_is_none() -> None:
    upside_down: dict[str, Value] = {"sigma-min": 3.0, "sigma-max": 2.0}
    assert refusal(EDM(), "karras", 10, params=upside_down) == (
        'Spacing "karras" runs from sigma-max = 2 to sigma-min = 3; they must be finite and '
        "falling. Give both in the sweep."
    )
    beyond: dict[str, Value] = {"sigma-max": 100.0}
    assert refusal(EDM(), "karras", 10, params=beyond) == (
        "lambda = -4.60517 is outside edm, which runs from -4.38203 (noise) to 6.21461 (data)."
    )


def test_refuses_another_number_than_all() -> None:
    assert refusal(VP, "all", 100) == (
        'Spacing "all" takes every trained index of vp-linear: 1000 points, not 100.'
    )


def test_refuses_lists_that_are_no_grid() -> None:
    def explicit(n: int, *listed: float) -> str:
        return refusal(VP, "explicit", n, params={"times": listed})

    assert explicit(3, 10.0, 5.0) == ('Spacing "explicit" lists 2 times where 3 points are needed.')
    assert explicit(2, 5.0, 10.0) == (
        "A time grid runs strictly from noise to data; t = 5 is followed by t = 10."
    )
    assert explicit(2, 5.0, 5.0) == (
        "A time grid runs strictly from noise to data; t = 5 is followed by t = 5."
    )
    assert explicit(1, 1000.0) == "t = 1000.0 is outside vp-linear, which runs from 0.0 to 999.0."


@pytest.mark.parametrize(
    "text",
    [
        "999\n12.5\n3e-1\n",
        "# a comment\n999 12.5,\t3e-1",
        "\t999\r\n\t12.5 # half\r\n\t0.3\r\n",
        "[999, 12.5, 3e-1]",
        "[\n  999,\n  12.5,\n  0.3\n]\n",
        "- 999\n- 12.5 # half\n- 3e-1\n",
        "\ufeff[999, 12.5, 0.3]",
    ],
)
def test_a_file_of_times_as_people_write_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "times.txt"
    path.write_text(text)
    assert read_times(str(path)) == (999, 12.5, 0.3)
    params: dict[str, Value] = {"file": str(path)}
    assert times(make_grid(VP, "file", 3, params=params)) == [999, 12.5, 0.3, -1]


KINDS = "expected numbers, one a line or in a JSON or YAML list."


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("900 soon 3", f'"soon" is not a time; {KINDS}'),
        ("900 nan", f'"nan" is not a time; {KINDS}'),
        ("[900, [500]]", f"a list or a mapping in the list is not a time; {KINDS}"),
        ("", f"there is no list of times in it; {KINDS}"),
        ("# nothing\n", f"there is no list of times in it; {KINDS}"),
        ("[]", f"there is no list of times in it; {KINDS}"),
        ("times: [900, 500]", f"there is no list of times in it; {KINDS}"),
        ("[900, 500", f"the list in it is broken; {KINDS}"),
        (
            "900 100 500",
            "100 is followed by 500; times fall from noise to data. Sort them, highest first, and "
            "leave out what comes twice.",
        ),
        (
            "900 900",
            "900 is followed by 900; times fall from noise to data. Sort them, highest first, and "
            "leave out what comes twice.",
        ),
    ],
)
def test_refuses_files_that_hold_no_times(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "times.txt"
    path.write_text(text)
    with pytest.raises(ScheduleError) as caught:
        read_times(str(path))
    assert str(caught.value) == f"{path}: {complaint}"


def test_refuses_files_that_cannot_be_read(tmp_path: Path) -> None:
    def complaint(path: Path) -> str:
        with pytest.raises(ScheduleError) as caught:
            read_times(str(path))
        return str(caught.value).removeprefix(f"{path}: ")

    (tmp_path / "times.txt").write_bytes(b"\xff\x00")
    assert complaint(tmp_path / "times.txt") == f"byte 0 is not UTF-8 text; {KINDS}"
    assert complaint(tmp_path / "time.txt") == ('there is no such file. Did you mean "times.txt"?')
    assert complaint(tmp_path / "no" / "times.txt") == "there is no such file."
    assert complaint(tmp_path) == "the file cannot be read (Is a directory)."


def test_a_grid_needs_two_points() -> None:
    with pytest.raises(ScheduleError, match=r"^A time grid needs at least two points\.$"):
        TimeGrid(VP, (VP.at(t=5),))
    with pytest.raises(ScheduleError, match=r"t = -1 is followed by t = 5\.$"):
        TimeGrid(VP, (VP.clean, VP.at(t=5)))


def test_all_and_explicit_fix_their_own_number_of_steps() -> None:
    assert steps_of("all", VP, "zero", 0) == 1000
    assert steps_of("all", VP, "sigma-min", 0) == 999
    assert steps_of("all", VP, "denoise", 0) == 999
    assert steps_of("explicit", VP, "zero", 4) == 4
    assert steps_of("explicit", VP, "denoise", 4) == 3
    assert steps_of("uniform", VP, "zero", 4) is None
    assert make_grid(VP, "all", steps_of("all", VP, "denoise", 0) or 0, final="denoise")


def test_every_spacing_says_in_a_line_what_it_is() -> None:
    for name, spacing in SPACINGS.items():
        assert spacing.name == name
        assert spacing.summary.endswith(".")
        assert len(spacing.summary) > 20
