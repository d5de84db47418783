"""table.tex: the tables of a report for a paper, with booktabs."""

import re
from collections.abc import Iterator

from bench.report.content import BOLD, TIE, Place, Table
from bench.report.sections import Sections

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "—": "---",
    "–": "--",
    "η": r"$\eta$",
    "σ̂": r"$\hat\sigma$",
    "×": r"$\times$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_FOUND = re.compile("|".join(map(re.escape, sorted(_SPECIAL, key=len, reverse=True))))


def escape(text: str) -> str:
    r"""`text` on one line, set as it is by LaTeX.

    >>> print(escape("50 % of a_b"))
    50 \% of a\_b
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _FOUND.sub(lambda found: _SPECIAL[found.group()], line)


def tables(found: Sections) -> str:
    r"""All tables of all metrics; each is a `table` that \input brings into a paper."""
    blocks = ["% Made by bench report. Needs \\usepackage{booktabs}."]
    for metric, parts in found.items():
        for part in parts:
            for table in [*part.tables, *part.folded]:
                words = (metric, part.scale.words, part.name, table.title)
                title = ", ".join(word for word in words if word)
                blocks.append("\n".join(_table(table, title)))
    return "\n\n".join(blocks) + "\n"


def _table(table: Table, title: str) -> Iterator[str]:
    columns = "".join("l" if column < table.left else "r" for column in range(len(table.header)))
    yield r"\begin{table}"
    yield r"\centering"
    yield rf"\caption{{{escape(title)}. {escape(table.legend)}}}"
    yield rf"\begin{{tabular}}{{{columns}}}"
    yield r"\toprule"
    yield " & ".join(map(escape, table.header)) + r" \\"
    yield r"\midrule"
    for row in table.rows:
        yield " & ".join(map(_place, row)) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    for number, note in enumerate(table.notes, 1):
        yield rf"\par\footnotesize$^{{{number}}}$ {escape(note)}"
    yield r"\end{table}"


def _place(place: Place) -> str:
    text = escape(place.text)
    if place.struck:
        text = rf"({text})"  # crossed out needs one package more; the caption says what it is
    if place.sign == BOLD:
        text = rf"\textbf{{{text}}}"
    if place.sign == TIE:
        text += r" $\approx$"
    mark = f"$^{{{place.note}}}$" if place.note else ""
    after = f" {escape(place.after)}" if place.after else ""
    return text + mark + after
