"""report.html: the whole report in one file that asks no network for anything.

The page brings its style and its script with it, pictures are elements of it, and its
Content-Security-Policy lets it load nothing and run no script but its own: what a person typed can
at most be shown. Texts come to the template as they are, and it escapes them; what is Markdown
already (sentences, captions, an author's notes) is made HTML here, without raw HTML and without
pictures from elsewhere.
"""

import base64
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from PIL import Image

from bench.report import ink, provenance, text
from bench.report.content import HOLE, Chapter, Picture, Place, Table
from bench.report.frame import Study
from bench.report.markdown import calls, digits
from bench.report.names import EXACT, plain
from bench.report.plots import Pictures
from bench.report.pooled import Pooled
from bench.report.sections import Part, Sections

_HERE = Path(__file__).parent
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
_MARKDOWN.disable("image")


def render(
    study: Study,
    found: Sections,
    plots: Mapping[str, Pictures],
    samples: Picture,
    out: Path,
    notes: str = "",
    chapters: Sequence[Chapter] = (),
) -> str:
    """The whole of report.html.

    Args:
        study: What is reported.
        found: What is said about each metric.
        plots: The pictures of each metric.
        samples: The picture of samples, which lies in `out` if it has a file.
        out: The report's folder.
        notes: An author's, in Markdown.
        chapters: What is added to it.
    """
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=study.title,
        lead=_inline(text.lead(study)),
        notes=Markup(_MARKDOWN.render(notes)) if notes else "",
        metrics=[
            _metric(metric, number, found[metric], plots[metric])
            for number, metric in enumerate(study.metrics)
        ],
        samples=_samples(samples, out),
        chapters=[_chapter(each, number) for number, each in enumerate(chapters)],
        cells=cells(study),
        configurations=list(provenance.configurations(study)),
        origins=provenance.origins(study),
        commands=provenance.commands(study, chapters),
        folded=text.FOLDED,
        kinds=ink.KINDS,
        exact=_exact,
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def cells(study: Study) -> Table:
    """Every cell, a row each, with the digits that one reads; table.csv has all of them."""
    rows = []
    for _, cell in study.cells.iterrows():
        nfe = cell["nfe_mean"] if pd.notna(cell["nfe_mean"]) else cell["nfe"]
        row = [
            Place(str(cell["label"])),
            Place(str(cell["spacing"]) if pd.notna(cell["spacing"]) else ""),
            Place(_status(cell)),
            Place(_whole(cell["steps"])),
            Place("" if pd.isna(nfe) or cell["sampler"] == EXACT else calls(float(nfe))),
            Place(_whole(cell["seed"])),
            Place(f"{cell['samples']:,}"),
        ]
        for metric in study.metrics:
            value = cell.get(f"metric.{metric}")
            row.append(Place(HOLE if value is None or pd.isna(value) else f"{value:.6g}"))
            error = cell.get(f"error.{metric}")
            row.append(Place("" if error is None or pd.isna(error) else f"{error:.2g}"))
        seconds = cell["seconds"]
        took = Place("" if pd.isna(seconds) else digits(seconds))
        rows.append([*row, took, Place(str(cell["key"]))])
    header = ["Configuration", "Spacing", "State", "Steps", "NFE", "Seed", "Images"]
    for metric in study.metrics:
        header += [metric, "± one error"]
    return Table("", [*header, "Seconds", "Key"], rows, left=3, name="all cells")


def _status(cell: "pd.Series[Any]") -> str:
    reason = "" if pd.isna(cell["reason"]) else f": {cell['reason']}"
    return f"{cell['status']}{reason}"


def _whole(number: Any) -> str:
    return "" if pd.isna(number) else plain(int(number))


def _metric(name: str, number: int, parts: list[Part], plots: Pictures) -> dict[str, Any]:
    ident = f"metric-{number}"
    named = {"against NFE": plots.nfe, "against seconds": plots.seconds, "η and steps": plots.eta}
    return {
        "name": name,
        "ident": ident,
        "none": _inline(plots.nfe.caption),
        "pictures": [
            _picture(picture, f"{ident}-{place}") | {"tab": tab}
            for place, (tab, picture) in enumerate(named.items())
            if picture.file
        ],
        "parts": [
            {
                "name": part.name,
                "summary": list(map(_inline, part.summary)),
                "caption": _inline(part.caption),
                "cautions": list(map(_inline, part.cautions)),
                "tables": part.tables,
                "folded": part.folded,
            }
            for part in parts
        ],
    }


def _chapter(found: Chapter, number: int) -> dict[str, Any]:
    ident = f"chapter-{number}"
    return {
        "title": found.title,
        "ident": ident,
        "words": Markup(_MARKDOWN.render("\n\n".join(found.words))),
        "pictures": [_picture(found.picture, f"{ident}-0")] if found.picture.file else [],
        "tables": found.tables,
    }


def _picture(picture: Picture, ident: str) -> dict[str, Any]:
    assert picture.file is not None
    return {
        "ident": ident,
        "alt": picture.alt,
        "stem": picture.file.removesuffix(".svg"),
        "caption": _inline(picture.caption),
        "svg": Markup(picture.svg),
        "wide": _width(picture.svg),
    }


def _width(svg: str) -> int:
    """Of a picture on a screen, in pixels: 96 an inch, of which its own unit has 72."""
    found = re.search(r'viewBox="0 0 ([0-9.]+)', svg)
    assert found is not None
    return round(float(found.group(1)) * 96 / 72)


def _samples(picture: Picture, out: Path) -> dict[str, Any]:
    shown: dict[str, Any] = {"alt": picture.alt, "caption": _inline(picture.caption), "uri": ""}
    if picture.file:
        data = (out / picture.file).read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            shown |= {"width": image.width, "height": image.height}
        shown["uri"] = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return shown


def _inline(words: str) -> Markup:
    """Safe Markdown of one line as HTML."""
    return Markup(_MARKDOWN.renderInline(words))


def _exact(value: Pooled) -> str:
    """A value at the precision that its record has."""
    error = "" if math.isnan(value.error) else f" ± {value.error:.4g}"
    spread = f"standard deviation {value.spread:.3g}"
    seeds = f", mean of {value.seeds} seeds with {spread}" if value.seeds > 1 else ""
    return f"{value.mean:.8g}{error}{seeds}"
