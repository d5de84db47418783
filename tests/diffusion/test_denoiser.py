"""Every parametrisation inverts x = alpha x0 + sigma eps, on every schedule."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from bench.diffusion.denoiser import (
    Denoiser,
    Pair,
    Parametrisation,
    clip_x0,
    each,
    each_rounded,
    from_network,
    per_sample,
    to_pair,
)
from bench.diffusion.schedule import Point, make_schedule
from bench.errors import ModelError
from tests.samplers.target import target

SHAPE = (3, 2, 4, 4)
PARAMETRISATIONS = get_args(Parametrisation)


def clean_and_noise(dtype: torch.dtype = torch.float64) -> Pair:
    generator = torch.Generator().manual_seed(0)
    x0 = 2 * torch.rand(SHAPE, generator=generator, dtype=torch.float64) - 1
    return x0.to(dtype), torch.randn(SHAPE, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize(
    ("schedule", "t"),
    [
        *[("vp-linear", t) for t in (0, 500, 999)],
        *[("edm", t) for t in (0.002, 1.0, 80.0)],
        *[("flow", t) for t in (0.001, 0.5, 0.999)],
    ],
)
def test_inverts_the_forward_process(parametrisation: str, schedule: str, t: float) -> None:
    x0, eps = clean_and_noise()
    point = make_schedule(schedule).at(t=t)
    x = point.alpha * x0 + point.sigma * eps
    output = target(parametrisation, x0, eps, point)
    found = to_pair(output, x, point, parametrisation)  # type: ignore[arg-type]
    # Dividing by alpha or sigma multiplies rounding, and by nothing else.
    atol = 1e-15 * max(10, point.s, 1 / point.s) * 10
    torch.testing.assert_close(found, (x0, eps), rtol=0, atol=atol)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_x_is_always_made_of_the_pair(parametrisation: str) -> None:
    """Also of an imperfect network: samplers use x0 and eps as if x were their mixture."""
    generator = torch.Generator().manual_seed(1)
    x, output = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    for schedule, t in [("vp-linear", 300), ("edm", 5.0), ("flow", 0.7)]:
        point = make_schedule(schedule).at(t=t)
        x0, eps = to_pair(output, x, point, parametrisation)  # type: ignore[arg-type]
        torch.testing.assert_close(point.alpha * x0 + point.sigma * eps, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("parametrisation", ["x0", "v", "velocity"])
def test_pure_noise_needs_no_division(parametrisation: str) -> None:
    x0, eps = clean_and_noise()
    start = make_schedule("flow").at(t=1)
    output = target(parametrisation, x0, eps, start)
    found = to_pair(output, eps, start, parametrisation)  # type: ignore[arg-type]
    torch.testing.assert_close(found, (x0, eps), rtol=0, atol=1e-15)


@pytest.mark.parametrize("parametrisation", ["eps", "score", "D"])
def test_pure_noise_is_refused_where_it_says_nothing(parametrisation: str) -> None:
    _, eps = clean_and_noise()
    pair = from_network(lambda x, point: x, parametrisation)  # type: ignore[arg-type]
    with pytest.raises(ModelError) as caught:
        pair(eps, make_schedule("flow").at(t=1))
    assert str(caught.value) == (
        f"A network that predicts {parametrisation} says nothing about x0 at pure noise "
        "(t = 1, alpha = 0). Start the grid below it."
    )


def test_pure_noise_of_one_sample_among_others_is_refused_too() -> None:
    _, eps = clean_and_noise()
    flow = make_schedule("flow")
    points = per_sample([flow.at(t=0.5), flow.at(t=1), flow.at(t=0.2)], eps)
    with pytest.raises(ModelError, match="at pure noise"):
        from_network(lambda x, point: x, "eps")(eps, points)
    inside = per_sample([flow.at(t=t) for t in (0.5, 0.9, 0.2)], eps)
    assert from_network(lambda x, point: x, "eps")(eps, inside)[0].isfinite().all()


@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
def test_a_network_that_predicts_D_is_given_the_image_without_its_scale(schedule: str) -> None:
    x0, eps = clean_and_noise()
    given = make_schedule(schedule)
    points = [given.at(lam=lam) for lam in (-1.5, 0.2, 2.0)]
    for point in (points[1], per_sample(points, x0)):
        seen: list[Tensor] = []

        def predict(y: Tensor, point: Point, seen: list[Tensor] = seen) -> Tensor:
            seen.append(y)
            return x0

        found = from_network(predict, "D")(point.alpha * x0 + point.sigma * eps, point)
        torch.testing.assert_close(
            seen[0], x0 + point.sigma / point.alpha * eps, rtol=0, atol=1e-12
        )
        torch.testing.assert_close(found, (x0, eps), rtol=0, atol=1e-12)


def test_a_time_for_each_image() -> None:
    x = torch.zeros(SHAPE)
    assert torch.equal(each(7.25, x), torch.full((3,), 7.25))
    schedule = make_schedule("vp-linear")
    points = per_sample([schedule.at(t=t) for t in (1.0, 2.5, 998.75)], x)
    assert torch.equal(each(points.t, x), torch.tensor([1.0, 2.5, 998.75]))
    assert torch.equal(each_rounded(points.t, x), torch.tensor([1, 2, 999]))
    assert torch.equal(each_rounded(6.75, x), torch.tensor([7, 7, 7]))


def test_the_cosine_schedule_s_last_index_is_not_pure_noise() -> None:
    """Its alpha is 5e-5: little, but enough for an eps network."""
    x0, eps = clean_and_noise()
    point = make_schedule("vp-cosine").at(t=999)
    x = point.alpha * x0 + point.sigma * eps
    torch.testing.assert_close(to_pair(eps, x, point, "eps")[0], x0, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    x0, eps = clean_and_noise(dtype)
    point = make_schedule("vp-linear").at(t=400)
    for parametrisation in PARAMETRISATIONS:
        pair = to_pair(eps, x0, point, parametrisation)  # type: ignore[arg-type]
        assert {part.dtype for part in pair} == {dtype}


def test_counts_its_calls() -> None:
    denoise = Denoiser(lambda x, point: (x, x))
    x0, _ = clean_and_noise()
    assert denoise.nfe == 0
    for count in (1, 2, 3):
        denoise(x0, make_schedule("edm").at(t=1.0))
        assert denoise.nfe == count


def test_a_network_is_called_once_with_the_state_and_the_point() -> None:
    calls: list[tuple[Tensor, Point]] = []

    def predict(x: Tensor, point: Point) -> Tensor:
        calls.append((x, point))
        return torch.zeros_like(x)

    x, _ = clean_and_noise()
    point = make_schedule("vp-linear").at(t=10)
    x0, eps = Denoiser(from_network(predict, "eps"))(x, point)
    assert len(calls) == 1
    assert calls[0][0] is x
    assert calls[0][1] is point
    torch.testing.assert_close(x0, x / point.alpha)
    assert not eps.any()


def test_clipping_re_derives_eps() -> None:
    x0, eps = clean_and_noise()
    x0 = 3 * x0
    for schedule, t in [("vp-linear", 500), ("edm", 2.0), ("flow", 1.0)]:
        point = make_schedule(schedule).at(t=t)
        x = point.alpha * x0 + point.sigma * eps
        clipped, derived = clip_x0(x, x0, point)
        assert torch.equal(clipped, x0.clamp(-1, 1))
        torch.testing.assert_close(
            point.alpha * clipped + point.sigma * derived, x, rtol=0, atol=1e-12
        )
        if point.alpha > 0:
            assert not torch.allclose(derived, eps)


def test_clipping_changes_nothing_inside_the_range() -> None:
    x0, eps = clean_and_noise()
    point = make_schedule("vp-linear").at(t=500)
    before = x0.clone()
    clipped, derived = clip_x0(point.alpha * x0 + point.sigma * eps, x0, point)
    torch.testing.assert_close((clipped, derived), (x0, eps), rtol=0, atol=1e-13)
    clip_x0(x0, 5 * x0, point)
    assert torch.equal(x0, before)
