"""The examinations: each asks a sampler one question, and says what it expected and what it found.

Exact problems only (a Gaussian, mixtures, golden values), so no weights and no data. `CHECKS` are
asked of a sampler at its parameters, `golden_values`, `same_as` and `effects` of it as a whole.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from bench.certify import golden, identities
from bench.certify.moments import gaussian_error, mixture_error, response
from bench.certify.orders import (
    HIGH,
    LOW,
    Layout,
    formula_order_of,
    grid_at,
    lengthened,
    observed_order,
    order_of,
    rough,
    smooth,
)
from bench.certify.problems import SHAPE, Blobs, Gaussian, GivenNoise, PairFunction, integrate
from bench.certify.variants import Variant, base_params, values_of
from bench.diffusion.denoiser import Denoiser, Pair
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Point, make_schedule
from bench.diffusion.spacing import FINALS, Final, TimeGrid, make_grid
from bench.samplers.registry import Sampler, sample

ORDER_WITHIN = 0.15
STANDARD_ERRORS = 4.0


@dataclass(frozen=True)
class Finding:
    """What an examination found.

    Attributes:
        settings: the parameters of the sampler.
        check: the question.
        expected: what a right sampler gives.
        found: what this one gives.
        ok: whether that is right; None where there is nothing to hold it against.
    """

    settings: str
    check: str
    expected: str
    found: str
    ok: bool | None


# A sampler as a whole.


def golden_values(variants: Sequence[Variant]) -> Iterator[Finding]:
    """Whether it gives the golden values of what it claims to be."""
    runs = [(run, case) for run, case in _golden_runs(variants) if not run.refusal(case.grid())]
    if not runs:
        yield Finding("", "golden values", "", "none on file for these parameters", None)
        return
    off = [(case.deviation(run), case) for run, case in runs]
    wrong = [(by, case) for by, case in off if not by <= case.within]
    most = max(by if math.isfinite(by) else math.inf for by, _ in off)
    found = f"{len(off)} cases, off by {most:.0e} at most"
    if wrong:
        found = f"{len(wrong)} of {found}; the first: {wrong[0][1]}, by {wrong[0][0]:.1e}"
    allowed = max(case.within for _, case in off)
    yield Finding("", "golden values", f"off by {allowed:.0e} at most", found, not wrong)


def _golden_runs(variants: Sequence[Variant]) -> Iterator[tuple[Variant, golden.Case]]:
    first = variants[0]
    for case in golden.cases():
        if case.sampler != first.claim.sampler.name:
            continue
        params = first.claim.sampler.complete(case.params)
        same = [variant for variant in variants if variant.claim.params == params]
        if same:
            yield same[0], case
        elif len(variants) > 1:  # examined with all of its parameters
            yield Variant(first.sampler, params), case


def same_as(variant: Variant) -> Iterator[Finding]:
    """Whether it is what it claims to be, and what theory says that it is."""
    # diffusers has its noise levels in float32.
    within = 1e-4 if variant.sampler.name.startswith("diffusers:") else identities.WITHIN
    expected = f"off by {within:.0e} at most"
    if variant.like:
        every = identities.Identity("", "").grids()
        pairs = [(f"= {variant.like}", identities.difference(variant, variant.like, every))]
    else:
        pairs = [(str(each), each.difference()) for each in identities.of(variant.sampler.name)]
    for name, off in pairs:
        if off is None:
            yield Finding(name, "identity", expected, "no grid suits both", None)
        else:
            yield Finding(name, "identity", expected, f"off by {off:.0e}", off <= within)


def effects(sampler: Sampler) -> Iterator[Finding]:
    """Whether every value of every parameter makes a difference at some number of steps."""
    base = base_params(sampler)
    for name, parameter in sampler.params.items():
        values = values_of(parameter)
        if len(values) < 2:
            continue
        images = [dict(_images(sampler, {**base, name: value})) for value in values]
        without = []
        for (v, one), (w, other) in itertools.combinations(zip(values, images, strict=True), 2):
            both = one.keys() & other.keys()
            # Not a number is no effect either.
            if both and not max(float((one[k] - other[k]).abs().max()) for k in both) > 1e-6:
                without.append(f"{v} is as {w}")
        found = "; ".join(without) or f"{len(values)} values, all different"
        yield Finding(name, "has an effect", "at some number of steps", found, not without)


def _images(sampler: Sampler, params: dict[str, object]) -> Iterator[tuple[object, Tensor]]:
    variant = Variant(sampler, sampler.complete(params))
    for n, final in itertools.product((2, 5, 12, 20), FINALS[:2]):
        grid = fitted(variant, grid_of("vp-linear", "logsnr", n, final))
        if not variant.refusal(grid):
            yield (n, final), _draw(variant, grid, final)[0]


# A sampler at its parameters.


def order(variant: Variant) -> Iterator[Finding]:
    """Orders of convergence: with the published start-up and end, and of the formula alone."""
    if not variant.declared:
        yield from _shown_orders(variant)
        return
    if variant.stochastic or variant.adaptive or not variant.order:
        return
    if refusal := variant.refusal(grid_at(make_schedule(_SMOOTH), smooth(LOW, HIGH, 4))):
        yield Finding(str(variant), "order", "", refusal, None)
        return
    formula = variant.claim.sampler.formula_order(variant.claim.params)
    for name, layout in _LAYOUTS:
        declared = variant.order if name == "smooth" else variant.rough_order
        # What a start or an end of lower order loses is seen soonest where that step is long.
        layouts: list[Layout] = [layout]
        if formula > variant.order:
            layouts = [lengthened(layout, first=16.0), lengthened(layout, last=4.0)]

        def slopes(steps: list[int], layouts: list[Layout] = layouts) -> dict[str, float]:
            return {
                problem: min(order_of(variant, _SMOOTH, problem, each, steps) for each in layouts)
                for problem in ("gaussian", "mixture")
            }

        yield _slope(variant, f"order, {name} grid", declared, slopes, _STEPS)
    if formula > variant.order:
        yield _slope(
            *(variant, "order, exact history", formula),
            lambda steps: {"an integral": formula_order_of(variant, _SMOOTH, steps)},
            [[40, 56, 80], [80, 112, 160], [160, 224, 320]],
        )


def _shown_orders(variant: Variant) -> Iterator[Finding]:
    """The orders of a sampler that declares none, if it draws no noise."""
    trial = grid_at(make_schedule(_SMOOTH), smooth(LOW, HIGH, 4))
    if variant.refusal(trial):
        return
    noise = Noise(3, range(1), SHAPE, dtype=torch.float64)
    variant.run(Denoiser(Blobs().pair), noise(), trial, noise)
    for name, layout in _LAYOUTS if noise.draws == 1 else ():
        slopes = {
            problem: order_of(variant, _SMOOTH, problem, layout, _STEPS[0])
            for problem in ("gaussian", "mixture")
        }
        yield Finding(str(variant), f"order, {name} grid", "", _worded(slopes), None)


def weak_order(variant: Variant) -> Iterator[Finding]:
    """Of a stochastic sampler: how fast moments at the end converge, without Monte-Carlo error."""
    if not variant.stochastic or not variant.order:
        return
    trial = grid_at(make_schedule("vp-linear"), smooth(LOW, HIGH, 4))
    if variant.refusal(trial) or not _is_linear(variant, trial):
        return
    is_a_chain = _is_a_chain(variant)
    for name, layout in _LAYOUTS:

        def slopes(steps: list[int], layout: Layout = layout) -> dict[str, float]:
            grids = [grid_at(make_schedule("vp-linear"), layout(LOW, HIGH, n)) for n in steps]
            found = {"gaussian": [gaussian_error(variant, grid) for grid in grids]}
            if is_a_chain:
                found["mixture"] = [mixture_error(variant, grid) for grid in grids]
            return {problem: observed_order(off, steps) for problem, off in found.items()}

        yield _slope(variant, f"weak order, {name} grid", variant.order, slopes, _WEAK_STEPS)


_LAYOUTS: tuple[tuple[str, Layout], ...] = (("smooth", smooth), ("rough", rough))
_SMOOTH = "flow"  # a schedule without the kinks of discrete times, that is not EDM's s = t either
_STEPS = [[100, 140, 200], [300, 420, 600], [900, 1260, 1800]]
_WEAK_STEPS = [[40, 56, 80], [100, 140, 200], [240, 340, 480]]


def _slope(
    variant: Variant,
    check: str,
    declared: int,
    slopes: Callable[[list[int]], dict[str, float]],
    series: Sequence[list[int]],
) -> Finding:
    """A finding on slopes by problem; longer series only where the steps may not be small yet."""
    found: dict[str, float] = {}
    for steps in series:
        found = slopes(steps)
        ok = all(abs(slope - declared) <= ORDER_WITHIN for slope in found.values())
        if ok:
            break
    return Finding(str(variant), check, f"{declared} ± {ORDER_WITHIN:g}", _worded(found), ok)


def _worded(slopes: Mapping[str, float]) -> str:
    return ", ".join(f"{slope:.2f} on {problem}" for problem, slope in slopes.items())


def _is_linear(variant: Variant, grid: TimeGrid) -> bool:
    """Whether the end is linear in the start and the noise, as the response takes for granted."""
    noise = Noise(3, range(3), SHAPE, dtype=torch.float64)
    end = variant.run(Denoiser(Gaussian().pair), noise(), grid, noise)
    draws = Noise(3, range(3), SHAPE, dtype=torch.float64)
    answer = response(variant, grid)
    x, *z = (draws().flatten(1) for _ in range(1 + len(answer.gains)))
    linear = answer.shift + answer.memory * x
    for gain, each in zip(answer.gains, z, strict=True):
        linear = linear + gain * each
    return bool((end.flatten(1) - linear).abs().max() < 1e-9)


def _is_a_chain(variant: Variant) -> bool:
    """Whether a run is its steps one after another, each on its own and with one draw."""
    grid = grid_at(make_schedule("vp-linear"), smooth(LOW, HIGH, 12))
    source = Noise(3, range(2), SHAPE, dtype=torch.float64)
    draws = [source() for _ in range(13)]
    whole = GivenNoise(draws)
    x = whole()
    end = variant.run(Denoiser(Blobs().pair), x, grid, whole)
    if whole.draws != len(draws):
        return False
    for step, z in zip(grid.steps(), draws[1:], strict=True):
        alone = TimeGrid(grid.schedule, step)
        if variant.refusal(alone):
            return False
        x = variant.run(Denoiser(Blobs().pair), x, alone, GivenNoise([z]))
    return bool((end - x).abs().max() < 1e-9)


def moments(variant: Variant) -> Iterator[Finding]:
    """Mean and variance of what is drawn on a Gaussian, against the exact recursion."""
    if not variant.stochastic:
        return
    worst, runs = 0.0, 0
    for n, final in ((2, "zero"), (5, "sigma-min"), (20, "zero")):
        grid = fitted(variant, grid_of("vp-linear", "logsnr", n, final))
        if variant.refusal(grid) or not _is_linear(variant, grid):
            continue
        answer = response(variant, grid)
        shape = (SHAPE[0], 200, 200)  # each pixel of a channel is a sample of its own
        noise = Noise(11, [0], shape, dtype=torch.float64)
        end = variant.run(Denoiser(Gaussian().pair), noise(), grid, noise)[0].flatten(1)
        zero, one = torch.zeros(SHAPE[0]).double(), torch.ones(SHAPE[0]).double()
        mean, variance = answer.mean(zero), answer.variance(one)
        count = end.shape[1]
        off_mean = (end.mean(1) - mean).abs() / (variance / count).sqrt()
        off_variance = (end.var(1) / variance - 1).abs() / math.sqrt(2 / count)
        worst = max(worst, float(off_mean.max()), float(off_variance.max()))
        runs += 1
    if runs:
        found = f"{worst:.1f} standard errors off at most, {runs} runs"
        ok = worst <= STANDARD_ERRORS
        yield Finding(str(variant), "moments", f"within {STANDARD_ERRORS:g}", found, ok)


def tolerance(variant: Variant) -> Iterator[Finding]:
    """Of a sampler that chooses its own steps: whether its error follows its tolerance."""
    names = ("rtol", "atol", "tolerance")
    given = {n: float(str(v)) for n, v in variant.params.items() if n in names}
    if not variant.adaptive or not given:
        return
    schedule = make_schedule("vp-linear")
    grid = grid_at(schedule, [LOW, HIGH])
    x = Noise(5, range(4), SHAPE, dtype=torch.float64)()
    exact = integrate(Blobs().pair, x, schedule, *grid.points)
    allowed = sum(given.values())
    off = []
    for scale in (1.0, 0.01):
        scaled = {name: scale * value for name, value in given.items()}
        run = replace(variant, params={**variant.params, **scaled})
        end = run.run(Denoiser(Blobs().pair), x, grid, GivenNoise([x]))
        off.append(float((end - exact).abs().max()))
    ok = off[0] <= 200 * allowed and off[1] <= 0.1 * off[0]
    found = f"{off[0]:.0e}, and {off[1]:.0e} at a hundredth of it"
    expected = f"error {200 * allowed:.0e} at most, falling"
    yield Finding(str(variant), "tolerance", expected, found, ok)


def calls(variant: Variant) -> Iterator[Finding]:
    """Counted NFE against the declared, and finite images, at 1 to 20, 50, 100 and 1000 steps."""
    few = (1, 2) if variant.adaptive else range(1, 21)
    runs: list[tuple[str, str, int, Final]] = [
        ("vp-linear", spacing, n, final)
        for spacing in ("uniform", "quadratic", "logsnr")
        for n, final in itertools.product(few, FINALS)
    ]
    runs += [("vp-linear", "uniform", 50, "zero"), ("vp-linear", "logsnr", 100, "sigma-min")]
    runs += [("vp-linear", "uniform", 1000, "zero")]
    yield _counted(variant, "NFE", runs)


def rough_starts(variant: Variant) -> Iterator[Finding]:
    """The same from alpha = 0 and from the noisiest levels, to sigma = 0, also in one step."""
    runs = [
        (schedule, "linspace", n, final)
        for schedule in ("vp-cosine", "vp-scaled-linear", "edm", "flow")
        for n, final in itertools.product((1, 2, 6), FINALS)
    ]
    yield _counted(variant, "other schedules", runs)


def _counted(variant: Variant, check: str, runs: Sequence[tuple[str, str, int, Final]]) -> Finding:
    wrong, ran = [], 0
    for schedule, spacing, n, final in runs:
        grid = fitted(variant, grid_of(schedule, spacing, n, final))
        if variant.refusal(grid):
            continue
        ran += 1
        x, denoise, _ = _draw(variant, grid, final, samples=range(1), pair=Gaussian().pair)
        declared = variant.claim.sampler.nfe(len(grid), final, variant.claim.params)
        counted = denoise.nfe_of(1)[0]
        where = f"{schedule} {spacing} {n} {final}"
        if not bool(x.isfinite().all()):
            wrong.append(f"not finite at {where}")
        if counted != declared and (declared is not None or counted < 1):
            wrong.append(f"{counted} calls for {declared} at {where}")
    found = f"{ran} runs" if not wrong else f"{len(wrong)} of {ran} runs: {wrong[0]}"
    if not ran:
        return Finding(str(variant), check, "", "refuses all of these grids", None)
    return Finding(str(variant), check, "as declared, finite", found, not wrong)


def precision(variant: Variant) -> Iterator[Finding]:
    """Whether float32 and bfloat16 images keep their dtype and follow those in float64."""
    # Where rounding decides about a step, results differ by what the steps' tolerance allows.
    for dtype, within in (
        (torch.float32, 0.2 if variant.adaptive else 2e-4),
        (torch.bfloat16, 10.0 if variant.adaptive else 0.3),
    ):
        off = [0.0]
        for spacing, n in (("uniform", 1), ("quadratic", 10), ("logsnr", 20)):
            grid = fitted(variant, grid_of("vp-linear", spacing, n, "zero"))
            if variant.refusal(grid):
                continue
            double, _, _ = _draw(variant, grid, "zero", wide=True)
            x, _, _ = _draw(variant, grid, "zero", wide=True, dtype=dtype)
            same = x.dtype == dtype and x.shape == double.shape
            off.append(float((x.double() - double).abs().max()) if same else math.inf)
        name = str(dtype).removeprefix("torch.")
        found = f"off by {max(off):.0e}" if max(off) < math.inf else "another dtype or shape"
        ok = all(value <= within for value in off)  # so that not a number is wrong
        yield Finding(str(variant), name, f"off by {within:g} at most", found, ok)


def alone(variant: Variant) -> Iterator[Finding]:
    """Whether an image depends on nothing but its own noise, and nothing given is written into."""
    for final in FINALS:
        grid = fitted(variant, grid_of("vp-linear", "uniform", 6, final))
        if not variant.refusal(grid):
            break
    else:
        return
    together, _, noise = _draw(variant, grid, final, samples=range(5))
    order = [4, 0, 3, 1, 2]
    parts = [_draw(variant, grid, final, samples=part)[0] for part in ([0], [1, 2], [3, 4])]
    shuffled, _, _ = _draw(variant, grid, final, samples=order)
    wrong = []
    if not bool((torch.cat(parts) - together).abs().max() < 1e-11):
        wrong.append("images depend on their batch")
    if not bool((shuffled - together[order]).abs().max() < 1e-11):
        wrong.append("images depend on their place in the batch")
    if variant.declared and (noise.draws > 1) != variant.stochastic:
        wrong.append(f"draws noise {noise.draws - 1} times")
    if _writes(variant, grid):
        wrong.append("writes into its arguments or the model's output")
    found = "; ".join(wrong) or "so it is"
    expected = "and draws noise" if variant.stochastic else "and draws none"
    expected = expected if variant.declared else "no matter what shares its batch"
    yield Finding(str(variant), "each image by itself", expected, found, not wrong)


def _writes(variant: Variant, grid: TimeGrid) -> bool:
    seen: list[tuple[Tensor, Tensor]] = []

    def remember(x: Tensor, point: Point) -> Pair:
        pair = Blobs().pair(x, point)
        seen.extend((tensor, tensor.clone()) for tensor in (x, *pair))
        return pair

    noise = Noise(5, range(2), SHAPE, dtype=torch.float64)
    start = noise()
    seen.append((start, start.clone()))
    variant.run(Denoiser(remember), start, grid, noise)
    return not all(torch.equal(now, then) for now, then in seen)


def lands(variant: Variant) -> Iterator[Finding]:
    """Whether the images of a Gaussian with next to no variance are its mean."""
    point_mass = Gaussian(variance=(1e-8,) * 4)
    mean = torch.tensor(point_mass.mean, dtype=torch.float64).view(SHAPE)
    within, off = (0.02 if variant.adaptive else 2e-3), []
    for schedule in ("vp-linear", "edm"):
        grid = fitted(variant, grid_of(schedule, "karras", 60, "zero"))
        if not variant.refusal(grid):
            x, _, _ = _draw(variant, grid, "zero", pair=point_mass.pair)
            off.append(float((x - mean).abs().max()))
    if off:
        ok = all(value <= within for value in off)
        found = f"off by {max(off):.0e}"
        yield Finding(str(variant), "ends on the data", f"off by {within:g} at most", found, ok)


CHECKS: tuple[Callable[[Variant], Iterator[Finding]], ...] = (
    *(order, weak_order, moments, tolerance, calls, rough_starts, precision, alone, lands),
)


@cache
def grid_of(schedule: str, spacing: str, n: int, final: Final) -> TimeGrid:
    """A grid, made once."""
    return make_grid(make_schedule(schedule), spacing, n, final=final)


def fitted(variant: Variant, grid: TimeGrid) -> TimeGrid:
    """`grid`, or its ends for a sampler that chooses its own steps between them."""
    if not variant.adaptive or not variant.refusal(grid):
        return grid
    points = (grid.points[0], *grid.points[-2:]) if grid.ends_at_zero else grid.points[:: len(grid)]
    return TimeGrid(grid.schedule, tuple(dict.fromkeys(points)))


def _draw(
    variant: Variant,
    grid: TimeGrid,
    final: Final,
    *,
    samples: Sequence[int] = range(2),
    dtype: torch.dtype = torch.float64,
    pair: PairFunction | None = None,
    wide: bool = False,
) -> tuple[Tensor, Denoiser, Noise]:
    """Images of a model with the counters of calls and draws; `wide` ones have height and width."""
    denoise = Denoiser(pair or (Gaussian().pair if wide else Blobs().pair))
    noise = Noise(5, samples, (*SHAPE[:1], 3, 2) if wide else SHAPE, dtype=dtype)
    x = sample(variant.sampler, denoise, grid, noise, final=final, params=variant.params)
    return x, denoise, noise
