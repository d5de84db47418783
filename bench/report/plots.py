"""The plot of quality against NFE, as svg and png, with the same bytes for the same frame."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from bench.report import frame, yardstick
from bench.report.frame import Study
from bench.report.markdown import Scale
from bench.report.panels import Panel, arrange, shows
from bench.report.pooled import Pooled
from bench.report.tables import EXACT_DRAWS
from bench.report.text import Picture
from bench.report.yardstick import Yardstick

NAME = "quality-vs-nfe"
FRONT = "best at each budget"
INTERVAL = 1.96
"""Standard errors to either side of a value that hold 95 %."""
_MARKERS = ["o", "s", "^", "D", "v", "p", "<", "*", ">", "h"]
_DASHES: list[tuple[float, ...]] = [(), (4, 1.5), (1, 1), (5, 1.5, 1, 1.5)]
_LINE: dict[str, Any] = {"linewidth": 1.8}
_MARK: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white"}
_INK, _QUIET, _GREY = "#222222", "#6b6b6b", "#c2c2c2"
_DASHED: dict[str, Any] = {"color": _QUIET, "linewidth": 1.4, "linestyle": (0, (4, 3))}
_DOTTED: dict[str, Any] = {"color": _QUIET, "linewidth": 1.2, "linestyle": (0, (1, 1.5))}
_BAND: dict[str, Any] = {"color": "#ecd9a0", "linewidth": 5, "marker": "o", "markersize": 9}
_PANEL = 4.4, 3.5
"""Width and height of a panel in inches."""
_LETTER = 0.073
"""Width of a letter of a label in inches; widths must not depend on a renderer's metrics."""


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
    stick = yardstick.of(study, metric)
    drawn = arrange(study, metric, stick)
    if not drawn:
        return Picture(None, "No plot: no cell of a sampler has a value above zero yet.")
    with style():
        figure = _figure(drawn, metric)
        for kind in ("svg", "png"):
            data = encode(figure, kind, f"{metric} against NFE")
            atomic.write_bytes(path.with_suffix(f".{kind}"), data)
    return Picture(f"{path.name}.svg", _caption(drawn, stick, _below(study, metric)))


def _below(study: Study, metric: str) -> int:
    """How many values have no place on a logarithmic axis: estimates of a distance near zero."""
    values: list[Pooled] = []
    for setting in study.settings:
        exact = frame.floor(setting, metric)
        values += [*frame.points(setting.cells, metric)["value"], *([exact] if exact else [])]
        values += [flow.value for flow in frame.flows(setting, metric)]
    return sum(not value.hole and not shows(value) for value in values)


def _caption(panels: list[Panel], stick: Yardstick, below: int = 0) -> str:
    """How to read the plot; what its numbers are of, the report says with the tables as well."""
    words = ["Both axes are logarithmic; each point is at the NFE that really ran."]
    points = pd.concat([panel.points for panel in panels])
    if points["tolerance"].notna().any():
        words.append("Samplers that choose their own steps stand at their mean NFE.")
    if any(len(panel.quiet) for panel in panels):
        words.append("The first panel has what is best at some budget in colour, the rest in grey.")
    if any(panel.front for panel in panels):
        words.append(
            f"The pale band joins the {FRONT}: no value at as many calls or fewer is "
            f"{stick.better}."
        )
    if any(panel.exact for panel in panels):
        words.append(
            f"The horizontal line is the value of exact draws of the model: the {stick.bound}."
        )
    if any(panel.flows for panel in panels):
        words.append(
            "Dotted: the exact flow between the ends of that grid, which a deterministic sampler "
            "on the same ends approaches; see References."
        )
    if points["served"].any():
        words.append(f"The spacing {frame.ALL} is the last point of every other spacing.")
    if any(value.sure for value in points["value"]):
        words.append(f"Bars: 95 % intervals, {INTERVAL} standard errors to either side.")
    if any(value.hole for value in points["value"]):
        words.append("A gap in a line is a cell without a value.")
    if below:
        one = below == 1
        words.append(
            f"{below} value{'' if one else 's'} at or below zero, which the axis cannot show, "
            f"{'is' if one else 'are'} left out."
        )
    return " ".join(words)


