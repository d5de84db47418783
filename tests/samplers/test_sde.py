"""Reverse SDE, reverse diffusion, predictor-corrector and annealed Langevin on exact problems."""

import itertools
import math

import numpy as np
import pytest
import torch
from diffusers import ScoreSdeVeScheduler
from torch import Tensor

from bench.certify.orders import grid_at, observed_order, rough, smooth
from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import EDM, NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import TimeGrid, make_grid
from bench.errors import ScheduleError
from bench.parameters import as_keywords
from bench.samplers.registry import get, sample
from tests.samplers.stochastic import Given, gaussian_error, mixture_error, response

BELOW_ONE = (0.98, 0.9, 0.6, 0.55, 0.2)  # times of a flow that starts with some signal


def grids() -> list[TimeGrid]:
    made = [
        make_grid(make_schedule(schedule), spacing, n, final=final)
        for schedule, spacing in [
            ("vp-linear", "uniform"),
            ("vp-cosine", "logsnr"),
            ("edm", "karras"),
        ]
        for n, final in [(1, "zero"), (2, "sigma-min"), (5, "zero"), (20, "sigma-min")]
    ]
    flow = make_schedule("flow")
    points = tuple(flow.at(t=t) for t in BELOW_ONE)
    return [*made, TimeGrid(flow, points), TimeGrid(flow, (*points, flow.clean))]


GRIDS = grids()


def name_of(grid: TimeGrid) -> str:
    return f"{grid.schedule.name}-{len(grid)}-{grid.points[-1].t:g}"


def forward(schedule: NoiseSchedule, t: float) -> tuple[float, float]:
    """f and g^2 in each paper's terms: beta of VP, d sigma^2 / dt of VE, the line of the flow."""
    if schedule.name == "edm":
        return 0.0, 2 * t
    if schedule.name == "flow":
        return -1 / (1 - t), 2 * t + 2 * t**2 / (1 - t)
    # Between trained indices log alpha is linear, and index -1 is the clean image.
    above = math.ceil(t)
    below = math.log(schedule.at(t=above - 1).alpha) if above > 0 else 0.0
    beta = -2 * (math.log(schedule.at(t=above).alpha) - below)
    return -beta / 2, beta


class Line:
    """x_b = gain x_a + shift + noise, step by step, on one channel of the Gaussian."""

    def __init__(self, channel: int) -> None:
        self.mean, self.c = Gaussian().mean[channel], Gaussian().variance[channel]
        self.memory, self.shift, self.variance = 1.0, 0.0, 0.0

    def step(self, gain: float, shift: float, variance: float) -> None:
        self.memory *= gain
        self.shift = gain * self.shift + shift
        self.variance = gain**2 * self.variance + variance

    def along_score(self, a: Point, kept: float, share: float, variance: float) -> None:
        """x_b = kept x_a + share score(x_a) + noise."""
        total = a.alpha**2 * self.c + a.sigma**2
        self.step(kept - share / total, share * a.alpha * self.mean / total, variance)

    def denoise(self, a: Point) -> None:
        """E[x0 | x], by Tweedie's formula."""
        self.along_score(a, 1 / a.alpha, a.sigma**2 / a.alpha, 0.0)


