"""The heat map of eta and steps: a map a spacing, as dark as the value is good."""

import math
from dataclasses import dataclass

import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from bench.report import frame
from bench.report.frame import Study
from bench.report.ink import INK
from bench.report.markdown import Scale
from bench.report.panels import shows
from bench.report.tables import eta_rows, sweeps_of_eta

MOST = 6
"""Maps in one picture."""
_CELL = 0.72, 0.36
"""Width and height of a place in inches."""
_LEFT, _TOP, _BOTTOM, _GAP = 0.95, 0.4, 0.55, 0.9


@dataclass(frozen=True)
class Map:
    """Values over eta (rows) and steps (columns); NaN where there is none to show."""

    title: str
    values: pd.DataFrame


def maps(study: Study, metric: str) -> list[Map]:
    """The maps of all settings, at most `MOST`."""
    found = []
    for setting in study.settings:
        points = frame.points(frame.serve_all(setting.cells), metric)
        for title, part in sweeps_of_eta(points):
            shown = part.assign(shown=[v.mean if shows(v) else math.nan for v in part["value"]])
            values = shown.pivot_table(
                index="rank", columns="steps", values="shown", aggfunc="first", dropna=False
            )
            etas = eta_rows(part)
            values = values.reindex(list(etas)).rename(index=etas)
            if values.notna().any(axis=None):
                words = [word for word in (setting.name, title) if word]
                found.append(Map(", ".join(words), values.astype("float64")))
    return found[:MOST]


def figure(found: list[Map], metric: str, *, higher: bool) -> Figure:
    """The maps side by side in two columns, in one scale of colours."""
    values = [value for each in found for _, value in _places(each.values)]
    scale = Scale.of(values)
    columns = min(2, len(found))
    wide = max(each.values.shape[1] for each in found) * _CELL[0]
    high = max(each.values.shape[0] for each in found) * _CELL[1]
    rows = -(-len(found) // columns)
    width = _LEFT + columns * wide + (columns - 1) * _GAP + 0.2
    height = rows * (_TOP + high + _BOTTOM)
    made = Figure(figsize=(width, height))
    FigureCanvasAgg(made)
    low, top = min(values), max(values)
    norm = LogNorm(low, top if top > low else low * 1.01)
    palette = sns.color_palette("cividis" if not higher else "cividis_r", as_cmap=True)
    for place, each in enumerate(found):
        row, column = divmod(place, columns)
        x, y = _LEFT + column * (wide + _GAP), height - row * (_TOP + high + _BOTTOM) - _TOP
        across, down = each.values.shape[1] * _CELL[0], each.values.shape[0] * _CELL[1]
        axes = made.add_axes((x / width, (y - down) / height, across / width, down / height))
        sns.heatmap(
            each.values, ax=axes, norm=norm, cmap=palette, cbar=False, linewidths=1.5,
            mask=each.values.isna(),
        )  # fmt: skip
        for (i, j), value in _places(each.values):
            pale = norm(value) > 0.5 if not higher else norm(value) < 0.5
            axes.text(
                j + 0.5, i + 0.5, scale.show(value), ha="center", va="center", size="small",
                color="#111111" if pale else "#fdfdfd",
            )  # fmt: skip
        axes.set_xlabel("steps")
        axes.set_ylabel("η" if column == 0 else "")
        axes.tick_params(left=False, bottom=False)
        axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
        unit = f"{metric} {scale.words}".strip() if place == 0 else ""
        title = "; ".join(word for word in (each.title, unit) if word)
        axes.set_title(title, loc="left", color=INK, fontsize="small")
    return made


def _places(values: pd.DataFrame) -> list[tuple[tuple[int, int], float]]:
    return [
        ((i, j), value)
        for i, row in enumerate(values.to_numpy().tolist())
        for j, value in enumerate(row)
        if not math.isnan(value)
    ]
