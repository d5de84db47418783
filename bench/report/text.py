"""report.md: the report for a repository's page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.report import frame, provenance
from bench.report.captions import caption
from bench.report.content import Chapter, Picture, Table
from bench.report.frame import Study
from bench.report.markdown import Scale, count, escape, render
from bench.report.names import rivals
from bench.report.plots import Pictures
from bench.report.sections import Part, Sections

FOLDED = "The values by η again, with NFE down"


def report(
    study: Study,
    found: Sections,
    plots: Mapping[str, Pictures],
    samples: Picture,
    notes: str = "",
    chapters: Sequence[Chapter] = (),
) -> str:
    """The whole of report.md.

    Args:
        study: What is reported.
        found: What is said about each metric.
        plots: The pictures of each metric.
        samples: The picture of samples.
        notes: An author's, in Markdown.
        chapters: What is added to it.
    """
    blocks = [f"# {escape(study.title)}", lead(study)]
    if notes:
        blocks += ["## Notes", "*By an author; all below is made from the records.*", notes]
    for metric in study.metrics:
        blocks += [
            f"## {escape(metric)}",
            *_metric(of(study, metric), found[metric], plots[metric]),
        ]
    blocks += ["## Samples", *_image(samples)]
    for each in chapters:
        blocks += [f"## {escape(each.title)}", *chapter(each)]
    blocks += ["## Configurations", *(_blocks(provenance.configurations(study)) or ["None."])]
    blocks += ["## Provenance", render(provenance.origins(study))]
    if commands := provenance.commands(study, chapters):
        blocks += ["To reproduce it:", _commands(commands)]
    return "\n\n".join(blocks) + "\n"


def chapter(found: Chapter) -> list[str]:
    """Without its title."""
    picture = _image(found.picture) if found.picture.file else []
    return [*found.words, *picture, *_blocks(found.tables)]


def lead(study: Study) -> str:
    """How much there is, as safe Markdown."""
    cells = study.cells
    status = cells["status"].value_counts()
    done, failed = int(status.get("done", 0)), int(status.get("failed", 0))
    state = [f"{done} of {count(len(cells), 'cell')} done"]
    state += [f"{failed} failed"] if failed else []
    state += (
        [f"{len(cells) - done - failed} not computed yet"] if len(cells) > done + failed else []
    )
    sampled = cells[rivals(cells)]
    names = [f"**{escape(sweep.name)}**" for sweep in study.sweeps]
    return (
        f"Sweep{'s' if len(names) > 1 else ''} {', '.join(names)}: "
        f"{count(sampled['sampler'].nunique(), 'sampler')} in "
        f"{count(sampled['rank'].nunique(), 'configuration')}; {', '.join(state)}. "
        "Every cell at full precision: [table.csv](table.csv)."
    )


def of(study: Study, metric: str) -> str:
    """What the plot of a metric is of, in full if all of it is of the same, as safe Markdown."""
    study = frame.asking(study, metric)
    if len(study.settings) == 1:
        return caption(study, study.settings[0], metric, Scale())
    told = "; ".join(setting.name for setting in study.settings)
    return f"{escape(metric)}, for {escape(told)}, as said below." if told else escape(metric)


def _metric(about: str, parts: Iterable[Part], plots: Pictures) -> Iterator[str]:
    yield from _image(plots.nfe, about)
    for part in parts:
        if part.name:
            yield f"### {escape(part.name)}"
        yield f"In words{f' (values {part.scale.words})' if part.scale.words else ''}:"
        yield _bullets(part.summary)
        yield f"*{part.caption}*"
        if part.cautions:
            yield f"Cautions:\n\n{_bullets(part.cautions)}"
        yield from _blocks(part.tables)
        if part.folded:
            folded = f"<details><summary>{FOLDED}</summary>"
            yield from [folded, *_blocks(part.folded), "</details>"]
    for picture in (plots.eta, plots.seconds):
        yield from _image(picture) if picture.file else []


def _blocks(found: Iterable[Table]) -> list[str]:
    return [
        block
        for part in found
        for block in ([f"**{escape(part.title)}**"] if part.title else []) + [render(part)]
    ]


def _image(picture: Picture, before: str = "") -> list[str]:
    drawn = [f"![{escape(picture.alt)}]({picture.file})"] if picture.file else []
    return [*drawn, f"*{f'{before} {picture.caption}'.strip()}*"]


def _commands(found: Mapping[str, list[str]]) -> str:
    lines = ["```sh"]
    for part, commands in found.items():
        lines += [f"# {part}", *commands]
    return "\n".join([*lines, "```"])


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
