"""Schedules against mpmath with 50 digits, written from the papers."""

import itertools
import math
from functools import cache

import pytest
from mpmath import cos, log, mp, mpf, pi, sqrt

from bench.diffusion.schedule import (
    EDM,
    SCHEDULES,
    Flow,
    Point,
    make_schedule,
    vp_cosine,
    vp_from_betas,
    vp_linear,
    vp_scaled_linear,
)
from bench.errors import ScheduleError

T = 1000
VP = ["vp-linear", "vp-cosine", "vp-scaled-linear"]
TIMES = {
    **{key: [0.0, 0.25, 1.0, 17.5, 333.3, 500.0, 998.0, 998.75, 999.0] for key in VP},
    "edm": [0.002, 0.01, 1.0, 14.6, 80.0],
    "flow": [0.001, 0.02, 0.5, 0.93, 0.9999],
}


@cache
def log_alphas(name: str) -> list[mpf]:
    """log alpha at the trained indices; alpha^2 is the product of 1 - beta."""
    with mp.workdps(50):
        if name == "vp-linear":
            low, high = mpf("1e-4"), mpf("0.02")
            betas = [low + (high - low) * i / (T - 1) for i in range(T)]
        elif name == "vp-scaled-linear":
            low, high = sqrt(mpf("0.00085")), sqrt(mpf("0.012"))
            betas = [(low + (high - low) * i / (T - 1)) ** 2 for i in range(T)]
        else:
            offset = mpf("0.008")
            f = [cos((mpf(i) / T + offset) / (1 + offset) * pi / 2) ** 2 for i in range(T + 1)]
            betas = [min(1 - f[i + 1] / f[i], mpf("0.999")) for i in range(T)]
        sums, total = [], mpf(0)
        for beta in betas:
            total += log(1 - beta) / 2
            sums.append(total)
        return sums


def exact(name: str, t: float | mpf) -> tuple[mpf, mpf, mpf]:
    """alpha, sigma and lambda at t."""
    with mp.workdps(50):
        if name == "edm":
            return mpf(1), mpf(t), -log(mpf(t))
        if name == "flow":
            return 1 - mpf(t), mpf(t), log((1 - mpf(t)) / mpf(t))
        below = min(int(t), T - 2)
        left, right = log_alphas(name)[below : below + 2]
        log_alpha = left + (mpf(t) - below) * (right - left)
        alpha = mp.exp(log_alpha)
        sigma = sqrt(1 - alpha**2)
        return alpha, sigma, log(alpha / sigma)


CASES = [(name, t) for name, times in TIMES.items() for t in times]


@pytest.mark.parametrize(("name", "t"), CASES)
def test_agrees_with_50_digits(name: str, t: float) -> None:
    point = make_schedule(name).at(t=t)
    alpha, sigma, lam = map(float, exact(name, t))
    assert point.t == t
    assert point.alpha == pytest.approx(alpha, rel=1e-11)
    assert point.sigma == pytest.approx(sigma, rel=1e-11)
    assert point.lam == pytest.approx(lam, rel=1e-11, abs=1e-11)
    assert point.s == pytest.approx(sigma / alpha, rel=1e-11)