def assert_follows(name: str, grid: TimeGrid, given: Given, lines: list[Line]) -> None:
    found = response(name, grid, given)
    for channel, line in enumerate(lines):
        assert float(found.memory[channel]) == pytest.approx(line.memory, rel=1e-9, abs=1e-9)
        assert float(found.shift[channel]) == pytest.approx(line.shift, rel=1e-9, abs=1e-9)
        added = float(found.gains.square().sum(0)[channel])
        assert added == pytest.approx(line.variance, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("grid", GRIDS, ids=name_of)
def test_reverse_sde_follows_the_exact_recursion(grid: TimeGrid, kappa: float) -> None:
    lines = [Line(channel) for channel in range(4)]
    for line in lines:
        for a, b in grid.steps():
            if b.sigma == 0:
                line.denoise(a)
                continue
            dt = b.t - a.t
            f, g2 = forward(grid.schedule, a.t)
            line.along_score(a, 1 + f * dt, -(1 + kappa**2) / 2 * g2 * dt, -(kappa**2) * g2 * dt)
    assert_follows("reverse-sde", grid, {"kappa": kappa}, lines)


@pytest.mark.parametrize("grid", GRIDS, ids=name_of)
def test_reverse_diffusion_follows_the_exact_recursion(grid: TimeGrid) -> None:
    """On VP 2 - sqrt(1 - beta) and beta, on VE 1 and sigma_a^2 - sigma_b^2 (appendix E)."""
    lines = [Line(channel) for channel in range(4)]
    for line in lines:
        for a, b in grid.steps():
            root = a.alpha / b.alpha
            g2 = a.sigma**2 - root**2 * b.sigma**2
            if b.sigma == 0:
                line.denoise(a)
            else:
                line.along_score(a, 2 - root, g2, g2)
    assert_follows("reverse-diffusion", grid, {}, lines)


@pytest.mark.parametrize(("steps", "size"), [(1, 0.2), (3, 1.5)])
@pytest.mark.parametrize("grid", GRIDS, ids=name_of)
def test_annealed_langevin_follows_the_exact_recursion(
    grid: TimeGrid, steps: int, size: float
) -> None:
    """In the paper's terms on xbar = x / alpha: alpha_i = epsilon sigma_i^2 / sigma_L^2."""
    noisy = [point for point in grid.points if point.sigma > 0]
    epsilon = size * noisy[-1].s ** 2
    lines = [Line(channel) for channel in range(4)]
    for line in lines:
        line.step(1 / noisy[0].alpha, 0.0, 0.0)
        for point in noisy:
            move = epsilon * point.s**2 / noisy[-1].s ** 2
            ve = Point(point.s, 1.0, point.s, point.lam)
            for _ in range(steps):
                line.along_score(ve, 1.0, move / 2, move)
        if grid.ends_at_zero:
            line.denoise(ve)
        line.step(grid.points[-1].alpha, 0.0, 0.0)
    given: Given = {"steps-per-level": steps, "step-size": size}
    assert_follows("annealed-langevin", grid, given, lines)
    levels = len(noisy)
    nfe = get("annealed-langevin").nfe(
        len(grid),
        "zero" if grid.ends_at_zero else "sigma-min",
        get("annealed-langevin").complete(given),
    )
    assert nfe == levels * steps + grid.ends_at_zero


def test_many_langevin_steps_at_a_level_reach_its_known_stationary_variance() -> None:
    """Of x - (e / 2v) x + sqrt(e) z it is v / (1 - e / 4v): a bias that stays at every n."""
    schedule = EDM()
    grid = TimeGrid(schedule, (schedule.at(t=2.0), schedule.at(t=1.0)))
    found = response("annealed-langevin", grid, {"steps-per-level": 400, "step-size": 0.8})
    for channel, c in enumerate(Gaussian().variance):
        total = c + 1.0
        added = float(found.gains.square().sum(0)[channel])
        assert added == pytest.approx(total / (1 - 0.8 / (4 * total)), rel=1e-9)
        assert float(found.shift[channel]) == pytest.approx(Gaussian().mean[channel], abs=1e-9)
    assert (
        get("annealed-langevin").order(get("annealed-langevin").complete({"steps-per-level": 1}))
        == 0
    )


WEAK: list[tuple[str, Given]] = [
    ("reverse-sde", {"kappa": 0}),
    ("reverse-sde", {"kappa": 0.5}),
    ("reverse-sde", {"kappa": 1}),
    ("reverse-diffusion", {}),
]


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize("schedule", ["vp-linear", "edm", "flow"])
@pytest.mark.parametrize(("name", "given"), WEAK)
def test_is_of_weak_order_1(name: str, given: Given, schedule: str, layout: object) -> None:
    steps = [100, 140, 200]
    made = [grid_at(make_schedule(schedule), layout(-2, 1.5, n)) for n in steps]  # type: ignore[operator]
    errors = [gaussian_error(name, grid, given) for grid in made]
    assert observed_order(errors, steps) == pytest.approx(1, abs=0.15)
    assert get(name).order(get(name).complete(given)) == 1


@pytest.mark.parametrize("layout", [smooth, rough])
@pytest.mark.parametrize(("name", "given"), WEAK[1:])
def test_is_of_weak_order_1_on_a_mixture(name: str, given: Given, layout: object) -> None:
    steps = [40, 56, 80]
    made = [grid_at(make_schedule("vp-linear"), layout(-2, 1.5, n)) for n in steps]  # type: ignore[operator]
    errors = [mixture_error(name, grid, given) for grid in made]
    assert observed_order(errors, steps) == pytest.approx(1, abs=0.15)


def solve(name: str, grid: TimeGrid, draws: list[Tensor], **given: object) -> Tensor:
    sampler = get(name)
    params = sampler.complete({key.replace("_", "-"): value for key, value in given.items()})
    noise = GivenNoise(draws)
    x = sampler.function(Denoiser(Blobs().pair), noise(), grid, noise, **as_keywords(params))
    assert noise.draws == len(draws)
    return x


def normals(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randn(5, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("final", ["zero", "sigma-min"])
def test_kappa_0_is_euler_s_method_in_t(final: str) -> None:
    """On EDM t is s, and so `euler`; on the flow x moves along the velocity eps - x0."""
    edm = make_grid(make_schedule("edm"), "karras", 9, final=final)  # type: ignore[arg-type]
    start = [80 * normals(1)[0]]
    assert_same(solve("reverse-sde", edm, start, kappa=0), solve("euler", edm, start))
    flow = make_schedule("flow")
    grid = TimeGrid(flow, tuple(flow.at(t=t) for t in BELOW_ONE))
    (x,) = normals(1)
    end = solve("reverse-sde", grid, [x], kappa=0)
    for a, b in grid.steps():
        x0, eps = Blobs().pair(x, a)
        x = x + (b.t - a.t) * (eps - x0)
    assert_same(end, x)


@pytest.mark.parametrize("final", ["zero", "sigma-min"])
@pytest.mark.parametrize(
    ("predictor", "name", "given"),
    [
        ("reverse-diffusion", "reverse-diffusion", {}),
        ("ancestral-small", "ddim", {"eta": 1}),
        ("ancestral-large", "ddpm", {"variance": "large"}),
    ],
)
@pytest.mark.parametrize("schedule", ["vp-linear", "edm"])
def test_without_corrector_pc_is_its_predictor(
    schedule: str, predictor: str, name: str, given: Given, final: str
) -> None:
    """At snr 1e-12 the corrector's steps are no steps; its draws come before the predictor's."""
    n = 6
    grid = make_grid(make_schedule(schedule), "logsnr", n, final=final)  # type: ignore[arg-type]
    start, *draws = normals(1 + n - (final == "zero"))
    others = [torch.ones_like(start)] * n
    mixed = [z for both in itertools.zip_longest(others, draws) for z in both if z is not None]
    found = solve("pc", grid, [start, *mixed], predictor=predictor, snr=1e-12)
    assert_same(found, solve(name, grid, [start, *draws], **given))


@pytest.mark.parametrize("predictor", ["reverse-diffusion", "ancestral-small", "ancestral-large"])
@pytest.mark.parametrize(("n", "final"), [(2, "zero"), (5, "sigma-min"), (20, "zero")])
def test_pc_follows_the_recursion_of_large_images(n: int, final: str, predictor: str) -> None:
    """Where images are large, |z| and |score| are their expectations, and the map is linear."""
    shape = (4, 200, 200)
    grid = make_grid(make_schedule("vp-linear"), "logsnr", n, final=final)  # type: ignore[arg-type]
    params = get("pc").complete({"predictor": predictor, "corrector-steps": 2, "snr": 0.2})
    noise = Noise(4, [0], shape, dtype=torch.float64)
    start = Noise(4, [0], shape, dtype=torch.float64)()[0].flatten(1)
    end = sample(
        get("pc"),
        Denoiser(Gaussian().pair),
        grid,
        noise,
        final=final,
        params=params,  # type: ignore[arg-type]
    )[0].flatten(1)
    mean, c = np.array(Gaussian().mean), np.array(Gaussian().variance)
    m, v, memory = np.zeros(4), np.ones(4), np.ones(4)

    def move(kept: float, share: float, variance: float, a: Point) -> None:
        nonlocal m, v, memory
        total = a.alpha**2 * c + a.sigma**2
        gain = kept - share / total
        m = gain * m + share * a.alpha * mean / total
        v, memory = gain**2 * v + variance, gain * memory

    for a, b in grid.steps():
        beta = 1 - (a.alpha / b.alpha) ** 2
        for _ in range(2):
            total = a.alpha**2 * c + a.sigma**2
            score2 = np.mean((v + (m - a.alpha * mean) ** 2) / total**2)
            e = 2 * (1 - beta) * 0.2**2 / score2
            move(1.0, e, 2 * e, a)
        if b.sigma == 0:
            move(1 / a.alpha, a.sigma**2 / a.alpha, 0.0, a)
        elif predictor == "reverse-diffusion":
            move(2 - math.sqrt(1 - beta), beta, beta, a)
        else:
            small = beta * b.sigma**2 / a.sigma**2
            root = math.sqrt(1 - beta)
            move(1 / root, beta / root, small if predictor == "ancestral-small" else beta, a)
    pixels = shape[1] * shape[2]
    for channel in range(4):
        x, z = end[channel], start[channel]
        spread = math.sqrt(v[channel])
        assert float(x.mean()) == pytest.approx(m[channel], abs=4 * spread / math.sqrt(pixels))
        assert float(x.var()) == pytest.approx(v[channel], rel=4 * math.sqrt(2 / pixels))
        error = 4 * math.sqrt((v[channel] + memory[channel] ** 2) / pixels)
        assert float(((x - x.mean()) * z).mean()) == pytest.approx(memory[channel], abs=error)


@pytest.mark.parametrize(
    ("name", "given"),
    [("reverse-sde", {}), ("reverse-diffusion", {}), ("pc", {"predictor": "reverse-diffusion"})],
)
def test_samplers_of_the_sde_refuse_a_start_without_signal(name: str, given: Given) -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 4)
    with pytest.raises(ScheduleError) as caught:
        get(name).check(grid, get(name).complete(given))
    assert str(caught.value) == (
        f"{name} needs the drift d log alpha / dt, which is infinite where this grid starts (t = "
        "1, alpha = 0). Start the grid below it."
    )


def test_annealed_langevin_refuses_a_start_without_signal() -> None:
    grid = make_grid(make_schedule("flow"), "linspace", 4)
    sampler = get("annealed-langevin")
    with pytest.raises(ScheduleError) as caught:
        sampler.check(grid, sampler.complete({"steps-per-level": 2}))
    assert str(caught.value) == (
        "annealed-langevin works in s = sigma / alpha, which is infinite where this grid starts (t "
        "= 1, alpha = 0). Start the grid below it."
    )


@pytest.mark.parametrize("predictor", ["ancestral-small", "ancestral-large"])
def test_pc_with_an_ancestral_predictor_starts_from_pure_noise(predictor: str) -> None:
    """There the corrector has no step, as alpha_a / alpha_b = 0, and the predictor is DDIM's."""
    n = 3
    grid = make_grid(make_schedule("flow"), "linspace", n)
    start, *draws = normals(2 * n)
    end = solve("pc", grid, [start, *draws], predictor=predictor)
    assert end.isfinite().all()
    moved = [start, 7 * draws[0], *draws[1:]]
    assert_same(solve("pc", grid, moved, predictor=predictor), end)


@pytest.mark.parametrize("corrector", [False, True])
def test_score_sde_ve_of_diffusers_takes_the_same_steps(corrector: bool) -> None:
    """Geometric noise levels, x0 at the end; one image, as its norms are means over the batch."""
    n = 12
    schedule = EDM(t_min=0.01, t_max=50.0)
    theirs = ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50, snr=0.16, sampling_eps=1e-5)
    theirs.set_timesteps(n)
    theirs.set_sigmas(n)
    grid = make_grid(schedule, "logsnr", n)
    assert theirs.sigmas.tolist() == pytest.approx([p.s for p in grid.points[:-1]], rel=1e-3)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(1, *SHAPE, generator=generator)
    state = generator.get_state()
    x = mean = 50 * start
    count = 0
    for t, a in zip(theirs.timesteps, grid.points, strict=False):
        if corrector:
            score = -Blobs().pair(x, a)[1] / a.sigma
            x, count = theirs.step_correct(score, x, generator=generator).prev_sample, count + 1
        score = -Blobs().pair(x, a)[1] / a.sigma
        step = theirs.step_pred(score, t, x, generator=generator)
        x, mean, count = step.prev_sample, step.prev_sample_mean, count + 1
    generator.set_state(state)
    draws = [start, *(torch.randn(1, *SHAPE, generator=generator) for _ in range(count))]
    name = "pc" if corrector else "reverse-diffusion"
    sampler = get(name)
    found = sample(
        sampler,
        Denoiser(Blobs().pair),
        grid,
        GivenNoise(draws),
        final="zero",
        params=sampler.complete({}),
    )
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-4)
