"""One row or column of values with the signs of their comparison.

What is best beyond the noise is bold; what cannot be told apart from the best has a sign, and then
nothing is bold.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd

from bench.report.content import BOLD, OPEN, TIE, Footnotes, Place
from bench.report.markdown import Scale, calls
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick


@dataclass
class Signs:
    """The signs of one table: what a comparison along its rows or columns comes to.

    Attributes:
        along: "row" or "column": within which values are compared.
        yardstick: What they are compared by.
        seen: The outcomes that really occur.
    """

    along: str
    yardstick: Yardstick
    seen: set[str] = field(default_factory=set)

    def of(self, values: list[Pooled]) -> list[str]:
        """The sign of each value: BOLD, TIE or none."""
        verdict = self.yardstick.judge(values)
        if verdict is None:
            errors = {value.sure for value in values if not value.hole}
            self.seen |= {OPEN} if len(errors) == 2 else set()
            return [""] * len(values)
        sign = BOLD if verdict.beyond else TIE
        self.seen.add(sign)
        return [sign if place in verdict.among else "" for place in range(len(values))]

    def legend(self) -> list[str]:
        """What the signs that occur mean."""
        words = []
        if BOLD in self.seen:
            words.append(f"Bold: the best of its {self.along} beyond the noise.")
        if TIE in self.seen:
            words.append(
                f"{TIE}: the best of its {self.along} and what cannot be told apart from it."
            )
        if words:
            words.append(f"At 95 %, for all values of a {self.along} together.")
        if OPEN in self.seen:
            words.append(f"A {self.along} with a value without an error bar has no marks.")
        return words


def series(
    points: pd.DataFrame,
    ranks: Iterable[int],
    by: str,
    scale: Scale,
    signs: Signs,
    notes: Footnotes,
) -> tuple[str, list[Place]]:
    """The places of one row or column, in the order of `ranks`, and an addition to its head.

    What ran stands beside the value where it is less than the head of the row or column says,
    or in the head if it is the same for all.
    """
    ran, asked = ("nfe", "budget") if by == "NFE" else ("effective", "steps")
    pairs = zip(points[ran], points[asked], strict=True)
    brackets = [f" ({calls(n)} {by})" if n != m else "" for n, m in pairs]
    shared = brackets[0] if len(set(brackets)) == 1 else ""
    values = list(points["value"])
    found = {}
    for rank, value, sign, bracket in zip(
        points["rank"], values, signs.of(values), brackets, strict=True
    ):
        number = notes.number(value.note)
        after = "" if shared or value.hole else bracket.strip()
        found[rank] = Place(scale.pooled(value), sign, number, after, value)
    return shared, [found.get(rank, Place("")) for rank in ranks]
