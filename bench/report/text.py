"""The words of a report: summary, captions and provenance, all made from the numbers.

Where all values of a budget have error bars, the words say which is best, or which cannot be told
apart. Elsewhere they say which value is the lowest, never that one sampler is better than another.
"""

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from bench.report import frame, tables, yardstick
from bench.report.cautions import cautions
from bench.report.content import Table
from bench.report.frame import Setting, Study
from bench.report.markdown import (
    NAMED,
    Scale,
    calls,
    digits,
    escape,
    listed,
    render,
    table,
    times,
)
from bench.report.names import EXACT, plain, rivals, usual_grid
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick

REACH = 2.0
"""A value counts as near that of exact draws up to this many times it, or from a part of it on."""


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its file name, or None, and its caption or why there is none."""

    file: str | None
    caption: str


def report(study: Study, plots: Mapping[str, Picture], samples: Picture, notes: str = "") -> str:
    """The whole of report.md; `plots` has a picture for each metric, `notes` is an author's."""
    blocks = [f"# {escape(study.question or study.name)}", _lead(study)]
    if notes:
        blocks += ["## Notes", "*By an author; all below is made from the records.*", notes]
    for metric in study.metrics:
        blocks += [f"## {escape(metric)}", *_metric(study, metric, plots[metric])]
    blocks += ["## Samples", *_image(samples, "Samples of every configuration at equal seeds")]
    blocks += ["## Configurations", _configurations(study)]
    blocks += ["## Provenance", *_provenance(study)]
    return "\n\n".join(blocks) + "\n"


def _lead(study: Study) -> str:
    cells = study.cells
    count = cells["status"].value_counts()
    done, failed = int(count.get("done", 0)), int(count.get("failed", 0))
    state = [f"{done} of {_count(len(cells), 'cell')} done"]
    state += [f"{failed} failed"] if failed else []
    state += (
        [f"{len(cells) - done - failed} not computed yet"] if len(cells) > done + failed else []
    )
    sampled = cells[rivals(cells)]
    return (
        f"Sweep **{escape(study.name)}**: "
        f"{_count(sampled['sampler'].nunique(), 'sampler')} in "
        f"{_count(sampled['rank'].nunique(), 'configuration')}; {', '.join(state)}. "
        "Every cell at full precision: [table.csv](table.csv)."
    )


def _metric(study: Study, metric: str, plot: Picture) -> Iterator[str]:
    alt = f"{metric} against the number of function evaluations"
    yield from _image(replace(plot, caption=f"{_of(study, metric)} {plot.caption}"), alt)
    stick = yardstick.of(study, metric)
    for setting in study.settings:
        points, exact = frame.points(setting.cells, metric), frame.floor(setting, metric)
        flows = frame.flows(setting, metric)
        values = [*points["value"], *(flow.value for flow in flows), exact]
        scale = Scale.of(value.mean for value in values if value is not None)
        if setting.name:
            yield f"### {escape(setting.name)}"
        yield f"In words{f' (values {scale.words})' if scale.words else ''}:"
        yield _bullets(summary(points, exact, scale, stick))
        yield f"*{caption(study, setting, metric, scale)}*"
        if cautioned := list(cautions(study, setting, metric)):
            yield f"Cautions:\n\n{_bullets(cautioned)}"
        yield from _blocks(tables.best(points, exact, scale, stick))
        shown = frame.points(frame.serve_all(setting.cells), metric)
        by_nfe = _blocks(tables.by_nfe(shown, exact, scale, stick))
        by_eta = _blocks(tables.by_eta(shown, exact, scale, stick))
        if tables.only_eta(shown):
            folded = "<details><summary>The same numbers with NFE down</summary>"
            yield from [*by_eta, folded, *by_nfe, "</details>"]
        else:
            yield from [*by_nfe, *by_eta]
        yield from _blocks(tables.by_tolerance(points, scale))
        yield from _blocks(tables.references(exact, flows, scale, stick))


def _of(study: Study, metric: str) -> str:
    """What the plot of a metric is of, in full if all of it is of the same."""
    if len(study.settings) == 1:
        return caption(study, study.settings[0], metric, Scale())
    told = "; ".join(setting.name for setting in study.settings)
    return f"{escape(metric)}, for {escape(told)}, as said below." if told else escape(metric)


def _blocks(found: Iterable[Table]) -> list[str]:
    return [
        block
        for part in found
        for block in ([f"**{escape(part.title)}**"] if part.title else []) + [render(part)]
    ]


