"""From the records of a sweep to points that tables and plots can show.

A *configuration* is a cell without its steps, seed and number of samples: one line of a plot, one
column of a table. It has two names: `line` (sampler and parameters) and `grid` (spacing), each
with only what varies in the sweep. A *setting* is what values must share to be compared at all:
model, number of samples and reference.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench import results
from bench.results import Result

EXACT = "exact"
ALL = "all"
_CONFIGURATION = ["sampler", "spacing", "final"]


@dataclass(frozen=True)
class Setting:
    """What values must share to stand in one table: model, number of samples, reference.

    `name` tells the settings of a study apart in words; it is empty when there is only one.
    """

    name: str
    model: str
    samples: int
    reference: str
    cells: pd.DataFrame


@dataclass(frozen=True)
class Study:
    """A sweep with its records, ready to be reported.

    Attributes:
        name: Of the sweep, or of the folder if there is no plan.
        question: The sweep's first comment line; may be empty.
        file: The sweep file as given to `bench run`, or "" without a plan.
        metrics: Names of the metrics, in the order of the sweep.
        cells: What `results.load` gives, with the columns line, grid, label, rank (the order of
            configurations), budget (see `_budgets`) and setting (an index into `settings`).
        settings: In the order of the sweep.
        records: By key.
    """

    name: str
    question: str
    file: str
    metrics: tuple[str, ...]
    cells: pd.DataFrame
    settings: tuple[Setting, ...]
    records: dict[str, Result]


@dataclass(frozen=True)
class Pooled:
    """One value over the seeds that have it.

    Attributes:
        mean: NaN for a hole.
        sd: Standard deviation over seeds (n - 1); NaN with fewer than two.
        seeds: How many seeds the mean is of.
        note: Why a value is missing, wholly or for some of the seeds; else "".
    """

    mean: float
    sd: float
    seeds: int
    note: str

    @property
    def hole(self) -> bool:
        """Whether there is no value."""
        return self.seeds == 0


def read(folder: Path) -> Study:
    """Reads a results folder.

    Raises:
        ResultError: There is neither plan nor record, or something cannot be read.
    """
    cells = results.load(folder)
    records = results.read_all(folder)
    plan = results.read_plan(folder) if (folder / results.PLAN).exists() else {}
    return study(cells, records, plan, name=folder.resolve().name)


def study(
    cells: pd.DataFrame, records: dict[str, Result], plan: results.Json, *, name: str
) -> Study:
    """Names configurations and settings; `name` serves where the plan has none."""
    models = {cell["key"]: cell["cell"]["model"] for cell in plan.get("cells", [])}
    models |= {key: record.cell["model"] for key, record in records.items()}
    cells = cells.rename(columns={"label": "cell"})  # `label` is the name of a configuration here
    cells["line"], cells["grid"] = _lines(cells), _grids(cells)
    cells["label"], cells["rank"] = _labels(cells)
    cells["budget"] = _budgets(cells)
    cells["reference"] = cells["reference"].fillna(_reference(cells, plan))
    cells["described"] = [json.dumps(models[key], sort_keys=True) for key in cells["key"]]
    keys = list(zip(cells["described"], cells["samples"], cells["reference"], strict=True))
    distinct = list(dict.fromkeys(keys))
    cells["setting"] = pd.Series(
        [distinct.index(key) for key in keys], index=cells.index, dtype=int
    )
    return Study(
        name=str(plan.get("name") or name),
        question=str(plan.get("question") or ""),
        file=str(plan.get("file") or ""),
        metrics=tuple(plan.get("metrics") or _metrics(cells)),
        cells=cells,
        settings=tuple(_settings(distinct, cells)),
        records=records,
    )


def tidy(study: Study) -> pd.DataFrame:
    """The frame behind table.csv: a row a cell at full precision, without columns of nothing."""
    added = ["line", "grid", "rank", "budget", "described", "setting"]
    names = {"cell": "label", "label": "configuration"}
    cells = study.cells.drop(columns=added).rename(columns=names)
    always = ["key", "label", "status", "reason", *(f"metric.{name}" for name in study.metrics)]
    return cells[[name for name in cells.columns if name in always or cells[name].notna().any()]]


def floor(setting: Setting, metric: str) -> Pooled | None:
    """The value of exact draws of the model, pooled over seeds; None if there is no such cell."""
    rows = setting.cells[setting.cells["sampler"] == EXACT]
    return None if rows.empty else _pool(rows, metric)


def points(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The values of the cells of a setting, pooled over seeds, in the order of the sweep.

    Exact draws are left out. Columns: rank, line, grid, label, sampler, steps, effective, nfe,
    budget, value (`Pooled`), mean (of the value), served (see `serve_all`), and the parameters.
    """
    parameters = [name for name in cells.columns if name.startswith("param.")]
    rows: list[dict[str, Any]] = []
    for _, group in cells[cells["sampler"] != EXACT].groupby(["rank", "budget", "steps"]):
        first = group.iloc[0]
        row = {name: first[name] for name in [*_CELL, *parameters]}
        row |= {"effective": first["steps_effective"], "served": bool(first.get("served", False))}
        value = _pool(group, metric)
        rows.append(row | {"value": value, "mean": value.mean})
    return pd.DataFrame(rows, columns=[*_CELL, *parameters, *_POINT])


