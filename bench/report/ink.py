"""The look that all pictures share, and how they become files, of the same bytes each time."""

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from bench import atomic

INK, QUIET, GREY = "#222222", "#6b6b6b", "#c2c2c2"
KINDS = ("svg", "png", "pdf")
"""Files of a picture: for pages, for where there is no svg, for a paper."""


@contextmanager
def style() -> Iterator[None]:
    """The look shared by all pictures, and the settings that make their bytes reproducible."""
    settings: Any = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
        "axes.edgecolor": "#c4c4c4",
        "axes.labelcolor": INK,
        "grid.color": "#e8e8e8",
        "text.color": INK,
        "text.parse_math": False,  # a dollar in a name is a dollar
        "svg.fonttype": "path",
        "svg.hashsalt": "bench",
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes here and in full in report.md.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def encode(figure: Figure, kind: str, description: str, dpi: int = 150) -> bytes:
    """The bytes of a figure, without dates and versions."""
    metadata: dict[str, Any] = {
        "svg": {"Date": None, "Creator": None, "Title": description},
        "png": {"Software": None, "Description": description},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None, "Title": description},
    }[kind]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def save(figure: Figure, path: Path, description: str) -> None:
    """Writes a figure as path.svg, path.png and path.pdf."""
    for kind in KINDS:
        # Not with_suffix: a metric's name may have a dot.
        atomic.write_bytes(path.with_name(f"{path.name}.{kind}"), encode(figure, kind, description))


def inline(figure: Figure, description: str, name: str) -> str:
    """A figure as an svg element for a page: with its text as text, in the colours of the page.

    Args:
        figure: Drawn under `style`.
        description: Its title, for those who do not see it.
        name: What its ids begin with, so that those of two pictures on one page differ.
    """
    with mpl.rc_context({"svg.fonttype": "none"}):
        text = encode(figure, "svg", description).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Groups of matplotlib have ids that nothing refers to, and that every figure has.
    text = re.sub(r'<g id="[a-zA-Z]+[0-9d]*_[0-9_]+">', "<g>", text)
    text = re.sub(r'(?<= )id="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    text = re.sub(r'(width|height)="[0-9.]+pt"', "", text, count=2)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable}, {colour})")
    return re.sub(r"\s*\n\s*", "\n", text).strip()


@dataclass(frozen=True)
class Spot:
    """Where a value stands in a figure, as a part of its width and height from the upper left."""

    x: float
    y: float
    words: str


def with_spots(svg: str, spots: list[Spot]) -> str:
    """The picture with a mark on each value that shows its words, by mouse and by keyboard."""
    found = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', svg)
    assert found is not None
    width, height = map(float, found.groups())
    marks = []
    for number, spot in enumerate(spots):
        words = html.escape(spot.words)
        marks.append(
            f'<circle class="spot" cx="{spot.x * width:.2f}" cy="{spot.y * height:.2f}" r="6" '
            f'fill="transparent" tabindex="{-1 if number else 0}" role="img" aria-label="{words}">'
            f"<title>{words}</title></circle>"
        )
    return svg.removesuffix("</svg>") + "\n".join(["", *marks, "</svg>"])


VARIABLES = {
    "#ffffff": "paper",
    INK: "ink",
    "#262626": "ink",
    QUIET: "quiet",
    GREY: "grey",
    "#c4c4c4": "edge",
    "#e8e8e8": "line",
    "#ecd9a0": "band",
    "#0173b2": "c0",
    "#de8f05": "c1",
    "#029e73": "c2",
    "#d55e00": "c3",
    "#cc78bc": "c4",
    "#ca9161": "c5",
    "#56b4e9": "c6",
}
"""Colours of pictures that a page may change, where it is dark."""


def slug(metric: str) -> str:
    """A metric's name as part of a file's."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "-_" else "-" for c in metric)
