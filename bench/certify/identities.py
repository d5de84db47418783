"""Samplers that are the same map by theory, and so must be the same numbers.

Where a paper or a line of algebra says that one sampler at some parameters is another one, both
are run on the same grids with the same noise, in float64.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch

from bench.certify.problems import SHAPE, Blobs
from bench.certify.variants import Variant, base_params
from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import make_schedule
from bench.diffusion.spacing import Final, TimeGrid, make_grid
from bench.samplers.registry import get

WITHIN = 1e-9
"""How far two samplers that are one may differ."""

SPACINGS = (
    *(("vp-linear", "uniform"), ("vp-linear", "quadratic"), ("vp-linear", "logsnr")),
    *(("vp-cosine", "linspace"), ("edm", "karras"), ("edm", "linspace"), ("flow", "linspace")),
)


@dataclass(frozen=True)
class Identity:
    """A sampler that is another one, on all grids of these kinds that both accept."""

    one: str
    other: str
    params: Mapping[str, Any] = field(default_factory=dict)
    other_params: Mapping[str, Any] = field(default_factory=dict)
    spacings: tuple[tuple[str, str], ...] = SPACINGS
    finals: tuple[Final, ...] = ("zero", "sigma-min")
    steps: tuple[int, ...] = (1, 2, 7, 23)

    def __str__(self) -> str:
        return " = ".join(
            " ".join([name, *(f"{key}={value}" for key, value in params.items())])
            for name, params in ((self.one, self.params), (self.other, self.other_params))
        )

    def grids(self) -> Iterator[TimeGrid]:
        """The grids that it is looked at on."""
        for (schedule, spacing), n, final in product(self.spacings, self.steps, self.finals):
            yield make_grid(make_schedule(schedule), spacing, n, final=final)

    def difference(self) -> float | None:
        """How far the two end from each other at most."""
        one, other = (
            Variant(sampler, sampler.complete({**base_params(sampler), **params}))
            for sampler, params in (
                (get(self.one), self.params),
                (get(self.other), self.other_params),
            )
        )
        return difference(one, other, self.grids())


_DDIM: dict[str, Any] = {"other": "ddim", "other_params": {"eta": 0.0}}
_UNIP = {"variant": "bh2", "corrector": False, "lower-order-final": "never"}
IDENTITIES = (
    # Exponential and classical steps of order 1 are the ddim step (Lu et al. 2022,
    # arXiv:2206.00927 and arXiv:2211.01095; Zhang and Chen 2022, arXiv:2204.13902).
    Identity("euler", params={"variable": "s"}, **_DDIM),
    Identity("ab", params={"order": 1}, **_DDIM),
    Identity("dpm-solver", params={"order": 1}, **_DDIM),
    Identity("dpm-solver++", params={"order": 1}, **_DDIM),
    Identity("unipc", params={"order": 1, "corrector": False}, **_DDIM),
    Identity("deis", params={"method": "tab", "order": 0}, **_DDIM),
    Identity("deis", params={"method": "rhoab", "order": 0}, **_DDIM),
    Identity("er-sde", params={"order": 1, "noise-scale": "ode"}, **_DDIM),
    Identity("consistency", **_DDIM, finals=("zero",), steps=(1,)),
    # Samplers of the posterior (Song et al. 2021, arXiv:2010.02502; arXiv:2211.01095).
    Identity("ddpm", "ddim", {"variance": "small"}, {"eta": 1.0}),
    Identity("dpm-solver++", "ddim", {"order": 1, "eta": 1.0}, {"eta": 1.0}),
    Identity("er-sde", "ddim", {"order": 1, "noise-scale": "sde"}, {"eta": 1.0}),
    Identity(
        *("ddpm", "ddim", {"variance": "large", "clip": True}, {"eta": "sigma-hat"}),
        spacings=tuple(s for s in SPACINGS if s[0].startswith("vp")),
        finals=("zero",),
    ),
    # Without noise (Karras et al. 2022, arXiv:2206.00364; Song et al. 2021, arXiv:2011.13456).
    Identity("edm", "heun", {"s-churn": 0.0}, {"variable": "s"}),
    Identity(
        *("reverse-sde", "euler", {"kappa": 0.0}, {"variable": "t"}),
        spacings=tuple(s for s in SPACINGS if s[0] == "edm"),  # time has no kinks there
        finals=("sigma-min",),
    ),
    # One polynomial through eps, in rho = s.
    *(Identity("deis", "ab", {"method": "rhoab", "order": k - 1}, {"order": k}) for k in (2, 3, 4)),
    # One polynomial through x0, in lambda (Zhao et al. 2023, arXiv:2302.04867).
    *(Identity("unipc", "dpm-solver++", _UNIP | {"order": k}, {"order": k}) for k in (2, 3)),
    # With equal steps in s the weights of the pseudo-numerical methods are exact.
    Identity("ipndm", "ab", {}, {"order": 4}, spacings=(("edm", "linspace"),)),
)


def of(name: str) -> list[Identity]:
    """The identities that a sampler takes part in."""
    return [each for each in IDENTITIES if name in (each.one, each.other)]


def difference(one: Variant, other: Variant, grids: Iterator[TimeGrid]) -> float | None:
    """How far two samplers end from each other at most; None if no grid suits both."""
    apart = [
        float((_end(one, grid) - _end(other, grid)).abs().max())
        for grid in grids
        if not one.refusal(grid) and not other.refusal(grid)
    ]
    # Not a number is as far as can be, and max would pass it over.
    return max((math.inf if math.isnan(by) else by for by in apart), default=None)


def _end(variant: Variant, grid: TimeGrid) -> torch.Tensor:
    noise = Noise(1, range(5), SHAPE, dtype=torch.float64)
    start = grid.schedule.prior_std(grid.points[0]) * noise()
    return variant.run(Denoiser(Blobs().pair), start, grid, noise)
