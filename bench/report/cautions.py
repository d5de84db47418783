"""What to keep in mind with the values of a metric: notes of its records, and facts about images.

Each caution stands once, with the cells concerned: a configuration with its budgets.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from bench.report.frame import Setting, Study
from bench.report.markdown import NAMED, calls, escape, listed
from bench.report.names import EXACT, REFERENCES
from bench.report.tables import EXACT_DRAWS

SATURATED = 0.2
"""Share of bytes at 0 or 255 from which on images count as saturated."""


def cautions(study: Study, setting: Setting, metric: str) -> Iterator[str]:
    """The cautions for one setting, as safe Markdown."""
    scored = setting.cells[setting.cells.get(f"metric.{metric}", pd.Series()).notna()]
    if scored.empty:
        return
    images: dict[str, Any] = {key: study.records[key].images or {} for key in scored["key"]}
    for fact, words in (("near_constant", "Near-constant images"), ("duplicates", "Duplicates")):
        counts = scored["key"].map(lambda key, fact=fact: images[key].get(fact) or 0)
        if counts.any():
            most = f"up to {counts.max():,} of {setting.samples:,}"
            yield f"{words} ({most}): {_where(scored, counts > 0)}."
    shares = scored["key"].map(lambda key: images[key].get("saturated") or 0.0)
    if (shares > SATURATED).any():
        most = f"up to {100 * shares.max():.0f} % of all bytes are 0 or 255"
        yield f"Saturated images ({most}): {_where(scored, shares > SATURATED)}."
    noted = [study.records[key].metrics[metric].get("notes") or [] for key in scored["key"]]
    for note in dict.fromkeys(note for notes in noted for note in notes):
        has = pd.Series([note in notes for notes in noted], scored.index)
        yield f"{escape(note.rstrip('.'))}: {_where(scored, has)}."


def _where(cells: pd.DataFrame, concerned: "pd.Series[bool]") -> str:
    """The cells concerned: each configuration with its budgets, in the order of the sweep."""
    if concerned.all():
        return "every cell"
    words = [_place(group) for _, group in cells[concerned].groupby("rank")]
    more = [f"{len(words) - NAMED} more"] if len(words) > NAMED else []
    return "; ".join([*words[:NAMED], *more])


def _place(cells: pd.DataFrame) -> str:
    """Cells of one configuration in words."""
    first = cells.iloc[0]
    if first["sampler"] in REFERENCES:
        return EXACT_DRAWS if first["sampler"] == EXACT else escape(first["label"])
    if pd.notna(first["tolerance"]):
        return f"{escape(first['label'])} ({escape('; '.join(dict.fromkeys(cells['tolerance'])))})"
    budgets = [calls(nfe) for nfe in sorted(cells["budget"].dropna().unique())]
    return f"{escape(first['label'])} at {listed(budgets)} NFE"
