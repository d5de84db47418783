"""Every sampler of the registry with every value of its parameters."""

from bench.certify.variants import Variant, base_params, values_of, variants_of  # noqa: F401
from bench.samplers.registry import REGISTRY

VARIANTS = [variant for sampler in REGISTRY.values() for variant in variants_of(sampler)]
DETERMINISTIC = [v for v in VARIANTS if not v.stochastic]
STOCHASTIC = [v for v in VARIANTS if v.stochastic]
