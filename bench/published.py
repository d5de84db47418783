"""FID values that papers report for CIFAR-10, as data: `assets/published_fid.csv`. No torch here.

A row is one value with what the paper says about how it was made: method, family of the sampler,
spacing, eta, order, NFE, steps, conditional or not, base model, number of samples, paper, year,
table, source. `model` is an id that rows of the same network share; where it is empty, that is not
sure and nothing may be compared. `tier` is primary for what was read in the paper itself or its
authors' repository, secondary for one paper quoting another. Empty: not stated in what was read.
`eta` is a number or a word (sigma-hat, restart, ...).
"""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from bench.errors import ResultError, nearest

FILE = Path(__file__).parent / "assets" / "published_fid.csv"

Row = dict[str, str]
"""By the names of the columns, as they stand in the file."""


@cache
def rows() -> tuple[Row, ...]:
    """All rows, in the order of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def columns() -> list[str]:
    """The names of the columns."""
    return list(rows()[0])


def find(filters: Sequence[str] = ()) -> list[Row]:
    """The rows that pass every filter.

    Args:
        filters: `column=value` for rows with that value, of numbers also in another form (eta=0
            finds 0.0), and `column=` for rows without one; any other text for rows that have it
            somewhere, in upper or lower case.

    Raises:
        ResultError: There is no such column.
    """
    found = list(rows())
    for text in filters:
        column, equals, value = text.partition("=")
        if equals and column not in columns():
            raise ResultError(
                f'The filter "{text}": published values have no column "{column}".'
                f"{nearest(column, columns())} There are: {', '.join(columns())}."
            )
        if equals:
            found = [row for row in found if same(row[column], value)]
        else:
            found = [row for row in found if text.lower() in " ".join(row.values()).lower()]
    return found


def same(a: str, b: str) -> bool:
    """Whether two texts are the same, or the same number.

    >>> same("0.0", "0"), same("sigma-hat", "Sigma-hat"), same("", "0")
    (True, True, False)
    """
    try:
        return float(a) == float(b)
    except ValueError:
        return a.strip().lower() == b.strip().lower()
