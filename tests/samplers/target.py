"""What networks are trained for."""

from torch import Tensor

from bench.diffusion.schedule import Point


def target(parametrisation: str, x0: Tensor, eps: Tensor, point: Point) -> Tensor:
    """What a perfect network of that kind gives."""
    return {
        "eps": eps,
        "x0": x0,
        "v": point.alpha * eps - point.sigma * x0,
        "score": -eps / point.sigma,
        "velocity": eps - x0,
        "D": x0,
    }[parametrisation]
