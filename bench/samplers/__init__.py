"""Samplers: one file per family, each registered by importing it here."""

from bench.samplers import (
    ancestral,
    classical,
    deis,
    dpm_solver,
    dpm_solver_pp,
    edm,
    few_step,
    implicit,
    pseudo_numerical,
    restart,
    sde,
    unipc,
)
from bench.samplers.registry import REGISTRY, Sampler, get, sample

__all__ = [
    "REGISTRY",
    "Sampler",
    "ancestral",
    "classical",
    "deis",
    "dpm_solver",
    "dpm_solver_pp",
    "edm",
    "few_step",
    "get",
    "implicit",
    "pseudo_numerical",
    "restart",
    "sample",
    "sde",
    "unipc",
]
