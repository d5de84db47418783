"""The two tables of `accelerated-sampling.txt`, a text on faster sampling, with measured values.

`quality`: quality against steps, a column for DDPM and for DDIM at eta 0 and 1, beside what the
DDIM paper has (Song, Meng and Ermon 2021, arXiv:2010.02502, Table 1) and what the text has at
eta = 1, which is wrong in all five entries.
`accelerated`: its methods of acceleration, with their steps and words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bench import published
from bench.report.content import HOLE, Footnotes, Place, Table
from bench.report.markdown import Scale, calls, times
from bench.report.names import plain
from bench.report.pooled import Pooled
from bench.report.tables import ETA, eta_rows, sweeps_of_eta
from bench.report.yardstick import Yardstick

TOLD = {1000: "3.17", 100: "6.84", 50: "13.36", 20: "32.55", 10: "72.61"}
"""Steps -> what the text has for DDIM at eta = 1; none of them is the paper's."""
BASE = 1000
"""Steps that a speed-up is measured from."""

_COLUMNS = {"sigma-hat": "DDPM (σ̂)", "0": "DDIM η = 0", "1": "DDIM η = 1"}


@dataclass(frozen=True)
class _Method:
    """A row of the text's table of methods: its words, and whose points have its values."""

    name: str
    steps: str
    least: int
    most: int
    retraining: str
    quality: str
    sampler: str
    etas: tuple[str, ...] = ("",)


_METHODS = (
    _Method("DDIM", "10–100", 10, 100, "No", "Good", "ddim", ("0",)),
    _Method("DPM-Solver++", "10–20", 10, 20, "No", "Very good", "dpm-solver++", ("0", "")),
    _Method("Progressive distillation", "4–8", 4, 8, "Yes (iterative)", "Very good", ""),
    _Method("Consistency models", "1–4", 1, 4, "Yes", "Good–very good", "consistency"),
    _Method("Original DDPM", "1000", BASE, BASE, "—", "Baseline", "ddpm"),
)


def quality(points: pd.DataFrame, scale: Scale, *, comparable: bool) -> Iterator[Table]:
    """The text's table of quality against steps, on quadratic if that is there: the paper's.

    Args:
        points: Of one setting, the spacing `all` under its sisters.
        scale: Of the values.
        comparable: Whether the setting's model and metric are those of the paper.
    """
    swept = list(sweeps_of_eta(points))
    of_the_paper = [(title, part) for title, part in swept if (part["grid"] == "quadratic").any()]
    for title, part in (of_the_paper or swept)[:1]:
        etas = {eta: rank for rank, eta in eta_rows(part).items()}
        shown = part[part["steps"].isin(TOLD)]
        if not {"0", "1"} <= etas.keys() or shown.empty:
            continue
        measured = {
            (eta, steps): value
            for eta, rank in etas.items()
            for steps, value in shown.loc[shown["rank"] == rank, ["steps", "value"]].to_numpy()
        }
        paper, notes, rows = _paper(), Footnotes(), []
        for steps, told in TOLD.items():
            row = [Place(str(steps))]
            for eta in _COLUMNS:
                value = measured.get((eta, steps))
                row.append(Place("") if value is None else _place(value, scale, notes))
            row += [Place(paper[eta, steps]) for eta in _COLUMNS]
            rows.append([*row, Place(told, struck=True)])
        header = ["Steps", *(f"{name}, here" for name in _COLUMNS.values())]
        header += [f"{name}, paper" for name in _COLUMNS.values()]
        header.append("DDIM η = 1, as in the text")
        legend = (
            "The layout of accelerated-sampling.txt. Paper: Table 1 of the DDIM paper, FID on "
            "CIFAR-10, quadratic below 1,000 steps. Crossed out: what the text has for η = 1, "
            "wrong in all five entries; 3.17 belongs to σ̂. "
        )
        legend += (
            "Model and metric are those of the paper."
            if comparable
            else "Another model or metric than the paper's: compare how values fall with the "
            "steps, not the values."
        )
        yield Table(
            f"As in accelerated-sampling.txt: {title}",
            header, rows, notes.lines(), legend, name="quality-by-steps",
        )  # fmt: skip


def accelerated(
    points: pd.DataFrame, exact: Pooled | None, scale: Scale, yardstick: Yardstick
) -> Iterator[Table]:
    """The text's table of methods, where at least two of them were measured."""
    rows, measured = [], 0
    for method in _METHODS:
        best = _best(points, method, yardstick)
        measured += best is not None
        texts = [method.name, method.retraining, method.quality]
        row = [*map(Place, texts), Place(method.steps)]
        if best is None:
            rows.append([*row, *map(Place, ["not measured", HOLE, HOLE, HOLE])])
            continue
        floor = HOLE if exact is None else times(best["mean"], exact.mean)
        rows.append(
            [
                *row,
                Place(f"{best['label']}, {calls(best['nfe'])} NFE"),
                Place(scale.pooled(best["value"]), value=best["value"]),
                Place(floor),
                Place(f"{times(BASE, best['nfe'])}"),
            ]
        )
    if measured < 2:
        return
    header = ["Method", "Retraining", "Quality, in words", "Steps", "Measured", "Value"]
    header += [f"Times the {yardstick.bound}", "Speed-up over 1,000 steps"]
    legend = (
        "Steps, retraining and words are those of accelerated-sampling.txt. Measured: the "
        f"{yardstick.best} value of the method within those steps, counted as calls. Speed-up: "
        "1,000 calls over its calls. Original DDPM: ddpm, or ddim with η = 1 or σ̂."
    )
    yield Table("Methods of acceleration", header, rows, legend=legend, left=5, name="methods")


def _best(points: pd.DataFrame, method: _Method, stick: Yardstick) -> "pd.Series[Any] | None":
    within = points[points["nfe"].between(method.least, method.most)]
    etas = within.get(ETA, pd.Series("", within.index)).map(plain)
    theirs = (within["sampler"] == method.sampler) & (
        etas.isin(method.etas) | (method.etas == ("",))
    )
    if method.sampler == "ddpm":
        theirs |= (within["sampler"] == "ddim") & etas.isin(["1", "sigma-hat"])
    ranked = stick.ranked(within[theirs])
    return None if ranked.empty else ranked.iloc[0]


def _paper() -> dict[tuple[str, int], str]:
    """Eta and steps -> FID, from Table 1 of the DDIM paper."""
    found = published.find(["paper=Denoising Diffusion Implicit Models (Song, Meng, Ermon)"])
    return {
        (plain(row["eta"]), int(row["steps"])): row["fid"]
        for row in found
        if row["table_or_figure"] == "Table 1" and row["model"] == "ddpm-cifar10-32"
    }


def _place(value: Pooled, scale: Scale, notes: Footnotes) -> Place:
    return Place(scale.pooled(value), note=notes.number(value.note), value=value)
