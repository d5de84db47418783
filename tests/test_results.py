import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench import results
from bench.errors import ResultError
from bench.results import Result


def a_cell(**changes: Any) -> dict[str, Any]:
    cell = {
        "model": {"kind": "mixture", "name": "cifar10-mixture", "schedule": "vp-linear"},
        "sampler": "ddim",
        "params": {"eta": 0.0, "lower-order-final": True},
        "spacing": "uniform",
        "spacing_params": {},
        "steps": 10,
        "final": "zero",
        "seed": 0,
        "samples": 5000,
    }
    return cell | changes


def a_result(key: str, **changes: Any) -> Result:
    entry = {
        "value": 1.5,
        "n": 5000,
        "reference": "cifar10-mixture",
        "reference_digest": "aa",
        "extractor_digest": "bb",
    }
    numerics = {"device": "cpu", "dtype": "float32", "batch": 500, "threads": 1}
    result = Result(
        key=key,
        label="ddim eta=0 spacing=uniform steps=10",
        cell=a_cell(),
        status="done",
        error=None,
        metrics={"fd_cifar": entry},
        nfe={"declared": 10, "counted": {"mean": 10.0, "min": 10, "max": 10}},
        steps={"asked": 10, "effective": 10},
        samples=5000,
        seconds={"sampling": 4.0, "features": 1.0, "total": 5.5},
        samples_per_second=1000.0,
        peak_memory_mb=512.0,
        provenance={
            "fingerprint": [0.25, -1e-17],
            "model_digest": "cc",
            "numerics": numerics,
            "commit": None,
            "dirty": None,
            "versions": {"bench": "0.1.0"},
            "host": "here",
            "time": "2026-01-01T00:00:00+00:00",
        },
    )
    return replace(result, **changes)


def a_plan(*cells: dict[str, Any], metrics: tuple[str, ...] = ("fd_cifar",)) -> dict[str, Any]:
    rows = [
        {"key": f"{i:016x}", "label": f"cell {i}", "cell": cell, "nfe": cell["steps"] or 0}
        | {"steps_effective": cell["steps"], "nfe_asked": None}
        for i, cell in enumerate(cells)
    ]
    return {"format": 1, "name": "small", "metrics": list(metrics), "cells": rows}


def test_importing_needs_no_torch_numpy_or_pandas() -> None:
    script = "import sys, bench.results; print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_record_survives_the_round_trip(tmp_path: Path) -> None:
    result = a_result("0123456789abcdef")
    path = results.write(tmp_path, result)
    assert path == tmp_path / "0123456789abcdef.json"
    assert results.read(path) == result == results.find(tmp_path, result.key)
    assert next(iter(json.loads(path.read_text()))) == "format"
    assert results.find(tmp_path, "f" * 16) is None


def test_every_key_of_a_record_is_documented() -> None:
    assert results.__doc__ is not None
    for name in [*json.loads(json.dumps(vars(a_result("0" * 16)))), *a_result("0" * 16).provenance]:
        assert f"{name} " in results.__doc__ or f"{name}," in results.__doc__, name


