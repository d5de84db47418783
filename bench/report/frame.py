"""From the records of a sweep to points that tables and plots can show.

A *configuration* is a cell without its steps, seed and number of samples: one line of a plot, one
column of a table. A *setting* is what values must share to be compared at all: model, number of
samples and reference.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import influences, results
from bench.report.names import EXACT, FLOW, MANY, named, plain, rivals
from bench.report.pooled import Pooled, pool
from bench.results import Result

ALL = "all"


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
        cells: What `results.load` gives, with the columns of `names.named`, family (of the
            sampler; "" where the plan does not tell), budget (see `_budgets`) and setting (an index
            into `settings`).
        settings: In the order of the sweep.
        records: By key.
        influences: By key and metric, where they lie beside the records.
    """

    name: str
    question: str
    file: str
    metrics: tuple[str, ...]
    cells: pd.DataFrame
    settings: tuple[Setting, ...]
    records: dict[str, Result]
    influences: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)


def read(folder: Path) -> Study:
    """Reads a results folder.

    Raises:
        ResultError: There is neither plan nor record, or something cannot be read.
    """
    cells = results.load(folder)
    records = results.read_all(folder)
    plan = results.read_plan(folder) if (folder / results.PLAN).exists() else {}
    found = {key: influences.read(folder, record) for key, record in records.items()}
    return replace(study(cells, records, plan, name=folder.resolve().name), influences=found)


def study(
    cells: pd.DataFrame, records: dict[str, Result], plan: results.Json, *, name: str
) -> Study:
    """Names configurations and settings; `name` serves where the plan has none."""
    models = {cell["key"]: cell["cell"]["model"] for cell in plan.get("cells", [])}
    models |= {key: record.cell["model"] for key, record in records.items()}
    cells = named(cells)
    families = plan.get("families") or {}
    cells["family"] = [families.get(sampler, "") for sampler in cells["sampler"]]
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
    added = ["tolerance", "line", "grid", "rank", "family", "budget", "described", "setting"]
    renamed = {"cell": "label", "label": "configuration"}
    cells = study.cells.drop(columns=added).rename(columns=renamed)
    always = ["key", "label", "status", "reason", *(f"metric.{name}" for name in study.metrics)]
    return cells[[name for name in cells.columns if name in always or cells[name].notna().any()]]


@dataclass(frozen=True)
class Flow:
    """The value of the exact flow on the ends of one grid: what its solvers approach.

    Attributes:
        name: With the grid, whose first and last point matter, and its number of steps.
        grid: As in the points of samplers on that spacing.
        value: Pooled over seeds.
    """

    name: str
    grid: str
    value: Pooled


def floor(setting: Setting, metric: str) -> Pooled | None:
    """The value of exact draws of the model, pooled over seeds; None if there is no such cell."""
    rows = setting.cells[setting.cells["sampler"] == EXACT]
    return None if rows.empty else pool(rows, metric)


def flows(setting: Setting, metric: str) -> list[Flow]:
    """The exact flows of a setting, in the order of the sweep."""
    rows = setting.cells[setting.cells["sampler"] == FLOW]
    found = []
    for (_, steps), group in rows.groupby(["rank", "steps"]):
        line, grid = group.iloc[0][["line", "grid"]]
        name = f"exact flow{line.removeprefix(FLOW)} ({grid}, S = {steps})"
        found.append(Flow(name, grid, pool(group, metric)))
    return found


def points(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The values of the cells of a setting, pooled over seeds, in the order of the sweep.

    Exact draws and exact flows are left out. Columns: rank, line, grid, label, sampler, family,
    steps, budget, tolerance, nfe (what ran; NaN where it is counted and has not), least and most
    (calls of an image, where they are counted), effective, value (`Pooled`), mean (of the value),
    served (see `serve_all`), and the parameters.
    """
    parameters = [name for name in cells.columns if name.startswith("param.")]
    placed = cells[cells["budget"].notna() | cells["tolerance"].notna()]
    rows: list[dict[str, Any]] = []
    for _, group in placed[rivals(placed)].groupby(_KEY, dropna=False):
        first = group.iloc[0]
        row = {name: first[name] for name in [*_KEY, *_CELL, *parameters]}
        row["nfe"] = group["nfe_mean"].fillna(group["nfe"].astype("float64")).mean()
        row |= {"least": group["nfe_min"].min(), "most": group["nfe_max"].max()}
        row |= {"effective": first["steps_effective"], "served": bool(first.get("served", False))}
        value = pool(group, metric)
        rows.append(row | {"value": value, "mean": value.mean})
    return pd.DataFrame(rows, columns=[*_KEY, *_CELL, *parameters, *_POINT])


_KEY = ["rank", "budget", "steps", "tolerance"]
_CELL = ["line", "grid", "label", "sampler", "family"]
_POINT = ["nfe", "least", "most", "effective", "served", "value", "mean"]


def parts(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]] | None:
    """Parts that have room in one table or panel: all points (named ""), or a part a spacing.

    None if a spacing has too many configurations.
    """
    if points["rank"].nunique() <= MANY:
        return [("", points)]
    by_grid = [(str(grid), part) for grid, part in points.groupby("grid", sort=False)]
    fit = all(part["rank"].nunique() <= MANY for _, part in by_grid)
    return by_grid if fit else None


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


def _budgets(cells: pd.DataFrame) -> "pd.Series[Any]":
    """The NFE that a cell stands for: the row of the table it belongs to.

    It is the budget asked for, if the sweep asks by NFE. If it asks by steps, it is the NFE,
    counting dropped duplicates as if they had been run where a step is one call: `quadratic` at
    50 steps keeps 41 and still belongs beside `uniform` at 50. A cell whose calls are counted
    belongs nowhere before it has run, and one that is asked for by its tolerances never does.
    """
    dropped = (cells["steps"] - cells["steps_effective"]).fillna(0)
    single = (cells["nfe"] - cells["steps_effective"]).fillna(0) <= 1
    stands = cells["nfe_asked"].fillna(cells["nfe"] + dropped.where(single, 0)).astype("Int64")
    return stands.mask(cells["tolerance"].notna())


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
    # That a file was trusted says nothing of its images.
    rest = {key: value for key, value in described.items() if key not in (*_NAMING, "trust")}
    words = ", ".join(f"{key} {_said(value)}" for key, value in rest.items() if value is not None)
    return f"{name} ({words})" if words else str(name)


_NAMING = ("kind", "name", "path")


def _said(value: Any) -> str:
    """A value of a description: a shape as 3 x 32 x 32, a schedule as its name and settings."""
    if isinstance(value, list):
        return " x ".join(map(plain, value))
    if isinstance(value, dict):
        settings = [f"{key} {plain(one)}" for key, one in value.items() if key != "name"]
        return " ".join([str(value.get("name", "")), *settings]).strip()
    return plain(value)
