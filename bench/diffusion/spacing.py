"""Spacings: how the steps of a sampler are laid over a noise schedule.

A spacing turns a number of points into times from noise to data; `make_grid` adds the end and
gives a `TimeGrid`. With `final="zero"` (the default) n steps are n points and then the clean
image; with `final="sigma-min"` the same formula gives n + 1 points and the last of them is the
end; `final="denoise"` is that grid, and the harness adds one call that returns x0 there.

Index spacings speak of the trained indices 0..T-1 of a discrete schedule and drop duplicates:
`len(grid)` is the number of steps that are left. One step starts at the top point.

References:
    Song et al. 2021, arXiv:2010.02502, appendix D.2 (uniform, quadratic). Lin et al. 2023,
    arXiv:2305.08891, table 2 (leading = uniform, linspace, trailing). Lu et al. 2022,
    arXiv:2206.00927, section 3.3 (logsnr). Karras et al. 2022, arXiv:2206.00364, eq. 5 (karras,
    edm). Zhang and Chen 2022, arXiv:2204.13902 (time-power). Salimans and Ho 2022,
    arXiv:2202.00512 (cosine).
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from annotated_types import Gt

from bench.diffusion.schedule import NoiseSchedule, Point
from bench.errors import ScheduleError, nearest
from bench.parameters import Parameter, Value, as_keywords, parameters_of

Final = Literal["zero", "sigma-min", "denoise"]
FINALS: tuple[Final, ...] = ("zero", "sigma-min", "denoise")

# DDIM's quadratic sub-sequence ends at 0.8 T (appendix D.2 of arXiv:2010.02502).
_QUADRATIC_TOP = 0.8

# The ends and the exponent of EDM's grid (table 1 of arXiv:2206.00364).
_EDM_SIGMA_MIN, _EDM_SIGMA_MAX, _EDM_RHO = 0.002, 80.0, 7.0


@dataclass(frozen=True)
class TimeGrid:
    """Points from noise to data, strictly falling in noise; one more than there are steps."""

    schedule: NoiseSchedule
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2:
            raise ScheduleError("A time grid needs at least two points.")
        for a, b in pairwise(self.points):
            if not a.lam < b.lam:
                raise ScheduleError(
                    f"A time grid runs strictly from noise to data; t = {a.t:g} is followed by "
                    f"t = {b.t:g}."
                )

    def __len__(self) -> int:
        return len(self.points) - 1

    def steps(self) -> Iterator[tuple[Point, Point]]:
        """(current, next) for every step."""
        return pairwise(self.points)

    @property
    def ends_at_zero(self) -> bool:
        """Whether the last point is the clean image."""
        return self.points[-1].sigma == 0.0


@dataclass(frozen=True)
class Spacing:
    """A named rule: `times(schedule, n, **params)` gives n times from noise to data."""

    name: str
    summary: str
    times: Callable[..., list[float]]
    needs_indices: bool
    params: Mapping[str, Parameter]


SPACINGS: dict[str, Spacing] = {}


def _spacing(
    name: str, *, needs_indices: bool = False
) -> Callable[[Callable[..., list[float]]], Callable[..., list[float]]]:
    def register(function: Callable[..., list[float]]) -> Callable[..., list[float]]:
        summary = (function.__doc__ or "").splitlines()[0]
        SPACINGS[name] = Spacing(name, summary, function, needs_indices, parameters_of(function))
        return function

    return register


def get(name: str) -> Spacing:
    """The spacing called `name`.

    Raises:
        ScheduleError: there is none of that name.
    """
    if name not in SPACINGS:
        raise ScheduleError(
            f'There is no spacing "{name}".{nearest(name, SPACINGS)} '
            f"Known are: {', '.join(SPACINGS)}."
        )
    return SPACINGS[name]


def make_grid(
    schedule: NoiseSchedule,
    spacing: str,
    steps: int,
    *,
    final: Final = "zero",
    params: Mapping[str, Value] | None = None,
) -> TimeGrid:
    """The grid of `steps` steps, as asked for; `len()` of it is what is left of them.

    Args:
        schedule: the noise levels.
        spacing: a name in `SPACINGS`.
        steps: number of intervals asked for, >= 1.
        final: where the grid ends.
        params: the spacing's own parameters by YAML name, canonical.

    Raises:
        ScheduleError: unknown spacing, a number of steps the schedule does not have, or a spacing
            that the schedule does not admit.
    """
    rule = get(spacing)
    trained = schedule.num_train
    if steps < 1:
        raise ScheduleError(f"steps is {steps}; a grid has at least 1 step.")
    if rule.needs_indices and trained is None:
        usable = ", ".join(s.name for s in SPACINGS.values() if not s.needs_indices)
        raise ScheduleError(
            f'Spacing "{spacing}" speaks of trained indices, and {schedule.name} has none. '
            f"Spacings that work: {usable}."
        )
    points = steps if final == "zero" else steps + 1
    if trained is not None and points > trained:
        raise ScheduleError(
            f"steps is {steps}; {schedule.name} has {trained} trained steps, so at most "
            f"{trained if final == 'zero' else trained - 1} with final: {final}."
        )
    times = rule.times(schedule, points, **as_keywords(params or {}))
    levels = [schedule.at(t=t) for t in times]
    return TimeGrid(schedule, (*levels, schedule.clean) if final == "zero" else tuple(levels))


def _falling(indices: np.ndarray) -> list[float]:
    """Distinct indices, highest first."""
    return [float(i) for i in np.unique(indices)[::-1]]


def _trained(schedule: NoiseSchedule) -> int:
    assert schedule.num_train is not None  # make_grid has refused the others
    return schedule.num_train


@_spacing("uniform", needs_indices=True)
def uniform(schedule: NoiseSchedule, n: int) -> list[float]:
    """floor(i T / n), the DDIM paper's linear sub-sequence ("leading"): starts below T."""
    T = _trained(schedule)
    return [float(T - 1)] if n == 1 else _falling(np.arange(n) * T // n)


@_spacing("linspace")
def linspace(schedule: NoiseSchedule, n: int) -> list[float]:
    """Even in time from the first to the last, both included; rounded where t is an index."""
    if n == 1:
        return [schedule.t_max]
    times = np.linspace(schedule.t_min, schedule.t_max, n)
    return _falling(times if schedule.num_train is None else np.round(times))


@_spacing("trailing")
def trailing(schedule: NoiseSchedule, n: int) -> list[float]:
    """round((i + 1) T / n) - 1, aligned to the last index; t_max (i + 1) / n in continuous time."""
    if schedule.num_train is None:
        return _falling(schedule.t_max * np.arange(1, n + 1) / n)
    return _falling(np.round(np.arange(1, n + 1) * schedule.num_train / n) - 1)


@_spacing("quadratic", needs_indices=True)
def quadratic(schedule: NoiseSchedule, n: int) -> list[float]:
    """Squares of linspace(0, sqrt(0.8 T), n), floored: the DDIM paper's CIFAR-10 sub-sequence."""
    return _squares(_QUADRATIC_TOP * _trained(schedule), n)


@_spacing("quadratic-full", needs_indices=True)
def quadratic_full(schedule: NoiseSchedule, n: int) -> list[float]:
    """Squares of linspace(0, sqrt(T - 1), n), floored: quadratic that reaches the last index."""
    return _squares(_trained(schedule) - 1.0, n)


def _squares(top: float, n: int) -> list[float]:
    if n == 1:
        return [math.floor(top)]
    # The last square is `top` but for rounding, which must not floor to one index less.
    return _falling(np.floor(np.linspace(0.0, math.sqrt(top), n) ** 2 + 1e-9))


@_spacing("all", needs_indices=True)
def every(schedule: NoiseSchedule, n: int) -> list[float]:
    """Every trained index; the number of steps must be T (T - 1 with final: sigma-min)."""
    T = _trained(schedule)
    if n != T:
        raise ScheduleError(
            f'Spacing "all" takes every trained index of {schedule.name}: {T} points, not {n}.'
        )
    return _falling(np.arange(T))


@_spacing("logsnr")
def logsnr(schedule: NoiseSchedule, n: int) -> list[float]:
    """Even in lambda = log(alpha / sigma) between the schedule's ends, in continuous time."""
    high, low = schedule.at(t=schedule.t_min), schedule.at(t=schedule.t_max)
    if low.alpha == 0:
        raise ScheduleError(
            f'Spacing "logsnr" cannot start at alpha = 0, where {schedule.name} does. '
            "Use linspace or trailing."
        )
    return _times_at(schedule, np.linspace(low.lam, high.lam, n) if n > 1 else [low.lam])


@_spacing("karras")
def karras(
    schedule: NoiseSchedule,
    n: int,
    *,
    rho: Annotated[float, Gt(0)] = _EDM_RHO,
    sigma_min: Annotated[float, Gt(0)] | None = None,
    sigma_max: Annotated[float, Gt(0)] | None = None,
) -> list[float]:
    """EDM's eq. 5: s^(1/rho) even from sigma-max to sigma-min (default: the schedule's ends)."""
    top = schedule.at(t=schedule.t_max).s if sigma_max is None else sigma_max
    bottom = schedule.at(t=schedule.t_min).s if sigma_min is None else sigma_min
    if not bottom < top < math.inf:
        raise ScheduleError(
            f'Spacing "karras" runs from sigma-max = {top:g} to sigma-min = {bottom:g}; they must '
            "be finite and falling. Give both in the sweep."
        )
    return _times_at(schedule, -np.log(_even_power(top, bottom, n, rho)))


@_spacing("edm")
def edm(schedule: NoiseSchedule, n: int) -> list[float]:
    """EDM's own grid: karras with rho 7 from s = 80 to 0.002, cut to the schedule's ends.

    s_i = (s_max^(1/7) + i / (n - 1) (s_min^(1/7) - s_max^(1/7)))^7 for i = 0 .. n - 1 with
    s_max = min(80, the schedule's largest s) and s_min = max(0.002, its smallest), as the authors'
    code limits both to what the network supports. karras takes the schedule's ends instead: on the
    schedule edm both are one; vp-linear reaches s = 157, and this grid starts at 80.
    """
    return karras(
        schedule,
        n,
        rho=_EDM_RHO,
        sigma_min=max(_EDM_SIGMA_MIN, schedule.at(t=schedule.t_min).s),
        sigma_max=min(_EDM_SIGMA_MAX, schedule.at(t=schedule.t_max).s),
    )


@_spacing("cosine")
def cosine(schedule: NoiseSchedule, n: int) -> list[float]:
    """The angle arctan(sigma / alpha) even: the cosine schedule's levels at even times.

    phi_i = phi_0 + i / (n - 1) (phi_end - phi_0), s_i = tan(phi_i), between the schedule's ends. So
    2 lambda = -2 log tan(a u + b) at even u, the truncated cosine schedule of Salimans and Ho 2022,
    arXiv:2202.00512 (alpha = cos(pi u / 2), from the authors' code; no offset), whichever schedule
    the network was trained on. Starts also from alpha = 0, where phi = pi / 2.
    """
    top, bottom = schedule.at(t=schedule.t_max), schedule.at(t=schedule.t_min)
    angles = np.linspace(
        math.atan2(top.sigma, top.alpha), math.atan2(bottom.sigma, bottom.alpha), n
    )
    inner = _times_at(schedule, -np.log(np.tan(angles[1:-1])))
    return [schedule.t_max, *inner, schedule.t_min][:n]


@_spacing("time-power")
def time_power(
    schedule: NoiseSchedule, n: int, *, power: Annotated[float, Gt(0)] = 2.0
) -> list[float]:
    """DEIS's grid: t^(1/power) even between the schedule's ends, in continuous time.

    t_i = (t_max^(1/kappa) + i / (n - 1) (t_min^(1/kappa) - t_max^(1/kappa)))^kappa with kappa =
    power, 2 in the paper's CIFAR-10 tables (Zhang and Chen 2022, arXiv:2204.13902). t is the
    schedule's own time: of discrete schedules the index 0 .. T - 1, not rounded, as in the
    authors' code; on the schedule edm it is sigma. power 1 is linspace without its rounding.
    """
    return [float(t) for t in _even_power(schedule.t_max, schedule.t_min, n, power)]


@_spacing("explicit")
def explicit(schedule: NoiseSchedule, n: int, *, times: tuple[float, ...]) -> list[float]:
    """The times as the sweep lists them, from noise to data."""
    if len(times) != n:
        raise ScheduleError(
            f'Spacing "explicit" lists {len(times)} times where {n} points are needed.'
        )
    return list(times)


@_spacing("file")
def from_file(schedule: NoiseSchedule, n: int, *, file: str) -> list[float]:
    """The times in a text, JSON or YAML file; a sweep reads them once, as explicit times.

    Text is numbers between blanks, commas or line ends; JSON and YAML are a list of numbers; what
    follows a # is a comment. A path is relative to where the command runs. The times, not the
    file's name, are what a cell is known by.
    """
    return explicit(schedule, n, times=read_times(file))


def read_times(file: str) -> tuple[float, ...]:
    """The times in `file`, from noise to data; see `from_file`.

    Raises:
        ScheduleError: there is no such file, it cannot be read, holds something else than numbers,
            or times that do not fall.
    """
    path = Path(file)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*"))
        raise ScheduleError(f"{file}: there is no such file.{nearest(path.name, there)}") from None
    except UnicodeDecodeError as error:
        raise ScheduleError(
            f"{file}: byte {error.start} is not UTF-8 text; expected {_TIMES}."
        ) from None
    except OSError as error:
        raise ScheduleError(f"{file}: the file cannot be read ({error.strerror}).") from None
    try:
        # The scalars of BaseLoader are texts, so that 1e-3 is what it is in JSON and in Python.
        # Plain text is one scalar.
        found = yaml.load(re.sub("#.*", "", text.expandtabs()), Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        raise ScheduleError(f"{file}: the list in it is broken; expected {_TIMES}.") from None
    items = found.replace(",", " ").split() if isinstance(found, str) else found
    if not isinstance(items, list) or not items:
        raise ScheduleError(f"{file}: there is no list of times in it; expected {_TIMES}.")
    times = tuple(_time(file, item) for item in items)
    for a, b in pairwise(times):
        if not a > b:
            raise ScheduleError(
                f"{file}: {a:g} is followed by {b:g}; times fall from noise to data. "
                "Sort them, highest first, and leave out what comes twice."
            )
    return times


_TIMES = "numbers, one a line or in a JSON or YAML list"


def _time(file: str, item: object) -> float:
    try:
        time = float(item) if isinstance(item, str) else math.nan
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        shown = f'"{item}"' if isinstance(item, str) else "a list or a mapping in the list"
        raise ScheduleError(f"{file}: {shown} is not a time; expected {_TIMES}.")
    return time


def _times_at(schedule: NoiseSchedule, lams: np.ndarray | list[float]) -> list[float]:
    return [schedule.at(lam=float(lam)).t for lam in lams]


def _even_power(top: float, bottom: float, n: int, power: float) -> np.ndarray:
    """`n` numbers from `top` to `bottom` whose (1 / power)-th powers are even."""
    ramp = np.linspace(top ** (1 / power), bottom ** (1 / power), n) ** power
    # The ends as they are: their powers are off by rounding.
    ramp[0] = top
    if n > 1:
        ramp[-1] = bottom
    return ramp


def steps_of(spacing: str, schedule: NoiseSchedule, final: Final, times: int) -> int | None:
    """The number of steps that a spacing fixes by itself ("all", "explicit"), else None.

    `times` is the length of the list of an explicit spacing; the others do not read it.
    """
    points = {"all": schedule.num_train, "explicit": times}.get(spacing)
    if points is None:
        return None
    return points if final == "zero" else points - 1
