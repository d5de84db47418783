"""A history in words, as Markdown and JSON, and drawn."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench import atomic
from bench.regression.history import Commit, History, Series
from bench.report.content import HOLE
from bench.report.ink import encode, style
from bench.report.lines import INTERVAL
from bench.report.markdown import Scale, escape, listed, table
from bench.report.pooled import Pooled
from bench.results import Json

NAME = "history"
PANELS = 12
"""Most panels of the picture: what something happened to comes first."""


def write(history: History, out: Path) -> Path:
    """Writes history.md and history.svg into `out`; returns the path of the page.

    Raises:
        ResultError: They cannot be written.
    """
    atomic.make_folder(out)
    drawn = _drawn(history)
    if drawn:
        atomic.write_bytes(out / f"{NAME}.svg", _picture(history, drawn))
    else:
        (out / f"{NAME}.svg").unlink(missing_ok=True)
    path = out / f"{NAME}.md"
    atomic.write_text(path, markdown(history, picture=bool(drawn)))
    return path


def markdown(history: History, *, picture: bool = False) -> str:
    """The whole history: what happened first, then a row for each series."""
    first, last = history.commits[0], history.commits[-1]
    eventful = [series for series in history.series if series.eventful]
    parts = [
        f"# History of {escape(history.name)}",
        f"{len(history.commits)} commits with results, from `{first.short}` ({first.day}) to "
        f"`{last.short}` ({last.day}). {_summary(history)}",
    ]
    if picture:
        parts.append(
            f"![Values over the commits, with 95 % intervals and what was found]({NAME}.svg)"
        )
    if eventful:
        rows = [_row(series, history.commits) for series in eventful]
        parts.append(table(["cell", "metric", "what happened", "now", "points"], rows, left=3))
    if others := _others(history):
        parts.append("The arithmetic of samplers changed, by the fingerprints of their records:")
        parts.append("\n".join(f"- {line}" for line in others))
    parts.append(
        "Steps, drifts and outliers are beyond the standard errors at 95 % for all series "
        "together; how they are told apart stands in docs/regression.md. Values of one cell "
        "share their noise from commit to commit, so a change is rather missed than invented; "
        '"bench compare" of two commits sees smaller ones.'
    )
    return "\n\n".join(parts) + "\n"


def happened(series: Series, commits: tuple[Commit, ...]) -> str:
    """What happened, in words: "step at `abc` (day): 3.10 → 3.31 (+6.8 %)"."""
    told = series.story
    if told is None:
        return "not tested: no record has a standard error"
    at = [commits[point.place] for point in series.points]
    scale = Scale.of(point.value for point in series.points)
    words = [
        f"step at {_commit(at[after.start])}: {_change(before.mean, after.mean, scale)}"
        for before, after in told.steps
    ]
    if told.drift is not None:
        words.append(
            f"drift from {_commit(at[0])} to {_commit(at[-1])}: "
            f"{_change(told.drift.first, told.drift.last, scale)}"
        )
    words += [
        f"outlier at {_commit(at[place])}: {scale.show(series.points[place].value)} {scale.words}"
        for place in told.outliers
    ]
    return "; ".join(word.strip() for word in words) or "nothing"


def data(history: History) -> Json:
    """The history as JSON data; what is not known is null."""
    return {
        "name": history.name,
        "commits": [asdict(commit) for commit in history.commits],
        "series": [_series_data(series) for series in history.series],
    }


def _series_data(series: Series) -> Json:
    facts = asdict(series)
    for point in facts["points"]:
        if math.isnan(point["error"]):
            point["error"] = None
    return facts | {"eventful": series.eventful}


def _summary(history: History) -> str:
    eventful = sum(series.eventful for series in history.series)
    unknown = sum(series.story is None for series in history.series)
    single = sum(len(series.points) == 1 for series in history.series)
    text = f"Something happened in {eventful} of {len(history.series)} series."
    if unknown:
        text += f" {unknown} were not tested: their records have no standard errors."
    if single:
        text += f" {single} have one point only."
    return text


def _row(series: Series, commits: tuple[Commit, ...]) -> list[str]:
    last = series.points[-1]
    scale = Scale.of([last.value])
    now = f"{scale.pooled(Pooled(last.value, 1, error=last.error))} {scale.words}".strip()
    label, metric = escape(series.label), escape(series.metric)
    return [label, metric, happened(series, commits), now, f"{len(series.points)}"]


def _others(history: History) -> list[str]:
    lines = []
    for place, commit in enumerate(history.commits):
        labels = dict.fromkeys(
            series.label
            for series in history.series
            for point in series.points
            if point.place == place and point.other
        )
        if labels:
            lines.append(f"{_commit(commit)}: {listed([escape(label) for label in labels])}")
    return lines


def _commit(commit: Commit) -> str:
    return f"`{commit.short}` ({commit.day}, {escape(commit.subject)})"


def _change(before: float, after: float, scale: Scale) -> str:
    part = f"{100 * (after - before) / abs(before):+.2g} %" if before else HOLE
    return f"{scale.show(before)} → {scale.show(after)} {scale.words}".strip() + f" ({part})"


def _drawn(history: History) -> list[Series]:
    """What the picture has: what something happened to, then the others, with points to join."""
    several = [series for series in history.series if len(series.points) > 1]
    return sorted(several, key=lambda series: not series.eventful)[:PANELS]


def _picture(history: History, drawn: list[Series]) -> bytes:
    with style():
        return encode(_figure(history, drawn), "svg", f"History of {history.name}")


def _figure(history: History, drawn: list[Series]) -> Figure:
    """A panel for each series; in the style of its caller."""
    columns = min(3, len(drawn))
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.4 * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, series in zip(axes, drawn, strict=False):
        _panel(axis, series, history.commits)
    for axis in axes[len(drawn) :]:
        axis.set_visible(False)
    return figure


def _panel(axis: Axes, series: Series, commits: tuple[Commit, ...]) -> None:
    x = [point.place for point in series.points]
    values = [point.value for point in series.points]
    bars = [0.0 if math.isnan(p.error) else INTERVAL * p.error for p in series.points]
    look: dict[str, Any] = {"fmt": "o", "markersize": 4, "color": "#4c72b0", "elinewidth": 1}
    axis.errorbar(x, values, yerr=bars, **look)
    if series.story is not None:
        line: dict[str, Any] = {"color": "#222222", "linewidth": 1.4}
        for level in series.story.levels:
            ends = [x[level.start], x[level.stop - 1]]
            axis.plot(ends, [level.mean] * 2, **line)
        for _, after in series.story.steps:
            axis.axvline(x[after.start] - 0.5, color="#c44e52", linewidth=1.2, linestyle="--")
        if series.story.drift is not None:
            drift = series.story.drift
            axis.plot([x[0], x[-1]], [drift.first, drift.last], **line)
        for place in series.story.outliers:
            axis.plot(x[place], values[place], "x", color="#c44e52", markersize=9)
    axis.set_title(f"{series.label}\n{series.metric}", fontsize="small", loc="left")
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_xlim(-0.5, len(commits) - 0.5)
    shown = [int(tick) for tick in axis.get_xticks() if 0 <= tick < len(commits)]
    axis.set_xticks(shown, [commits[place].short for place in shown], fontsize="x-small")
