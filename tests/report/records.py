"""Results folders as a run would leave them, through the writer that a run uses."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import results
from bench.results import Result

MODEL = {"kind": "mixture", "name": "cifar10-mixture", "schedule": "vp-linear"}
FLOOR = 1.3e-5


@dataclass(frozen=True)
class Cell:
    """What a planned cell says; the NFE is one call a step unless given, or only counted."""

    sampler: str
    steps: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    spacing: str | None = "uniform"
    spacing_params: dict[str, Any] = field(default_factory=dict)
    effective: int | None = None
    nfe: int | None = None
    nfe_asked: int | None = None
    counted: float | None = None
    final: str | None = "zero"
    seed: int = 0
    samples: int = 5000
    model: dict[str, Any] = field(default_factory=lambda: MODEL)

    def canonical(self) -> dict[str, Any]:
        names = ("model", "sampler", "params", "spacing", "spacing_params", "steps", "final")
        return {name: getattr(self, name) for name in (*names, "seed", "samples")}

    @property
    def key(self) -> str:
        text = json.dumps(self.canonical(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def planned(self) -> dict[str, Any]:
        effective = self.effective if self.effective is not None else self.steps
        nfe = self.nfe if self.nfe is not None else effective or 0
        return {
            "key": self.key,
            "label": f"{self.sampler} {self.steps}",
            "cell": self.canonical(),
            "nfe": nfe if self.counted is None else None,
            "nfe_asked": self.nfe_asked,
            "steps_effective": effective,
        }


def exact(**changes: Any) -> Cell:
    return replace(Cell("exact", spacing=None, final=None), **changes)


def quality(cell: Cell) -> float:
    """A plausible value: falls with the steps, faster for the order, slower for eta."""
    if cell.sampler == "exact":
        return FLOOR * (1 + 0.02 * cell.seed)
    if cell.sampler == "exact-flow":
        return FLOOR * (1.5 if cell.spacing == "uniform" else 1.1)
    if cell.counted is not None:
        return FLOOR * (1 + 100 * cell.counted**-1.0)
    steps = cell.planned["steps_effective"]
    eta = cell.params.get("eta", 0.0)
    slope = 1.7 if cell.sampler == "ddim" else 2.4
    start = 0.06 if cell.sampler == "ddim" else 0.02 + 1e-4 * len(f"{cell.sampler}{cell.params}")
    if eta == "sigma-hat":
        return FLOOR + 3.0 / steps**1.5
    value = start * (1 + 2.5 * float(eta)) * float(steps) ** -slope
    worse = 4e-5 * (1 - float(eta)) if cell.spacing == "quadratic" else 0.0
    return FLOOR + worse + value * (1 + 0.05 * cell.seed)


def record(
    cell: Cell,
    metrics: Iterable[str] = ("fd_cifar",),
    value: float | None = None,
    error: float | None = None,
    entry: dict[str, Any] | None = None,
    **changes: Any,
) -> Result:
    """The record of a finished cell; the second metric is larger than the first, and so on.

    Without an error it is one from before there were any; `entry` is added to each metric's.
    """
    first = quality(cell) if value is None else value
    planned = cell.planned
    calls = planned["nfe"] if cell.counted is None else cell.counted
    apart = 0 if cell.counted is None else 8  # between images
    result = Result(
        key=cell.key,
        label=planned["label"],
        cell=cell.canonical(),
        status="done",
        error=None,
        metrics={
            name: {
                "value": first * 10.0 ** (5 * place),
                "n": cell.samples,
                "reference": "cifar10-mixture",
                "reference_digest": "4e1d",
                "extractor_digest": "9a70",
                **({} if error is None else {"standard_error": error}),
                **(entry or {}),
            }
            for place, name in enumerate(metrics)
        },
        nfe={"declared": planned["nfe"], "counted": _counted(calls, apart)},
        steps={"asked": cell.steps, "effective": planned["steps_effective"]},
        samples=cell.samples,
        seconds={"sampling": 3.5, "features": 1.25, "total": 5.0},
        samples_per_second=1000.0,
        peak_memory_mb=500.0,
        provenance={
            "fingerprint": [0.1, 0.2],
            "model_digest": "77aa",
            "numerics": {"device": "cpu", "dtype": "float32", "batch": 500, "threads": 1},
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "versions": {"bench": "0.1.0", "python": "3.11.9", "torch": "2.9.0", "numpy": "2.3.0"},
            "host": "node1",
            "time": "2026-01-02T03:04:05+00:00",
        },
    )
    return replace(result, **changes)


def _counted(mean: float, apart: int) -> dict[str, float]:
    return {"mean": mean, "min": round(mean) - apart, "max": round(mean) + apart}


def failure(cell: Cell, reason: str) -> Result:
    done = record(cell, value=1.0)
    nfe = {"declared": done.nfe["declared"], "counted": None}
    return replace(done, status="failed", error=reason, metrics={}, nfe=nfe)


def make(
    folder: Path,
    cells: Iterable[Cell],
    *,
    metrics: tuple[str, ...] = ("fd_cifar",),
    question: str = "Does DDIM's deterministic limit still win on a coarse grid?",
    name: str = "quickstart",
    of: Callable[[Cell], Result | None] | None = None,
    plan: bool = True,
    families: dict[str, str] | None = None,
) -> Path:
    """Writes plan and records; `of` gives the record of a cell, None for one not run yet.

    Without `families` the plan is one from before plans told them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cells = list(cells)
    if plan:
        results.write_plan(
            folder,
            {
                "format": results.FORMAT,
                "name": name,
                "file": f"sweeps/{name}.yaml",
                "question": question,
                "cells": [cell.planned for cell in cells],
                **({} if families is None else {"families": families}),
                "metrics": list(metrics),
                "reference": "cifar10-mixture",
                "batch": 500,
                "chunk": 1000,
                "launch": {"executor": "local", "workers": 2},
            },
        )
    for cell in cells:
        result = record(cell, metrics) if of is None else of(cell)
        if result is not None:
            results.write(folder, result)
    return folder


