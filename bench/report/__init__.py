"""From records to a report: tables, pictures and words, without torch.

A report is a pure function of its results folders: the same records give the same bytes, whenever
and wherever it is built. It works on half-finished sweeps, where a hole is a hole with its reason,
and without the influences beside the records, where fewer differences show and it says so.

From the records:
    names.py       what configurations are called, and which cells are one configuration
    pooled.py      a value over seeds, with its error
    planned.py     what plans say of cells: budgets, references, metrics asked for
    frame.py       records -> Study: settings, points pooled over seeds
    ties.py        which values cannot be told apart from the best: the statistics alone
    yardstick.py   which way a metric is better, and the error of a difference
    front.py       the Pareto front: who is best at each budget
What is said:
    content.py     tables and pictures as plain data, before anything is escaped
    markdown.py    escaping, numbers, tables: how anything becomes safe Markdown
    series.py      one row or column of values, and the signs of their comparison
    tables.py      the front, and quality against steps in the two layouts of the literature
    spacings.py    spacings beside each other
    beside.py      published values beside measured ones, with a verdict
    methods.py     the tables of accelerated-sampling.txt, with measured values
    summary.py     the summary in words
    captions.py    what must be known to compare the numbers
    cautions.py    what to keep in mind with the values: notes, facts about images
    provenance.py  what the numbers were made from, and how to make them again
    sections.py    all of that for each metric
Pictures:
    ink.py         the look, and how figures become files
    panels.py      which lines of the plot stand in which panel
    layout.py      where panels and names stand
    lines.py       quality against NFE or seconds
    heat.py        eta and steps
    samples.py     samples.png: the same seeds through every sampler
    plots.py       the pictures of a report and their captions
Files:
    text.py        report.md
    page/          report.html
    tex.py         table.tex
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import atomic
from bench.errors import ResultError
from bench.report import frame

if TYPE_CHECKING:
    from bench.report.content import Chapter

REPORT, PAGE = "report.md", "report.html"
NOTES = "notes.md"
"""In the results folder: what an author has to say about them, in Markdown, shown as it is."""


def build(folders: Path | Sequence[Path], out: Path, chapters: Sequence["Chapter"] = ()) -> Path:
    """Builds the report of results folders and returns the path of its `report.md`.

    Args:
        folders: One or several, as `bench run` leaves them, finished or not.
        out: The folder to write into, usually `reports/<sweep>/`. Its report.md, report.html,
            table.csv, table.tex and pictures are replaced; pictures that no longer belong to the
            report are removed.
        chapters: What is added to it; their pictures lie in `out`.

    Raises:
        ResultError: A folder holds neither plan nor record, a record or the notes cannot be read,
            or `out` cannot be written.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    study = frame.read(*folders)
    notes = "\n\n".join(found for folder in folders if (found := _notes(folder / NOTES)))
    # matplotlib and seaborn take seconds to import: not before the records are known to be good.
    from bench.report import page, plots, samples, sections, tex, text

    said = sections.every(study)
    atomic.make_folder(out)
    pictures = plots.write(study, out)
    _tidy(out, chapters)
    sheet = samples.write(study, folders, out)
    # Without an index column and with fixed line ends the bytes are the same everywhere.
    atomic.write_text(out / "table.csv", frame.tidy(study).to_csv(index=False, lineterminator="\n"))
    atomic.write_text(out / "table.tex", tex.tables(said))
    atomic.write_text(out / PAGE, page.render(study, said, pictures, sheet, out, notes, chapters))
    atomic.write_text(out / REPORT, text.report(study, said, pictures, sheet, notes, chapters))
    return out / REPORT


def _tidy(out: Path, chapters: Sequence["Chapter"]) -> None:
    """Removes pictures of chapters that the report had and has no longer."""
    kept = {Path(chapter.picture.file).stem for chapter in chapters if chapter.picture.file}
    for path in sorted(out.glob("history-*.*")):
        if path.stem not in kept:
            path.unlink()


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
