"""How values of one metric compare: which way is better, and how far apart is apart.

Two cells at equal seeds start from the same noise. Where the influences of both lie beside their
records, the error of their difference is that of the pairs; elsewhere the cells count as
independent, which for samplers of one model errs on the side of calling them equal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import influences
from bench.report.frame import Study
from bench.report.pooled import Pooled
from bench.report.ties import Verdict, judge

Influences = Mapping[str, NDArray[np.float32]]
"""Of one metric, by the key of the cell."""


def unpaired(a: Pooled, b: Pooled) -> float:
    """The standard error of the difference of two independent values."""
    return math.hypot(a.error, b.error)


@dataclass(frozen=True)
class Yardstick:
    """Which of two values of a metric is better, and whether the noise allows to say so.

    Attributes:
        higher: Whether higher values are better.
        difference: Gives the standard error of the difference of two values.
    """

    higher: bool = False
    difference: Callable[[Pooled, Pooled], float] = unpaired

    @property
    def better(self) -> str:
        """'lower' or 'higher'."""
        return "higher" if self.higher else "lower"

    @property
    def best(self) -> str:
        """'lowest' or 'highest'."""
        return "highest" if self.higher else "lowest"

    @property
    def bound(self) -> str:
        """What the value of exact draws is to the others."""
        return "ceiling" if self.higher else "floor"

    def beats(self, a: float, b: float) -> bool:
        """Whether `a` is the better value, however little."""
        return a > b if self.higher else a < b

    def ranked(self, points: pd.DataFrame) -> pd.DataFrame:
        """Points with a value, the best first, equal ones in their order."""
        good = points[points["mean"].notna()]
        return good.sort_values("mean", kind="stable", ascending=not self.higher)

    def judge(self, values: Sequence[Pooled]) -> Verdict | None:
        """The best of `values` or those that cannot be told apart from it, by their places.

        Holes are no candidates. What stands in several places, such as the last point that two
        spacings share, is one. None where the question is open: see `ties.judge`.
        """
        places: dict[object, list[int]] = {}
        for place, value in enumerate(values):
            if not value.hole:
                places.setdefault(value.keys or place, []).append(place)
        groups = list(places.values())
        candidates = [values[group[0]] for group in groups]
        verdict = judge(
            [value.mean for value in candidates],
            [value.error for value in candidates],
            lambda i, j: self.difference(candidates[i], candidates[j]),
            higher=self.higher,
            freedom=min((value.freedom for value in candidates), default=math.inf),
        )
        if verdict is None:
            return None
        return Verdict(verdict.beyond, tuple(p for one in verdict.among for p in groups[one]))


def of(study: Study, metric: str) -> Yardstick:
    """The yardstick of a metric, with the influences that were found."""
    column = study.cells.get(f"better.{metric}")
    higher = column is not None and bool((column == "higher").any())
    found = _found(study, metric)
    pairs = {key: _pair(study, key, metric, len(values)) for key, values in found.items()}

    def difference(a: Pooled, b: Pooled) -> float:
        return paired(a, b, found, pairs)

    return Yardstick(higher, difference)


def paired(a: Pooled, b: Pooled, found: Influences, pairs: Mapping[str, object]) -> float:
    """The standard error of the difference of two values, by pairs of images where possible.

    Args:
        a: one value.
        b: another.
        found: the influences that there are.
        pairs: by key, what two cells must share to be compared image by image.
    """
    both = list(zip(a.keys, b.keys, strict=False))
    matched = all(x in found and y in found and pairs[x] == pairs[y] for x, y in both)
    if not both or len(a.keys) != len(b.keys) or not matched:
        return unpaired(a, b)
    errors = [influences.paired_error(found[x], found[y]) for x, y in both]
    # Influences are kept to so many digits: two cells may be nearer to each other than these show.
    least = influences.RESOLUTION * max(a.error, b.error)
    return max(math.hypot(*errors) / len(errors), least)


def pairing(study: Study, metric: str) -> str:
    """Where the errors of differences come from, in words; "" where no error is known at all."""
    errors = study.cells.get(f"error.{metric}")
    known = [] if errors is None else list(study.cells.loc[errors.notna(), "key"])
    if not known:
        return ""
    held = len(set(known) & _found(study, metric).keys())
    if held == len(known):
        return "paired by seed"
    if held == 0:
        return "unpaired: no influences beside the records"
    return f"paired by seed between the {held} of {len(known)} cells with influences beside them"


def _found(study: Study, metric: str) -> dict[str, NDArray[np.float32]]:
    return {
        key: by_metric[metric] for key, by_metric in study.influences.items() if metric in by_metric
    }


def _pair(study: Study, key: str, metric: str, images: int) -> tuple[Any, ...]:
    record = study.records[key]
    entry = record.metrics[metric]
    digests = (entry.get(f"{part}_digest") for part in ("reference", "extractor"))
    return record.cell["seed"], images, *digests
