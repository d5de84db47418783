"""Making anything safe Markdown, and numbers readable.

Every text that a person typed (names, questions, paths, reasons) passes through `escape`, so
that it shows as typed and can neither break a table nor start HTML.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.report.content import BOLD, HOLE, TIE, Place, Table
from bench.report.pooled import Pooled

NAMED = 6
"""Most configurations that one sentence names."""

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# `_` only where it could start or end emphasis: fd_cifar stays readable in the source.
_SPECIAL = re.compile(r"[\\`*|\[\]$~#]|(?<!\w)_|_(?!\w)")


def escape(text: object) -> str:
    """`text` on one line, showing as it is in Markdown, also in a cell of a table."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(lambda match: "\\" + match.group(), line)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table of safe texts; the first `left` columns are text, the others numbers."""
    rules = [":---" if column < left else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rules, *rows])


def render(found: Table) -> str:
    """A table of plain text as Markdown, with its footnotes and its legend, without its title."""
    header = [escape(text) for text in found.header]
    rows = [[_place(place) for place in row] for row in found.rows]
    notes = [f"<sup>{n}</sup> {escape(text)}  " for n, text in enumerate(found.notes, 1)]
    blocks = [table(header, rows, left=found.left), "\n".join(notes).rstrip(), escape(found.legend)]
    return "\n\n".join(block for block in blocks if block)


def _place(place: Place) -> str:
    text = f"~~{escape(place.text)}~~" if place.struck else escape(place.text)
    text = {BOLD: f"**{text}**", TIE: f"{text} {TIE}"}.get(place.sign, text)
    mark = f"<sup>{place.note}</sup>" if place.note else ""
    return f"{text}{mark}{_after(place.after)}"


def _after(text: str) -> str:
    return f" {escape(text)}" if text else ""


@dataclass(frozen=True)
class Scale:
    """The power of ten that the values of one table or picture are shown in.

    >>> Scale.of([0.0061, 0.00005]).show(0.0061)
    '6.10'
    >>> Scale.of([0.0061, 0.00005]).words
    '× 10⁻³'
    """

    exponent: int = 0

    @classmethod
    def of(cls, values: Iterable[float]) -> "Scale":
        """A multiple of three, other than 0 only if the largest value is below 0.1 or above 1e5."""
        largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
        if largest == 0 or 0.1 <= largest < 1e5:
            return cls()
        return cls(3 * math.floor(math.log10(largest) / 3))

    @property
    def words(self) -> str:
        """'× 10⁻³', or '' for values as they are."""
        return f"× 10{str(self.exponent).translate(_SUPERSCRIPT)}" if self.exponent else ""

    def show(self, value: float) -> str:
        """Three significant digits; whole numbers keep all of theirs."""
        return digits(value / 10**self.exponent)

    def pooled(self, value: Pooled) -> str:
        """A value with its standard error, if it has one.

        Two digits of the error, and as many decimals of the value; fewer where the value would
        need more than six digits for that.

        >>> Scale().pooled(Pooled(7.3123, 1, error=0.0431))
        '7.312 ± 0.043'
        >>> Scale().pooled(Pooled(7.3123, 1))
        '7.31'
        """
        if value.hole:
            return HOLE
        mean, error = value.mean / 10**self.exponent, value.error / 10**self.exponent
        if math.isnan(error):
            return digits(mean)
        if error == 0:
            return f"{digits(mean)} ± 0"
        decimals = max(0, min(_decimals(error, 2), _decimals(max(abs(mean), error), 6)))
        told = f"{error:.{decimals}f}"
        if float(told) == 0:  # smaller than the last digit of the value: its own first digit
            told = f"{error:.1g}"
        return f"{mean:z.{decimals}f} ± {told}"  # z: no minus before a zero


def _decimals(value: float, significant: int) -> int:
    """Decimals that show so many significant digits of a number as it is after rounding.

    >>> _decimals(0.0431, 2), _decimals(0.0996, 2), _decimals(43.1, 2)
    (3, 2, 0)
    """
    return significant - 1 - int(f"{value:.{significant - 1}e}".partition("e")[2])


def digits(value: float) -> str:
    """Three significant digits without an exponent where that is readable.

    >>> [digits(x) for x in (13.357, 4.0, 0.013, 1234.5, 0.0000123)]
    ['13.4', '4.00', '0.0130', '1234', '1.23e-05']
    """
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.2e}"
    return f"{value:#.3g}".rstrip(".")


def calls(nfe: float) -> str:
    """A number of calls: whole as it is, a mean with one decimal.

    >>> [calls(n) for n in (10, 100.0, 33.42)]
    ['10', '100', '33.4']
    """
    return f"{nfe:.0f}" if nfe == round(nfe) else f"{nfe:.1f}"


def times(value: float, base: float) -> str:
    """How many times `base` a value is: two digits, three near one; a hole without a ratio.

    >>> [times(x, 2) for x in (64, 7, 2.1, 1.99)], times(1, 0)
    (['32', '3.5', '1.05', '0.99'], '—')
    """
    ratio = value / base if base > 0 else math.nan
    if not ratio >= 0:
        return HOLE
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1.95 else f"{ratio:.2f}"


def listed(words: Sequence[str], most: int = NAMED) -> str:
    """Safe texts as a list in a sentence, a long one cut.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=1)
    ('a, b and c', 'a and 2 more')
    """
    *start, last = words if len(words) <= most else [*words[:most], f"{len(words) - most} more"]
    return f"{', '.join(start)} and {last}" if start else last


def count(number: int, noun: str) -> str:
    """A whole number of things.

    >>> count(1, "cell"), count(2000, "cell")
    ('1 cell', '2,000 cells')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
