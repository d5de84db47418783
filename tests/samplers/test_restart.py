"""Restart: the exact recursion on a Gaussian, NFE of the paper's settings, where it jumps."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE, Blobs, Gaussian
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.parameters import as_keywords
from bench.samplers.registry import get
from tests.samplers.stochastic import Given, gaussian_error, response

# A grid whose points after the first are s = 10, 2, 0.5 and 0.1.
EDM = make_schedule("edm")
GRID = TimeGrid(EDM, (*(EDM.at(t=t) for t in (40.0, 10.0, 2.0, 0.5, 0.1)), EDM.clean))
TWO: Given = {
    "points": [2, 4],
    "repeats": [1, 3],
    "s-min": [0.5, 0.1],
    "s-max": [5, 1],
    "s-noise": 1.003,
}


def asked(grid: TimeGrid, given: Given) -> tuple[list[float], int]:
    """The levels s at which the model is called, and the number of draws after the start."""
    levels = []

    def pair(x: Tensor, point: Point) -> Pair:
        levels.append(point.s)
        return Blobs().pair(x, point)

    sampler = get("restart")
    noise = Noise(1, range(2), SHAPE, dtype=torch.float64)
    params = as_keywords(sampler.complete(given))
    sampler.function(Denoiser(pair), noise(), grid, noise, **params)
    return levels, noise.draws - 1


@pytest.mark.parametrize(("repeats", "nfe"), [(2, 43), (5, 55), (10, 75), (20, 115)])
def test_costs_what_the_paper_says_for_cifar_10(repeats: int, nfe: int) -> None:
    sampler = get("restart")
    params = sampler.complete({"repeats": repeats})
    assert sampler.nfe(18, "zero", params) == nfe
    levels, draws = asked(make_grid(EDM, "karras", 18), {"repeats": repeats})
    assert (len(levels), draws) == (nfe, repeats)


def test_costs_what_the_authors_say_for_imagenet_64() -> None:
    """36 steps and five intervals: 203 calls."""
    given: Given = {
        "points": [4, 4, 4, 4, 6],
        "repeats": [1, 1, 5, 5, 6],
        "s-min": [19.35, 1.09, 0.59, 0.30, 0.06],
        "s-max": [40.79, 1.92, 1.09, 0.59, 0.30],
    }
    sampler = get("restart")
    assert sampler.nfe(36, "zero", sampler.complete(given)) == 203
    levels, draws = asked(make_grid(EDM, "karras", 36), given)
    assert (len(levels), draws) == (203, 18)


def test_jumps_from_the_point_nearest_to_s_min_and_comes_back_to_it() -> None:
    levels, _ = asked(
        GRID, {"s-min": 0.6, "s-max": 5, "points": 3, "repeats": 1, "interval-rho": 1}
    )
    main = [40, 10, 10, 2, 2, 0.5]
    down = [5, 2.75, 2.75, 0.5]
    assert levels == pytest.approx([*main, *down, 0.5, 0.1, 0.1])
    steps = (5 ** (1 / 7) + np.arange(4) / 3 * (0.1 ** (1 / 7) - 5 ** (1 / 7))) ** 7
    levels, _ = asked(GRID, {"s-min": 0.1, "s-max": 5, "points": 4, "repeats": 2})
    ways = [s for pair in itertools.pairwise(steps) for s in pair]
    assert levels == pytest.approx([*main, 0.5, 0.1, *ways, *ways, 0.1])


def test_may_jump_from_any_point_but_the_first_and_the_clean_image() -> None:
    levels, _ = asked(GRID, {"s-min": 30, "s-max": 60, "points": 2, "repeats": 1})
    assert levels[2:4] == pytest.approx([60, 10]), "40 is nearer, but nothing leads to it"
    levels, _ = asked(GRID, {"s-min": 0.01, "s-max": 1, "points": 2, "repeats": 1})
    assert levels[-3:] == pytest.approx([1, 0.1, 0.1])


def test_intervals_run_in_their_order_also_from_the_same_point() -> None:
    given: Given = {"points": [2, 2], "repeats": [1, 2], "s-min": [0.5, 0.5], "s-max": [5, 1]}
    levels, draws = asked(GRID, given)
    assert levels[6:12] == pytest.approx([5, 0.5, 1, 0.5, 1, 0.5])
    assert draws == 3


@pytest.mark.parametrize(
    "given", [{"s-max": 3}, {"points": 5, "repeats": 4, "interval-rho": 3}, TWO], ids=str
)
@pytest.mark.parametrize("final", ["zero", "sigma-min"])
@pytest.mark.parametrize(("schedule", "spacing"), [("vp-linear", "logsnr"), ("edm", "karras")])
def test_follows_the_exact_recursion_on_a_gaussian(
    schedule: str, spacing: str, final: str, given: Given
) -> None:
    """On u = xbar - mean the ODE is du/ds = s u / (c + s^2), and Heun multiplies u by a number."""
    sampler = get("restart")
    params = sampler.complete(given)
    columns = [params[name] for name in ("points", "repeats", "s-min", "s-max")]
    intervals = list(zip(*(c if isinstance(c, tuple) else (c,) for c in columns), strict=True))
    for n in (8, 18):
        grid = make_grid(make_schedule(schedule), spacing, n, final=final)  # type: ignore[arg-type]
        sampler.check(grid, params)
        found = response("restart", grid, given)
        first, last = grid.points[0], grid.points[-1]
        for channel, c in enumerate(Gaussian().variance):

            def heun(s: float, after: float, c: float = c) -> float:
                slope = s / (c + s**2)
                gain = 1 + (after - s) * slope
                return (
                    1 + (after - s) / 2 * (slope + after / (c + after**2) * gain) if after else gain
                )

            memory, variance = 1.0, 0.0
            usable = [p.s for p in grid.points[1:] if p.sigma > 0]
            for a, b in grid.steps():
                gain = heun(a.s, b.s)
                memory, variance = memory * gain, variance * gain**2
                for points, repeats, low, high in intervals:
                    if b.s != min(usable, key=lambda s: abs(s - low)):
                        continue
                    power = 1 / float(params["interval-rho"])  # type: ignore[arg-type]
                    steps = np.linspace(high**power, b.s**power, int(points)) ** (1 / power)
                    gain = float(np.prod([heun(*pair) for pair in itertools.pairwise(steps)]))
                    for _ in range(int(repeats)):
                        variance += float(params["s-noise"]) ** 2 * (high**2 - b.s**2)  # type: ignore[arg-type]
                        memory, variance = memory * gain, variance * gain**2
            scale = last.alpha / first.alpha
            assert float(found.memory[channel]) == pytest.approx(scale * memory, rel=1e-9)
            added = float(found.gains.square().sum(0)[channel])
            assert added == pytest.approx(last.alpha**2 * variance, rel=1e-9)


@pytest.mark.parametrize("layout", [smooth, rough])
def test_is_of_order_2_when_the_intervals_are_refined_with_the_main_steps(layout: object) -> None:
    steps = [60, 80, 120]
    grids = [grid_at(make_schedule("vp-linear"), layout(-2, 1.5, n)) for n in steps]  # type: ignore[operator]

    def error(grid: TimeGrid, points: int) -> float:
        return gaussian_error("restart", grid, {"points": points, "s-min": 0.25, "s-max": 1.5})

    refined = [error(grid, 1 + n // 10) for grid, n in zip(grids, steps, strict=True)]
    assert observed_order(refined, steps) == pytest.approx(2, abs=0.15)
    fixed = [error(grid, 3) for grid in grids]
    assert fixed[-1] > 0.9 * fixed[0], "an interval's own error stays"
    sampler = get("restart")
    params = sampler.complete({})
    assert (sampler.order(params), sampler.formula_order(params)) == (0, 2)


@pytest.mark.parametrize(
    ("given", "schedule", "n", "message"),
    [
        (
            {},
            "flow",
            5,
            "restart works in s = sigma / alpha, which is infinite where this grid starts (t = 1, "
            "alpha = 0). Start the grid below it.",
        ),
        (
            {"s-min": [0.06, 1]},
            "edm",
            18,
            "restart needs as many values of each for its intervals; there are 1 of points, 1 of "
            "repeats, 2 of s-min, 1 of s-max.",
        ),
        (
            {},
            "edm",
            1,
            "restart restarts from a point between the ends of its grid; this grid has none.",
        ),
        (
            {"points": [1], "repeats": [2], "s-min": [0.06], "s-max": [0.3]},
            "edm",
            18,
            "restart has an interval from s-min = 0.06 to s-max = 0.3 with points = 1 and repeats "
            "= 2; these are whole numbers of at least 2 and 1.",
        ),
        (
            {"s-max": 99},
            "edm",
            18,
            "restart has an interval from s-min = 0.06 to s-max = 99; edm ends at s = 80.",
        ),
        (
            {"s-min": 5},
            "edm",
            4,
            "restart has an interval from s-min = 5 to s-max = 0.3; the point of this grid nearest "
            "to s-min is s = 0.469979. Take more steps.",
        ),
    ],
)
def test_says_what_it_refuses(given: Given, schedule: str, n: int, message: str) -> None:
    grid = make_grid(make_schedule(schedule), "linspace" if schedule == "flow" else "karras", n)
    with pytest.raises(ScheduleError) as caught:
        get("restart").check(grid, get("restart").complete(given))
    assert str(caught.value) == message
