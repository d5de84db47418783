"""Samplers: one file per family, each registered by importing it here."""

from bench.samplers import ancestral, classical, dpm_solver_pp, edm, implicit, restart, sde
from bench.samplers.registry import REGISTRY, Sampler, get, sample

__all__ = [
    "REGISTRY",
    "Sampler",
    "ancestral",
    "classical",
    "dpm_solver_pp",
    "edm",
    "get",
    "implicit",
    "restart",
    "sample",
    "sde",
]