def keep_samples(folder: Path, cells: Iterable[Cell]) -> None:
    """Puts 16 images beside each record: a coloured ramp, noisier for fewer steps."""
    for cell in cells:
        rng = np.random.default_rng(0)
        y, x = np.mgrid[0:1:32j, 0:1:32j]
        base = rng.random((16, 3, 1, 1)) * (0.4 + 0.6 * np.cos(6 * (x + y * rng.random())))
        noise = rng.normal(size=(16, 3, 32, 32)) * (0.5 / math.sqrt(cell.steps or 1000))
        images = np.clip(255 * (np.abs(base) + noise), 0, 255).astype(np.uint8)
        work = folder / "work" / cell.key
        work.mkdir(parents=True, exist_ok=True)
        np.save(work / "samples.npy", images)


def quickstart(steps: Iterable[int] = (5, 10, 20, 50)) -> list[Cell]:
    """The shape of the sweep that ships: ddim on two spacings, heun and dpm-solver++ by NFE."""
    steps = list(steps)
    cells = [exact()]
    for eta in (0.0, 1.0):
        for spacing in ("uniform", "quadratic"):
            for n in steps:
                left = 46 if (spacing, n) == ("quadratic", 50) else None
                cells.append(Cell("ddim", n, {"eta": eta}, spacing, effective=left))
    for n in steps:
        calls = n if n % 2 else n - 1
        heun = Cell("heun", (calls + 1) // 2, {}, "logsnr", nfe=calls, nfe_asked=n)
        cells.append(heun)
        params = {"order": 2, "lower-order-final": "lt10", "thresholding": False}
        cells.append(Cell("dpm-solver++", n, params, "logsnr", nfe_asked=n))
    return cells


def ddim_table() -> list[Cell]:
    """Table 1 of the DDIM paper: eta by steps on two spacings, and every index at T steps."""
    cells = [exact(samples=50_000)]
    for eta in (0.0, 0.2, 0.5, 1.0, "sigma-hat"):
        for spacing in ("quadratic", "uniform"):
            for n in (10, 20, 50, 100):
                left = {50: 46, 100: 88}.get(n) if spacing == "quadratic" else None
                cells.append(Cell("ddim", n, {"eta": eta}, spacing, effective=left, samples=50_000))
        cells.append(Cell("ddim", 1000, {"eta": eta}, "all", samples=50_000))
    return cells


FAMILIES = {
    "ddim": "implicit",
    "ddpm": "ancestral",
    "euler": "classical",
    "heun": "classical",
    "ab": "classical",
    "rk45": "classical",
    "deis": "exponential",
    "unipc": "exponential",
    "dpm-solver": "exponential",
    "dpm-solver++": "exponential",
    "exact-flow": "reference",
}


def zoo(steps: Iterable[int] = (5, 10, 20)) -> list[Cell]:
    """Many samplers on one spacing, a few on their own, one with tolerances, and exact flows."""
    cells = [exact()]
    solver = {"order": 2, "method": "multistep", "eta": 0.0}
    on_logsnr: list[tuple[str, dict[str, Any]]] = [
        *(("ddim", {"eta": eta}) for eta in (0.0, 0.5, 1.0)),
        *((name, {}) for name in ("ddpm", "euler", "heun")),
        *(("ab", {"order": order}) for order in (2, 3, 4)),
        ("deis", {}),
        *(("unipc", {"variant": variant}) for variant in ("bh1", "bh2")),
        *(("dpm-solver", {"order": order}) for order in (2, 3)),
        ("dpm-solver++", solver),
        ("dpm-solver++", {**solver, "order": 3}),
        ("dpm-solver++", {**solver, "eta": 1.0}),
        ("dpm-solver++", {**solver, "method": "singlestep"}),
    ]
    for sampler, params in on_logsnr:
        cells += [Cell(sampler, n, params, "logsnr", nfe_asked=n) for n in steps]
    for spacing in ("uniform", "quadratic"):
        cells += [Cell("ddim", n, {"eta": 0.0}, spacing, nfe_asked=n) for n in steps]
    for rtol, counted in ((0.1, 33.4), (0.001, 123.0)):
        tolerances = {"rtol": rtol, "atol": 0.01}
        cells.append(Cell("rk45", 2, tolerances, "linspace", counted=counted))
    for spacing in ("logsnr", "uniform"):
        cells.append(Cell("exact-flow", 10, {"tolerance": 1e-4}, spacing, counted=52.5))
    return cells


def make_large(folder: Path) -> Path:
    """Results of 2,001 cells: 100 configurations of five samplers at 2 to 21 steps."""
    cells = [exact()]
    for place in range(100):
        params = {"order": place % 3 + 1, "eta": place / 100}
        spacing = ("uniform", "logsnr", "quadratic", "karras")[place % 4]
        name = ("ddim", "heun", "deis", "unipc", "dpm-solver++")[place % 5]
        cells += [Cell(name, n, params, spacing) for n in range(2, 22)]
    return make(
        folder,
        cells,
        families=FAMILIES,
        of=lambda cell: record(cell, error=quality(cell) / 50),
    )
