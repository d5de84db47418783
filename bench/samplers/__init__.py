"""Samplers: one file per family, each registered by importing it here."""

from bench.samplers import (
    adaptive,
    ancestral,
    classical,
    deis,
    dpm_solver,
    dpm_solver_pp,
    edm,
    er_sde,
    exact_flow,
    few_step,
    implicit,
    outside,
    pseudo_numerical,
    registry,
    restart,
    sde,
    unipc,
)
from bench.samplers.registry import REGISTRY, Sampler, sample

__all__ = [
    "REGISTRY",
    "Sampler",
    "adaptive",
    "ancestral",
    "classical",
    "deis",
    "dpm_solver",
    "dpm_solver_pp",
    "edm",
    "er_sde",
    "exact_flow",
    "few_step",
    "get",
    "implicit",
    "outside",
    "pseudo_numerical",
    "registry",
    "restart",
    "sample",
    "sde",
    "unipc",
]


def get(name: str) -> Sampler:
    """The sampler called `name`: one of ours, or `module:attribute` from outside.

    Raises:
        SweepError: there is none of that name.
    """
    return outside.load(name) if ":" in name else registry.get(name)
