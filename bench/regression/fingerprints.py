"""Whether two records were made by the same arithmetic, by the fingerprints in them. No torch."""

from bench.results import Json, same_fingerprint


def same_arithmetic(then: Json, now: Json) -> bool:
    """Whether two provenances have fingerprints that differ by rounding at most.

    >>> same_arithmetic({"fingerprint": [1.0, 2.0]}, {"fingerprint": [1.0, 2.0 + 1e-12]})
    True
    """
    a, b = (made.get("fingerprint") or [] for made in (then, now))
    return same_fingerprint(b, a)
