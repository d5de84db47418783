"""What every sampler promises beside what its certificate asks: facts, budgets, ends, and GPUs.

The certificates themselves are asked for in tests/certify/test_certificate.py.
"""

import pytest
import torch

from bench.certify.checks import fitted, grid_of
from bench.certify.problems import SHAPE, Blobs, Gaussian
from bench.certify.variants import Variant
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.spacing import FINALS
from bench.samplers.registry import REGISTRY, sample
from tests.samplers.variants import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_declares_an_nfe_that_rises_with_the_steps_and_inverts_it(variant: Variant) -> None:
    sampler, params = variant.sampler, variant.params
    if sampler.calls is None:
        return
    fewest = sampler.min_steps(params)
    for final in FINALS:
        costs = {n: sampler.nfe(n, final, params) for n in range(fewest, 60)}
        assert all(costs[n] < costs[n + 1] for n in range(fewest, 59))
        for budget in range(50):
            affordable = [n for n, cost in costs.items() if cost <= budget]
            assert sampler.steps_for(budget, final, params) == max(affordable, default=0)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_denoise_as_final_returns_x0_at_the_last_point(variant: Variant) -> None:
    grid = fitted(variant, grid_of("vp-linear", "uniform", 5, "denoise"))
    at_end, denoised = (
        sample(
            *(variant.sampler, Denoiser(Blobs().pair), grid),
            Noise(5, range(2), SHAPE, dtype=torch.float64),
            final=final,
            params=variant.params,
        )
        for final in ("sigma-min", "denoise")
    )
    expected, _ = Blobs().pair(at_end, grid.points[-1])
    torch.testing.assert_close(denoised, expected, rtol=0, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gives_the_same_images_on_a_gpu(variant: Variant) -> None:
    grid = fitted(variant, grid_of("vp-linear", "uniform", 10, "zero"))
    shape = (4, 3, 2)
    here, there = (
        sample(
            *(variant.sampler, Denoiser(Gaussian().pair), grid),
            Noise(5, range(2), shape, device=device),
            final="zero",
            params=variant.params,
        )
        for device in ("cpu", "cuda")
    )
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)


def test_the_facts_of_every_sampler_can_be_shown() -> None:
    for sampler in REGISTRY.values():
        assert sampler.family
        assert sampler.summary.endswith((".", ")"))
        assert "arXiv:" in sampler.paper
    for variant in VARIANTS:
        assert variant.sampler.order(variant.params) in range(6)
