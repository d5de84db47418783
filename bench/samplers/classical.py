"""Classical ODE solvers on the probability flow, in one of three variables.

Song et al. 2021, arXiv:2011.13456, eq. 13; Karras et al. 2022, arXiv:2206.00364, eq. 1 and 4:

* `s`: d xbar / ds = eps for xbar = x / alpha and s = sigma / alpha, EDM's form;
* `lam`: dx / dlam = (d log alpha / dlam) x - sigma eps, in which Lu et al. 2022,
  arXiv:2206.00927, run Runge-Kutta for comparison;
* `t`: dx / dt = alpha' x0 + sigma' eps, on flow the velocity eps - x0.

Deterministic. A last step to sigma = 0 is Euler's step in s in every variable: it lands on x0 and
costs one call, so NFE to sigma = 0 is n for Euler, 2n - 1 for Heun, 4n - 3 for Runge-Kutta and n
for Adams-Bashforth. Heun is a good choice from about 20 calls on, Adams-Bashforth from 10.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import Flow, NoiseSchedule, Point
from bench.diffusion.spacing import TimeGrid
from bench.samplers.refusals import infinite_start
from bench.samplers.registry import Params, sampler, whole

Variable = Literal["s", "lam", "t"]


@dataclass(frozen=True)
class _Ode:
    """dy / du = slope: y = x / alpha where u is s, and y = x where u is lam or t."""

    schedule: NoiseSchedule
    variable: Variable

    def u(self, point: Point) -> float:
        return {"s": point.s, "lam": point.lam, "t": point.t}[self.variable]

    def halfway(self, a: Point, b: Point) -> Point:
        u = 0.5 * (self.u(a) + self.u(b))
        match self.variable:
            case "s":
                return self.schedule.at(s=u)
            case "lam":
                return self.schedule.at(lam=u)
            case "t":
                return self.schedule.at(t=u)

    def slope(self, x0: Tensor, eps: Tensor, point: Point) -> Tensor:
        if self.variable == "s":
            return eps
        if self.variable == "lam":
            growth = growth_in_lam(self.schedule, point)
            return growth * point.alpha * x0 + (growth - 1) * point.sigma * eps
        of_x0, of_eps = _derivatives(self.schedule, point)
        return of_x0 * x0 + of_eps * eps

    def scales(self, a: Point, b: Point) -> tuple[float, float]:
        """What x and the integral of the slope are multiplied with in a step from a to b."""
        return (b.alpha / a.alpha, b.alpha) if self.variable == "s" else (1.0, 1.0)

    def euler(self, x: Tensor, x0: Tensor, eps: Tensor, a: Point, b: Point) -> Tensor:
        """Euler's step from x at a to b; from an infinite u and to sigma = 0 it is that in s."""
        if self.variable == "s" or b.sigma == 0 or math.isinf(self.u(a)):
            return b.alpha * x0 + b.sigma * eps  # xbar_a + (s_b - s_a) eps, xbar_a = x0 + s_a eps
        return x + (self.u(b) - self.u(a)) * self.slope(x0, eps, a)


def growth_in_lam(schedule: NoiseSchedule, point: Point) -> float:
    """That of alpha, d log alpha / dlam = f / (dlam / dt): sigma^2 on VP, 0 on VE."""
    f, g2 = schedule.rates(point.t)
    return -2 * f * point.sigma**2 / g2  # dlam / dt = -g^2 / (2 sigma^2)


def _derivatives(schedule: NoiseSchedule, point: Point) -> tuple[float, float]:
    """(d alpha / dt, d sigma / dt), from the schedule's f = d log alpha / dt and g^2.

    On a discrete schedule f jumps at the indices. The slope of log alpha between two indices
    belongs to the middle between them, and from there it is interpolated linearly: at an index it
    is the mean of both sides. One side alone would be half an index off at every number of steps.
    """
    if isinstance(schedule, Flow):
        return -1.0, 1.0  # also at alpha = 0, where f is infinite
    f, g2 = schedule.rates(point.t)
    if schedule.num_train is not None:
        middle = min(max(math.floor(point.t - 0.5), 0), schedule.num_train - 3) + 0.5
        (f, g2), (f_up, g2_up) = schedule.rates(middle), schedule.rates(middle + 1)
        share = point.t - middle
        f, g2 = f + share * (f_up - f), g2 + share * (g2_up - g2)
    return f * point.alpha, f * point.sigma + g2 / (2 * point.sigma)


_NAMES = {"s": "s = sigma / alpha", "lam": "lam = log(alpha / sigma)"}


def _infinite_in(*variables: Variable) -> Callable[[TimeGrid, Params], str | None]:
    """Refuses a start at alpha = 0 in these variables."""

    def refuses(grid: TimeGrid, params: Params) -> str | None:
        variable = params["variable"]
        if variable not in variables:
            return None
        return infinite_start(grid, f"works in {_NAMES[str(variable)]}", "set variable: t")

    return refuses


