"""What a reader must know before comparing the numbers of one setting with any other."""

import math

from bench.report import frame, yardstick
from bench.report.frame import Setting, Study
from bench.report.markdown import Scale, escape
from bench.report.names import rivals, usual_grid
from bench.report.provenance import commits


def caption(study: Study, setting: Setting, metric: str, scale: Scale) -> str:
    """What a reader must know before comparing a number of this setting with any other."""
    done = setting.cells[setting.cells["status"] == "done"]
    seeds = sorted(setting.cells["seed"].unique())
    words = [
        f"{setting.samples:,} samples a cell",
        f"reference {setting.reference}",
        f"model {setting.model}",
        *_spacing(study, setting),
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        *commits(done),
    ]
    what = f"{escape(metric)} {scale.words}".strip() + _errors(setting, metric)
    better = yardstick.of(study, metric).better
    return f"{what}; {better} is better. {escape('; '.join(words))}."


def _errors(setting: Setting, metric: str) -> str:
    """What stands behind the ±: nothing, one standard error of a value, or of a mean over seeds."""
    exact = frame.floor(setting, metric)
    values = [*frame.points(setting.cells, metric)["value"], *([exact] if exact else [])]
    values = [value for value in values if not value.hole]
    told = ", mean over seeds" if any(value.seeds > 1 for value in values) else ""
    spread = {math.isfinite(value.freedom) for value in values if value.sure}
    if not spread:
        return told
    sources = [
        "the spread over seeds" if is_spread else "the images" for is_spread in sorted(spread)
    ]
    return f"{told} ± one standard error, from {' or '.join(sources)}"


def _spacing(study: Study, setting: Setting) -> list[str]:
    """The spacing that all configurations share, or that names leave out."""
    grids = setting.cells.loc[rivals(setting.cells), "grid"].unique()
    if len(grids) == 1:
        return [f"spacing {grids[0]}"]
    usual = usual_grid(study.cells)
    return [f"spacing {usual} where none is named"] if usual else []