def _figure(panels: list[Panel], metric: str) -> Figure:
    points = pd.concat([panel.points for panel in panels])
    values = [value.mean for value in points["value"] if shows(value)]
    values += [panel.exact.mean for panel in panels if panel.exact]
    values += [flow.value.mean for panel in panels for flow in panel.flows]
    scale = Scale.of(values)
    unit = 10.0**scale.exponent
    tops = [value.mean + _reach(value) for value in points["value"] if shows(value)]
    low, high = min(values) / unit / 1.6, max(values + tops) / unit * 1.6
    ran = points["nfe"].dropna()
    budgets = sorted({int(nfe) for nfe in points["budget"].dropna()} or {round(n) for n in ran})
    names = [name for panel in panels for name in panel.points[panel.names]]
    names += [flow.name for panel in panels for flow in panel.flows]
    names += [FRONT for panel in panels if panel.front]
    longest = max(map(len, names))
    layout = _Layout(
        columns=min(len(panels), 2),
        wide=tuple(len(panel.quiet) > 0 for panel in panels),
        label=0.68 + _LETTER * min(longest, 40),
        top=0.4 if any(panel.title for panel in panels) else 0.15,
    )
    figure = Figure(figsize=(layout.width, layout.height))
    FigureCanvasAgg(figure)
    looks = _looks(panels)
    for panel, (row, column) in zip(panels, layout.cells, strict=True):
        axes = figure.add_axes(layout.place(row, column, wide=len(panel.quiet) > 0))
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(ran.min() / 1.25, max(ran.max(), budgets[-1]) * 1.25)
        _quiet(axes, panel, unit)
        ends = [*_references(axes, panel, scale), *_front(axes, panel, unit)]
        _label(axes, ends + _draw(axes, panel, looks, unit))
        _axes(axes, budgets, math.log10(high / low))
        lowest = (row + 1, column) not in layout.cells
        axes.set_xlabel("NFE (model calls per image)" if lowest else "")
        axes.set_ylabel(f"{metric} {scale.words}".strip() if column == 0 else "")
        axes.set_title(panel.title, loc="left", color=_INK, fontsize="medium")
    return figure


@dataclass(frozen=True)
class _Layout:
    """Places panels in inches: no automatic layout, which would ask the renderer for text sizes.

    Attributes:
        columns: Panels in a row.
        wide: Of each panel, whether it has a row of its own.
        label: Width of the names to the right of a panel.
        top: Height of the title above a panel.
    """

    columns: int
    wide: tuple[bool, ...]
    label: float
    top: float
    left: float = 0.85
    bottom: float = 0.65
    gap: float = 0.7

    @cached_property
    def cells(self) -> list[tuple[int, int]]:
        """Row and column of each panel, of a wide one that where it begins."""
        cells: list[tuple[int, int]] = []
        free = 0
        for wide in self.wide:
            if wide:
                free += -free % self.columns
            cells.append(divmod(free, self.columns))
            free += self.columns if wide else 1
        return cells

    @property
    def width(self) -> float:
        return self.left + self.columns * (_PANEL[0] + self.label) + (self.columns - 1) * self.gap

    @property
    def height(self) -> float:
        rows = self.cells[-1][0] + 1
        return rows * (_PANEL[1] + self.top) + self.bottom + (rows - 1) * 0.3

    def place(self, row: int, column: int, *, wide: bool) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel, as parts of the figure's."""
        pitch = _PANEL[0] + self.label + self.gap
        width = _PANEL[0] + (self.columns - 1) * pitch * wide
        top = row * (_PANEL[1] + self.top + 0.3) + self.top
        x, y = self.left + column * pitch, self.height - top - _PANEL[1]
        return x / self.width, y / self.height, width / self.width, _PANEL[1] / self.height


@dataclass(frozen=True)
class _Look:
    color: Any
    marker: str


def _looks(panels: list[Panel]) -> dict[str, _Look]:
    """Colour and marker of each sampler with its parameters, the same in every panel."""
    colours = sns.color_palette("colorblind")
    # Without yellow and pink, too pale for a line on white, and the grey of the floor.
    palette = [colours[index] for index in (0, 1, 2, 3, 4, 5, 9)]
    groups = [set(panel.points["line"]) for panel in panels]
    looks: dict[str, _Look] = {}
    for line in dict.fromkeys(line for panel in panels for line in panel.points["line"]):
        # The least used among those that it shares a panel with.
        beside = set().union(*(group for group in groups if line in group))
        taken = [look for other, look in looks.items() if other in beside]
        looks[line] = _Look(
            min(palette, key=[look.color for look in taken].count),
            min(_MARKERS, key=[look.marker for look in taken].count),
        )
    return looks


