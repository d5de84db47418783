"""A comparison in words: Markdown for a pull request, and JSON for other programs."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from bench.regression.compare import PAIRED, Comparison, Row
from bench.regression.verdicts import BETTER, SAME, UNDECIDED, WORSE
from bench.report.content import HOLE
from bench.report.markdown import Scale, escape, listed, table, times
from bench.report.ties import quantile
from bench.results import Json


def markdown(comparison: Comparison) -> str:
    """The whole comparison, its result first."""
    moving = [row for row in comparison.rows if not _identical(row)]
    parts = [
        f"## Quality: {escape(comparison.base)} → {escape(comparison.head)}",
        headline(comparison),
        *([_table(moving)] if moving else []),
        "\n".join(f"- {escape(text)}" for text in _remarks(comparison, len(moving))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(comparison: Comparison) -> str:
    """The result in a sentence or two, as Markdown."""
    limit = _percent(comparison.threshold)
    said = []
    if worse := comparison.regressions:
        said.append(
            f"**{_plural(len(worse), 'regression')}**: {listed([_named(row) for row in worse])}."
        )
    if comparison.broken:
        fails = listed([escape(label) for label, _ in comparison.broken])
        said.append(
            f"**{_plural(len(comparison.broken), 'cell')} failed** that had a value: {fails}."
        )
    if not comparison.failed:
        said.append(f"**No regression** beyond noise and beyond {limit}.")
    rows = [row for row in comparison.rows if not _identical(row)]
    words = Counter(row.verdict.word for row in rows)
    counts = [
        f"{words[word]} {text}"
        for word, text in ((WORSE, "worse"), (BETTER, "better"), (UNDECIDED, "undecided"))
        if words[word]
    ]
    if words[SAME]:
        most = max(row.verdict.within for row in rows if row.verdict.word == SAME)
        counts.append(f"{words[SAME]} the same within {_percent(most)}")
    if same := len(comparison.rows) - len(rows):
        counts.append(f"{same} identical")
    said.append(f"Of {_plural(len(comparison.rows), 'difference')}: {', '.join(counts)}.")
    return " ".join(said)


def verdict(row: Row) -> str:
    """What is said of a row: "worse", "same within 0.4 %", "undecided: needs 40,000 images"."""
    found = row.verdict
    if _identical(row):
        return "identical"
    if found.word == SAME:
        return f"same within {_percent(found.within)}"
    if found.word == UNDECIDED:
        if math.isnan(found.within):
            return "undecided: no standard error in the records"
        return f"undecided: needs {_images(found.needs)} images" if found.needs else "undecided"
    return found.word if found.matters else f"{found.word}, below the threshold"


def data(comparison: Comparison) -> Json:
    """The comparison as JSON data; what is not known is null."""
    return {
        "base": comparison.base,
        "head": comparison.head,
        "threshold": comparison.threshold,
        "failed": comparison.failed,
        "cells": [_row_data(row) for row in comparison.rows],
        "broken": [{"cell": label, "reason": why} for label, why in comparison.broken],
        "left_out": [{"cell": label, "reason": why} for label, why in comparison.left_out],
        "only_base": comparison.only[0],
        "only_head": comparison.only[1],
        "said": list(comparison.said),
    }


def _row_data(row: Row) -> Json:
    moved = row.moved
    numbers = {
        "base": row.base.mean,
        "head": row.head.mean,
        "base_error": row.base.error,
        "head_error": row.head.error,
        "difference": row.head.mean - row.base.mean,
        "error": row.error,
        "relative": row.relative,
        "of_excess": row.of_excess,
        "floor": row.floor,
        "p": row.verdict.p,
        "within": row.verdict.within,
        "images_moved": moved.share if moved else math.nan,
        "levels_moved": moved.levels if moved else math.nan,
        "influences_correlate": moved.correlation if moved else math.nan,
    }
    return {
        "cell": row.label,
        "metric": row.metric,
        "samples": row.samples,
        "seeds": row.seeds,
        "verdict": row.verdict.word,
        "regression": row.regressed,
        "needs": row.verdict.needs,
        "paired": row.how == PAIRED,
        **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
        "notes": list(row.notes),
    }


def _identical(row: Row) -> bool:
    return row.verdict.word == SAME and row.verdict.within == 0


def _table(rows: list[Row]) -> str:
    """Regressions first, then as in the sweep."""
    several = len({row.metric for row in rows}) > 1
    head = ["cell", *(["metric"] if several else []), "verdict", "base", "head", "change"]
    head += ["± 95 %", "× floor", "images", "moved"]
    if not several:
        head[2] = f"base, {escape(rows[0].metric)}"
    lines = []
    margin = quantile(len(rows))
    for row in sorted(rows, key=lambda row: not row.regressed):
        scale = Scale.of([row.base.mean, row.head.mean])
        mark = "**" if row.regressed else ""
        images = f"{row.samples:,}" + (f" × {row.seeds}" if row.seeds > 1 else "")
        half = margin * row.error / abs(row.base.mean) if row.base.mean else math.nan
        times_floor = times(row.base.mean, row.floor) if row.floor > 0 else HOLE
        lines.append(
            [
                f"{mark}{escape(row.label)}{mark}",
                *([escape(row.metric)] if several else []),
                f"{mark}{verdict(row)}{mark}",
                f"{scale.pooled(row.base)} {scale.words}".strip(),
                f"{scale.pooled(row.head)} {scale.words}".strip(),
                _percent(row.relative, sign=True),
                _percent(half) if math.isfinite(half) else HOLE,
                times_floor,
                images,
                str(row.moved) if row.moved else HOLE,
            ]
        )
    return table(head, lines, left=3 if several else 2)


def _remarks(comparison: Comparison, moving: int) -> Iterator[str]:
    limit = _percent(comparison.threshold)
    if moving:
        yield (
            f"Worse and better are beyond noise at 95 % for {_plural(moving, 'difference')} "
            f"together (Holm); a regression is also beyond {limit} of the value. ± 95 % is for all "
            "of them, too. × floor is the base over exact draws of the model, the least there is."
        )
    notes = [(row.label, note) for row in comparison.rows for note in row.notes]
    for note, labels in _grouped(notes):
        yield f"{note[0].upper()}{note[1:]}: {listed(labels)}."
    yield from comparison.said
    for label, why in comparison.broken:
        yield f"{label} fails now: {why}"
    for why, labels in _grouped(comparison.left_out):
        yield f"{_plural(len(labels), 'cell')} not compared, {listed(labels)}: {why}"
    for count, name in zip(comparison.only, (comparison.base, comparison.head), strict=True):
        if count:
            yield f"{_plural(count, 'cell')} only in {name}."


def _grouped(found: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """What is said of cells, with the different cells that it is said of, from pairs of both."""
    groups: dict[str, list[str]] = {}
    for label, words in found:
        groups.setdefault(words, []).append(label)
    for words, labels in groups.items():
        yield words, list(dict.fromkeys(labels))


def _named(row: Row) -> str:
    return f"{escape(row.label)} ({escape(row.metric)} {_percent(row.relative, sign=True)})"


def _percent(part: float, *, sign: bool = False) -> str:
    """2.1 %, +0.013 %: two digits, whole ones above a hundred.

    >>> _percent(0.0213), _percent(0.0213, sign=True), _percent(-1.234), _percent(0.00012)
    ('2.1 %', '+2.1 %', '-123 %', '0.012 %')
    """
    if not math.isfinite(part):
        return HOLE
    value = 100 * part
    text = f"{value:.0f}" if abs(value) >= 99.5 else f"{value:#.2g}".rstrip(".")
    return f"{'+' if sign and value > 0 else ''}{text if value else '0'} %"


def _images(needs: int) -> str:
    """Two digits of a large number, upwards.

    >>> _images(41_230)
    '42,000'
    """
    size = 10 ** max(0, len(str(needs)) - 2)
    return f"{-(-needs // size) * size:,}"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
