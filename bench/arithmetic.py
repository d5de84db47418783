"""The arithmetic of every sampler on record, so that a change of it shows in seconds.

Each sampler runs at every value of its parameters (`certify.variants`) on twelve small grids that
between them have every schedule and spacing, on a mixture with an exact denoiser, two images in
float64. The grids themselves, the schedules and the noise are on record as well: what changed there
is named there, and not once more for every sampler that stands on it.

`assets/fingerprints.json` is the record, key by key (format 1):

    format    1
    changes   what was recorded as intended, the latest last: {reason, sizes: {name: size}}. A test
              wants each reason in CHANGELOG.md under **Numbers**
    names     {name: {digest, cases: {settings: {grid: numbers}}}}: of a sampler, of "schedules",
              "spacings" and "noise". settings is the parameter that is not at its base; numbers are
              the calls of each image, how often noise was drawn, then the images. digest is that of
              cases, so that they are not edited by hand
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import atomic
from bench.certify.checks import fitted, grid_of
from bench.certify.problems import SHAPE, Blobs, PairFunction
from bench.certify.variants import Variant, variants_of
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import SCHEDULES, NoiseSchedule, Point, make_schedule
from bench.diffusion.spacing import SPACINGS, Final, TimeGrid, make_grid, steps_of
from bench.errors import BenchError, ResultError, ScheduleError
from bench.numerics import pinned
from bench.samplers.registry import REGISTRY, get, sample

FORMAT = 1
RECORD = Path(__file__).parent / "assets" / "fingerprints.json"

ROUNDING = 1e-9
"""Differences up to this, relative to 1 or to the number, are rounding; beyond it, a change.

