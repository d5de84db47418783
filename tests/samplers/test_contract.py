"""What every sampler promises, asked of each in the registry at each value of its parameters."""

import itertools
from functools import cache

import pytest
import torch
from torch import Tensor

from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import FINALS, Final, TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.samplers.registry import REGISTRY, Sampler, sample
from tests.samplers.exact import SHAPE, Blobs, Gaussian
from tests.samplers.variants import DETERMINISTIC, VARIANTS, Variant, base_params, values_of

FEW: list[tuple[int, Final]] = [(n, final) for n in (1, 2, 3, 5, 12) for final in FINALS]
MANY: list[tuple[int, Final]] = [(n, final) for n in range(1, 21) for final in FINALS]
MANY += [(50, "zero"), (100, "sigma-min"), (1000, "zero")]
WIDE = (4, 3, 2)  # an image with height and width, for shapes


@cache
def grid_of(schedule: str, spacing: str, n: int, final: Final) -> TimeGrid:
    return make_grid(make_schedule(schedule), spacing, n, final=final)


def draw(
    variant: Variant,
    grid: TimeGrid,
    final: Final,
    *,
    samples: range | list[int] = range(2),
    shape: tuple[int, ...] = SHAPE,
    dtype: torch.dtype = torch.float64,
    model: Blobs | Gaussian | None = None,
) -> tuple[Tensor, Denoiser, Noise]:
    grid = fitted(variant, grid)
    model = model or (Blobs() if shape == SHAPE else Gaussian())
    denoise = Denoiser(model.pair)
    noise = Noise(5, samples, shape, dtype=dtype)
    x = sample(variant.sampler, denoise, grid, noise, final=final, params=variant.params)
    return x, denoise, noise


def fitted(variant: Variant, grid: TimeGrid) -> TimeGrid:
    """`grid`, or its ends for a sampler that chooses its own steps between them."""
    if variant.sampler.calls is not None:
        return grid
    points = (grid.points[0], *grid.points[-2:]) if grid.ends_at_zero else grid.points[:: len(grid)]
    return TimeGrid(grid.schedule, tuple(dict.fromkeys(points)))


def refused(variant: Variant, grid: TimeGrid) -> bool:
    """Whether the sampler refuses the grid; those of each family say which it must and may."""
    try:
        variant.sampler.check(fitted(variant, grid), variant.params)
    except ScheduleError:
        return True
    return False


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_counts_what_it_declares_and_is_finite(variant: Variant) -> None:
    assert_counts_and_is_finite(variant, "logsnr", FEW)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "logsnr"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_counts_what_it_declares_and_is_finite_at_every_number_of_steps(
    variant: Variant, spacing: str
) -> None:
    # A thousand steps once: the quadratic spacing has not as many, and logsnr adds nothing.
    assert_counts_and_is_finite(variant, spacing, MANY if spacing == "uniform" else MANY[:-1])


def assert_counts_and_is_finite(
    variant: Variant, spacing: str, runs: list[tuple[int, Final]]
) -> None:
    for n, final in runs:
        grid = grid_of("vp-linear", spacing, n, final)
        if refused(variant, grid):
            continue
        x, denoise, _ = draw(variant, grid, final, model=Gaussian(), samples=range(1))
        declared = variant.sampler.nfe(len(grid), final, variant.params)
        assert declared is None or denoise.nfe_of(1) == [declared], (n, final)
        assert denoise.nfe_of(1)[0] > 0
        assert x.isfinite().all(), (n, final)


