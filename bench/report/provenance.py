"""What the numbers were made from and with, and the commands that make them again."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from bench.report import yardstick
from bench.report.beside import model_id
from bench.report.content import Chapter, Table, places
from bench.report.frame import Study
from bench.report.markdown import count, digits
from bench.report.names import EXACT, plain


def configurations(study: Study) -> Iterator[Table]:
    """Every configuration with all its parameters, also those that do not vary."""
    shown = study.cells[study.cells["sampler"] != EXACT]
    if shown.empty:
        return
    rows = []
    for _, cells in shown.groupby("rank"):
        first = cells.iloc[0]
        both = [_settings(cells, prefix) for prefix in ("param.", "spacing.")]
        spacing = " ".join(word for word in (str(first["spacing"]), both[1]) if word)
        told = (first["label"], first["sampler"], both[0], spacing, first["final"])
        rows.append(places(list(map(str, told))))
    header = ["Name", "Sampler", "Parameters", "Spacing", "Ends at"]
    yield Table("", header, rows, left=5, name="configurations")


def _settings(cells: pd.DataFrame, prefix: str) -> str:
    """The settings of one configuration; only a tolerance has several values there."""
    named = {
        name.removeprefix(prefix): " or ".join(dict.fromkeys(map(plain, cells[name])))
        for name in cells.columns
        if name.startswith(prefix)
    }
    return ", ".join(f"{name}={value}" for name, value in named.items() if value)


def origins(study: Study) -> Table:
    """Records, machines, versions, commits and digests."""
    used = [study.records[key] for key in study.cells["key"] if key in study.records]
    cells = study.cells[study.cells["key"].isin(study.records)]
    rows = [("Results", f"{count(len(used), 'record')}: {_compute(cells)}")]
    rows += [("Numerics", words) for words in _numerics(cells)]
    rows += [("Hosts", _several(cells["host"]))]
    versions = pd.Series([_pairs(record.provenance.get("versions") or {}) for record in used])
    rows += [("Versions", words) for words in _distinct(versions)]
    rows += [("Commits", words.removeprefix("commit ")) for words in commits(cells)]
    rows += [("Model digest", _several(cells["model_digest"]))]
    for metric in study.metrics:
        entries = [record.metrics[metric] for record in used if metric in record.metrics]
        for part in ("extractor", "reference"):
            digests = pd.Series([entry.get(f"{part}_digest") for entry in entries], dtype=object)
            rows.append((f"{metric}: {part} digest", _several(digests)))
        rows.append((f"{metric}: differences", yardstick.pairing(study, metric)))
    told = [places([name, words]) for name, words in rows if words]
    return Table("", ["", ""], told, left=2, name="provenance")


def commands(study: Study, chapters: Sequence[Chapter] = ()) -> dict[str, list[str]]:
    """What to type to make each part of a report again; empty if not all sweep files are known."""
    files = [_word(sweep.file) for sweep in study.sweeps if sweep.file]
    if len(files) < len(study.sweeps):
        return {}
    options = dict.fromkeys(chapter.option for chapter in chapters)
    found = {
        "Every value (what has a record is not computed again)": [
            f"bench run {file}" for file in files
        ],
        "Words, tables and pictures, from the records": [
            " ".join(["bench report", *files, *options])
        ],
        "One value alone, and whether it is the same; KEY stands in table.csv and All cells": [
            command
            for file, sweep in zip(files, study.sweeps, strict=True)
            for command in (
                f"bench run {file} --cell KEY --results again",
                f"bench compare results/{_word(sweep.name)} again/{_word(sweep.name)}",
            )
        ],
        "The images of a cell": [
            f"bench export {file} KEY --to npz --out images.npz" for file in files
        ],
    }
    networks = dict.fromkeys(filter(None, map(model_id, study.settings)))
    if networks:
        found["What papers report"] = [f"bench published model={name}" for name in networks]
    return found


def _word(text: str) -> str:
    """A text as one word of a command line."""
    return shlex.quote("".join(c if c.isprintable() else "?" for c in text))


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
            f"{device}, {dtype}, batches of {batch}, {count(int(str(threads)), 'thread')} "
            f"({count(len(group), 'cell')})"
        )


def commits(cells: pd.DataFrame) -> list[str]:
    known = cells[cells["commit"].notna()]
    if known.empty:
        return ["commit unknown"] if len(cells) else []
    commits = [str(commit)[:10] for commit in dict.fromkeys(known["commit"])]
    dirty = " (with uncommitted changes)" if known["dirty"].fillna(False).any() else ""
    return [f"commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}{dirty}"]


def _distinct(values: "pd.Series[str]") -> list[str]:
    return [str(value) for value in dict.fromkeys(values.dropna())]


def _several(values: "pd.Series[str]", most: int = 4) -> str:
    found = _distinct(values)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def _pairs(named: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items())
