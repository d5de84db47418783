"""The plot of quality against cost: lines with intervals, references and the Pareto front."""

import math
from dataclasses import dataclass
from typing import Any

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

from bench.report.ink import GREY, INK, QUIET, Spot
from bench.report.layout import PANEL, Layout, spread
from bench.report.markdown import Scale, calls, digits
from bench.report.panels import NFE, Axis, Panel, shows
from bench.report.pooled import Pooled
from bench.report.tables import EXACT_DRAWS

FRONT, PUBLISHED = "best at each budget", "published"
INTERVAL = 1.96
"""Standard errors to either side of a value that hold 95 %."""
_MARKERS = ["o", "s", "^", "D", "v", "p", "<", "*", ">", "h"]
_DASHES: list[tuple[float, ...]] = [(), (4, 1.5), (1, 1), (5, 1.5, 1, 1.5)]
_LINE: dict[str, Any] = {"linewidth": 1.8}
_MARK: dict[str, Any] = {"markersize": 7, "markeredgecolor": "white"}
_DASHED: dict[str, Any] = {"color": QUIET, "linewidth": 1.4, "linestyle": (0, (4, 3))}
_DOTTED: dict[str, Any] = {"color": QUIET, "linewidth": 1.2, "linestyle": (0, (1, 1.5))}
_BAND: dict[str, Any] = {"color": "#ecd9a0", "linewidth": 5, "marker": "o", "markersize": 9}
_RING: dict[str, Any] = {
    "color": INK,
    "linestyle": "none",
    "marker": "o",
    "markersize": 11,
    "markerfacecolor": "none",
    "markeredgewidth": 1.2,
}
_LETTER = 0.073
"""Width of a letter of a label in inches; widths must not depend on a renderer's metrics."""


def figure(panels: list[Panel], metric: str, axis: Axis = NFE) -> Figure:
    """Panels side by side in two columns, on common axes."""
    points = pd.concat([panel.points for panel in panels])
    values = _values(panels)
    scale = Scale.of(values)
    unit = 10.0**scale.exponent
    tops = [value.mean + _reach(value) for value in points["value"] if shows(value)]
    low, high = min(values) / unit / 1.6, max(values + tops) / unit * 1.6
    ran = points["cost"].dropna()
    ticks = sorted({int(nfe) for nfe in points["budget"].dropna()} or {round(n) for n in ran})
    ticks = ticks if axis is NFE else []
    names = [name for panel in panels for name in panel.points[panel.names]]
    names += [flow.name for panel in panels for flow in panel.flows]
    names += [FRONT for panel in panels if panel.front]
    names += [PUBLISHED for panel in panels if panel.published]
    longest = max(map(len, names))
    layout = Layout(
        columns=min(len(panels), 2),
        wide=tuple(len(panel.quiet) > 0 for panel in panels),
        label=0.68 + _LETTER * min(longest, 40),
        top=0.4 if any(panel.title for panel in panels) else 0.15,
    )
    made = Figure(figsize=(layout.width, layout.height))
    FigureCanvasAgg(made)
    looks = _looks(panels)
    for panel, (row, column) in zip(panels, layout.cells, strict=True):
        axes = made.add_axes(layout.place(row, column, wide=len(panel.quiet) > 0))
        axes.set(xscale="log", yscale="log", ylim=(low, high))
        axes.set_xlim(ran.min() / 1.25, max([ran.max(), *ticks[-1:]]) * 1.25)
        # Before anything is drawn: seaborn makes the ticks that there are by then, which is slow.
        _axes(axes, ticks, math.log10(high / low))
        _quiet(axes, panel, unit)
        ends = [*_references(axes, panel, scale), *_front(axes, panel, unit)]
        ends += _published(axes, panel, unit)
        _label(axes, ends + _draw(axes, panel, looks, unit))
        lowest = (row + 1, column) not in layout.cells
        axes.set_xlabel(axis.label if lowest else "")
        axes.set_ylabel(f"{metric} {scale.words}".strip() if column == 0 else "")
        # At a height that is told: else each drawing looks for one.
        axes.set_title(panel.title, loc="left", color=INK, fontsize="medium", y=1.0)
    return made


def _values(panels: list[Panel]) -> list[float]:
    points = pd.concat([panel.points for panel in panels])
    values = [value.mean for value in points["value"] if shows(value)]
    values += [panel.exact.mean for panel in panels if panel.exact]
    values += [pair.value for panel in panels for pair in panel.published]
    return values + [flow.value.mean for panel in panels for flow in panel.flows]


