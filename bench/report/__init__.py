"""From records to a report: tables, pictures and words, without torch.

A report is a pure function of a results folder: the same records give the same bytes, whenever
and wherever it is built. It works on half-finished sweeps, where a hole is a hole with its reason,
and without the influences beside the records, where fewer differences show and it says so.

    names.py     what configurations are called, and which cells are one configuration
    pooled.py    a value over seeds, with its error
    frame.py     records -> Study: settings, points pooled over seeds
    ties.py      which values cannot be told apart from the best: the statistics alone
    yardstick.py which way a metric is better, and the error of a difference
    front.py     the Pareto front: who is best at each budget
    markdown.py  escaping, numbers, tables: how anything becomes safe Markdown
    tables.py    the front, and quality against steps in the two layouts of the literature
    cautions.py  what to keep in mind with the values: notes, facts about images
    text.py      the summary in words, captions, provenance
    panels.py    which lines of the plot stand in which panel
    plots.py     quality-vs-nfe.svg and .png
    samples.py   samples.png: the same seeds through every sampler
"""

from pathlib import Path

from bench import atomic
from bench.errors import ResultError
from bench.report import frame, text

REPORT = "report.md"
NOTES = "notes.md"
"""In the results folder: what an author has to say about them, in Markdown, shown as it is."""


def build(folder: Path, out: Path) -> Path:
    """Builds the report of one results folder and returns the path of its `report.md`.

    Args:
        folder: A results folder, as `bench run` leaves it, finished or not.
        out: The folder to write into, usually `reports/<sweep>/`. Its report.md, table.csv and
            pictures are replaced; pictures that no longer belong to the report are removed.

    Raises:
        ResultError: `folder` holds neither plan nor record, a record or the notes cannot be read,
            or `out` cannot be written.
    """
    study = frame.read(folder)
    notes = _notes(folder / NOTES)
    # matplotlib and seaborn take seconds to import: not before the records are known to be good.
    from bench.report import plots, samples

    atomic.make_folder(out)
    pictures = plots.write(study, out)
    sheet = samples.write(study, folder, out)
    # Without an index column and with fixed line ends the bytes are the same everywhere.
    atomic.write_text(out / "table.csv", frame.tidy(study).to_csv(index=False, lineterminator="\n"))
    atomic.write_text(out / REPORT, text.report(study, pictures, sheet, notes))
    return out / REPORT


def _notes(path: Path) -> str:
    """An author's Markdown, or '' where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(
            f"{path} cannot be read ({error}). It is shown in the report: make it a text in UTF-8, "
            "or move it away."
        ) from error
