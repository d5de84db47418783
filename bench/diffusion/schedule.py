"""Noise schedules x_t = alpha_t x0 + sigma_t eps, in float64 on the host.

A schedule turns any one of time t, half log-SNR lambda = log(alpha / sigma) or VE noise level
s = sigma / alpha into a `Point` that carries all of them. VP, VE/EDM and flow matching are the
same code for a sampler, which reads only points.

Time of discrete VP schedules is the 0-based index 0..T-1 of the trained steps; between indices
log alpha is interpolated linearly.

References:
    Ho et al. 2020, arXiv:2006.11239 (VP linear). Nichol and Dhariwal 2021, arXiv:2102.09672,
    eq. 17 (cosine). Rombach et al. 2022, arXiv:2112.10752 (scaled-linear). Karras et al. 2022,
    arXiv:2206.00364 (VE as EDM uses it). Liu et al. 2022, arXiv:2209.03003 (rectified flow).
    Kingma et al. 2021, arXiv:2107.00630 (the SDE of a schedule).
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import numpy.typing as npt

from bench.errors import ScheduleError, nearest

# A point asked for by lambda may lie outside the schedule by rounding alone.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """A noise level: time, signal scale, noise scale and lam = log(alpha / sigma), all floats.

    `lam` is +inf at the clean image (sigma = 0) and -inf at pure noise (alpha = 0).
    """

    t: float
    alpha: float
    sigma: float
    lam: float

    @property
    def s(self) -> float:
        """The VE noise level sigma / alpha; inf at alpha = 0."""
        return self.sigma / self.alpha if self.alpha > 0 else math.inf


class NoiseSchedule(ABC):
    """A family of noise levels over time t_min <= t <= t_max, t_max the noisiest.

    `num_train` is the number of trained indices of a discrete schedule, None for others.
    `clean` is the image itself: alpha = 1, sigma = 0.
    """

    name: str
    t_min: float
    t_max: float
    num_train: int | None
    clean: Point

    @overload
    def at(self, *, t: float) -> Point: ...
    @overload
    def at(self, *, lam: float) -> Point: ...
    @overload
    def at(self, *, s: float) -> Point: ...
    def at(
        self, *, t: float | None = None, lam: float | None = None, s: float | None = None
    ) -> Point:
        """The point at one of time `t`, half log-SNR `lam` or VE noise level `s`.

        Raises:
            ScheduleError: outside the schedule's range.
        """
        if t is not None:
            if not self.t_min <= t <= self.t_max:
                raise ScheduleError(
                    f"t = {t} is outside {self.name}, which runs from {self.t_min} to {self.t_max}."
                )
            return self._at_t(float(t))
        level = lam if lam is not None else -math.log(s) if s and s > 0 else math.inf
        low, high = self._at_t(self.t_max).lam, self._at_t(self.t_min).lam
        # No slack for infinity: it would let the clean image pass as the end of the range.
        slack = _ROUNDING * max(1.0, abs(level)) if math.isfinite(level) else 0.0
        if not low - slack <= level <= high + slack:
            raise ScheduleError(
                f"lambda = {level:.6g} is outside {self.name}, which runs from {low:.6g} (noise) "
                f"to {high:.6g} (data)."
            )
        return self._at_lam(min(max(level, low), high))

    def rates(self, t: float) -> tuple[float, float]:
        """(f, g^2) of the forward SDE dx = f x dt + g dw at time `t`.

        f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2: with these, x_t has the
        schedule's alpha and sigma at every t. Both jump at the trained indices of a discrete
        schedule; there they are those of the cleaner side, which a step to the data crosses.

        Raises:
            ScheduleError: outside the schedule's range, or at alpha = 0, where f is infinite.
        """
        if self.at(t=t).alpha == 0:
            raise ScheduleError(f"{self.name} has an infinite drift at t = {t}, where alpha = 0.")
        return self._rates(float(t))

    @abstractmethod
    def _at_t(self, t: float) -> Point: ...

    @abstractmethod
    def _at_lam(self, lam: float) -> Point: ...

    @abstractmethod
    def _rates(self, t: float) -> tuple[float, float]: ...

    @abstractmethod
    def prior_std(self, start: Point) -> float:
        """Standard deviation of the noise that a sampler starts from at `start`."""

    @abstractmethod
    def describe(self) -> dict[str, str | int | float]:
        """What determines the schedule, for records and keys."""


@dataclass(frozen=True)
class DiscreteVP(NoiseSchedule):
    """Variance preserving, alpha^2 + sigma^2 = 1, from trained betas (T,) in (0, 1).

    A grid that starts below T keeps the N(0, I) start, as published code does.
    """

    name: str
    betas: tuple[float, ...]
    settings: tuple[tuple[str, str | int | float], ...] = ()
    clean: Point = Point(t=-1.0, alpha=1.0, sigma=0.0, lam=math.inf)
    t_min: float = 0.0
    t_max: float = field(init=False)
    num_train: int = field(init=False)
    _log_alpha: npt.NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        betas = np.asarray(self.betas, dtype=np.float64)
        if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
            raise ScheduleError(f"{self.name} needs at least two betas, all between 0 and 1.")
        object.__setattr__(self, "num_train", len(betas))
        object.__setattr__(self, "t_max", float(len(betas) - 1))
        object.__setattr__(self, "_log_alpha", 0.5 * np.cumsum(np.log1p(-betas)))

    def _at_t(self, t: float) -> Point:
        below = min(int(t), len(self.betas) - 2)
        left, right = float(self._log_alpha[below]), float(self._log_alpha[below + 1])
        return _vp_point(t, left + (t - below) * (right - left))

    def _at_lam(self, lam: float) -> Point:
        log_alpha = -0.5 * float(np.logaddexp(0.0, -2.0 * lam))
        # np.interp wants rising abscissae; log alpha falls with t.
        t = float(np.interp(-log_alpha, -self._log_alpha, np.arange(len(self.betas))))
        return _vp_point(t, log_alpha)

    def _rates(self, t: float) -> tuple[float, float]:
        # The slope of log alpha between the indices around t, or below it; the clean image is
        # index -1. As alpha^2 + sigma^2 = 1, g^2 = -2 f.
        f = 0.5 * math.log1p(-self.betas[math.ceil(t)])
        return f, -2.0 * f

    def prior_std(self, start: Point) -> float:
        """1: x_T ~ N(0, I) wherever the grid starts."""
        return 1.0

    def describe(self) -> dict[str, str | int | float]:
        """Name, T and the settings that gave the betas."""
        return {"name": self.name, "T": self.num_train, **dict(self.settings)}


def _vp_point(t: float, log_alpha: float) -> Point:
    log_sigma = 0.5 * math.log(-math.expm1(2.0 * log_alpha))
    return Point(t, math.exp(log_alpha), math.exp(log_sigma), log_alpha - log_sigma)


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """Variance exploding in EDM's time: alpha = 1, sigma = t (arXiv:2206.00364, table 1)."""

    name: str = "edm"
    t_min: float = 0.002
    t_max: float = 80.0
    num_train: int | None = None
    clean: Point = Point(t=0.0, alpha=1.0, sigma=0.0, lam=math.inf)

    def _at_t(self, t: float) -> Point:
        return Point(t, 1.0, t, -math.log(t))

    def _at_lam(self, lam: float) -> Point:
        return Point(math.exp(-lam), 1.0, math.exp(-lam), lam)

    def _rates(self, t: float) -> tuple[float, float]:
        return 0.0, 2.0 * t

    def prior_std(self, start: Point) -> float:
        """The start's own sigma."""
        return start.sigma

    def describe(self) -> dict[str, str | int | float]:
        """Name and range of sigma."""
        return {"name": self.name, "sigma-min": self.t_min, "sigma-max": self.t_max}


