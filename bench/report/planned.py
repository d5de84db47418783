"""What plans and records say of cells: budgets, references, metrics asked for, models in words."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench import results
from bench.report.names import plain
from bench.results import Result


def asked(
    cells: pd.DataFrame, records: dict[str, Result], plans: Mapping[Path, results.Json]
) -> list[frozenset[str]]:
    """For each cell the metrics that its plans ask for, and those that its record has."""
    found: dict[str, set[str]] = {key: set() for key in cells["key"]}
    for plan in plans.values():
        for cell in plan.get("cells", []):
            found[cell["key"]] |= set(plan["metrics"])
    for key, record in records.items():
        if key in found:
            found[key] |= set(record.metrics)
    return [frozenset(found[key]) for key in cells["key"]]


def budgets(cells: pd.DataFrame) -> "pd.Series[Any]":
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


def unplanned(cells: pd.DataFrame, plans: Mapping[Path, results.Json]) -> Iterable[str]:
    """The metrics of records without a plan; one with a plan says what is to be reported."""
    prefix = "metric."
    if all(plans.values()):
        return []
    return [name.removeprefix(prefix) for name in cells.columns if name.startswith(prefix)]


def reference(cells: pd.DataFrame, plans: Mapping[Path, results.Json]) -> str:
    """The reference of cells without a value: a hole stands in the table of the others."""
    known = cells["reference"].mode()
    planned = [plan["reference"] for plan in plans.values() if plan.get("reference")]
    return str([*known, *planned, "unknown"][0])


def model(described: results.Json) -> str:
    """A model in words: its name or path, then the rest of its description in brackets."""
    name = described.get("name") or described.get("path") or described.get("kind") or ""
    # That a file was trusted says nothing of its images.
    rest = {key: value for key, value in described.items() if key not in (*_NAMING, "trust")}
    words = ", ".join(f"{key} {_said(value)}" for key, value in rest.items() if value is not None)
    return f"{name} ({words})" if words and name else words or str(name)


def apart(described: Sequence[results.Json]) -> list[str]:
    """Models in words, each with what not all of them share.

    >>> unet = {"kind": "diffusers", "path": "unet"}
    >>> apart([unet | {"dtype": "float32"}, unet | {"dtype": "bfloat16"}])
    ['dtype float32', 'dtype bfloat16']
    >>> apart([unet, {"kind": "mixture", "name": "smooth"}])
    ['unet', 'smooth']
    """
    first = described[0]
    shared = {key for key in first if all(one.get(key) == first[key] for one in described)}
    return [
        model({key: value for key, value in one.items() if key not in shared}) for one in described
    ]


_NAMING = ("kind", "name", "path")


def _said(value: Any) -> str:
    """A value of a description: a shape as 3 x 32 x 32, a schedule as its name and settings."""
    if isinstance(value, list):
        return " x ".join(map(plain, value))
    if isinstance(value, dict):
        settings = [f"{key} {plain(one)}" for key, one in value.items() if key != "name"]
        return " ".join([str(value.get("name", "")), *settings]).strip()
    return plain(value)
