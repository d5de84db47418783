"""What a report says about each metric, before it is Markdown, HTML or LaTeX."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.report import frame, models, tables, yardstick
from bench.report.beside import METRIC, beside, model_id
from bench.report.captions import caption
from bench.report.cautions import cautions
from bench.report.content import Table
from bench.report.frame import Study
from bench.report.markdown import Scale
from bench.report.methods import accelerated, quality
from bench.report.spacings import by_spacing
from bench.report.summary import summary

PAPER_MODEL = "ddpm-cifar10-32"
"""The network of the DDIM paper's Table 1."""


@dataclass(frozen=True)
class Part:
    """One setting under one metric.

    Attributes:
        name: Of the setting; "" if there is only one.
        scale: Of all values.
        summary: Sentences, as safe Markdown.
        caption: What must be known to compare the values, as safe Markdown.
        cautions: As safe Markdown.
        tables: What is shown.
        folded: What repeats it in another layout, shown on request.
    """

    name: str
    scale: Scale
    summary: list[str]
    caption: str
    cautions: list[str]
    tables: list[Table]
    folded: list[Table]


Sections = dict[str, list[Part]]
"""By metric."""


def every(study: Study) -> Sections:
    """The parts of every metric."""
    return {metric: list(parts(study, metric)) for metric in study.metrics}


def parts(study: Study, metric: str) -> Iterator[Part]:
    """The parts of a metric, in the order of the settings, then settings side by side."""
    study = frame.asking(study, metric)
    stick = yardstick.of(study, metric)
    for setting in study.settings:
        points, exact = frame.points(setting.cells, metric), frame.floor(setting, metric)
        shown = frame.points(frame.serve_all(setting.cells), metric)
        flows = frame.flows(setting, metric)
        values = [*points["value"], *(flow.value for flow in flows), exact]
        scale = Scale.of(value.mean for value in values if value is not None)
        by_nfe = list(tables.by_nfe(shown, exact, scale, stick))
        by_eta = list(tables.by_eta(shown, exact, scale, stick))
        repeated = tables.only_eta(shown)
        of_the_paper = metric == METRIC and model_id(setting) == PAPER_MODEL
        yield Part(
            name=setting.name,
            scale=scale,
            summary=list(summary(points, exact, scale, stick)),
            caption=caption(study, setting, metric, scale),
            cautions=list(cautions(study, setting, metric)),
            tables=[
                *tables.best(points, exact, scale, stick),
                *([] if repeated else by_nfe),
                *by_eta,
                *by_spacing(points, scale, stick),
                *beside(setting, metric, scale),
                *quality(shown, scale, comparable=of_the_paper),
                *accelerated(points, exact, scale, stick),
                *tables.by_tolerance(points, scale),
                *tables.references(exact, flows, scale, stick),
            ],
            folded=by_nfe if repeated else [],
        )
    for settings in models.comparable(study):
        found = [frame.points(setting.cells, metric) for setting in settings]
        scale = Scale.of(mean for points in found for mean in points["mean"])
        how = yardstick.pairing(study, metric)
        for table in models.by_model(settings, found, scale, stick, how):
            yield Part(
                name="Models side by side",
                scale=scale,
                summary=[models.summary(table)],
                caption=models.caption(settings, metric, scale, stick),
                cautions=[],
                tables=[table],
                folded=[],
            )
