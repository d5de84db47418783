"""The plot of quality against NFE, as svg and png, with the same bytes for the same frame."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from bench import atomic
from bench.report import frame
from bench.report.frame import Pooled, Study
from bench.report.markdown import Scale
from bench.report.tables import EXACT_DRAWS
from bench.report.text import Picture

NAME = "quality-vs-nfe"
LINES = 8
"""Most lines of one panel; more are split by spacing, and then in the order of the sweep."""

_MARKERS = ["o", "s", "^", "D", "v", "p", "<", "*", ">", "h"]
_DASHES: list[tuple[float, ...]] = [(), (4, 1.5), (1, 1), (5, 1.5, 1, 1.5)]
_LINE: dict[str, Any] = {"linewidth": 1.8}
_MARK: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white"}
_INK, _QUIET = "#222222", "#6b6b6b"
_PANEL = 4.4, 3.5
"""Width and height of a panel in inches."""
_LETTER = 0.073
"""Width of a letter of a label in inches; widths must not depend on a renderer's metrics."""


@dataclass(frozen=True)
class _Panel:
    title: str
    points: pd.DataFrame
    exact: Pooled | None
    names: str
    """The column that tells its lines apart: `label`, or `line` if the title says the spacing."""


def write(study: Study, out: Path) -> dict[str, Picture]:
    """Draws quality-vs-nfe.svg and .png into `out`; the metrics after the first add their name.

    Pictures of an earlier report that this one does not have are removed.
    """
    pictures = {}
    for index, metric in enumerate(study.metrics):
        name = NAME if index == 0 else f"{NAME}-{_slug(metric)}"
        pictures[metric] = _write(study, metric, out / name)
    drawn = {Path(picture.file).stem for picture in pictures.values() if picture.file}
    for path in sorted([*out.glob(f"{NAME}*.svg"), *out.glob(f"{NAME}*.png")]):
        if path.stem not in drawn:
            path.unlink()
    return pictures