@pytest.mark.parametrize("schedule", ["vp-cosine", "vp-scaled-linear", "edm", "flow"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_works_on_every_schedule(variant: Variant, schedule: str) -> None:
    for n, final in itertools.product([1, 2, 6], FINALS):
        grid = grid_of(schedule, "linspace", n, final)
        if refused(variant, grid):
            continue
        x, denoise, _ = draw(variant, grid, final)
        assert x.isfinite().all(), (n, final)
        declared = variant.sampler.nfe(len(grid), final, variant.params)
        assert declared is None or denoise.nfe_of(2) == [declared] * 2, (n, final)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_keeps_shape_dtype_and_device(variant: Variant, dtype: torch.dtype) -> None:
    for final in FINALS:
        grid = grid_of("vp-linear", "uniform", 4, final)
        if refused(variant, grid):
            continue
        x, _, _ = draw(variant, grid, final, shape=WIDE, dtype=dtype, samples=range(3))
        assert x.shape == (3, *WIDE)
        assert x.dtype == dtype
        assert x.device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gives_the_same_images_on_a_gpu(variant: Variant) -> None:
    grid = grid_of("vp-linear", "uniform", 10, "zero")
    here, _, _ = draw(variant, grid, "zero", shape=WIDE, dtype=torch.float32)
    noise = Noise(5, range(2), WIDE, device="cuda")
    denoise = Denoiser(Gaussian().pair)
    there = sample(variant.sampler, denoise, grid, noise, final="zero", params=variant.params)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_float32_follows_float64(variant: Variant) -> None:
    # Where rounding decides about a step, the results differ by what the steps' tolerance allows.
    atol = 2e-4 if variant.sampler.calls is not None else 0.02
    for spacing, n in [("uniform", 1), ("quadratic", 10), ("logsnr", 20), ("trailing", 50)]:
        grid = grid_of("vp-linear", spacing, n, "zero")
        if refused(variant, grid):
            continue
        double, _, _ = draw(variant, grid, "zero")
        single, _, _ = draw(variant, grid, "zero", dtype=torch.float32)
        torch.testing.assert_close(single.double(), double, rtol=0, atol=atol)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gives_the_same_images_however_batched(variant: Variant) -> None:
    grid = grid_of("vp-linear", "uniform", 6, "zero")
    if refused(variant, grid):
        grid = grid_of("vp-linear", "uniform", 6, "sigma-min")
    together, _, _ = draw(variant, grid, "zero", samples=range(7))
    parts = [draw(variant, grid, "zero", samples=s)[0] for s in ([0], [1, 2], [3, 4, 5, 6])]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-12)
    order = [6, 0, 5, 1, 4, 2, 3]
    shuffled, _, _ = draw(variant, grid, "zero", samples=order)
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_draws_noise_only_where_it_says_so(variant: Variant, final: Final) -> None:
    grid = grid_of("vp-linear", "uniform", 5, final)
    if refused(variant, grid):
        return
    _, _, noise = draw(variant, grid, final)
    assert (noise.draws > 1) == variant.stochastic
    if variant.sampler.name in ("ddim", "ddpm") and variant.stochastic:
        assert noise.draws == 1 + 5 - (final == "zero")  # one a step, and none into sigma = 0


@pytest.mark.parametrize("variant", DETERMINISTIC, ids=str)
def test_a_deterministic_sampler_is_a_function_of_its_start(variant: Variant) -> None:
    grid = fitted(variant, grid_of("vp-linear", "logsnr", 5, "sigma-min"))
    start = torch.linspace(-2, 2, 8, dtype=torch.float64).view(2, *SHAPE)

    def noise() -> Tensor:
        raise AssertionError(f"{variant} drew noise")

    first, second = (
        variant.sampler.function(
            Denoiser(Blobs().pair), start.clone(), grid, noise, **_keywords(variant)
        )
        for _ in range(2)
    )
    assert torch.equal(first, second)


def _keywords(variant: Variant) -> dict[str, object]:
    return {name.replace("-", "_"): value for name, value in variant.params.items()}


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_does_not_write_into_what_it_is_given(variant: Variant) -> None:
    """A sampler that updates x in place would corrupt what others hold of it."""
    grid = fitted(variant, grid_of("vp-linear", "uniform", 4, "sigma-min"))
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(x: Tensor, point: Point) -> Pair:
        pair = Blobs().pair(x, point)
        seen.extend((tensor, tensor.clone()) for tensor in (x, *pair))
        return pair

    noise = Noise(5, range(2), SHAPE, dtype=torch.float64)
    start = noise()
    before = start.clone()
    variant.sampler.function(Denoiser(remember), start, grid, noise, **_keywords(variant))
    assert torch.equal(start, before)
    for now, then in seen:
        assert torch.equal(now, then)


OPTIONS = [
    (sampler, name)
    for sampler in REGISTRY.values()
    for name, parameter in sampler.params.items()
    if len(values_of(parameter)) > 1
]


@pytest.mark.parametrize(
    ("sampler", "name"), OPTIONS, ids=[f"{s.name} {name}" for s, name in OPTIONS]
)
def test_every_value_of_an_option_has_an_effect_at_some_number_of_steps(
    sampler: Sampler, name: str
) -> None:
    base = base_params(sampler)
    runs = [(n, final) for n in (2, 5, 12, 20) for final in ("zero", "sigma-min")]
    images = {}
    for value in values_of(sampler.params[name]):
        variant = Variant(sampler, sampler.complete({**base, name: value}))
        images[value] = {
            (n, final): draw(variant, grid, final)[0]
            for n, final in runs
            if not refused(variant, grid := grid_of("vp-linear", "logsnr", n, final))
        }
    for one, other in itertools.combinations(images, 2):
        both = images[one].keys() & images[other].keys()
        differences = [(images[one][run] - images[other][run]).abs().max() for run in both]
        assert not both or max(differences) > 1e-6, (name, one, other)


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
    grid = grid_of("vp-linear", "uniform", 5, "denoise")
    last = grid.points[-1]
    at_end, _, _ = draw(variant, grid, "sigma-min")
    denoised, _, _ = draw(variant, grid, "denoise")
    torch.testing.assert_close(denoised, Blobs().pair(at_end, last)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_ends_on_the_data_with_many_steps(variant: Variant, schedule: str) -> None:
    """Images of a Gaussian with tiny variance are its mean, whatever the sampler."""
    point_mass = Gaussian(variance=(1e-8,) * 4)
    grid = fitted(variant, grid_of(schedule, "karras", 60, "zero"))
    if refused(variant, grid):
        return
    noise = Noise(5, range(3), SHAPE, dtype=torch.float64)
    denoise = Denoiser(point_mass.pair)
    x = sample(variant.sampler, denoise, grid, noise, final="zero", params=variant.params)
    mean = torch.tensor(point_mass.mean, dtype=torch.float64)[:, None, None].expand_as(x)
    atol = 2e-3 if variant.sampler.calls is not None else 0.02
    torch.testing.assert_close(x, mean, rtol=0, atol=atol)


def test_the_facts_of_every_sampler_can_be_shown() -> None:
    for sampler in REGISTRY.values():
        assert sampler.family
        assert sampler.summary.endswith((".", ")"))
        assert "arXiv:" in sampler.paper
    for variant in VARIANTS:
        assert variant.sampler.order(variant.params) in range(6)
