"""The response and the errors of the registry's samplers by name."""

from bench.certify import moments
from bench.certify.moments import Response
from bench.certify.problems import Gaussian, PairFunction
from bench.diffusion.spacing import TimeGrid
from tests.samplers.solving import variant

Given = dict[str, object]
"""Parameters by their YAML names."""
GAUSSIAN: PairFunction = Gaussian().pair


def response(name: str, grid: TimeGrid, given: Given, pair: PairFunction = GAUSSIAN) -> Response:
    return moments.response(variant(name, **given), grid, pair)


def gaussian_error(name: str, grid: TimeGrid, given: Given) -> float:
    return moments.gaussian_error(variant(name, **given), grid)


def mixture_error(name: str, grid: TimeGrid, given: Given) -> float:
    return moments.mixture_error(variant(name, **given), grid)