_POINT = ["effective", "served", "value", "mean"]
_CELL = ["rank", "line", "grid", "label", "sampler", "steps", "nfe", "budget"]


def serve_all(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with those of the spacing `all` as the last step count of its sister spacings.

    `all` uses every index, which is what each index spacing becomes at T steps; the DDIM paper
    prints it as the column S = 1000 of both. Where a sister has its own cell at that number of
    steps, or there is no sister, `all` stays a configuration of its own. The column `served`
    tells which rows stand under another spacing than their own.
    """
    kept = []
    for _, group in cells.assign(served=False).groupby("line", sort=False):
        alone, sisters = group[group["grid"] == ALL], group[group["grid"] != ALL]
        if alone.empty or sisters.empty or sisters["steps"].isin(alone["steps"]).any():
            kept.append(group)
            continue
        kept.append(sisters)
        for _, sister in sisters.drop_duplicates("rank").iterrows():
            like = {name: sister[name] for name in ("rank", "grid", "label")}
            kept.append(alone.assign(**like, served=True))
    return pd.concat(kept, ignore_index=True) if kept else cells.assign(served=False)


def _pool(rows: pd.DataFrame, metric: str) -> Pooled:
    name = f"metric.{metric}"
    values = rows[name] if name in rows else pd.Series(math.nan, index=rows.index)
    good = values[values.map(math.isfinite)]
    notes = []
    for index in values.index.difference(good.index, sort=False):
        row = rows.loc[index]
        known = row["reason"] if pd.notna(row["reason"]) else f"{metric} was not recorded"
        notes.append(f"{row['status']}: {known}" if row["status"] == "failed" else known)
    note = "; ".join(dict.fromkeys(notes))
    if note and len(good):
        note = f"{len(notes)} of {len(rows)} seeds: {note}"
    return Pooled(
        mean=float(good.mean()) if len(good) else math.nan,
        sd=float(good.std(ddof=1)) if len(good) > 1 else math.nan,
        seeds=len(good),
        note=note,
    )


def _budgets(cells: pd.DataFrame) -> "pd.Series[Any]":
    """The NFE that a cell stands for: the row of the table it belongs to.

    It is the budget asked for, if the sweep asks by NFE. If it asks by steps, it is the NFE,
    counting dropped duplicates as if they had been run where a step is one call: `quadratic` at
    50 steps keeps 41 and still belongs beside `uniform` at 50. A cell whose calls are counted
    belongs nowhere before it has run.
    """
    dropped = (cells["steps"] - cells["steps_effective"]).fillna(0)
    single = (cells["nfe"] - cells["steps_effective"]).fillna(0) <= 1
    return cells["nfe_asked"].fillna(cells["nfe"] + dropped.where(single, 0)).astype("Int64")


def _lines(cells: pd.DataFrame) -> "pd.Series[str]":
    """Sampler and those of its parameters that vary; an order is part of a solver's name."""
    sampled = cells[cells["sampler"] != EXACT]
    several_ends = sampled["final"].nunique() > 1
    names = {}
    for sampler, group in sampled.groupby("sampler"):
        varying = _varying(group, "param.")
        for index, row in group.iterrows():
            words = [str(sampler)]
            if "param.order" in row and pd.notna(row["param.order"]):
                words.append(plain(row["param.order"]))
            words += [_setting_of(row, name) for name in varying if name != "param.order"]
            words += [f"final={row['final']}"] if several_ends else []
            names[index] = " ".join(word for word in words if word)
    return pd.Series([names.get(index, EXACT) for index in cells.index], cells.index, dtype=object)


def _grids(cells: pd.DataFrame) -> "pd.Series[str]":
    """Spacing and those of its parameters that vary."""
    names = {}
    for spacing, group in cells[cells["spacing"].notna()].groupby("spacing"):
        varying = _varying(group, "spacing.")
        for index, row in group.iterrows():
            words = [str(spacing), *(_setting_of(row, name) for name in varying)]
            names[index] = " ".join(word for word in words if word)
    return pd.Series([names.get(index, "") for index in cells.index], cells.index, dtype=object)


def _labels(cells: pd.DataFrame) -> tuple["pd.Series[str]", "pd.Series[int]"]:
    """The name of each configuration, and its place in the order of the sweep."""
    identity = [
        *_CONFIGURATION,
        *(name for name in cells.columns if name.startswith(("param.", "spacing."))),
    ]
    keys = [tuple(map(plain, row)) for row in cells[identity].itertuples(index=False)]
    ranks = {key: rank for rank, key in enumerate(dict.fromkeys(keys))}
    several = cells.loc[cells["sampler"] != EXACT, "grid"].nunique() > 1
    labels = [
        f"{line} ({grid})" if several and grid else line
        for line, grid in zip(cells["line"], cells["grid"], strict=True)
    ]
    return (
        pd.Series(labels, cells.index, dtype=object),
        pd.Series([ranks[key] for key in keys], cells.index, dtype=int),
    )


def _varying(group: pd.DataFrame, prefix: str) -> list[str]:
    """The columns with this prefix in which cells of one sampler or spacing differ."""
    return [
        name
        for name in group.columns
        if name.startswith(prefix) and group[name].nunique(dropna=False) > 1
    ]


def _setting_of(row: "pd.Series[Any]", column: str) -> str:
    value = plain(row[column])
    return f"{column.split('.', 1)[1]}={value}" if value else ""


def plain(value: Any) -> str:
    """A parameter's value in the shortest usual form: 0.0 as "0", True as "true", none as ""."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str) and pd.isna(value):
        return ""
    try:
        return f"{float(value):g}"  # also the text "0.0", which a mixed column makes of the number
    except ValueError:
        return str(value)


def _metrics(cells: pd.DataFrame) -> Iterable[str]:
    prefix = "metric."
    return [name.removeprefix(prefix) for name in cells.columns if name.startswith(prefix)]


def _reference(cells: pd.DataFrame, plan: results.Json) -> str:
    """The reference of cells without a value: a hole stands in the table of the others."""
    known = cells["reference"].mode()
    return str(known.iloc[0] if len(known) else plan.get("reference") or "unknown")


def _settings(distinct: list[tuple[str, int, str]], cells: pd.DataFrame) -> Iterable[Setting]:
    names = [(_model(json.loads(model)), samples, ref) for model, samples, ref in distinct]
    differs = [len({name[part] for name in names}) > 1 for part in range(3)]
    for index, (model, samples, reference) in enumerate(names):
        words = (f"model {model}", f"{samples:,} samples", f"reference {reference}")
        yield Setting(
            name=", ".join(word for word, shown in zip(words, differs, strict=True) if shown),
            model=model,
            samples=int(samples),
            reference=reference,
            cells=cells[cells["setting"] == index],
        )


def _model(described: results.Json) -> str:
    """A model in words: its name or path, then the rest of its description in brackets."""
    name = described.get("name") or described.get("path") or described.get("kind")
    rest = {
        key: value.get("name", value) if isinstance(value, dict) else value
        for key, value in described.items()
        if key not in ("kind", "name", "path") and value is not None
    }
    words = ", ".join(f"{key} {plain(value)}" for key, value in rest.items())
    return f"{name} ({words})" if words else str(name)
