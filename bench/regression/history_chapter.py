"""A history as a chapter of a report: in words, and drawn."""

import math
from pathlib import Path
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench import atomic
from bench.regression import history_text
from bench.regression.history import Commit, History, Series
from bench.report import ink
from bench.report.content import Chapter, Picture
from bench.report.ink import INK, Spot
from bench.report.lines import INTERVAL
from bench.report.markdown import Scale
from bench.report.pooled import Pooled

PANELS = 12
"""Most panels of the picture: what something happened to comes first."""
COLUMNS = 3
_WIDE, _HIGH = 3.6, 1.75
"""Of a panel, in inches."""
_LEFT, _TOP, _BOTTOM = 0.75, 0.55, 0.35
"""Of the room around it."""
_LETTERS = 54
"""Of a title, that fit above a panel."""
_VALUE, _EVENT = "#0173b2", "#d55e00"


def chapter(history: History, out: Path, number: int) -> Chapter:
    """The chapter of a report; its picture is drawn into `out`.

    Args:
        history: Of one sweep.
        out: The folder of the report, made if need be.
        number: Which history of the report it is, from 1.

    Raises:
        ResultError: The picture cannot be written.
    """
    return Chapter(
        title=history_text.title(history),
        words=history_text.words(history),
        picture=_picture(history, out / f"history-{number}"),
        tables=history_text.tables(history),
        option="--history",
    )


def _picture(history: History, path: Path) -> Picture:
    drawn = shown(history)
    if not drawn:
        return Picture(None, "")
    atomic.make_folder(path.parent)
    alt = f"Values over the commits of {history.name}"
    with ink.style():
        made = figure(drawn, history.commits)
        ink.save(made, path, alt)
        svg = ink.with_spots(ink.inline(made, alt, path.name), spots(made, drawn, history.commits))
    several = sum(len(series.points) > 1 for series in history.series)
    words = [
        "A point for each commit that changed the value, with its 95 % interval; the lines are "
        "what is most likely behind them. Dashed: a step; crossed out: an outlier."
    ]
    if len(drawn) < several:
        words.append(f"{len(drawn)} of {several} series, those in which something happened first.")
    return Picture(f"{path.name}.svg", " ".join(words), alt, svg)


def shown(history: History) -> list[Series]:
    """What the picture has: what something happened to, then the others, with points to join."""
    several = [series for series in history.series if len(series.points) > 1]
    return sorted(several, key=lambda series: not series.eventful)[:PANELS]


def figure(drawn: list[Series], commits: tuple[Commit, ...]) -> Figure:
    """A panel for each series; in the style of its caller."""
    columns = min(COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    wide, high = _LEFT + _WIDE, _TOP + _HIGH + _BOTTOM
    made = Figure(figsize=(columns * wide + 0.2, rows * high))
    FigureCanvasAgg(made)
    for place, series in enumerate(drawn):
        row, column = divmod(place, columns)
        corner = column * wide + _LEFT, (rows - 1 - row) * high + _BOTTOM
        across, up = made.get_size_inches()
        box = corner[0] / across, corner[1] / up, _WIDE / across, _HIGH / up
        _panel(made.add_axes(box), series, commits)
    return made


def _panel(axes: Axes, series: Series, commits: tuple[Commit, ...]) -> None:
    scale = Scale.of(point.value for point in series.points)
    unit = 10.0**scale.exponent
    x = [point.place for point in series.points]
    values = [point.value / unit for point in series.points]
    bars = [0.0 if math.isnan(p.error) else INTERVAL * p.error / unit for p in series.points]
    look: dict[str, Any] = {"fmt": "o", "markersize": 5, "color": _VALUE, "elinewidth": 1.2}
    axes.errorbar(x, values, yerr=bars, **look)
    if series.story is not None:
        line: dict[str, Any] = {"color": INK, "linewidth": 1.4}
        for level in series.story.levels:
            axes.plot([x[level.start], x[level.stop - 1]], [level.mean / unit] * 2, **line)
        for _, after in series.story.steps:
            axes.axvline(x[after.start] - 0.5, color=_EVENT, linewidth=1.2, linestyle="--")
        if series.story.drift is not None:
            drift = series.story.drift
            axes.plot([x[0], x[-1]], [drift.first / unit, drift.last / unit], **line)
        for place in series.story.outliers:
            axes.plot(x[place], values[place], "x", color=_EVENT, markersize=10, zorder=4)
    told = f"{series.metric} {scale.words}".strip()
    label = series.label
    label = label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"
    axes.set_title(f"{label}\n{told}", fontsize="small", loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlim(-0.5, len(commits) - 0.5)
    axes.set_ylim(*axes.get_ylim())  # no longer what the renderer would choose
    ticks = [int(tick) for tick in axes.get_xticks() if 0 <= tick < len(commits)]
    axes.set_xticks(ticks, [commits[place].short for place in ticks], fontsize="x-small")
    axes.grid(visible=False, axis="x")
    sns.despine(ax=axes)


def spots(made: Figure, drawn: list[Series], commits: tuple[Commit, ...]) -> list[Spot]:
    """The values of a figure that `figure` made of these series."""
    found = []
    for series, axes in zip(drawn, made.axes, strict=True):
        box, (left, right), (low, high) = axes.get_position(), axes.get_xlim(), axes.get_ylim()
        scale = Scale.of(point.value for point in series.points)
        for point in series.points:
            across = (point.place - left) / (right - left)
            up = (point.value / 10.0**scale.exponent - low) / (high - low)
            commit = commits[point.place]
            value = scale.pooled(Pooled(point.value, 1, error=point.error))
            words = f"{series.label} at {commit.short} ({commit.day}, {commit.subject}): {value}"
            place = box.x0 + box.width * across, 1 - box.y0 - box.height * up
            found.append(Spot(*place, f"{words} {scale.words}".strip()))
    return found