@dataclass(frozen=True)
class Flow(NoiseSchedule):
    """Rectified flow: alpha = 1 - t, sigma = t, from noise at t = 1 to data at t = 0."""

    name: str = "flow"
    t_min: float = 0.001
    t_max: float = 1.0
    num_train: int | None = None
    clean: Point = Point(t=0.0, alpha=1.0, sigma=0.0, lam=math.inf)

    def _at_t(self, t: float) -> Point:
        if t == 1.0:
            return Point(1.0, 0.0, 1.0, -math.inf)
        return Point(t, 1.0 - t, t, math.log1p(-t) - math.log(t))

    def _at_lam(self, lam: float) -> Point:
        t = math.exp(-float(np.logaddexp(0.0, lam)))
        alpha = math.exp(-float(np.logaddexp(0.0, -lam)))
        return Point(t, alpha, t, lam)

    def _rates(self, t: float) -> tuple[float, float]:
        # d t^2 / dt + 2 t^2 / (1 - t) = 2 t / (1 - t)
        return -1.0 / (1.0 - t), 2.0 * t / (1.0 - t)

    def prior_std(self, start: Point) -> float:
        """The start's own sigma: 1 at t = 1."""
        return start.sigma

    def describe(self) -> dict[str, str | int | float]:
        """Name and the smallest time a grid may hold before the clean image."""
        return {"name": self.name, "t-min": self.t_min}