def test_numbers_that_are_not_finite_never_reach_a_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(tmp_path, a_result("0" * 16, samples_per_second=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"format": 2}',
            "{path} has format 2; this version of bench reads format 1. Upgrade bench "
            '("pip install --upgrade sampler-bench"), or use another folder.',
        ),
        (
            '{"format": 0}',
            "{path} has format 0; this version of bench reads format 1. "
            "Move it away to have it made again.",
        ),
        (
            "[1]",
            "{path} has format None; this version of bench reads format 1. "
            "Move it away to have it made again.",
        ),
        (
            '{"format": 1, "ke',
            "{path} is not valid JSON (Unterminated string starting at: line 1 column 15 (char "
            "14)). Restore it from version control, or remove it to have it made again.",
        ),
        (
            '{"format": 1}',
            '{path} lacks the key "cell" that every record has. '
            "Remove the file to compute its cell again.",
        ),
    ],
    ids=["newer", "older", "not a record", "torn", "incomplete"],
)
def test_unreadable_records_are_refused_and_kept(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / f"{'0' * 16}.json"
    path.write_text(text)
    with pytest.raises(ResultError) as caught:
        results.load(tmp_path)
    assert str(caught.value) == message.format(path=path)
    assert path.read_text() == text


def test_frame_of_a_half_finished_sweep(tmp_path: Path) -> None:
    eta = {"eta": "sigma-hat"}
    exact = a_cell(sampler="exact", params={}, spacing=None, steps=None, final=None)
    cells = [exact, a_cell(), a_cell(params=eta), a_cell(steps=20, params={"eta": 0.2})]
    cells[3]["params"]["order"] = 2
    plan = a_plan(*cells)
    plan["cells"][1]["nfe_asked"] = 11
    results.write_plan(tmp_path, plan)
    results.write(tmp_path, a_result(f"{1:016x}"))
    failed = {"status": "failed", "error": "not finite", "metrics": {}, "samples_per_second": None}
    results.write(tmp_path, a_result(f"{2:016x}", **failed))
    results.write(tmp_path, a_result(f"{9:016x}"))  # of a cell that has left the sweep

    frame = results.load(tmp_path)

    assert list(frame["key"]) == [f"{i:016x}" for i in range(4)]
    assert list(frame["status"]) == ["missing", "done", "failed", "missing"]
    assert list(frame["reason"].fillna("")) == [
        "not computed yet",
        "",
        "not finite",
        "not computed yet",
    ]
    assert list(frame["steps"].fillna(-1)) == [-1, 10, 10, 20]
    assert list(frame["nfe"]) == [0, 10, 10, 20]
    assert frame["nfe_asked"][1] == 11
    assert frame["metric.fd_cifar"][1] == 1.5
    assert frame["metric.fd_cifar"].isna().sum() == 3
    assert list(frame["param.eta"].fillna("")) == ["", "0.0", "sigma-hat", "0.2"]
    assert frame["seconds_sampling"][1] == 4.0
    assert frame["threads"][1] == 1
    types = {
        "param.order": "Int64",
        "steps": "Int64",
        "seed": "Int64",
        "param.eta": "string",
        "sampler": "string",
    }
    types |= {"metric.fd_cifar": "float64", "param.lower-order-final": "boolean"}
    assert {name: str(frame[name].dtype) for name in types} == types


def test_calls_that_are_only_counted_keep_their_mean_and_range(tmp_path: Path) -> None:
    counted = {"mean": 33.4, "min": 26, "max": 50}
    results.write(tmp_path, a_result(f"{1:016x}", nfe={"declared": None, "counted": counted}))
    results.write(tmp_path, a_result(f"{2:016x}", nfe={"declared": 33, "counted": counted}))
    results.write(tmp_path, a_result(f"{3:016x}", nfe={"declared": None, "counted": None}))
    frame = results.load(tmp_path)
    assert list(frame["nfe"].fillna(-1)) == [33, 33, -1]
    assert list(frame["nfe_mean"].fillna(-1)) == [33.4, -1, -1]
    assert list(frame["nfe_min"].fillna(-1)) == [26, -1, -1]
    assert list(frame["nfe_max"].fillna(-1)) == [50, -1, -1]


def test_frame_without_a_plan_has_the_records(tmp_path: Path) -> None:
    results.write(tmp_path, a_result(f"{1:016x}"))
    frame = results.load(tmp_path)
    assert len(frame) == 1
    assert frame["nfe"][0] == 10
    assert frame["model"][0] == "cifar10-mixture"
    assert str(frame["param.eta"].dtype) == "float64"


def test_a_metric_that_was_asked_later_is_missing(tmp_path: Path) -> None:
    results.write_plan(tmp_path, a_plan(a_cell(), metrics=("fd_cifar", "fid")))
    results.write(tmp_path, a_result("0" * 16))
    frame = results.load(tmp_path)
    assert list(frame["status"]) == ["missing"]
    assert list(frame["reason"]) == ["fid not computed yet"]
    assert list(frame["metric.fd_cifar"]) == [1.5]
    assert pd.isna(frame["metric.fid"][0])


def test_frame_of_a_plan_alone_is_complete_and_typed(tmp_path: Path) -> None:
    results.write_plan(tmp_path, a_plan(a_cell(), a_cell(steps=20)))
    frame = results.load(tmp_path)
    assert list(frame["status"]) == ["missing", "missing"]
    assert frame["metric.fd_cifar"].isna().all()
    assert str(frame["metric.fd_cifar"].dtype) == "float64"
    assert str(frame["dirty"].dtype) == "boolean"


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultError) as caught:
        results.load(tmp_path / "nothing")
    assert str(caught.value) == (
        f'{tmp_path / "nothing"} holds no results. "bench run SWEEP.yaml" makes some.'
    )
