"""Stepping with error control where every sample has its own error, step and end.

Step control as in Hairer, Norsett and Wanner 1993, "Solving Ordinary Differential Equations I",
II.4; the pair of orders 5 and 4 is that of Dormand and Prince 1980, J. Comp. Appl. Math. 6, 19-26,
table 2 (scipy's RK45), of which the fifth-order result is kept.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import CellError

Floats = NDArray[np.float64]
States = tuple[Tensor, ...]
Attempt = Callable[[States, Floats, Floats, Tensor], tuple[States, Floats]]
"""(states at u, u (n,), steps h (n,), rows (n,)) -> (states at u + h, error (n,), allowed up to 1).

`rows` are the samples of the batch that the n states belong to."""
Slope = Callable[[Tensor, Floats, Tensor], Tensor]
"""(y (n, ...), u (n,), rows (n,)) -> dy/du (n, ...)."""

_SAFETY = 0.9
_ATTEMPTS = 10_000

# Of the stages after the first: places, weights of the earlier slopes; and the weights of the
# difference between the orders. The last stage is the new state, and the first of the next step.
_PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_WEIGHTS: tuple[tuple[float, ...], ...] = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_DIFFERENCE = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def march(
    attempt: Attempt,
    states: States,
    start: float | Floats,
    end: float,
    h: Floats,
    *,
    order: int,
    limits: tuple[float, float],
    cautious: bool,
) -> States:
    """The states (B, ...) at `end`, by steps whose error is at most 1.

    Args:
        attempt: a step of some samples.
        states: at `start`; not changed.
        start: where u begins, for all samples or for each (B,).
        end: where it ends, on either side.
        h: (B,) first steps, towards the end.
        order: a step's error goes as h^order.
        limits: the least and the largest factor from one step to the next.
        cautious: whether a step does not grow right after one that had to be repeated.

    Raises:
        CellError: a sample is not there after 10,000 attempts.
    """
    done = tuple(torch.empty_like(state) for state in states)
    rows = torch.arange(len(states[0]))
    u = np.full(len(rows), start)
    repeated = np.zeros(len(rows), dtype=bool)
    for _ in range(_ATTEMPTS):
        last = np.abs(end - u) <= np.abs(h)
        h = np.where(last, end - u, h)
        new, error = attempt(states, u, h, rows)
        taken = ~(error > 1.0)  # what is not finite gets no better by smaller steps
        kept = spread(taken, states[0])
        states = tuple(torch.where(kept, n, s) for n, s in zip(new, states, strict=True))
        u = np.where(taken, u + h, u)
        with np.errstate(divide="ignore"):
            factor = np.clip(_SAFETY * error ** (-1.0 / order), *limits)
        h = h * np.where(repeated & cautious, np.minimum(factor, 1.0), factor)
        repeated = ~taken
        ended = torch.from_numpy((taken & last) | np.isnan(error))
        for whole, state in zip(done, states, strict=True):
            whole[rows[ended]] = state[ended]
        if ended.any():
            going = ~ended
            rows, states = rows[going], tuple(state[going] for state in states)
            u, h, repeated = (values[going.numpy()] for values in (u, h, repeated))
        if not len(rows):
            return done
    raise CellError(
        f"{len(rows)} samples of a batch need more than {_ATTEMPTS:,} steps for the error asked "
        f"for; the first is number {int(rows[0])}, now at {u[0]:g}. Allow more (rtol, atol)."
    )


def dormand_prince(
    slope: Slope, y: Tensor, start: float | Floats, end: float, *, rtol: float, atol: float
) -> Tensor:
    """The solution of dy/du = slope at `end`, from y (B, ...) at `start`; see `march`.

    The error of a step is the root mean square over a sample of difference / (atol + rtol |y|).
    """

    def attempt(states: States, u: Floats, h: Floats, rows: Tensor) -> tuple[States, Floats]:
        y, first = states
        slopes, new, step = [first], y, spread(h, y)
        for place, weights in zip(_PLACES, _WEIGHTS, strict=True):
            new = y + step * _combined(weights, slopes)
            slopes.append(slope(new, u + place * h, rows))
        allowed = atol + rtol * torch.maximum(y.abs(), new.abs())
        return (new, slopes[-1]), rms(step * _combined(_DIFFERENCE, slopes) / allowed)

    u = np.full(len(y), start, dtype=np.float64)
    first = slope(y, u, torch.arange(len(y)))
    # A hundredth of the time in which the state would double.
    allowed = atol + rtol * y.abs()
    with np.errstate(divide="ignore", invalid="ignore"):
        h = np.fmin(0.01 * rms(y / allowed) / rms(first / allowed), np.abs(end - u))
    h = np.copysign(np.maximum(h, 1e-6 * np.abs(end - u)), end - u)
    return march(attempt, (y, first), u, end, h, order=5, limits=(0.2, 10.0), cautious=True)[0]


def rms(value: Tensor) -> Floats:
    """Root mean square of each sample of (n, ...), in float64."""
    flat = value.flatten(1)
    norm = torch.linalg.vector_norm(flat, dim=1, dtype=torch.float64)
    return np.asarray((norm / flat.shape[1] ** 0.5).cpu().numpy())


def spread(values: NDArray[np.generic], like: Tensor) -> Tensor:
    """(n,) on the host -> (n, 1, ...) on the device of `like`, floats in its dtype."""
    tensor = torch.from_numpy(values)
    tensor = tensor.to(like) if tensor.is_floating_point() else tensor.to(like.device)
    return tensor.view(-1, *(1,) * (like.ndim - 1))


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total