def vp_linear(beta_min: float = 1e-4, beta_max: float = 0.02, T: int = 1000) -> DiscreteVP:
    """Betas linear from beta_min to beta_max (Ho et al. 2020, section 4)."""
    betas = np.linspace(beta_min, beta_max, T)
    settings = (("beta-min", beta_min), ("beta-max", beta_max))
    return DiscreteVP("vp-linear", tuple(betas.tolist()), settings)


def vp_scaled_linear(
    beta_min: float = 0.00085, beta_max: float = 0.012, T: int = 1000
) -> DiscreteVP:
    """Square roots of the betas linear (latent diffusion's setting, Rombach et al. 2022)."""
    betas = np.linspace(math.sqrt(beta_min), math.sqrt(beta_max), T) ** 2
    settings = (("beta-min", beta_min), ("beta-max", beta_max))
    return DiscreteVP("vp-scaled-linear", tuple(betas.tolist()), settings)


def vp_cosine(offset: float = 0.008, beta_max: float = 0.999, T: int = 1000) -> DiscreteVP:
    """alpha^2(t) = f(t)/f(0), f = cos^2((t/T + offset)/(1 + offset) pi/2), betas cut at beta_max.

    Nichol and Dhariwal 2021, eq. 17.
    """
    f = np.cos((np.arange(T + 1) / T + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = np.minimum(1 - f[1:] / f[:-1], beta_max)
    settings = (("offset", offset), ("beta-max", beta_max))
    return DiscreteVP("vp-cosine", tuple(betas.tolist()), settings)


def vp_from_betas(betas: Sequence[float], name: str = "vp-trained") -> DiscreteVP:
    """A VP schedule from the betas that a checkpoint states, recorded by their digest."""
    exact = np.asarray(betas, dtype="<f8")
    digest = hashlib.sha256(exact.tobytes()).hexdigest()[:16]
    return DiscreteVP(name, tuple(exact.tolist()), (("betas", digest),))


SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "vp-linear": vp_linear,
    "vp-cosine": vp_cosine,
    "vp-scaled-linear": vp_scaled_linear,
    "edm": EDM,
    "flow": Flow,
}

# Where a setting is called otherwise than the argument behind it.
_ARGUMENTS = {"sigma-min": "t_min", "sigma-max": "t_max", "t-min": "t_min"}


def make_schedule(name: str, settings: Mapping[str, object] | None = None) -> NoiseSchedule:
    """The schedule called `name`, with its published constants where `settings` has no others.

    Args:
        name: one of `SCHEDULES`.
        settings: by the names that `describe` gives them, like {"beta-max": 0.01, "T": 400}.

    Raises:
        ScheduleError: there is none of that name, it has no such setting, or there is no schedule
            with these values.

    Example:
        >>> make_schedule("edm", {"sigma-max": 50.0}).t_max
        50.0
    """
    if name not in SCHEDULES:
        raise ScheduleError(
            f'There is no schedule "{name}".{nearest(name, SCHEDULES)} '
            f"Known are: {', '.join(SCHEDULES)}."
        )
    make = SCHEDULES[name]
    known = {key: value for key, value in make().describe().items() if key != "name"}
    arguments: dict[str, float] = {}
    for key, value in (settings or {}).items():
        if key not in known:
            raise ScheduleError(
                f'{name} has no setting "{key}".{nearest(key, known)} It has: {", ".join(known)}.'
            )
        arguments[_ARGUMENTS.get(key, key.replace("-", "_"))] = _number(name, key, value, known)
    made = make(**arguments)
    if made.num_train is None and not 0 < made.t_min < made.t_max < math.inf:
        raise ScheduleError(
            f"{name} would run from {made.t_max:g} to {made.t_min:g}; expected finite numbers "
            "above 0, the larger first."
        )
    return made


def _number(name: str, key: str, value: object, known: Mapping[str, object]) -> float:
    """A setting as a number; a whole one of at least 2 where the published one is whole (T)."""
    whole = isinstance(known[key], int)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        if not whole:
            return float(value)
        if isinstance(value, int) and value >= 2:
            return value
    expected = "a whole number of at least 2" if whole else "a number"
    raise ScheduleError(f'{name}: {key} is "{value}"; expected {expected}.')
