"""Samplers against bench/certify/golden, which golden/make.py and golden/authors/make.py made."""

import pytest

from bench.certify import golden
from bench.certify.variants import Variant
from bench.samplers.registry import get


@pytest.mark.parametrize("case", golden.cases(), ids=str)
def test_reproduces_the_independent_derivation(case: golden.Case) -> None:
    sampler = get(case.sampler)
    variant = Variant(sampler, sampler.complete(case.params))
    assert variant.refusal(case.grid()) is None
    assert case.deviation(variant) <= case.within
