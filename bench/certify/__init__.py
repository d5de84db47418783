"""Certificates: evidence that a sampler is what its paper describes, for anyone to ask for.

A certificate is a list of findings on exact problems: golden values, identities, observed orders,
moments, counted calls, robustness. It needs no weights and no data, and takes samplers from
outside, which may be held against one of ours.
"""

from collections.abc import Iterator, Mapping

from bench import samplers
from bench.certify import checks, grids
from bench.certify.checks import Finding
from bench.certify.variants import Variant, base_params, variants_of
from bench.errors import SweepError
from bench.samplers import REGISTRY, Sampler

__all__ = ["GRIDS", "Finding", "findings", "names"]

GRIDS = "grids"
"""In place of a sampler's name: the spacings and schedules that all of them run on."""


def names() -> list[str]:
    """Everything of ours that can be certified."""
    return [GRIDS, *REGISTRY]


def findings(
    name: str, given: Mapping[str, object] | None = None, like: str | None = None
) -> Iterator[Finding]:
    """The certificate of a sampler, one finding after another.

    One of ours is examined at every value of its parameters. With `given`, or from outside, a
    sampler is examined at these parameters and its defaults.

    Args:
        name: in the registry, "module:function" or "diffusers:Class"; or "grids".
        given: parameters by YAML name.
        like: the sampler that it is said to be, at the parameters of the same names.

    Raises:
        SweepError: there is no such sampler, parameter or value.
    """
    if name == GRIDS:
        yield from _answers("grids", grids.findings())
        return
    sampler = samplers.get(name)
    if given or like or ":" in name:
        variants = [_at(sampler, given or {}, like)]
    else:
        variants = variants_of(sampler)
        yield from _answers("has an effect", checks.effects(sampler))
    yield from _answers("golden values", checks.golden_values(variants))
    yield from _answers("identity", checks.same_as(variants[0]))
    for variant in variants:
        for check in checks.CHECKS:
            yield from _answers(check.__name__, check(variant), str(variant))


def _answers(check: str, found: Iterator[Finding], settings: str = "") -> Iterator[Finding]:
    """The findings of a check; what a sampler raises is one, too."""
    try:
        yield from found
    except Exception as error:  # noqa: BLE001, for it is other people's code
        yield Finding(settings, check, "an answer", f"{type(error).__name__}: {error}", False)


def _at(sampler: Sampler, given: Mapping[str, object], like: str | None) -> Variant:
    """A sampler at given parameters, and what it is said to be."""
    params = sampler.complete({**base_params(sampler), **given})
    if like is None:
        return Variant(sampler, params)
    other = samplers.get(like)
    shared = {name: value for name, value in params.items() if name in other.params}
    try:
        return Variant(
            sampler, params, Variant(other, other.complete({**base_params(other), **shared}))
        )
    except SweepError as error:
        raise SweepError(f"{sampler.name} cannot be {like} at these parameters: {error}") from None
