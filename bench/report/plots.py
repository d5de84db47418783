"""The pictures of a report and their captions."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.report import frame, heat, ink, lines, yardstick
from bench.report.content import Picture
from bench.report.frame import Study
from bench.report.lines import FRONT, INTERVAL
from bench.report.panels import NFE, SECONDS, Axis, Panel, arrange, shows
from bench.report.pooled import Pooled
from bench.report.yardstick import Yardstick

NAME, SLOW, HEAT = "quality-vs-nfe", "quality-vs-seconds", "eta-by-steps"


@dataclass(frozen=True)
class Pictures:
    """Those of one metric: quality against NFE, against seconds, and over eta and steps."""

    nfe: Picture
    seconds: Picture
    eta: Picture


def write(study: Study, out: Path) -> dict[str, Pictures]:
    """Draws the pictures of each metric into `out`; the metrics after the first add their name.

    Pictures of an earlier report that this one does not have are removed.
    """
    pictures = {}
    for index, metric in enumerate(study.metrics):
        added = "" if index == 0 else f"-{ink.slug(metric)}"
        asking = frame.asking(study, metric)
        stick = yardstick.of(asking, metric)
        pictures[metric] = Pictures(
            _against(NFE, asking, metric, stick, out / f"{NAME}{added}"),
            _against(SECONDS, asking, metric, stick, out / f"{SLOW}{added}"),
            _over_eta(asking, metric, stick, out / f"{HEAT}{added}"),
        )
    every = [each for made in pictures.values() for each in (made.nfe, made.seconds, made.eta)]
    drawn = {picture.file.removesuffix(".svg") for picture in every if picture.file}
    for name in (NAME, SLOW, HEAT):
        for kind in ink.KINDS:
            for path in sorted(out.glob(f"{name}*.{kind}")):
                if path.name.removesuffix(f".{kind}") not in drawn:
                    path.unlink()
    return pictures


def _against(axis: Axis, study: Study, metric: str, stick: Yardstick, path: Path) -> Picture:
    """A plot of quality against NFE or seconds."""
    panels = arrange(study, metric, stick, axis)
    if not panels:
        if axis is SECONDS:
            return Picture(None, "")
        return Picture(None, "No plot: no cell of a sampler has a value above zero yet.")
    words = {NFE: "the number of function evaluations", SECONDS: "seconds of sampling"}[axis]
    alt = f"{metric} against {words}"
    with ink.style():
        figure = lines.figure(panels, metric, axis)
        ink.save(figure, path, alt)
        svg = ink.with_spots(ink.inline(figure, alt, path.name), lines.spots(figure, panels))
    return Picture(
        f"{path.name}.svg", _caption(panels, stick, _below(study, metric), axis), alt, svg
    )


def _over_eta(study: Study, metric: str, stick: Yardstick, path: Path) -> Picture:
    """The heat map of eta and steps, where a sweep has both."""
    maps = heat.maps(study, metric)
    if not maps:
        return Picture(None, "")
    alt = f"{metric} over eta and steps"
    with ink.style():
        figure = heat.figure(maps, metric, higher=stick.higher)
        ink.save(figure, path, alt)
        svg = ink.inline(figure, alt, path.name)
    caption = (
        f"The darker, the {stick.better} and so the better, on a logarithmic scale of colours. An "
        "empty place is a cell without a value above zero."
    )
    return Picture(f"{path.name}.svg", caption, alt, svg)


def _below(study: Study, metric: str) -> int:
    """How many values have no place on a logarithmic axis: estimates of a distance near zero."""
    values: list[Pooled] = []
    for setting in study.settings:
        exact = frame.floor(setting, metric)
        values += [*frame.points(setting.cells, metric)["value"], *([exact] if exact else [])]
        values += [flow.value for flow in frame.flows(setting, metric)]
    return sum(not value.hole and not shows(value) for value in values)


def _caption(panels: list[Panel], stick: Yardstick, below: int = 0, axis: Axis = NFE) -> str:
    """How to read the plot; what its numbers are of, the report says with the tables as well."""
    words = [f"Both axes are logarithmic; {axis.place}"]
    points = pd.concat([panel.points for panel in panels])
    if axis is NFE and points["tolerance"].notna().any():
        words.append("Samplers that choose their own steps stand at their mean NFE.")
    if any(len(panel.quiet) for panel in panels):
        words.append("The first panel has what is best at some budget in colour, the rest in grey.")
    if any(panel.front for panel in panels):
        words.append(
            f"The pale band joins the {FRONT}: no value at as many "
            f"{'calls or fewer' if axis is NFE else 'seconds or less'} is {stick.better}."
        )
    if any(panel.exact for panel in panels):
        words.append(
            f"The horizontal line is the value of exact draws of the model: the {stick.bound}."
        )
    if any(panel.flows for panel in panels):
        words.append(
            "Dotted: the exact flow between the ends of that grid, which a deterministic sampler "
            "on the same ends approaches; see References."
        )
    if any(panel.published for panel in panels):
        words.append(
            "Rings: what papers report for the same network, spacing and eta; see Published beside "
            "measured."
        )
    if points["served"].any():
        words.append(f"The spacing {frame.ALL} is the last point of every other spacing.")
    if any(value.sure for value in points["value"]):
        words.append(f"Bars: 95 % intervals, {INTERVAL} standard errors to either side.")
    if any(value.hole for value in points["value"]):
        words.append("A gap in a line is a cell without a value.")
    if below:
        one = below == 1
        words.append(
            f"{below} value{'' if one else 's'} at or below zero, which the axis cannot show, "
            f"{'is' if one else 'are'} left out."
        )
    return " ".join(words)
