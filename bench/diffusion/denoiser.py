"""The one contract between models and samplers: denoise(x, point) -> (x0, eps).

Models adapt to it, never the reverse: whatever a network predicts becomes the pair of clean image
and noise with x = alpha x0 + sigma eps.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from bench.diffusion.schedule import Point
from bench.errors import ModelError

Parametrisation = Literal["eps", "x0", "v", "score", "velocity", "D"]
Pair = tuple[Tensor, Tensor]


class Denoiser:
    """A model as samplers see it, with the counter of its calls (NFE).

    Args:
        pair: (x, point) -> (x0, eps), both of x's shape (B, C, H, W) and dtype.
    """

    def __init__(self, pair: Callable[[Tensor, Point], Pair]) -> None:
        self.nfe = 0
        self._own: Counter[int] = Counter()
        self._pair = pair

    def __call__(self, x: Tensor, point: Point, rows: Tensor | None = None) -> Pair:
        """x0 and eps at `point`; one network function evaluation.

        Args:
            x: (B, C, H, W).
            point: the noise level, or that of each sample (see `per_sample`).
            rows: int64 (B,), the samples of the batch that `x` holds, where that is not all of
                them: then each counts its own calls, and `nfe` counts none.
        """
        if rows is None:
            self.nfe += 1
        else:
            self._own.update(rows.tolist())
        return self._pair(x, point)

    def nfe_of(self, samples: int) -> list[int]:
        """Calls for each of the samples of the batch."""
        return [self.nfe + self._own[i] for i in range(samples)]


def per_sample(points: Sequence[Point], like: Tensor) -> Point:
    """A point for each sample as one: its fields are (B, 1, 1, 1), dtype and device as `like`."""

    def column(values: Iterable[float]) -> float:
        tensor = torch.tensor([*values], dtype=torch.float64).to(like)
        return cast(float, tensor.view(-1, 1, 1, 1))  # arithmetic with x is the same

    return Point(
        t=column(p.t for p in points),
        alpha=column(p.alpha for p in points),
        sigma=column(p.sigma for p in points),
        lam=column(p.lam for p in points),
    )


def each(value: float, x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A field of a point for each image of `x`, (B,) on its device: how networks take the time.

    The field is a number, or the (B, 1, 1, 1) of `per_sample`.
    """
    return torch.as_tensor(value, dtype=dtype, device=x.device).reshape(-1).expand(len(x))


def each_rounded(value: float, x: Tensor) -> Tensor:
    """The same as the nearest whole number, int64 (B,): a trained index."""
    return each(value, x, torch.float64).round().long()


def from_network(
    predict: Callable[[Tensor, Point], Tensor], parametrisation: Parametrisation
) -> Callable[[Tensor, Point], Pair]:
    """The pair function of a network that predicts one of the usual targets.

    eps; x0; v = alpha eps - sigma x0 (Salimans and Ho 2022, arXiv:2202.00512, VP only); the score
    -eps / sigma; the velocity eps - x0 of rectified flow (Liu et al. 2022, arXiv:2209.03003); D,
    the x0 of an image x / alpha = x0 + s eps (Karras et al. 2022, arXiv:2206.00364, eq. 2). What
    predicts D is called with that image, on any schedule; the others with x.

    Raises:
        ModelError: (when called) an eps, score or D network at pure noise, alpha = 0, where x0 is
            not determined by it.
    """

    def pair(x: Tensor, point: Point) -> Pair:
        if parametrisation != "D":
            return to_pair(predict(x, point), x, point, parametrisation)
        _refuse_pure_noise(point, parametrisation)
        return to_pair(predict(x / point.alpha, point), x, point, "x0")

    return pair


def to_pair(output: Tensor, x: Tensor, point: Point, parametrisation: Parametrisation) -> Pair:
    """(x0, eps) from a network's output at `point`; see `from_network`."""
    alpha, sigma = point.alpha, point.sigma
    match parametrisation:
        case "x0" | "D":
            return output, (x - alpha * output) / sigma
        case "velocity":
            total = alpha + sigma  # 1 for rectified flow
            return (x - sigma * output) / total, (x + alpha * output) / total
        case "v":
            norm = alpha**2 + sigma**2  # 1 for VP
            return (alpha * x - sigma * output) / norm, (sigma * x + alpha * output) / norm
        case "eps" | "score":
            _refuse_pure_noise(point, parametrisation)
            eps = output if parametrisation == "eps" else -sigma * output
            return (x - sigma * eps) / alpha, eps


def _refuse_pure_noise(point: Point, parametrisation: Parametrisation) -> None:
    # Through a tensor, because each sample may have its own alpha (`per_sample`).
    if bool((torch.as_tensor(point.alpha).abs() < 1e-12).any()):
        t = float(torch.as_tensor(point.t).max())
        raise ModelError(
            f"A network that predicts {parametrisation} says nothing about x0 at pure noise "
            f"(t = {t:g}, alpha = 0). Start the grid below it."
        )


def clip_x0(x: Tensor, x0: Tensor, point: Point) -> Pair:
    """x0 clipped to the images' range [-1, 1], and the eps that goes with it.

    Re-deriving eps makes the posterior mean of Ho et al. 2020 (its clipped x0 with x_t) come out;
    keeping the network's eps would be another sampler.
    """
    clipped = x0.clamp(-1.0, 1.0)
    return clipped, (x - point.alpha * clipped) / point.sigma
