"""The probability-flow ODE against its closed form on a Gaussian, in float64."""

import pytest
import torch
from torch import Tensor

from bench.certify.problems import SHAPE, Gaussian
from bench.diffusion import probability_flow
from bench.diffusion.denoiser import Denoiser, per_sample
from bench.diffusion.schedule import make_schedule

SCHEDULES = ["vp-linear", "edm", "flow"]


def start(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_is_the_closed_form_also_from_pure_noise_to_the_image_and_back(schedule: str) -> None:
    made = make_schedule(schedule)
    top, clean = made.at(t=made.t_max), made.clean
    x = start()
    denoise = Denoiser(Gaussian().pair)
    down = probability_flow.solve(denoise, x, top, clean, tolerance=1e-11)
    torch.testing.assert_close(down, Gaussian().flow(x, top, clean), rtol=1e-8, atol=1e-8)
    up = probability_flow.solve(denoise, down, clean, top, tolerance=1e-11)
    torch.testing.assert_close(up, x, rtol=1e-8, atol=1e-8)


def test_samples_with_starts_of_their_own_go_their_own_ways() -> None:
    made = make_schedule("flow")
    points = [made.at(t=t) for t in (1.0, 0.9, 0.5, 0.2, 0.01, 0.001)]
    end = points[-1]
    x = start()
    together = Denoiser(Gaussian().pair)
    found = probability_flow.solve(together, x, per_sample(points, x), end, tolerance=1e-8)
    for i, point in enumerate(points):
        alone = Denoiser(Gaussian().pair)
        one = probability_flow.solve(alone, x[i : i + 1], point, end, tolerance=1e-8)
        torch.testing.assert_close(found[i : i + 1], one, rtol=1e-12, atol=1e-12)
        assert together.nfe_of(len(points))[i] == alone.nfe_of(1)[0]
    torch.testing.assert_close(found[-1], x[-1], rtol=1e-12, atol=0)