A model whose answers are off in their last bit moves no number by more than 2e-11
(`tests/test_arithmetic.py` has it), and refactorings by less than 1e-12. The smallest planted
defect moves one by 6e-3 (`tests/regression/planted.py`). The threshold lies between the two, fifty
times above the one and far below the other; it is that of the fingerprints in the records, too.
"""

SCHEDULE, SPACING, NOISE = "schedules", "spacings", "noise"
SHARED = (SCHEDULE, SPACING, NOISE)
"""What all samplers stand on."""

GRIDS: tuple[tuple[str, str, int, Final], ...] = (
    ("vp-linear", "uniform", 7, "zero"),
    ("vp-linear", "quadratic", 6, "zero"),
    ("vp-linear", "logsnr", 10, "sigma-min"),
    ("vp-linear", "trailing", 3, "denoise"),
    ("vp-scaled-linear", "quadratic-full", 15, "zero"),
    ("vp-cosine", "quadratic", 5, "zero"),
    ("vp-linear", "cosine", 4, "sigma-min"),
    ("vp-scaled-linear", "time-power", 12, "zero"),
    ("edm", "karras", 6, "zero"),
    ("edm", "edm", 5, "sigma-min"),
    ("flow", "linspace", 6, "zero"),
    ("flow", "trailing", 2, "zero"),
)
"""With numbers of steps below, at and above 10, where some samplers lower their order."""

BASE = "base"
"""The settings where every parameter is at its default, or at what an examination has for it."""

Numbers = tuple[float, ...]
FAILS: Numbers = ()
"""Of a case that ends in an error: a change like others."""
Cases = dict[str, dict[str, Numbers]]
"""settings -> grid -> numbers."""


@dataclass(frozen=True)
class Change:
    """A case that is not as it is on record.

    Attributes:
        name: of the sampler, or one of `SHARED`.
        settings: the parameter that is not at its base.
        grid: what it ran on.
        size: largest difference of a number, relative to 1 or to it; infinite where the calls or
            how many numbers there are differ; None where the case is only now, or only on record.
        what: that in words.
        inherited: whether its grid, schedule or noise changed, which is reason enough.
    """

    name: str
    settings: str
    grid: str
    size: float | None
    what: str
    inherited: bool = False


@dataclass(frozen=True)
class Found:
    """What a comparison found.

    Attributes:
        changes: the cases that are not as on record.
        cases: how many were compared.
        rounding: the largest difference that is rounding.
    """

    changes: tuple[Change, ...]
    cases: int
    rounding: float

    def named(self) -> dict[str, list[Change]]:
        """The changes by name, without those that are inherited."""
        named: dict[str, list[Change]] = {}
        for change in self.changes:
            if not change.inherited:
                named.setdefault(change.name, []).append(change)
        return named


# What the samplers give now.


_PROBLEM = Blobs().pair


def measure(names: Iterable[str] | None = None, pair: PairFunction = _PROBLEM) -> dict[str, Cases]:
    """The numbers of now.

    Args:
        names: of samplers, beside what they share; all of them by default.
        pair: the exact denoiser.

    Raises:
        SweepError: there is no sampler of that name.
    """
    with pinned(1), torch.no_grad():
        return {
            SCHEDULE: _schedules(),
            SPACING: _spacings(),
            NOISE: _noise(),
            **{name: _of(name, pair) for name in (REGISTRY if names is None else names)},
        }


def _of(name: str, pair: PairFunction) -> Cases:
    first, *others = variants_of(get(name))
    cases: Cases = {}
    for variant in (first, *others):
        found = {}
        for schedule, spacing, steps, final in GRIDS:
            where = f"{schedule} {spacing} {steps} {final}"
            try:
                grid = fitted(variant, grid_of(schedule, spacing, steps, final))
                if not variant.refusal(grid):
                    found[where] = _run(variant, pair, grid, final)
            except Exception:  # noqa: BLE001, for it is the code under examination
                found[where] = FAILS
        cases[_settings(first, variant)] = found
    return cases


def _run(variant: Variant, pair: PairFunction, grid: TimeGrid, final: Final) -> Numbers:
    """Calls, draws and images."""
    noise = Noise(5, range(2), SHAPE, dtype=torch.float64)
    denoise = Denoiser(pair)
    x = sample(variant.sampler, denoise, grid, noise, final=final, params=variant.params)
    return (*map(float, denoise.nfe_of(2)), float(noise.draws), *x.flatten().tolist())


def _settings(base: Variant, variant: Variant) -> str:
    words = [f"{k}={v}" for k, v in variant.params.items() if v != base.params[k]]
    return " ".join(words) or BASE


def _schedules() -> Cases:
    cases: Cases = {}
    for name in SCHEDULES:
        schedule = make_schedule(name)
        span = schedule.t_max - schedule.t_min
        times = [schedule.t_min + share * span for share in (0.0, 0.003, 0.1, 0.37, 0.5, 0.9, 1.0)]
        cases[name] = {f"t {t:.6g}": _at(schedule, t) for t in times}
    return cases


def _at(schedule: NoiseSchedule, t: float) -> Numbers:
    """The point at a time, its rates where they are finite, and the way back to the time."""
    try:
        point = schedule.at(t=t)
        numbers = (*_point(point), schedule.prior_std(point))
        if point.alpha == 0 or point.sigma == 0:
            return numbers
        back = schedule.at(lam=point.lam).t, schedule.at(s=point.s).t
        return (*numbers, *schedule.rates(t), *back)
    except Exception:  # noqa: BLE001, as below
        return FAILS


def _spacings() -> Cases:
    """The points of each spacing on each schedule that it suits."""
    cases: Cases = {}
    for spacing, rule in SPACINGS.items():
        if any(parameter.required for parameter in rule.params.values()):
            continue  # times that are given, not made
        found = {}
        for name in SCHEDULES:
            schedule = make_schedule(name)
            fixed = steps_of(spacing, schedule, "zero", 0)
            asked = {(s, f) for n, p, s, f in GRIDS if (n, p) == (name, spacing)}
            every = {(1, "zero"), (6, "zero"), (5, "sigma-min"), (11, "zero")} | asked
            for steps, final in sorted(every) if fixed is None else [(fixed, "zero")]:
                try:
                    grid = make_grid(schedule, spacing, steps, final=_final(final))
                except ScheduleError:
                    continue
                # Of a thousand points, some; the clean image is the same everywhere.
                points = grid.points[:: max(1, len(grid) // 20)]
                numbers = [number for point in points for number in (point.t, point.lam)]
                found[f"{name} {steps} {final}"] = (float(len(grid)), *numbers)
        cases[spacing] = found
    return cases


def _final(text: str) -> Final:
    return "zero" if text == "zero" else "sigma-min" if text == "sigma-min" else "denoise"


def _noise() -> Cases:
    noise = Noise(5, range(2), SHAPE, dtype=torch.float64)
    return {"seed 5": {f"draw {k}": tuple(noise().flatten().tolist()) for k in range(3)}}


def _point(point: Point) -> Numbers:
    return point.t, point.alpha, point.sigma, point.lam


# Against those on record.


def compare(now: Mapping[str, Cases], then: Mapping[str, Cases]) -> Found:
    """What differs between two measurements; names that one alone has are changes as well."""
    pairs = list(_pairs(now, then))
    offs = [(case, _off(a, b)) for case, a, b in pairs]
    changes = [
        Change(*case, size, _what(a, b, size))
        for (case, size), (_, a, b) in zip(offs, pairs, strict=True)
        if size is None or size > ROUNDING
    ]
    rounding = max((size for _, size in offs if size is not None and size <= ROUNDING), default=0.0)
    moved = {(c.name, c.settings, c.grid) for c in changes if c.name in SHARED}
    return Found(tuple(_inheriting(c, moved) for c in changes), len(pairs), rounding)


def _pairs(
    now: Mapping[str, Cases], then: Mapping[str, Cases]
) -> Iterator[tuple[tuple[str, str, str], Numbers | None, Numbers | None]]:
    for name in dict.fromkeys([*now, *then]):
        a, b = now.get(name, {}), then.get(name, {})
        for settings in dict.fromkeys([*a, *b]):
            c, d = a.get(settings, {}), b.get(settings, {})
            for grid in dict.fromkeys([*c, *d]):
                yield (name, settings, grid), c.get(grid), d.get(grid)


def _off(now: Numbers | None, then: Numbers | None) -> float | None:
    if now is None or then is None:
        return None
    if len(now) != len(then):
        return math.inf
    return max((_apart(a, b) for a, b in zip(now, then, strict=True)), default=0.0)


def _apart(a: float, b: float) -> float:
    """Relative to 1 or to the number on record; infinite where one alone is no finite number."""
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    off = abs(a - b) / max(1.0, abs(b))
    return math.inf if math.isnan(off) else off


def _what(now: Numbers | None, then: Numbers | None, size: float | None) -> str:
    if then is None:
        return "not on record"
    if now is None:
        return "only on record"
    if not now:
        return "it fails now"
    return f"by {size:.2g}" if size is not None and math.isfinite(size) else "no finite number now"


def _inheriting(change: Change, moved: set[tuple[str, str, str]]) -> Change:
    """The change with its mark, if what it stands on changed."""
    if change.name in (SCHEDULE, NOISE):
        return change
    schedule, *rest = change.grid.split(" ", 1)
    schedules = {settings for name, settings, _ in moved if name == SCHEDULE}
    grids = {
        f"{grid.split(' ', 1)[0]} {settings}" for name, settings, grid in moved if name == SPACING
    }
    own = change.name != SPACING
    inherited = (
        schedule in schedules
        or (own and any(name == NOISE for name, _, _ in moved))
        or (own and bool(rest) and " ".join([schedule, rest[0].split(" ", 1)[0]]) in grids)
    )
    return Change(**{**change.__dict__, "inherited": inherited})


# The file.


@dataclass(frozen=True)
class Record:
    """What `assets/fingerprints.json` holds; see the module's docstring."""

    cases: Mapping[str, Cases]
    changes: tuple[Mapping[str, Any], ...] = ()