def summary(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, stick: Yardstick
) -> Iterator[str]:
    """What the numbers of one setting say, a sentence each."""
    good = stick.ranked(points)
    if good.empty:
        yield "No cell of a sampler has a value yet."
    for budget, at in good.groupby("budget"):
        yield _leading(int(str(budget)), at, scale, stick)
    if exact is not None and not exact.hole:
        yield _near_exact(good, exact, scale, stick)
    unsure = sum(not value.sure for value in good["value"])
    if len(good) and unsure == len(good):
        yield "Every value is a single run without an error bar: small differences may be noise."
    elif unsure:
        yield (
            f"{unsure} of {_count(len(good), 'value')} "
            f"{'has' if unsure == 1 else 'have'} no error bar: where one of them is compared, "
            "small differences may be noise."
        )


def caption(study: Study, setting: Setting, metric: str, scale: Scale) -> str:
    """What a reader must know before comparing a number of this setting with any other."""
    done = setting.cells[setting.cells["status"] == "done"]
    seeds = sorted(setting.cells["seed"].unique())
    words = [
        f"{setting.samples:,} samples a cell",
        f"reference {setting.reference}",
        f"model {setting.model}",
        *_spacing(study, setting),
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        *_commits(done),
    ]
    what = f"{escape(metric)} {scale.words}".strip() + _errors(setting, metric)
    better = yardstick.of(study, metric).better
    return f"{what}; {better} is better. {escape('; '.join(words))}."


def _errors(setting: Setting, metric: str) -> str:
    """What stands behind the ±: nothing, one standard error of a value, or of a mean over seeds."""
    exact = frame.floor(setting, metric)
    values = [*frame.points(setting.cells, metric)["value"], *([exact] if exact else [])]
    values = [value for value in values if not value.hole]
    told = ", mean over seeds" if any(value.seeds > 1 for value in values) else ""
    spread = {math.isfinite(value.freedom) for value in values if value.sure}
    if not spread:
        return told
    sources = [
        "the spread over seeds" if is_spread else "the images" for is_spread in sorted(spread)
    ]
    return f"{told} ± one standard error, from {' or '.join(sources)}"


def _leading(budget: int, at: pd.DataFrame, scale: Scale, stick: Yardstick) -> str:
    """Who is best at a budget, the best first in `at`; or who has the lowest value, if that is all.

    "Best" is said only beyond the noise.
    """
    names = list(map(escape, at["label"]))
    ran = [f" (with {calls(nfe)})" if nfe != budget else "" for nfe in at["nfe"]]
    shown = [scale.pooled(value) for value in at["value"]]
    said = f"At {budget} NFE, "
    leader = f"{said}**{names[0]}**{ran[0]}"
    if len(at) == 1:
        return f"{leader} has the only value, {shown[0]}."
    verdict = stick.judge(list(at["value"]))
    if verdict is not None and not verdict.beyond:
        tied = [f"{names[place]}{ran[place]}" for place in verdict.among]
        last = shown[verdict.among[-1]]
        return f"{said}{listed(tied)} cannot be told apart: {shown[0]} to {last}."
    leads = f"has the {stick.best} value" if verdict is None else "is best"
    factor = _factor(*at["mean"].iloc[:2])
    return f"{leader} {leads}, {shown[0]}; next is {names[1]}, {shown[1]}{factor}."


def _factor(best: float, second: float) -> str:
    """', 1.3 times as high' where two values visibly differ and have a ratio."""
    if best <= 0 or second <= 0 or abs(second / best - 1) < 0.005:
        return ""
    return f", {times(second, best)} times as high"


def _near_exact(good: pd.DataFrame, exact: Pooled, scale: Scale, stick: Yardstick) -> str:
    """Which configurations come near the value of exact draws, each at the first NFE."""
    said = f"The {stick.bound} is {scale.pooled(exact)}, the value of exact draws of the model."
    if exact.mean <= 0:  # an unbiased estimate of a distance may be: no value is a multiple of it
        return said
    limit = exact.mean / REACH if stick.higher else REACH * exact.mean
    reach = f"{1 / REACH:g} times that" if stick.higher else f"{REACH:g} times that"
    near = good[good["mean"] >= limit if stick.higher else good["mean"] <= limit]
    first = near.sort_values(["nfe", "rank"]).drop_duplicates("rank")
    if first.empty:
        side = "above" if stick.higher else "below"
        return f"{said} No configuration comes {side} {reach}."
    reached = [
        f"{listed(list(map(escape, at['label'])))}, first at {calls(at['nfe'].iloc[0])} NFE"
        for _, at in first.head(NAMED).groupby("nfe")
    ]
    if len(first) > NAMED:
        reached.append(f"{len(first) - NAMED} more by {calls(first['nfe'].iloc[-1])} NFE")
    others = "" if len(first) == good["rank"].nunique() else "; no other"
    least = "At least" if stick.higher else "At most"
    return f"{said} {least} {reach}: {'; '.join(reached)}{others}."


