"""From the records of a sweep to points that tables and plots can show.

A *configuration* is a cell without its steps, seed and number of samples: one line of a plot, one
column of a table. A *setting* is what values must share to be compared at all: model, number of
samples and reference.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import influences, results
from bench.report import planned
from bench.report.names import EXACT, FLOW, MANY, named, rivals
from bench.report.pooled import Pooled, Row, missing, pool, pool_rows
from bench.results import Result

ALL = "all"


@dataclass(frozen=True)
class Setting:
    """What values must share to stand in one table: model, number of samples, reference.

    `name` tells the settings of a study apart in words; it is empty when there is only one.
    `described` is the model as a sweep describes it.
    """

    name: str
    model: str
    described: results.Json
    samples: int
    reference: str
    cells: pd.DataFrame


@dataclass(frozen=True)
class Sweep:
    """Where cells are from.

    Attributes:
        name: Of the sweep, or of the folder if there is no plan.
        question: The sweep's first comment line; may be empty.
        file: The sweep file as given to `bench run`, or "" without a plan.
    """

    name: str
    question: str
    file: str


@dataclass(frozen=True)
class Study:
    """One or several sweeps with their records, ready to be reported.

    Attributes:
        sweeps: Where the cells are from.
        metrics: Names of the metrics, in the order of the sweeps.
        cells: What `results.load` gives, with the columns of `names.named`, family (of the
            sampler; "" where the plan does not tell), budget (see `planned.budgets`), setting (an
            index into `settings`) and asked (the metrics that its sweeps ask for).
        settings: In the order of the sweep.
        records: By key.
        influences: By key and metric, where they lie beside the records.
    """

    sweeps: tuple[Sweep, ...]
    metrics: tuple[str, ...]
    cells: pd.DataFrame
    settings: tuple[Setting, ...]
    records: dict[str, Result]
    influences: Mapping[str, Mapping[str, NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the sweep, or of all of them."""
        return " + ".join(sweep.name for sweep in self.sweeps)

    @property
    def title(self) -> str:
        """The question, where there is one alone; else the name."""
        (only, *more) = self.sweeps
        return only.question if only.question and not more else self.name


def read(*folders: Path) -> Study:
    """Reads results folders; what several sweeps share is there once.

    Raises:
        ResultError: One has neither plan nor record, or something cannot be read.
    """
    cells = results.load(*folders)
    records = results.gather(*folders)
    plans = {
        folder: results.read_plan(folder) if (folder / results.PLAN).exists() else {}
        for folder in folders
    }
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for folder in folders:
        for key, record in records.items():
            if not found.get(key):
                found[key] = influences.read(folder, record)
    return replace(study(cells, records, plans), influences=found)


def study(
    cells: pd.DataFrame, records: dict[str, Result], plans: Mapping[Path, results.Json]
) -> Study:
    """Names configurations and settings; plans are by folder, whose name serves without one."""
    cells_of = [cell for plan in plans.values() for cell in plan.get("cells", [])]
    models = {cell["key"]: cell["cell"]["model"] for cell in cells_of}
    models |= {key: record.cell["model"] for key, record in records.items()}
    cells = named(cells)
    families = {k: v for plan in plans.values() for k, v in (plan.get("families") or {}).items()}
    cells["family"] = [families.get(sampler, "") for sampler in cells["sampler"]]
    cells["budget"] = planned.budgets(cells)
    cells["reference"] = cells["reference"].fillna(planned.reference(cells, plans))
    cells["described"] = [json.dumps(models[key], sort_keys=True) for key in cells["key"]]
    keys = list(zip(cells["described"], cells["samples"], cells["reference"], strict=True))
    distinct = list(dict.fromkeys(keys))
    cells["setting"] = pd.Series(
        [distinct.index(key) for key in keys], index=cells.index, dtype=int
    )
    cells["asked"] = pd.Series(
        planned.asked(cells, records, plans), index=cells.index, dtype=object
    )
    sweeps = [
        Sweep(
            plan.get("name") or folder.resolve().name,
            plan.get("question") or "",
            plan.get("file") or "",
        )
        for folder, plan in plans.items()
    ]
    metrics = [metric for plan in plans.values() for metric in plan.get("metrics", [])]
    return Study(
        sweeps=tuple(sweeps),
        metrics=tuple(dict.fromkeys([*metrics, *planned.unplanned(cells, plans)])),
        cells=cells,
        settings=tuple(_settings(distinct, cells)),
        records=records,
    )


