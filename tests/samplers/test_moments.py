"""Stochastic samplers on a Gaussian: mean, variance and memory of the start, by exact recursion.

Every sampler here is linear on a Gaussian, so x_b = gain x_a + shift + spread z a channel. The
recursion is written with the papers' own formulas, in alpha-bar (`abar`), not with the code's.
"""

import math
from dataclasses import dataclass

import pytest
import torch

from bench.certify.problems import Gaussian
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import Final, TimeGrid, make_grid
from bench.samplers.registry import get, sample
from tests.samplers.variants import STOCHASTIC, Variant

PIXELS = (4, 200, 200)  # each pixel of a channel is a sample of its own
COUNT = PIXELS[1] * PIXELS[2]
ERRORS = 4.0

# The clip is no linear map; the identity tests tie those rows to the ones here.
LINEAR = [
    v
    for v in STOCHASTIC
    if v.sampler.name in ("ddim", "ddpm")
    and not v.params.get("clip")
    and v.params.get("eta") != "sigma-hat"
]


@dataclass
class Moments:
    """Of one channel: mean, variance, and covariance with the start."""

    mean: float
    variance: float
    memory: float

    def step(self, gain: float, shift: float, added: float) -> None:
        self.mean = gain * self.mean + shift
        self.variance = gain**2 * self.variance + added
        self.memory *= gain


def weights(variant: Variant, a: Point, b: Point) -> tuple[float, float, float]:
    """Of x0, of eps, and the variance that is added, in the papers' own terms (VP)."""
    abar_a, abar_b = a.alpha**2, b.alpha**2
    beta = 1 - abar_a / abar_b
    posterior = (1 - abar_b) / (1 - abar_a) * beta
    if variant.sampler.name == "ddim":  # arXiv:2010.02502, eq. 12 and 16
        added = float(variant.params["eta"]) ** 2 * posterior  # type: ignore[arg-type]
        return math.sqrt(abar_b), math.sqrt(1 - abar_b - added), added
    assert variant.sampler.name == "ddpm", "say here what the sampler does to a Gaussian"
    # arXiv:2006.11239, eq. 7, with x_a = sqrt(abar_a) x0 + sqrt(1 - abar_a) eps
    of_x0 = math.sqrt(abar_b) * beta / (1 - abar_a)
    of_x = math.sqrt(1 - beta) * (1 - abar_b) / (1 - abar_a)
    added = posterior if variant.params["variance"] == "small" else beta
    return (
        of_x0 + of_x * math.sqrt(abar_a),
        of_x * math.sqrt(1 - abar_a),
        added if b.sigma > 0 else 0.0,
    )


def expected(variant: Variant, grid: TimeGrid, mean: float, c: float) -> Moments:
    moments = Moments(0.0, 1.0, 1.0)
    for a, b in grid.steps():
        of_x0, of_eps, added = weights(variant, a, b)
        total = a.alpha**2 * c + a.sigma**2
        gain_x0, gain_eps = a.alpha * c / total, a.sigma / total
        gain = of_x0 * gain_x0 + of_eps * gain_eps
        shift = of_x0 * (mean - gain_x0 * a.alpha * mean) - of_eps * gain_eps * a.alpha * mean
        moments.step(gain, shift, added)
    return moments


@pytest.mark.parametrize(
    ("spacing", "n", "final"),
    [
        ("uniform", 2, "zero"),
        ("uniform", 2, "sigma-min"),
        ("quadratic", 5, "zero"),
        ("logsnr", 10, "sigma-min"),
        ("trailing", 20, "zero"),
    ],
)
@pytest.mark.parametrize("variant", LINEAR, ids=str)
def test_moments_follow_the_exact_recursion(
    variant: Variant, spacing: str, n: int, final: Final
) -> None:
    model = Gaussian()
    grid = make_grid(make_schedule("vp-linear"), spacing, n, final=final)
    noise = Noise(11, [0], PIXELS, dtype=torch.float64)
    start = Noise(11, [0], PIXELS, dtype=torch.float64)()[0].flatten(1)
    end = sample(
        variant.sampler, Denoiser(model.pair), grid, noise, final=final, params=variant.params
    )[0].flatten(1)
    for channel, (mean, c) in enumerate(zip(model.mean, model.variance, strict=True)):
        want = expected(variant, grid, mean, c)
        x, z = end[channel], start[channel]
        spread = math.sqrt(want.variance)
        assert float(x.mean()) == pytest.approx(want.mean, abs=ERRORS * spread / math.sqrt(COUNT))
        assert float(x.var()) == pytest.approx(want.variance, rel=ERRORS * math.sqrt(2 / COUNT))
        # Var(x z) = variance + memory^2 for a Gaussian pair with unit z.
        memory_error = math.sqrt((want.variance + want.memory**2) / COUNT)
        assert float(((x - x.mean()) * z).mean()) == pytest.approx(
            want.memory, abs=ERRORS * memory_error
        )


def test_the_exact_posterior_reaches_the_data_s_variance_in_the_limit() -> None:
    """ddim(1) at all steps on a Gaussian is close to the data; checks the recursion itself."""
    variant = Variant(get("ddim"), get("ddim").complete({"eta": 1}))
    grid = make_grid(make_schedule("vp-linear"), "all", 1000)
    for mean, c in zip(Gaussian().mean, Gaussian().variance, strict=True):
        found = expected(variant, grid, mean, c)
        assert found.mean == pytest.approx(mean, abs=2e-3)
        assert found.variance == pytest.approx(c, rel=0.05)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("schedule", ["edm", "flow"])
def test_moments_on_other_schedules(schedule: str, eta: float) -> None:
    """The DDIM step in s: gain of an Euler step to s_down, variance s_up^2, times alpha_b^2."""
    model = Gaussian()
    grid = make_grid(make_schedule(schedule), "linspace", 6, final="sigma-min")
    sampler = get("ddim")
    noise = Noise(12, [0], PIXELS, dtype=torch.float64)
    params = sampler.complete({"eta": eta})
    end = sample(sampler, Denoiser(model.pair), grid, noise, final="sigma-min", params=params)[0]
    first, *_ = grid.points
    for channel, (mean, c) in enumerate(zip(model.mean, model.variance, strict=True)):
        moments = Moments(0.0, grid.schedule.prior_std(first) ** 2, 1.0)
        for a, b in grid.steps():
            ratio = (b.s / a.s) ** 2 if a.alpha > 0 else 0.0
            added = eta**2 * b.sigma**2 * (1 - ratio)
            direction = math.sqrt(b.sigma**2 - added)
            total = a.alpha**2 * c + a.sigma**2
            gain = (b.alpha * a.alpha * c + direction * a.sigma) / total
            moments.step(gain, b.alpha * mean - gain * a.alpha * mean, added)
        x = end[channel].flatten()
        assert float(x.mean()) == pytest.approx(
            moments.mean, abs=ERRORS * math.sqrt(moments.variance / COUNT)
        )
        assert float(x.var()) == pytest.approx(moments.variance, rel=ERRORS * math.sqrt(2 / COUNT))