def _configurations(study: Study) -> str:
    """Every configuration with all its parameters, also those that do not vary."""
    shown = study.cells[study.cells["sampler"] != EXACT]
    if shown.empty:
        return "None."
    rows = []
    for _, cells in shown.groupby("rank"):
        first = cells.iloc[0]
        both = [_settings(cells, prefix) for prefix in ("param.", "spacing.")]
        spacing = " ".join(word for word in (str(first["spacing"]), both[1]) if word)
        told = (first["label"], first["sampler"], both[0], spacing, first["final"])
        rows.append([escape(word) for word in told])
    return table(["Name", "Sampler", "Parameters", "Spacing", "Ends at"], rows, left=5)


def _settings(cells: pd.DataFrame, prefix: str) -> str:
    """The settings of one configuration; only a tolerance has several values there."""
    named = {
        name.removeprefix(prefix): " or ".join(dict.fromkeys(map(plain, cells[name])))
        for name in cells.columns
        if name.startswith(prefix)
    }
    return ", ".join(f"{name}={value}" for name, value in named.items() if value)


def _provenance(study: Study) -> Iterator[str]:
    used = [study.records[key] for key in study.cells["key"] if key in study.records]
    cells = study.cells[study.cells["key"].isin(study.records)]
    rows = [("Results", f"{_count(len(used), 'record')}: {_compute(cells)}")]
    rows += [("Numerics", words) for words in _numerics(cells)]
    rows += [("Hosts", _several(cells["host"]))]
    versions = pd.Series([_pairs(record.provenance.get("versions") or {}) for record in used])
    rows += [("Versions", words) for words in _distinct(versions)]
    rows += [("Commits", words.removeprefix("commit ")) for words in _commits(cells)]
    rows += [("Model digest", _several(cells["model_digest"]))]
    for metric in study.metrics:
        entries = [record.metrics[metric] for record in used if metric in record.metrics]
        for part in ("extractor", "reference"):
            digests = pd.Series([entry.get(f"{part}_digest") for entry in entries], dtype=object)
            rows.append((f"{metric}: {part} digest", _several(digests)))
        rows.append((f"{metric}: differences", yardstick.pairing(study, metric)))
    yield table(["", ""], [(name, escape(words)) for name, words in rows if words], left=2)
    if study.file:
        file = "".join(c if c.isprintable() else "?" for c in study.file)
        yield "To reproduce it:"
        yield f"```\nbench run {shlex.quote(file)}\nbench report {shlex.quote(file)}\n```"


def _compute(cells: pd.DataFrame) -> str:
    parts = {"sampling": "seconds_sampling", "features": "seconds_features", "in all": "seconds"}
    return ", ".join(f"{_time(cells[name].sum())} {word}" for word, name in parts.items())


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{digits(seconds)} s"
    return f"{digits(seconds / 60)} min" if seconds < 7200 else f"{digits(seconds / 3600)} h"


def _numerics(cells: pd.DataFrame) -> Iterable[str]:
    for names, group in cells.groupby(["device", "dtype", "batch", "threads"], sort=False):
        device, dtype, batch, threads = names
        yield (
            f"{device}, {dtype}, batches of {batch}, {_count(int(str(threads)), 'thread')} "
            f"({_count(len(group), 'cell')})"
        )


def _commits(cells: pd.DataFrame) -> list[str]:
    known = cells[cells["commit"].notna()]
    if known.empty:
        return ["commit unknown"] if len(cells) else []
    commits = [str(commit)[:10] for commit in dict.fromkeys(known["commit"])]
    dirty = " (with uncommitted changes)" if known["dirty"].fillna(False).any() else ""
    return [f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}{dirty}"]


def _spacing(study: Study, setting: Setting) -> list[str]:
    """The spacing that all configurations share, or that names leave out."""
    grids = setting.cells.loc[rivals(setting.cells), "grid"].unique()
    if len(grids) == 1:
        return [f"spacing {grids[0]}"]
    usual = usual_grid(study.cells)
    return [f"spacing {usual} where none is named"] if usual else []


def _distinct(values: "pd.Series[str]") -> list[str]:
    return [str(value) for value in dict.fromkeys(values.dropna())]


def _several(values: "pd.Series[str]", most: int = 4) -> str:
    found = _distinct(values)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _pairs(named: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items())


def _image(picture: Picture, alt: str) -> list[str]:
    drawn = [f"![{escape(alt)}]({picture.file})"] if picture.file else []
    return [*drawn, f"*{picture.caption}*"]


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