@contextmanager
def style() -> Iterator[None]:
    """The look shared by all pictures, and the settings that make their bytes reproducible."""
    settings: Any = {
        **sns.axes_style("whitegrid"),
        **sns.plotting_context("notebook", font_scale=0.85),
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
        "axes.edgecolor": "#c4c4c4",
        "axes.labelcolor": _INK,
        "grid.color": "#e8e8e8",
        "text.color": _INK,
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
    metadata: dict[str, Any] = {"svg": {"Date": None, "Creator": None, "Title": description}}.get(
        kind, {"Software": None, "Description": description}
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def _write(study: Study, metric: str, path: Path) -> Picture:
    panels = [panel for panel in _panels(study, metric) if len(panel.points)]
    if not panels:
        return Picture(None, "No plot: no cell of a sampler has a value above zero yet.")
    with style():
        figure = _figure(panels, metric)
        for kind in ("svg", "png"):
            data = encode(figure, kind, f"{metric} against NFE")
            atomic.write_bytes(path.with_suffix(f".{kind}"), data)
    return Picture(f"{path.name}.svg", _caption(panels))


def _caption(panels: list[_Panel]) -> str:
    """How to read the plot; what its numbers are of, the report says with the tables as well."""
    words = ["Both axes are logarithmic; each point is at the NFE that really ran."]
    if any(panel.exact for panel in panels):
        words.append("The horizontal line is the value of exact draws of the model: the floor.")
    if any(panel.points["served"].any() for panel in panels):
        words.append(f"The spacing {frame.ALL} is the last point of every other spacing.")
    if any(value.sd > 0 for panel in panels for value in panel.points["value"]):
        words.append("Bars: one standard deviation over seeds to either side.")
    if any(value.hole for panel in panels for value in panel.points["value"]):
        words.append("A gap in a line is a cell without a value.")
    return " ".join(words)


def _panels(study: Study, metric: str) -> Iterator[_Panel]:
    """One panel a setting, or several where there are too many lines for one."""
    for setting in study.settings:
        exact = frame.floor(setting, metric)
        if exact is not None and not exact.mean > 0:
            exact = None
        points = frame.points(frame.serve_all(setting.cells), metric)
        for title, part, names in _split(points):
            # A line without any point has nothing to show; its holes stay with their table.
            shown = part.groupby("rank")["value"].transform(lambda values: any(map(_shows, values)))
            words = [word for word in (setting.name, title) if word]
            yield _Panel(", ".join(words), part[shown.astype(bool)], exact, names)


def _split(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Title, points and naming column of each panel of a setting."""
    if points["rank"].nunique() <= LINES:
        yield "", points, "label"
        return
    for grid, part in points.groupby("grid", sort=False):
        ranks = part["rank"].unique()
        pieces = [ranks[start : start + LINES] for start in range(0, len(ranks), LINES)]
        for number, piece in enumerate(pieces, 1):
            place = f" ({number} of {len(pieces)})" if len(pieces) > 1 else ""
            yield f"spacing {grid}{place}", part[part["rank"].isin(piece)], "line"


def _shows(value: Pooled) -> bool:
    return value.mean > 0  # a hole is NaN; zero and below have no place on a log axis


def _figure(panels: list[_Panel], metric: str) -> Figure:
    values = [value.mean for panel in panels for value in panel.points["value"] if _shows(value)]
    values += [panel.exact.mean for panel in panels if panel.exact]
    scale = Scale.of(values)
    unit = 10.0**scale.exponent
    low, high = min(values) / unit / 1.6, max(values) / unit * 1.6
    budgets = sorted({int(nfe) for panel in panels for nfe in panel.points["budget"]})
    smallest = min(int(nfe) for panel in panels for nfe in panel.points["nfe"])
    longest = max(len(name) for panel in panels for name in panel.points[panel.names])
    titled = any(panel.title for panel in panels)
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    grid = _Layout(columns, rows, 0.68 + _LETTER * min(longest, 40), top=0.4 if titled else 0.15)
    figure = Figure(figsize=(grid.width, grid.height))
    FigureCanvasAgg(figure)
    looks = _looks(panels)
    for index, panel in enumerate(panels):
        axes = figure.add_axes(grid.place(index))
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(smallest / 1.25, budgets[-1] * 1.25)
        _draw(axes, panel, looks, unit)
        _floor(axes, panel, scale)
        _axes(axes, budgets, math.log10(high / low))
        axes.set_xlabel("NFE (model calls per image)" if index >= len(panels) - columns else "")
        axes.set_ylabel(f"{metric} {scale.words}".strip() if index % columns == 0 else "")
        axes.set_title(panel.title, loc="left", color=_INK, fontsize="medium")
    return figure


@dataclass(frozen=True)
class _Layout:
    """Places panels in inches: no automatic layout, which would ask the renderer for text sizes."""

    columns: int
    rows: int
    label: float
    top: float
    left: float = 0.85
    bottom: float = 0.65
    gap: float = 0.7

    @property
    def width(self) -> float:
        return self.left + self.columns * (_PANEL[0] + self.label) + (self.columns - 1) * self.gap

    @property
    def height(self) -> float:
        return self.rows * (_PANEL[1] + self.top) + self.bottom + (self.rows - 1) * 0.3

    def place(self, index: int) -> tuple[float, float, float, float]:
        row, column = divmod(index, self.columns)
        x = self.left + column * (_PANEL[0] + self.label + self.gap)
        y = self.bottom + (self.rows - 1 - row) * (_PANEL[1] + self.top + 0.3)
        return x / self.width, y / self.height, _PANEL[0] / self.width, _PANEL[1] / self.height


@dataclass(frozen=True)
class _Look:
    color: Any
    marker: str


def _looks(panels: list[_Panel]) -> dict[str, _Look]:
    """Colour and marker of each sampler with its parameters, the same in every panel."""
    lines = list(dict.fromkeys(line for panel in panels for line in panel.points["line"]))
    colours = sns.color_palette("colorblind")
    # Without yellow and pink, too pale for a line on white, and the grey of the floor.
    palette = [colours[index] for index in (0, 1, 2, 3, 4, 5, 9)]
    return {
        line: _Look(palette[index % len(palette)], _MARKERS[index % len(_MARKERS)])
        for index, line in enumerate(lines)
    }


@dataclass(frozen=True)
class _End:
    """The last point of a line, where its name goes."""

    name: str
    look: _Look
    dash: tuple[float, ...]
    nfe: float
    value: float


def _draw(axes: Axes, panel: _Panel, looks: dict[str, _Look], unit: float) -> None:
    points = panel.points.sort_values(["rank", "nfe"], kind="stable")
    shown = [value.mean / unit if _shows(value) else math.nan for value in points["value"]]
    data = pd.DataFrame({"nfe": points["nfe"].astype(float), "value": shown})
    # Seaborn would take whole numbers for a quantity; a configuration is a name.
    data["who"] = points["rank"].map(str)
    # A new piece after every hole: the line must not cross what is not known.
    data["piece"] = data["value"].isna().cumsum()
    grids = list(dict.fromkeys(panel.points["grid"]))
    first = points.drop_duplicates("rank")
    dashes = [_DASHES[grids.index(grid) % len(_DASHES)] for grid in first["grid"]]
    names = dict(zip(data["who"].unique(), zip(first["line"], dashes, strict=True), strict=True))
    sns.lineplot(
        data=data.dropna(),
        x="nfe",
        y="value",
        hue="who",
        palette={who: looks[line].color for who, (line, _) in names.items()},
        style="who",
        markers={who: looks[line].marker for who, (line, _) in names.items()},
        dashes={who: dash for who, (_, dash) in names.items()},
        units="piece",
        estimator=None,
        legend=False,
        ax=axes,
        **_MARK,
        **_LINE,
        clip_on=False,
        zorder=3,
    )
    spread = pd.Series([value.sd / unit for value in points["value"]], points.index)
    ends = []
    for (who, rows), name in zip(data.groupby("who", sort=False), first[panel.names], strict=True):
        line, dash = names[str(who)]
        if spread[rows.index].notna().any():
            bars: Any = {"fmt": "none", "ecolor": looks[line].color, "elinewidth": 1.2}
            axes.errorbar(rows["nfe"], rows["value"], spread[rows.index], **bars)
        last = rows.dropna().iloc[-1]
        ends.append(_End(name, looks[line], dash, last["nfe"], last["value"]))
    _label(axes, ends)


def _label(axes: Axes, ends: list[_End]) -> None:
    """Writes each line's name to the right of the panel, at its last point or as near as fits."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()

    def along(value: float, start: float, stop: float) -> float:
        return math.log(value / start) / math.log(stop / start)

    ends = sorted(ends, key=lambda end: end.value)
    heights = _spread([along(end.value, low, high) for end in ends], gap=0.19 / _PANEL[1])
    for end, height in zip(ends, heights, strict=True):
        start = along(end.nfe, left, right), along(end.value, low, high)
        free: Any = {"color": end.look.color, "transform": axes.transAxes, "clip_on": False}
        pointer = [start[0], 1.005, 1.03], [start[1], height, height]
        axes.plot(*pointer, linewidth=0.8, alpha=0.6, zorder=2, **free)
        dash: Any = (0, end.dash) if end.dash else "-"
        axes.plot([1.035, 1.125], [height, height], linestyle=dash, **_LINE, **free)
        axes.plot([1.08], [height], marker=end.look.marker, **_MARK, **free)
        name = end.name if len(end.name) <= 40 else f"{end.name[:39]}…"
        axes.text(
            1.145, height, name, transform=axes.transAxes, va="center_baseline", fontsize="small"
        )


def _spread(heights: list[float], gap: float) -> list[float]:
    """Moves sorted heights apart to at least `gap`: upwards, and down again from the top edge."""
    placed = list(heights)
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + gap)
    ceiling = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def _floor(axes: Axes, panel: _Panel, scale: Scale) -> None:
    if panel.exact is None:
        return
    height = panel.exact.mean / 10**scale.exponent
    axes.axhline(height, color=_QUIET, linewidth=1.4, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"{EXACT_DRAWS}  {scale.show(panel.exact.mean)}",
        (0.015, height), xycoords=("axes fraction", "data"), xytext=(0, 4),
        textcoords="offset points", color=_QUIET, fontsize="small",
    )  # fmt: skip


def _axes(axes: Axes, budgets: list[int], decades: float) -> None:
    """Ticks at the NFE of the sweep, and plain numbers on both axes."""
    kept: list[int] = []
    for budget in budgets:  # a tick needs room: a seventh of the axis at most for eight digits
        if not kept or math.log(budget / kept[-1]) > 0.06 * math.log(budgets[-1] / budgets[0]):
            kept.append(budget)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    steps = LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
    axes.yaxis.set_major_locator(steps if decades > 0.8 else MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    sns.despine(ax=axes)


def _slug(metric: str) -> str:
    return "".join(c if (c.isalnum() and c.isascii()) or c in "-_" else "-" for c in metric)
