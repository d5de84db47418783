"""Which lines of the plot stand in which panel.

One panel a setting while its lines have room in it; else a panel a spacing; and where a spacing
alone has too many, panels of families of samplers under an overview of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from bench.report import frame
from bench.report.beside import Pair, pairs
from bench.report.frame import Flow, Setting, Study
from bench.report.front import Best, front
from bench.report.names import MANY
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick


@dataclass(frozen=True)
class Axis:
    """What quality is held against.

    Attributes:
        column: Of `frame.points`.
        label: Of the axis.
        place: What a point's place on it is, for the caption.
    """

    column: str
    label: str
    place: str


NFE = Axis("nfe", "NFE (model calls per image)", "each point is at the NFE that really ran.")
SECONDS = Axis(
    "seconds",
    "seconds of sampling for 1,000 images",
    "each point is at the seconds that sampling took, comparable only where the machines are: see "
    "Provenance.",
)


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Attributes:
        title: May be empty.
        points: Of the lines that have a colour and a name, with a column `cost`.
        names: The column that names them: `label`, or `line` if the title says the spacing.
        quiet: Of lines in grey without a name.
        front: Of the whole setting; empty if there is nothing to compare.
        exact: The value of exact draws.
        flows: Exact flows on spacings of this panel's lines.
        published: What papers report that is comparable with one of the named points.
    """

    title: str
    points: pd.DataFrame
    names: str
    quiet: pd.DataFrame
    front: list[Best]
    exact: Pooled | None
    flows: list[Flow]
    published: list[Pair]


def arrange(study: Study, metric: str, yardstick: Yardstick, axis: Axis = NFE) -> list[Panel]:
    """The panels of a metric, those of one setting after those of another; none without a line."""
    return [
        panel
        for setting in study.settings
        for panel in _of(setting, metric, yardstick, axis)
        if len(panel.points) + len(panel.quiet)
    ]


def shows(value: Pooled) -> bool:
    """Whether a value has a place on a logarithmic axis; a hole is NaN, and has none."""
    return value.mean > 0


def _of(setting: Setting, metric: str, yardstick: Yardstick, axis: Axis) -> Iterator[Panel]:
    exact = frame.floor(setting, metric)
    floor = exact if exact is not None and shows(exact) else None
    flows = [flow for flow in frame.flows(setting, metric) if shows(flow.value)]
    points = frame.points(frame.serve_all(setting.cells), metric)
    points = _shown(points.assign(cost=points[axis.column]))
    compared = points["rank"].nunique() > 1
    places = front(points, yardstick, "cost") if compared else []
    best = [place for place in places if shows(place.points["value"].iloc[0])]
    split = list(_split(points))
    known = [pair for pair in pairs(setting, metric) if not pair.against] if axis is NFE else []

    def panel(title: str, part: pd.DataFrame, names: str, quiet: pd.DataFrame) -> Panel:
        words = ", ".join(word for word in (setting.name, title) if word)
        of_these = [flow for flow in flows if flow.grid in {*part["grid"], *quiet["grid"]}]
        here = [pair for pair in known if pair.point["rank"] in set(part["rank"])]
        return Panel(words, part, names, quiet, best, floor, of_these, here)

    if len(split) > 2:
        leaders = points["rank"].isin({rank for place in best for rank in place.points["rank"]})
        yield panel("all configurations", points[leaders], "label", points[~leaders])
    for title, part, names in split:
        yield panel(title, part, names, part.iloc[:0])


def _shown(points: pd.DataFrame) -> pd.DataFrame:
    """Without lines that have no point at all: their holes stay with their table."""
    drawn = points["value"].map(shows).astype(bool) & points["cost"].notna()
    return points[points["rank"].isin(points.loc[drawn, "rank"])]


def _split(points: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Title, points and naming column of each panel of a setting."""
    fitting = frame.parts(points)
    if fitting is not None:
        for grid, part in fitting:
            yield f"spacing {grid}" if grid else "", part, "line" if grid else "label"
        return
    for title, part in _families(points):
        yield from _pieces(title, part)


def _families(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Families in the order of the sweep; small ones share a panel with the one before."""
    packed: list[tuple[str, pd.DataFrame]] = []
    for family, part in points.groupby("family", sort=False):
        if packed:
            title, before = packed[-1]
            both = pd.concat([before, part])
            if both["rank"].nunique() <= MANY:
                packed[-1] = (f"{title} and {family}", both)
                continue
        packed.append((str(family) or "configurations", part))
    return packed


def _pieces(title: str, part: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """The lines of a part, in panels of about as many each."""
    ranks = part["rank"].unique()
    count = -(-len(ranks) // MANY)
    for number in range(count):
        piece = ranks[number * len(ranks) // count : (number + 1) * len(ranks) // count]
        place = f" ({number + 1} of {count})" if count > 1 else ""
        yield title + place, part[part["rank"].isin(piece)], "label"
