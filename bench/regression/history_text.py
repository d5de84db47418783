"""A history in words: as Markdown, as parts of a report, and as JSON."""

import math
from dataclasses import asdict

from bench.regression.history import Commit, History, Series
from bench.report.content import HOLE, Table, places
from bench.report.markdown import Scale, escape, listed, render
from bench.report.pooled import Pooled
from bench.results import Json


def markdown(history: History) -> str:
    """The whole history: what happened first."""
    parts = [f"# {escape(title(history))}", *words(history), *map(render, tables(history))]
    return "\n\n".join(parts) + "\n"


def title(history: History) -> str:
    """Above it, as it is."""
    return f"History of {history.name}"


def words(history: History) -> list[str]:
    """Paragraphs of safe Markdown."""
    first, last = history.commits[0], history.commits[-1]
    parts = [
        f"{len(history.commits)} commits with results, from `{first.short}` ({first.day}) to "
        f"`{last.short}` ({last.day}). {_summary(history)}",
    ]
    if others := _others(history):
        parts.append("The arithmetic of samplers changed, by the fingerprints of their records:")
        parts.append("\n".join(f"- {escape(line)}" for line in others))
    parts.append(
        "Steps, drifts and outliers are beyond the standard errors at 95 % for all series "
        "together; how they are told apart stands in docs/regression.md. Values of one cell "
        "share their noise from commit to commit, so a change is rather missed than invented; "
        '"bench compare" of two commits sees smaller ones.'
    )
    return parts


def tables(history: History) -> list[Table]:
    """What happened, a row for each series in which something did."""
    rows = [places(_row(series, history.commits)) for series in history.series if series.eventful]
    header = ["Cell", "Metric", "What happened", "Now", "Points"]
    return [Table("", header, rows, left=3, name="history")] if rows else []


def happened(series: Series, commits: tuple[Commit, ...]) -> str:
    """What happened, in words: "step at abc (day, subject): 3.10 → 3.31 (+6.8 %)"."""
    told = series.story
    if told is None:
        return "not tested: no record has a standard error"
    at = [commits[point.place] for point in series.points]
    scale = Scale.of(point.value for point in series.points)
    said = [
        f"step at {_commit(at[after.start])}: {_change(before.mean, after.mean, scale)}"
        for before, after in told.steps
    ]
    if told.drift is not None:
        said.append(
            f"drift from {_commit(at[0])} to {_commit(at[-1])}: "
            f"{_change(told.drift.first, told.drift.last, scale)}"
        )
    said += [
        f"outlier at {_commit(at[place])}: {scale.show(series.points[place].value)} {scale.words}"
        for place in told.outliers
    ]
    return "; ".join(each.strip() for each in said) or "nothing"


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
    return [series.label, series.metric, happened(series, commits), now, f"{len(series.points)}"]


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
            lines.append(f"{_commit(commit)}: {listed(list(labels))}")
    return lines


def _commit(commit: Commit) -> str:
    return f"{commit.short} ({commit.day}, {commit.subject})"


def _change(before: float, after: float, scale: Scale) -> str:
    part = f"{100 * (after - before) / abs(before):+.2g} %" if before else HOLE
    return f"{scale.show(before)} → {scale.show(after)} {scale.words}".strip() + f" ({part})"
