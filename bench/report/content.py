"""What a report says, before it is Markdown, HTML or LaTeX: tables of plain text.

Nothing here is escaped. Whatever writes a table to a file makes it safe there, in its own way, so
that a text which a person typed shows as typed in each of them.
"""

from dataclasses import dataclass, field

from bench.report.pooled import Pooled

HOLE = "—"
BOLD, TIE, OPEN = "bold", "≈", "open"
"""What a comparison comes to: a winner, a tie, or nothing for want of an error bar."""

_LONGEST = 300
"""Letters of a footnote; table.csv has reasons whole."""


@dataclass(frozen=True)
class Place:
    """One place of a table.

    Attributes:
        text: What stands there.
        sign: BOLD, TIE or "".
        note: Number of its footnote, or 0.
        after: What stands behind it, such as " (9 NFE)".
        value: What is behind the text at full precision, where it is a measured value.
        struck: Whether the text is known to be wrong, and shown crossed out.
    """

    text: str
    sign: str = ""
    note: int = 0
    after: str = ""
    value: Pooled | None = None
    struck: bool = False


@dataclass(frozen=True)
class Table:
    """A table, the words above it ("" where it needs none) and below it.

    Attributes:
        title: Above it.
        header: A text for each column.
        rows: A place for each column.
        notes: Footnotes, the first with number 1.
        legend: How to read it.
        left: Columns of text, before those of numbers.
        name: What tells it apart from others of the same report, for links and files.
    """

    title: str
    header: list[str]
    rows: list[list[Place]]
    notes: list[str] = field(default_factory=list)
    legend: str = ""
    left: int = 1
    name: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture of the report.

    Attributes:
        file: Its name, or None where there is none.
        caption: How to read it, as safe Markdown, or why there is none.
        alt: What it shows, for those who do not see it.
        svg: The element that stands for it in a page, with a mark on each value; "" without one.
    """

    file: str | None
    caption: str
    alt: str = ""
    svg: str = ""


@dataclass(frozen=True)
class Chapter:
    """A part of a report that does not come from its records, such as their history.

    Attributes:
        title: Above it, as a person typed it.
        words: Paragraphs, as safe Markdown.
        picture: Which lies in the report's folder.
        tables: What is shown.
        option: Of `bench report`, that adds it.
    """

    title: str
    words: list[str]
    picture: Picture
    tables: list[Table]
    option: str


@dataclass
class Footnotes:
    """Numbered notes under one table; equal texts share a number."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        """The number of a note, counted from 1; 0 for no note."""
        if not text:
            return 0
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1

    def lines(self) -> list[str]:
        """The notes, cut to a readable length."""
        return [text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …" for text in self.texts]


def places(texts: list[str]) -> list[Place]:
    """A row of nothing but texts."""
    return [Place(text) for text in texts]
