"""From records to a report: tables, pictures and words, without torch.

A report is a pure function of a results folder: the same records give the same bytes, whenever
and wherever it is built. It works on half-finished sweeps, where a hole is a hole with its reason.

    frame.py     records -> Study: labels, settings, points pooled over seeds
    markdown.py  escaping, numbers, tables: how anything becomes safe Markdown
    tables.py    quality against steps, in the two layouts of the literature
    text.py      the summary in words, captions, provenance
    plots.py     quality-vs-nfe.svg and .png
    samples.py   samples.png: the same seeds through every sampler
"""

from pathlib import Path

from bench import atomic
from bench.report import frame, text

REPORT = "report.md"


def build(folder: Path, out: Path) -> Path:
    """Builds the report of one results folder and returns the path of its `report.md`.

    Args:
        folder: A results folder, as `bench run` leaves it, finished or not.
        out: The folder to write into, usually `reports/<sweep>/`. Its report.md, table.csv and
            pictures are replaced; pictures that no longer belong to the report are removed.

    Raises:
        ResultError: `folder` holds neither plan nor record, a record cannot be read, or `out`
            cannot be written.
    """
    study = frame.read(folder)
    # matplotlib and seaborn take seconds to import: not before the records are known to be good.
    from bench.report import plots, samples

    atomic.make_folder(out)
    pictures = plots.write(study, out)
    sheet = samples.write(study, folder, out)
    # Without an index column and with fixed line ends the bytes are the same everywhere.
    atomic.write_text(out / "table.csv", frame.tidy(study).to_csv(index=False, lineterminator="\n"))
    atomic.write_text(out / REPORT, text.report(study, pictures, sheet))
    return out / REPORT
