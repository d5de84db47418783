"""Models of kind `consistency`: the exact consistency function of a mixture.

f(x, t) is where the probability-flow ODE through (x, t) ends (Song et al. 2023, arXiv:2303.01469,
section 3): what a consistency network would give that is trained without error. At t = 1 of the
schedule flow it is also what a rectified flow gives after one reflow without error, E[x0 | x1] of
its own pairs (Liu et al. 2022, arXiv:2209.03003), where one step of Euler's method is exact.

The end is the schedule's least noise, the paper's epsilon: 0.002 on the schedule edm, the lowest
trained index of a VP schedule, t = 0.001 on flow. f is the point there as xbar = x / alpha, so that
f(x, t_min) = x / alpha (on edm, x) and the sampler `consistency` can add noise to it. It keeps the
noise of that level, which the exact draws do not have.

Inside, f is solved for with the mixture's exact score. A call still counts as one, like that of a
network that has learned it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench.diffusion import probability_flow
from bench.diffusion.denoiser import Pair
from bench.diffusion.schedule import NoiseSchedule, Point
from bench.errors import ModelError
from bench.models import exact
from bench.models.base import Model, ModelFiles, ModelSpec, only_keys
from bench.models.exact import MixtureSpec, mixture_at

# On the shipped mixture f is then within 0.1 of the 255 grey levels of the solution, root mean
# square over an image (tests/models/test_consistency.py); rounding to bytes costs 0.29.
_TOLERANCE = 1e-5

KEYS = {
    "of": "a mixture, as the name of a mixture",
    "schedule": "any schedule; default vp-linear",
    "tolerance": f"of the ODE solution, above 0; default {_TOLERANCE:g}",
}
"""The keys of a model of this kind, with what is expected of each."""


@dataclass(frozen=True)
class ConsistencySpec(ModelSpec):
    """The consistency function of a mixture, solved for within a tolerance.

    Its x0 is no posterior mean: samplers that integrate or denoise have no use for it.
    """

    of: MixtureSpec
    tolerance: float
    exact: ClassVar[bool] = True
    exact_score: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Name for reports; a tolerance is told where it is not the usual one."""
        label = f"consistency of {self.of.label}"
        usual = self.tolerance == _TOLERANCE
        return label if usual else f"{label}, tolerance {self.tolerance:g}"

    def canonical(self) -> dict[str, Any]:
        """See `ModelSpec`."""
        return {
            "kind": "consistency",
            "of": self.of.name,
            "schedule": self.of.schedule_name,
            "tolerance": self.tolerance,
        }

    def schedule(self) -> NoiseSchedule:
        """See `ModelSpec`."""
        return self.of.schedule()

    def load(self, device: torch.device | str) -> Model:
        """See `ModelSpec`."""
        mixture = self.of.load(device)
        end = mixture.schedule.at(t=mixture.schedule.t_min)

        def pair(x: Tensor, point: Point) -> Pair:
            flow = probability_flow.solve(
                mixture.denoiser(), x, point, end, tolerance=self.tolerance
            )
            x0 = flow / end.alpha
            return x0, (x - point.alpha * x0) / point.sigma

        settings = f"consistency {mixture.digest} {self.tolerance!r}"
        return replace(
            mixture,
            pair=pair,
            digest=hashlib.sha256(settings.encode()).hexdigest(),
            notes={
                "target": "exact consistency function",
                "time": "real",
                "nfe": "a call counts as 1, whatever its ODE solution costs",
            },
        )


def files(description: Mapping[str, Any]) -> ModelFiles:
    """The file of its mixture; raises as `exact.files` does."""
    return exact.files(description, "of")


def describe(description: Mapping[str, Any]) -> ConsistencySpec:
    """The spec of `{kind: consistency, of: MIXTURE, schedule: vp-linear, tolerance: 1.0e-5}`.

    `of` and `schedule` are the `name` and `schedule` of a mixture.

    Raises:
        ModelError: an unknown key, mixture or schedule, or a tolerance that is no number above 0.
    """
    only_keys(description, KEYS)
    tolerance = description.get("tolerance", _TOLERANCE)
    is_number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
    if not is_number or not 0 < tolerance < math.inf:
        raise ModelError(f'model.tolerance is "{tolerance}"; expected a number above 0.')
    return ConsistencySpec(mixture_at(description, "of"), float(tolerance))
