"""Writes what the README takes from committed results: a picture and a table, between markers.

    python tools/readme.py

From the records alone, without the influences beside them, so that a clone gives the same text. A
test fails while the README says something else than this would write.
"""

from dataclasses import replace
from pathlib import Path

from bench import atomic
from bench.report import frame, sections
from bench.report.markdown import escape, render

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
START = "<!-- Written by tools/readme.py from results/ddim-table. Do not edit. -->"
END = "<!-- End of what tools/readme.py writes. -->"
SWEEP, METRIC, PICTURE = "ddim-table", "fd_cifar", "quality-vs-nfe.svg"


def part() -> str:
    """What stands between the markers."""
    study = replace(frame.read(ROOT / "results" / SWEEP), influences={})
    (said,) = sections.parts(study, METRIC)
    table = next(found for found in said.tables if found.name == "by-eta")
    report = f"reports/{SWEEP}"
    alt = f"{METRIC} against NFE for DDIM on two spacings, with the floor of exact draws"
    blocks = [
        f"![{escape(alt)}]({report}/{PICTURE})",
        f"**{escape(table.title)}**",
        render(replace(table, legend="")),
        f"*{said.caption} {escape(table.legend)}*",
    ]
    return "\n\n".join([START, *blocks, END])


def updated(text: str) -> str:
    """The README's text with that part as it is now."""
    before, rest = text.split(START)
    return before + part() + rest.split(END)[1]


if __name__ == "__main__":
    atomic.write_text(README, updated(README.read_text(encoding="utf-8")))