@pytest.mark.parametrize(("name", "t"), CASES)
def test_time_lambda_and_s_invert_each_other(name: str, t: float) -> None:
    schedule = make_schedule(name)
    point = schedule.at(t=t)
    for found in (schedule.at(lam=point.lam), schedule.at(s=point.s)):
        assert found.t == pytest.approx(t, rel=1e-10, abs=1e-10)
        assert found.alpha == pytest.approx(point.alpha, rel=1e-10)
        assert found.sigma == pytest.approx(point.sigma, rel=1e-10)
        assert found.lam == pytest.approx(point.lam, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(("name", "t"), [case for case in CASES if case[1] > 0])
def test_rates_are_the_slopes_of_alpha_and_sigma_from_the_cleaner_side(name: str, t: float) -> None:
    with mp.workdps(50):
        h = mpf("1e-20")
        alpha, sigma, _ = exact(name, t)
        alpha_below, sigma_below, _ = exact(name, mpf(t) - h)
        d_log_alpha = (log(alpha) - log(alpha_below)) / h
        d_variance = (sigma**2 - sigma_below**2) / h
        diffusion = d_variance - 2 * d_log_alpha * sigma**2
    f, g2 = make_schedule(name).rates(t)
    assert f == pytest.approx(float(d_log_alpha), rel=1e-11, abs=1e-11)
    assert g2 == pytest.approx(float(diffusion), rel=1e-11)
    assert (type(f), type(g2)) == (float, float)


@pytest.mark.parametrize("name", VP)
def test_rates_at_an_index_are_those_of_the_step_that_leaves_it(name: str) -> None:
    """At an index log alpha has a kink, and a sampler goes down from it."""
    schedule = make_schedule(name)
    for i in (1, 17, 400, 998, 999):
        assert schedule.rates(i) == schedule.rates(i - 0.5)
        assert schedule.rates(i) != schedule.rates(i - 1)
        drop = math.log(schedule.at(t=i).alpha) - math.log(schedule.at(t=i - 1).alpha)
        assert schedule.rates(i)[0] == pytest.approx(drop, rel=1e-10)
    # Below index 0 there is the clean image, one index away.
    assert schedule.rates(0)[0] == pytest.approx(math.log(schedule.at(t=0).alpha), rel=1e-10)
    assert schedule.clean.t == -1


def test_rates_refuse_pure_noise_and_what_lies_outside() -> None:
    with pytest.raises(ScheduleError) as caught:
        Flow().rates(1.0)
    assert str(caught.value) == "flow has an infinite drift at t = 1.0, where alpha = 0."
    for name in SCHEDULES:
        schedule = make_schedule(name)
        for t in (schedule.t_min - 1e-6, schedule.t_max + 1e-6, math.nan):
            with pytest.raises(ScheduleError, match=r"^t = .* is outside "):
                schedule.rates(t)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noise_rises_strictly_with_time(name: str) -> None:
    schedule = make_schedule(name)
    count = 4001
    span = schedule.t_max - schedule.t_min
    times = [schedule.t_min + span * i / (count - 1) for i in range(count - 1)] + [schedule.t_max]
    points = [schedule.at(t=t) for t in times]
    assert all(a.lam > b.lam for a, b in itertools.pairwise(points))
    assert all(a.s < b.s for a, b in itertools.pairwise(points))


@pytest.mark.parametrize("name", VP)
def test_vp_preserves_variance(name: str) -> None:
    schedule = make_schedule(name)
    for i in range(T):
        point = schedule.at(t=i)
        assert point.alpha**2 + point.sigma**2 == pytest.approx(1, abs=1e-15)
    for lam in (-2.5, 0.0, 3.0):
        point = schedule.at(lam=lam)
        assert point.alpha**2 + point.sigma**2 == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name", VP)
def test_log_alpha_is_linear_between_trained_indices(name: str) -> None:
    schedule = make_schedule(name)
    for left in (0, 411, 998):
        a, b = (math.log(schedule.at(t=left + i).alpha) for i in (0, 1))
        for part in (0.25, 0.5, 0.9):
            assert math.log(schedule.at(t=left + part).alpha) == pytest.approx(
                a + part * (b - a), rel=1e-11
            )


def test_the_last_alpha_bar_of_the_vp_schedules() -> None:
    """Figures that stand in papers and code: 4.0358e-5 (Ho et al.), 0.0047 (latent diffusion)."""
    assert vp_linear().at(t=999).alpha ** 2 == pytest.approx(4.0358e-5, rel=1e-4)
    assert vp_linear().at(t=0).alpha ** 2 == pytest.approx(0.9999, rel=1e-14)
    assert vp_scaled_linear().at(t=999).alpha ** 2 == pytest.approx(0.00466, rel=1e-3)
    # Betas cut at 0.999: the last alpha-bar is a thousandth of the one before.
    cosine = vp_cosine()
    assert cosine.at(t=999).alpha ** 2 == pytest.approx(cosine.at(t=998).alpha ** 2 / 1000)
    assert cosine.betas[-1] == 0.999
    assert cosine.betas[-2] < 0.999


def test_quadratic_s_start_keeps_the_data_s_share_of_the_documents() -> None:
    assert vp_linear().at(t=800).alpha ** 2 == pytest.approx(0.0015, rel=0.05)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_clean_image_is_beyond_every_time(name: str) -> None:
    schedule = make_schedule(name)
    clean = schedule.clean
    assert (clean.alpha, clean.sigma, clean.s, clean.lam) == (1.0, 0.0, 0.0, math.inf)
    assert clean.t < schedule.t_min
    with pytest.raises(ScheduleError):
        schedule.at(t=clean.t)


def test_rectified_flow_starts_at_pure_noise() -> None:
    start = Flow().at(t=1)
    assert start == Point(t=1.0, alpha=0.0, sigma=1.0, lam=-math.inf)
    assert start.s == math.inf
    assert Flow().at(lam=-math.inf) == start
    assert Flow().at(s=math.inf) == start


@pytest.mark.parametrize("name", SCHEDULES)
def test_refuses_what_lies_outside(name: str) -> None:
    schedule = make_schedule(name)
    low, high = schedule.t_min, schedule.t_max
    for t in (low - 1e-6, high + 1e-6, math.nan, math.inf, -math.inf):
        with pytest.raises(ScheduleError) as caught:
            schedule.at(t=t)
        assert str(caught.value) == (
            f"t = {t} is outside {schedule.name}, which runs from {low} to {high}."
        )
    top = schedule.at(t=low).lam
    for lam in (top + 1e-3, math.inf, math.nan):
        with pytest.raises(ScheduleError, match=r"^lambda = "):
            schedule.at(lam=lam)
    for s in (0.0, -1.0, math.nan):
        with pytest.raises(ScheduleError, match=r"^lambda = "):
            schedule.at(s=s)
    if name != "flow":
        bottom = schedule.at(t=high).lam
        for lam in (bottom - 1e-3, -math.inf):
            with pytest.raises(ScheduleError, match=r"^lambda = "):
                schedule.at(lam=lam)
        with pytest.raises(ScheduleError, match=r"^lambda = -inf is outside"):
            schedule.at(s=math.inf)


def test_the_message_about_lambda_names_both_ends() -> None:
    with pytest.raises(ScheduleError) as caught:
        vp_linear().at(lam=5.0)
    assert str(caught.value) == (
        "lambda = 5 is outside vp-linear, which runs from -5.05884 (noise) to 4.60512 (data)."
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_takes_an_end_that_is_off_by_rounding(name: str) -> None:
    schedule = make_schedule(name)
    high = schedule.at(t=schedule.t_min).lam
    assert schedule.at(lam=high + 1e-12).lam == pytest.approx(high, abs=1e-11)
    # Without falling out of the range in t, which `at(t=)` would refuse afterwards.
    for t in (schedule.t_min, schedule.t_max):
        back = schedule.at(lam=schedule.at(t=t).lam).t
        assert schedule.at(t=back).t == back


def test_starts_from_the_noise_each_theory_has() -> None:
    for name in VP:
        schedule = make_schedule(name)
        assert {schedule.prior_std(schedule.at(t=t)) for t in (999, 800, 100)} == {1.0}
    assert EDM().prior_std(EDM().at(t=80)) == 80.0
    assert EDM().prior_std(EDM().at(t=20)) == 20.0
    assert Flow().prior_std(Flow().at(t=1)) == 1.0


def test_describes_itself_for_records() -> None:
    assert vp_linear().describe() == {
        "name": "vp-linear",
        "T": 1000,
        "beta-min": 1e-4,
        "beta-max": 0.02,
    }
    assert vp_linear(1e-3, 0.03, 50).describe()["T"] == 50
    assert vp_cosine().describe() == {
        "name": "vp-cosine",
        "T": 1000,
        "offset": 0.008,
        "beta-max": 0.999,
    }
    assert EDM().describe() == {"name": "edm", "sigma-min": 0.002, "sigma-max": 80.0}
    assert Flow().describe() == {"name": "flow", "t-min": 0.001}
    descriptions = [make_schedule(name).describe() for name in SCHEDULES]
    assert [d["name"] for d in descriptions] == list(SCHEDULES)


def test_betas_of_a_checkpoint_are_known_by_their_digest() -> None:
    betas = vp_linear().betas
    same, other = vp_from_betas(betas), vp_from_betas([*betas[:-1], 0.021])
    assert same.describe()["betas"] != other.describe()["betas"]
    assert same.describe()["betas"] == vp_from_betas(list(betas), "another").describe()["betas"]
    for t in (0, 3.5, 999):
        assert same.at(t=t) == vp_linear().at(t=t)


@pytest.mark.parametrize("betas", [[], [0.1], [0.1, 0.0], [0.1, 1.0], [0.1, -0.2], [0.1, math.nan]])
def test_refuses_betas_that_are_none(betas: list[float]) -> None:
    with pytest.raises(ScheduleError) as caught:
        vp_from_betas(betas, "folder")
    assert str(caught.value) == "folder needs at least two betas, all between 0 and 1."


def test_suggests_the_nearest_schedule() -> None:
    with pytest.raises(ScheduleError) as caught:
        make_schedule("vp-linaer")
    assert str(caught.value) == (
        'There is no schedule "vp-linaer". Did you mean "vp-linear"? '
        "Known are: vp-linear, vp-cosine, vp-scaled-linear, edm, flow."
    )


def test_schedules_are_values() -> None:
    assert vp_linear() == vp_linear()
    assert vp_linear() != vp_linear(beta_max=0.03)
    assert hash(EDM()) == hash(EDM())
    with pytest.raises(AttributeError):
        EDM().t_max = 100.0  # type: ignore[misc]


@pytest.mark.parametrize("name", SCHEDULES)
def test_points_are_plain_floats(name: str) -> None:
    """numpy's scalars would turn float32 images into float64 ones."""
    schedule = make_schedule(name)
    for point in (schedule.at(t=1), schedule.at(lam=0.5), schedule.at(s=0.3)):
        assert {type(v) for v in (point.t, point.alpha, point.sigma, point.lam)} == {float}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_made_again_of_what_describes_it(name: str) -> None:
    other = {"T": 400, "beta-max": 0.01, "offset": 0.01, "sigma-max": 50.0, "t-min": 0.01}
    known = make_schedule(name).describe()
    settings = {key: value for key, value in other.items() if key in known}
    changed = make_schedule(name, settings)
    assert settings.items() <= changed.describe().items()
    assert changed != make_schedule(name)
    again = dict(changed.describe())
    assert make_schedule(str(again.pop("name")), again) == changed
    assert make_schedule(name, {}) == make_schedule(name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "vp-linear",
            {"beta_max": 0.1},
            'vp-linear has no setting "beta_max". Did you mean "beta-max"? It has: T, beta-min, '
            "beta-max.",
        ),
        (
            "vp-linear",
            {"T": 400.0},
            'vp-linear: T is "400.0"; expected a whole number of at least 2.',
        ),
        ("vp-linear", {"T": 1}, 'vp-linear: T is "1"; expected a whole number of at least 2.'),
        (
            "vp-linear",
            {"T": True},
            'vp-linear: T is "True"; expected a whole number of at least 2.',
        ),
        ("edm", {"sigma-max": "80"}, 'edm: sigma-max is "80"; expected a number.'),
        ("edm", {"sigma-max": math.inf}, 'edm: sigma-max is "inf"; expected a number.'),
        (
            "edm",
            {"sigma-min": 90},
            "edm would run from 80 to 90; expected finite numbers above 0, the larger first.",
        ),
        (
            "flow",
            {"t-min": 0},
            "flow would run from 1 to 0; expected finite numbers above 0, the larger first.",
        ),
        (
            "vp-linear",
            {"beta-max": 1.5},
            "vp-linear needs at least two betas, all between 0 and 1.",
        ),
    ],
)
def test_settings_that_make_no_schedule(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ScheduleError) as caught:
        make_schedule(name, settings)
    assert str(caught.value) == message