def spots(figure: Figure, panels: list[Panel]) -> list[Spot]:
    """The values with a name in a figure that `figure` made of these panels."""
    scale = Scale.of(_values(panels))
    found = []
    for panel, axes in zip(panels, figure.axes, strict=True):
        place, (left, right), (low, high) = axes.get_position(), axes.get_xlim(), axes.get_ylim()
        for _, point in panel.points.sort_values(["rank", "cost"], kind="stable").iterrows():
            if not shows(point["value"]) or math.isnan(point["cost"]):
                continue
            across = math.log(point["cost"] / left) / math.log(right / left)
            up = math.log(point["mean"] / 10.0**scale.exponent / low) / math.log(high / low)
            words = [f"{point['label']}, {calls(point['nfe'])} NFE: {scale.pooled(point['value'])}"]
            words += [scale.words] if scale.words else []
            words += [f"({digits(point['seconds'])} s for 1,000 images)"] * (point["seconds"] > 0)
            x, y = place.x0 + place.width * across, 1 - place.y0 - place.height * up
            found.append(Spot(x, y, " ".join(words)))
    return found


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
    points = panel.points.sort_values(["rank", "cost"], kind="stable")
    shown = [value.mean / unit if shows(value) else math.nan for value in points["value"]]
    data = pd.DataFrame({"cost": points["cost"], "value": shown})
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
        x="cost",
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
            axes.errorbar(rows["cost"], rows["value"], [down, up], **bars)
        last = rows.dropna().iloc[-1]
        look = {"color": looks[line].color, "marker": looks[line].marker, **_LINE, **_MARK}
        look["linestyle"] = (0, dash) if dash else "-"
        ends.append(_End(name, last["cost"], last["value"], look))
    return ends


def _reach(value: Pooled) -> float:
    """How far the interval of a value reaches to either side; 0 where no error is known."""
    return INTERVAL * value.error if value.sure else 0.0


def _quiet(axes: Axes, panel: Panel, unit: float) -> None:
    """The lines without a name."""
    for _, points in panel.quiet.groupby("rank"):
        points = points.sort_values("cost")
        shown = [value.mean / unit if shows(value) else math.nan for value in points["value"]]
        axes.plot(points["cost"], shown, color=GREY, linewidth=1, marker=".", zorder=2)


def _front(axes: Axes, panel: Panel, unit: float) -> list[_End]:
    """A pale band from one place of the front to the next, below all lines."""
    if not panel.front:
        return []
    calls = [place.nfe for place in panel.front]
    values = [place.points["mean"].iloc[0] / unit for place in panel.front]
    axes.plot(calls, values, zorder=0.9, clip_on=False, **_BAND)
    return [_End(FRONT, calls[-1], values[-1], _BAND)]


def _published(axes: Axes, panel: Panel, unit: float) -> list[_End]:
    """Values of papers as rings, over the points that they are held against."""
    if not panel.published:
        return []
    marks = sorted((pair.point["nfe"], pair.value / unit) for pair in panel.published)
    axes.plot(*zip(*marks, strict=True), zorder=4, clip_on=False, **_RING)
    return [_End(PUBLISHED, *marks[-1], _RING)]


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
    heights = spread([along(end.value, low, high) for end in ends], gap=0.19 / PANEL[1])
    free: Any = {"transform": axes.transAxes, "clip_on": False}
    figure = axes.get_figure(root=True)
    assert figure is not None
    panel = PANEL[0] / (axes.get_position().width * figure.get_figwidth())

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


def _axes(axes: Axes, budgets: list[int], decades: float) -> None:
    """Ticks at the NFE of the sweep, if it has any, and plain numbers on both axes."""
    kept: list[int] = []
    for budget in budgets:  # a tick needs room: a seventh of the axis at most for eight digits
        if not kept or math.log(budget / kept[-1]) > 0.06 * math.log(budgets[-1] / budgets[0]):
            kept.append(budget)
    few = LogLocator(subs=(1, 2, 5), numticks=12)
    axes.xaxis.set_major_locator(FixedLocator(kept) if kept else few)
    steps = LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,))
    axes.yaxis.set_major_locator(steps if decades > 0.8 else MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    sns.despine(ax=axes)