@sampler(
    "euler",
    family="PF-ODE, classical",
    paper="Karras et al. 2022, arXiv:2206.00364, eq. 1 and 4, Euler's method",
    order=1,
    stochastic=False,
    refuses=_infinite_in("lam"),
)
def euler(
    denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise, *, variable: Variable = "s"
) -> Tensor:
    """Euler's method; in s, and on flow also in t, the same map as ddim with eta = 0."""
    ode = _Ode(grid.schedule, variable)
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        x = ode.euler(x, x0, eps, a, b)
    return x


@sampler(
    "heun",
    family="PF-ODE, classical",
    paper="Karras et al. 2022, arXiv:2206.00364, algorithm 1",
    order=2,
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: (
        2 * steps - (ends_at_zero or not params["corrected-last"])
    ),
    refuses=_infinite_in("s", "lam"),
)
def heun(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    variable: Variable = "s",
    corrected_last: bool = True,
) -> Tensor:
    """Heun's method: Euler's step, corrected with the slope where it ended.

    The last step to sigma = 0 stays Euler's, as in EDM; with `corrected-last: false` a last step
    to sigma > 0 does as well, which saves a call.
    """
    ode = _Ode(grid.schedule, variable)
    for i, (a, b) in enumerate(grid.steps()):
        x0, eps = denoise(x, a)
        if b.sigma == 0:
            return b.alpha * x0
        x = ode.euler(x, x0, eps, a, b)
        if corrected_last or i < len(grid) - 1:
            change = ode.slope(*denoise(x, b), b) - ode.slope(x0, eps, a)
            _, of_slope = ode.scales(a, b)
            x = x + 0.5 * of_slope * (ode.u(b) - ode.u(a)) * change
    return x


@sampler(
    "rk4",
    family="PF-ODE, classical",
    paper="Song et al. 2021, arXiv:2011.13456, eq. 13, the classical Runge-Kutta method",
    order=4,
    stochastic=False,
    calls=lambda steps, ends_at_zero, params: 4 * steps - 3 * ends_at_zero,
    refuses=_infinite_in("s", "lam"),
)
def rk4(
    denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise, *, variable: Variable = "s"
) -> Tensor:
    """The classical Runge-Kutta method of order 4, with its middle in the variable."""
    ode = _Ode(grid.schedule, variable)
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        if b.sigma == 0:
            return b.alpha * x0
        middle, h = ode.halfway(a, b), ode.u(b) - ode.u(a)
        to_middle, middle_slope = ode.scales(a, middle)
        to_end, end_slope = ode.scales(a, b)
        k1 = ode.slope(x0, eps, a)
        x_2 = to_middle * x + middle_slope * h / 2 * k1
        k2 = ode.slope(*denoise(x_2, middle), middle)
        x_3 = to_middle * x + middle_slope * h / 2 * k2
        k3 = ode.slope(*denoise(x_3, middle), middle)
        x_4 = to_end * x + end_slope * h * k3
        k4 = ode.slope(*denoise(x_4, b), b)
        x = to_end * x + end_slope * h / 6 * (k1 + 2 * (k2 + k3) + k4)
    return x


@sampler(
    "ab",
    family="PF-ODE, classical",
    paper="Karras et al. 2022, arXiv:2206.00364, eq. 1 and 4, the Adams-Bashforth method (LMS)",
    order=lambda params: min(whole(params, "order"), 2),
    formula_order=lambda params: whole(params, "order"),
    stochastic=False,
    refuses=_infinite_in("lam"),
)
def ab(
    denoise: Denoiser,
    x: Tensor,
    grid: TimeGrid,
    noise: Noise,
    *,
    order: Annotated[int, Ge(1), Le(4)] = 4,
    variable: Variable = "s",
) -> Tensor:
    """Adams-Bashforth with exact coefficients for steps of any size; also known as LMS.

    The polynomial through the last `order` slopes is integrated over the step. The first steps
    have as many slopes as there are, so the order of the whole is at most 2. A slope where s is
    infinite says nothing about the others and is left out.
    """
    ode = _Ode(grid.schedule, variable)
    nodes: list[float] = []  # newest first
    slopes: list[Tensor] = []
    for a, b in grid.steps():
        x0, eps = denoise(x, a)
        u = ode.u(a)
        if b.sigma == 0 or math.isinf(u):
            x = b.alpha * x0 + b.sigma * eps
            continue
        nodes = [u, *nodes[: order - 1]]
        slopes = [ode.slope(x0, eps, a), *slopes[: order - 1]]
        of_x, of_slope = ode.scales(a, b)
        x = of_x * x
        for weight, slope in zip(adams_bashforth(nodes, u, ode.u(b)), slopes, strict=True):
            x = x + of_slope * weight * slope
    return x


def adams_bashforth(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals from start to end of the Lagrange polynomials of up to four nodes."""
    # Two Gauss points: exact for cubics.
    half = 0.5 * (end - start)
    gauss = [start + half * (1 + sign / math.sqrt(3)) for sign in (-1, 1)]
    return [
        half * sum(math.prod((v - w) / (u - w) for w in nodes if w != u) for v in gauss)
        for u in nodes
    ]