def asking(study: Study, metric: str) -> Study:
    """The study without the cells whose sweeps do not ask for a metric, and that lack it."""
    scored = study.cells.get(f"metric.{metric}", pd.Series(math.nan, study.cells.index)).notna()
    kept = scored | study.cells["asked"].map(lambda asked: metric in asked)
    if kept.all():
        return study
    settings = [
        replace(setting, cells=setting.cells[kept[setting.cells.index]])
        for setting in study.settings
    ]
    return replace(
        study,
        cells=study.cells[kept],
        settings=tuple(setting for setting in settings if len(setting.cells)),
    )


def tidy(study: Study) -> pd.DataFrame:
    """The frame behind table.csv: a row a cell at full precision, without columns of nothing."""
    added = ["tolerance", "line", "grid", "rank", "family", "budget", "described", "setting"]
    added.append("asked")
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
    steps, budget, tolerance, nfe (what ran; NaN where it is counted and has not), seconds (of
    sampling, for 1,000 images), least and most (calls of an image, where they are counted),
    effective, value (`Pooled`), mean (of the value), served (see `serve_all`), and the parameters.
    """
    parameters = [name for name in cells.columns if name.startswith("param.")]
    placed = cells[cells["budget"].notna() | cells["tolerance"].notna()]
    # Plain Python: a group of a few cells costs pandas a hundred times what it holds.
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in placed[rivals(placed)].to_dict("records"):
        place = tuple(math.inf if missing(row[name]) else row[name] for name in _KEY[:3])
        groups.setdefault((*place, str(row["tolerance"])), []).append(row)
    rows = []
    for place in sorted(groups):
        group = groups[place]
        first, value = group[0], pool_rows(group, metric)
        means = [row["nfe"] if missing(row["nfe_mean"]) else row["nfe_mean"] for row in group]
        row = {name: first[name] for name in [*_KEY, *_CELL, *parameters]}
        row |= {"nfe": _mean(means), "seconds": _mean(map(_seconds, group))}
        row["least"] = min(_known(group, "nfe_min"), default=None)
        row["most"] = max(_known(group, "nfe_max"), default=None)
        row |= {"effective": first["steps_effective"], "served": bool(first.get("served", False))}
        rows.append(row | {"value": value, "mean": value.mean})
    names = [*_KEY, *_CELL, *parameters]
    kinds = {name: cells[name].dtype for name in names}
    kinds |= dict.fromkeys(["nfe", "seconds", "mean"], np.dtype("float64"))
    kinds |= dict.fromkeys(["least", "most"], pd.Int64Dtype())
    return pd.DataFrame(rows, columns=[*names, *_POINT]).astype(kinds)


def _mean(numbers: Iterable[Any]) -> float:
    """The mean of those that are known; NaN of none."""
    known = [float(number) for number in numbers if not missing(number)]
    return sum(known) / len(known) if known else math.nan


def _known(rows: Iterable[Row], name: str) -> list[Any]:
    return [row[name] for row in rows if not missing(row[name])]


def _seconds(row: Row) -> float:
    """Of sampling, for 1,000 images."""
    seconds = row["seconds_sampling"]
    return math.nan if missing(seconds) or seconds <= 0 else 1000 * seconds / row["samples"]


_KEY = ["rank", "budget", "steps", "tolerance"]
_CELL = ["line", "grid", "label", "sampler", "family"]
_POINT = ["nfe", "seconds", "least", "most", "effective", "served", "value", "mean"]


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


def _settings(distinct: list[tuple[str, int, str]], cells: pd.DataFrame) -> Iterable[Setting]:
    described = [json.loads(model) for model, _, _ in distinct]
    names = [
        (planned.model(model), samples, reference)
        for model, (_, samples, reference) in zip(described, distinct, strict=True)
    ]
    differs = [len({name[part] for name in names}) > 1 for part in range(3)]
    for index, (model, samples, reference) in enumerate(names):
        words = (f"model {model}", f"{samples:,} samples", f"reference {reference}")
        yield Setting(
            name=", ".join(word for word, shown in zip(words, differs, strict=True) if shown),
            model=model,
            described=described[index],
            samples=int(samples),
            reference=reference,
            cells=cells[cells["setting"] == index],
        )