@dataclass(frozen=True)
class _End:
    """A name beside the panel: where that which it names ends, and how it looks."""

    name: str
    nfe: float
    value: float
    look: dict[str, Any]


def _draw(axes: Axes, panel: Panel, looks: dict[str, _Look], unit: float) -> list[_End]:
    """The lines with a name."""
    points = panel.points.sort_values(["rank", "nfe"], kind="stable")
    shown = [value.mean / unit if shows(value) else math.nan for value in points["value"]]
    data = pd.DataFrame({"nfe": points["nfe"], "value": shown})
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
    reach = pd.Series([_reach(value) / unit for value in points["value"]], points.index)
    lowest = axes.get_ylim()[0]
    ends = []
    for (who, rows), name in zip(data.groupby("who", sort=False), first[panel.names], strict=True):
        line, dash = names[str(who)]
        up = reach[rows.index]
        if up.any():
            # What reaches below the panel ends there: a logarithm of less than zero is none.
            down = up.clip(upper=rows["value"] - lowest)
            bars: Any = {"fmt": "none", "ecolor": looks[line].color, "elinewidth": 1.2}
            axes.errorbar(rows["nfe"], rows["value"], [down, up], **bars)
        last = rows.dropna().iloc[-1]
        look = {"color": looks[line].color, "marker": looks[line].marker, **_LINE, **_MARK}
        look["linestyle"] = (0, dash) if dash else "-"
        ends.append(_End(name, last["nfe"], last["value"], look))
    return ends


def _reach(value: Pooled) -> float:
    """How far the interval of a value reaches to either side; 0 where no error is known."""
    return INTERVAL * value.error if value.sure else 0.0


def _quiet(axes: Axes, panel: Panel, unit: float) -> None:
    """The lines without a name."""
    for _, points in panel.quiet.groupby("rank"):
        points = points.sort_values("nfe")
        shown = [value.mean / unit if shows(value) else math.nan for value in points["value"]]
        axes.plot(points["nfe"], shown, color=_GREY, linewidth=1, marker=".", zorder=2)


def _front(axes: Axes, panel: Panel, unit: float) -> list[_End]:
    """A pale band from one place of the front to the next, below all lines."""
    if not panel.front:
        return []
    calls = [place.nfe for place in panel.front]
    values = [place.points["mean"].iloc[0] / unit for place in panel.front]
    axes.plot(calls, values, zorder=0.9, clip_on=False, **_BAND)
    return [_End(FRONT, calls[-1], values[-1], _BAND)]


def _references(axes: Axes, panel: Panel, scale: Scale) -> list[_End]:
    """Exact draws, the floor, and exact flows as horizontal lines."""
    known = [(flow.name, flow.value.mean, _DOTTED) for flow in panel.flows]
    if panel.exact is not None:
        name = f"{EXACT_DRAWS}  {scale.show(panel.exact.mean)}"
        known.append((name, panel.exact.mean, _DASHED))
    ends = []
    for name, value, look in known:
        height = value / 10**scale.exponent
        axes.axhline(height, zorder=1, **look)
        ends.append(_End(name, axes.get_xlim()[1], height, look))
    return ends


def _label(axes: Axes, ends: list[_End]) -> None:
    """Writes names to the right of the panel, where their lines end or as near as fits."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()

    def along(value: float, start: float, stop: float) -> float:
        return math.log(value / start) / math.log(stop / start)

    ends = sorted(ends, key=lambda end: end.value)
    heights = _spread([along(end.value, low, high) for end in ends], gap=0.19 / _PANEL[1])
    free: Any = {"transform": axes.transAxes, "clip_on": False}
    figure = axes.get_figure(root=True)
    assert figure is not None
    panel = _PANEL[0] / (axes.get_position().width * figure.get_figwidth())

    def beside(distance: float) -> float:
        """A place to the right of the panel, as near where the panel is a wide one."""
        return 1 + distance * panel

    for end, height in zip(ends, heights, strict=True):
        start = along(end.nfe, left, right), along(end.value, low, high)
        pointer = [start[0], beside(0.005), beside(0.03)], [start[1], height, height]
        axes.plot(*pointer, color=end.look["color"], linewidth=0.8, alpha=0.6, zorder=2, **free)
        handle = [beside(0.035), beside(0.08), beside(0.125)], [height] * 3
        axes.plot(*handle, markevery=[1], **end.look, **free)
        name = end.name if len(end.name) <= 40 else f"{end.name[:39]}…"
        axes.text(beside(0.145), height, name, va="center_baseline", fontsize="small", **free)


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
