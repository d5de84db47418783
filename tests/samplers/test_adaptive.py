"""Solvers that choose their own steps: accuracy, independence of the batch, counts, refusals."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from bench.certify.problems import SHAPE, Blobs, Gaussian, integrate
from bench.diffusion.denoiser import Denoiser, per_sample
from bench.diffusion.march import Floats, States, march, rms
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import make_schedule
from bench.diffusion.spacing import TimeGrid
from bench.errors import CellError, ScheduleError
from bench.samplers.registry import get, sample


def ends(schedule: str, *, zero: bool, top: float | None = None) -> TimeGrid:
    """The ends of a schedule, and the clean image if asked for."""
    chosen = make_schedule(schedule)
    first = chosen.at(t=chosen.t_max if top is None else top)
    points = (first, chosen.at(t=chosen.t_min))
    return TimeGrid(chosen, (*points, chosen.clean) if zero else points)


def run(
    name: str,
    grid: TimeGrid,
    model: Gaussian | Blobs,
    samples: list[int],
    **given: object,
) -> tuple[Tensor, Tensor, list[int]]:
    """Start, end and calls."""
    sampler = get(name)
    denoise = Denoiser(model.pair)
    noise = Noise(3, samples, SHAPE, dtype=torch.float64)
    start = grid.schedule.prior_std(grid.points[0]) * noise()
    noise = Noise(3, samples, SHAPE, dtype=torch.float64)
    params = sampler.complete(given)
    final = "zero" if grid.ends_at_zero else "sigma-min"
    x = sample(sampler, denoise, grid, noise, final=final, params=params)
    return start, x, denoise.nfe_of(len(samples))


FOUR = [0, 1, 2, 3]


@pytest.mark.parametrize("variable", ["s", "lam"])
@pytest.mark.parametrize(("schedule", "top"), [("vp-linear", None), ("edm", None), ("flow", 0.99)])
def test_rk45_keeps_its_tolerance(schedule: str, top: float | None, variable: str) -> None:
    grid = ends(schedule, zero=False, top=top)
    for model in (Gaussian(), Blobs()):
        errors, calls = [], []
        for tolerance in (1e-3, 1e-5, 1e-7):
            given = {"rtol": tolerance, "atol": tolerance, "variable": variable}
            start, x, nfe = run("rk45", grid, model, FOUR, **given)
            if isinstance(model, Gaussian):
                exact = model.flow(start, *grid.points)
            else:
                exact = integrate(model.pair, start, grid.schedule, *grid.points)
            errors.append(float((x - exact).abs().max()))
            calls.append(max(nfe))
        # The tolerance is of a step: the error at the end may be some dozen of them, and a hundred
        # in lam, where steps at high noise are long and what follows magnifies their error.
        many = {"s": 50, "lam": 150}[variable]
        assert all(e < many * t for e, t in zip(errors, (1e-3, 1e-5, 1e-7), strict=True))
        assert errors[2] < 1e-5
        assert errors == sorted(errors, reverse=True)
        # Of order five: a hundredth of the error costs 100^(1/5) = 2.5 times the steps.
        assert 1.4 < calls[2] / calls[1] < 3.2


def test_rk45_takes_the_steps_of_scipy_s() -> None:
    """Their error norm and limits are ours; the first step and a repeated one are chosen apart."""
    grid = ends("edm", zero=False)
    sampler = get("rk45")
    start, x, nfe = run("rk45", grid, Gaussian(), [0], rtol=1e-6, atol=1e-6)

    def slope(s: float, flat: np.ndarray) -> np.ndarray:
        point = grid.schedule.at(s=s)
        return Gaussian().pair(torch.from_numpy(flat).view_as(start), point)[1].flatten().numpy()

    theirs = solve_ivp(
        slope, (80.0, 0.002), start.flatten().numpy(), method="RK45", rtol=1e-6, atol=1e-6
    )
    assert sampler.order({}) == 5
    assert x.flatten().tolist() == pytest.approx(theirs.y[:, -1].tolist(), abs=1e-5)
    assert nfe[0] == pytest.approx(theirs.nfev, rel=0.15)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_adaptive_dpm_solver_gains_by_its_tolerance(schedule: str, order: int) -> None:
    grid = ends(schedule, zero=False)
    errors, calls = [], []
    for tolerance in (1e-1, 1e-2, 1e-3):
        given = {"order": order, "rtol": tolerance, "atol": tolerance}
        start, x, nfe = run("dpm-solver-adaptive", grid, Gaussian(), FOUR, **given)
        errors.append(float((x - Gaussian().flow(start, *grid.points)).abs().max()))
        calls.append(max(nfe))
        assert all(n % order == 0 for n in nfe)
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert calls == sorted(calls)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("rk45", {"rtol": 1e-4}),
        ("rk45", {"rtol": 1e-4, "variable": "lam"}),
        ("dpm-solver-adaptive", {"order": 2}),
        ("dpm-solver-adaptive", {"order": 3}),
        ("exact-flow", {}),
    ],
)
def test_neither_image_nor_calls_depend_on_who_shares_the_batch(
    name: str, given: dict[str, object]
) -> None:
    grid = ends("vp-linear", zero=True)
    _, together, calls = run(name, grid, Blobs(), FOUR, **given)
    assert len(set(calls)) > 1  # samples differ, or the test shows nothing
    for i in FOUR:
        _, alone, own = run(name, grid, Blobs(), [i], **given)
        assert own == [calls[i]]
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["rk45", "dpm-solver-adaptive"])
def test_a_grid_to_zero_costs_one_call_more_and_gives_x0(name: str) -> None:
    _, level, calls = run(name, ends("edm", zero=False), Blobs(), FOUR)
    _, clean, more = run(name, ends("edm", zero=True), Blobs(), FOUR)
    assert more == [n + 1 for n in calls]
    x0, _ = Blobs().pair(level, make_schedule("edm").at(t=0.002))
    torch.testing.assert_close(clean, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
@pytest.mark.parametrize("zero", [False, True])
def test_exact_flow_is_the_flow_from_any_start_to_any_end(schedule: str, zero: bool) -> None:
    grid = ends(schedule, zero=zero)
    start, x, _ = run("exact-flow", grid, Gaussian(), FOUR, tolerance=1e-9)
    torch.testing.assert_close(
        x, Gaussian().flow(start, grid.points[0], grid.points[-1]), rtol=0, atol=1e-6
    )
    # The default is near enough for any metric.
    _, default, calls = run("exact-flow", grid, Gaussian(), FOUR)
    torch.testing.assert_close(default, x, rtol=0, atol=2e-3)
    assert max(calls) < 400


def test_exact_flow_starts_where_the_grid_does_and_asks_nothing_of_the_points_between() -> None:
    grid = ends("vp-linear", zero=True, top=800)
    middle = grid.schedule.at(t=300)
    longer = TimeGrid(grid.schedule, (grid.points[0], middle, *grid.points[1:]))
    _, x, _ = run("exact-flow", grid, Blobs(), FOUR)
    _, same, _ = run("exact-flow", longer, Blobs(), FOUR)
    assert torch.equal(x, same)
    _, other, _ = run("exact-flow", ends("vp-linear", zero=True), Blobs(), FOUR)
    assert not torch.allclose(x, other, atol=1e-3)


def test_exact_flow_is_for_exact_models() -> None:
    assert [name for name in ("rk45", "exact-flow", "ddim") if get(name).exact] == ["exact-flow"]


@pytest.mark.parametrize("name", ["rk45", "dpm-solver-adaptive"])
def test_grids_that_are_refused(name: str) -> None:
    schedule = make_schedule("vp-linear")
    three = TimeGrid(schedule, (*(schedule.at(t=t) for t in (999, 500, 0)), schedule.clean))
    with pytest.raises(ScheduleError) as caught:
        get(name).check(three, {})
    assert str(caught.value) == (
        f"{name} chooses its own steps from the first to the last noise level of a grid; this grid "
        "has 3 steps. Write steps: 2 with spacing: linspace or explicit."
    )
    with pytest.raises(ScheduleError, match=r"which is infinite where this grid starts \(t = 1,"):
        get(name).check(ends("flow", zero=True), {})
    get(name).check(ends("flow", zero=True, top=0.99), {})
    get(name).check(ends("vp-linear", zero=False), {})


def test_an_error_that_cannot_be_had_is_said() -> None:
    def stubborn(states: States, u: Floats, h: Floats, rows: Tensor) -> tuple[States, Floats]:
        return states, np.where(rows.numpy() == 2, 2.0, 0.0)

    with pytest.raises(CellError) as caught:
        march(
            stubborn,
            (torch.zeros(4, 1),),
            0.0,
            1.0,
            np.full(4, 0.5),
            order=5,
            limits=(0.2, 9),
            cautious=True,
        )
    assert str(caught.value) == (
        "1 samples of a batch need more than 10,000 steps for the error asked for; the first is "
        "number 2, now at 0. Allow more (rtol, atol)."
    )


def test_numbers_that_are_not_finite_end_a_sample() -> None:
    """They get no better by smaller steps; the cell finds them in the images and says where."""

    def broken(states: States, u: Floats, h: Floats, rows: Tensor) -> tuple[States, Floats]:
        (y,) = states
        new = torch.where(rows == 1, torch.nan, y + torch.from_numpy(h))[:, None][:, :1]
        return (new[..., 0][:, None] if new.ndim == 3 else new,), rms(new - new)

    (y,) = march(
        lambda s, u, h, r: broken((s[0][:, 0],), u, h, r),
        (torch.zeros(3, 1, dtype=torch.float64),),
        0.0,
        1.0,
        np.full(3, 0.25),
        order=5,
        limits=(0.2, 10.0),
        cautious=True,
    )
    assert y.isnan().flatten().tolist() == [False, True, False]
    assert y[0].item() == pytest.approx(1.0)


def test_points_of_each_sample_as_one() -> None:
    schedule = make_schedule("vp-linear")
    points = [schedule.at(t=t) for t in (10.0, 900.0)]
    x = torch.ones(2, *SHAPE, dtype=torch.float64)
    both = per_sample(points, x)
    for field in ("t", "alpha", "sigma", "lam"):
        column = getattr(both, field)
        assert column.shape == (2, 1, 1, 1)
        assert column.flatten().tolist() == [getattr(p, field) for p in points]
    for i, point in enumerate(points):
        one = Blobs().pair(x[i : i + 1], point)
        torch.testing.assert_close(Blobs().pair(x, both)[0][i : i + 1], one[0], rtol=0, atol=1e-14)