def read(path: Path = RECORD) -> Record:
    """The record.

    Raises:
        ResultError: it is not there, not one of ours, of another format, or edited by hand.
    """
    again = 'Restore it from git; "bench fingerprint --update" records what changed since.'
    try:
        data = json.loads(path.read_text("utf-8"))
        found = data["format"]
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}. {again}") from None
    except (ValueError, KeyError, TypeError):
        raise ResultError(f"{path} is no record of fingerprints. {again}") from None
    if found != FORMAT:
        raise ResultError(
            f"{path} has format {found}; this version of bench reads format {FORMAT}. "
            "Use the version of bench that it was written with, or one that is newer."
        )
    for name, each in data["names"].items():
        if each["digest"] != (expected := _digest(each["cases"])):
            raise ResultError(
                f"{path}: the numbers of {name} were edited: their digest is {expected}, the file "
                f"says {each['digest']}. {again}"
            )
    cases = {
        name: {
            settings: {grid: tuple(map(float, text.split())) for grid, text in by_grid.items()}
            for settings, by_grid in each["cases"].items()
        }
        for name, each in data["names"].items()
    }
    return Record(cases, tuple(data["changes"]))


def update(path: Path, now: Mapping[str, Cases], reason: str = "") -> Found:
    """Records what differs from now; what differs by rounding stays as it is.

    Args:
        path: of the record, which need not be there.
        now: everything, as `measure()` gives it.
        reason: why numbers that were on record changed, for CHANGELOG.md.

    Raises:
        BenchError: numbers on record changed, and there is no reason.
        ResultError: the file cannot be read or written.
    """
    record = read(path) if path.exists() else Record({})
    found = compare(now, record.cases)
    sizes = {
        name: max((c.size for c in changes if c.size is not None), default=0.0)
        for name, changes in _known(found).items()
    }
    if sizes and not reason:
        raise BenchError(
            f"The arithmetic of {', '.join(sizes)} changed. If that is intended, say why: "
            'bench fingerprint --update --reason "..."; the reason then also goes into '
            "CHANGELOG.md, under Numbers."
        )
    changed = {(c.name, c.settings, c.grid) for c in found.changes}
    texts = {
        name: {
            settings: {
                grid: _text(numbers)
                if (name, settings, grid) in changed
                else _text(record.cases[name][settings][grid])
                for grid, numbers in by_grid.items()
            }
            for settings, by_grid in cases.items()
        }
        for name, cases in now.items()
    }
    entry = {"reason": reason, "sizes": {name: float(f"{s:.2g}") for name, s in sizes.items()}}
    data = {
        "format": FORMAT,
        "changes": [*record.changes, *([entry] if sizes else [])],
        "names": {name: {"digest": _digest(each), "cases": each} for name, each in texts.items()},
    }
    atomic.write_text(path, json.dumps(data, indent=1) + "\n")
    return found


def _known(found: Found) -> dict[str, list[Change]]:
    """The changes of what was on record: what is new needs no reason, what is gone does."""
    known = {
        name: [change for change in changes if change.what != "not on record"]
        for name, changes in found.named().items()
    }
    return {name: changes for name, changes in known.items() if changes}


def unexplained(record: Record, changelog: str) -> list[str]:
    """Reasons of the record that do not stand under **Numbers** in the changelog's text."""
    numbers = " ".join(
        " ".join(part.split("\n### ")[0].split("\n## ")[0].split())
        for part in changelog.split("### Numbers")[1:]
    )
    reasons = [" ".join(change["reason"].split()) for change in record.changes]
    return [reason for reason in reasons if reason not in numbers]


def _text(numbers: Numbers) -> str:
    """Thirteen digits: a thousand times finer than what counts as a change."""
    return " ".join(f"{number:.13g}" for number in numbers)


def _digest(cases: Mapping[str, Mapping[str, str]]) -> str:
    text = json.dumps(cases, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
