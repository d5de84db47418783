"""The application, and the arguments that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bench
from bench.cli.terminal import complain
from bench.errors import BenchError, SweepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.report.content import Chapter
    from bench.results import Json

# Plain help: rich's would double the time that `--help` takes. "\b" keeps an example's lines.
_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(add_completion=False, **_SETTINGS)
train = typer.Typer(
    help="Make the shipped models and networks again, or your own.",
    **_SETTINGS,
)
app.add_typer(train, name="train")


class Device(StrEnum):
    """Where extractors compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


SweepFile = Annotated[Path, typer.Argument(metavar="FILE", help="A sweep file (YAML).")]
FileOrFolder = Annotated[
    Path, typer.Argument(metavar="FILE|FOLDER", help="A sweep file, or its results folder.")
]
FilesOrFolders = Annotated[
    list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Sweep files or results folders.")
]
Results = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="Records go to DIR/<sweep>/.")
]
Reports = Annotated[
    Path, typer.Option("--reports", metavar="DIR", help="The report goes to DIR/<sweep>/.")
]
CellKey = Annotated[
    str, typer.Argument(metavar="CELL", help="Its key, or how that begins (bench check).")
]
RESULTS, REPORTS = Path("results"), Path("reports")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def device_of(device: Device) -> str:
    import torch

    there = torch.cuda.is_available()
    if device is Device.cuda and not there:
        raise BenchError(
            "--device is cuda, and torch finds no CUDA device here. Leave it out, or write cpu."
        )
    return "cuda" if there and device is not Device.cpu else "cpu"


def results_folder(path: Path, results: Path) -> Path:
    """The results folder of a sweep file; a folder is its own.

    It complains where its cells are not those of the file.
    """
    if path.is_dir():
        return path
    # The name alone, without expanding the sweep: a report needs neither torch nor the model.
    from bench import results as records
    from bench import yaml_lines

    document = yaml_lines.read(path)
    name = document.data.get("name", path.stem)
    if not isinstance(name, str):
        raise SweepError(f"{path}: name is {name!r}; expected a text, which names the folder.")
    folder = results / name
    if (folder / records.PLAN).exists():
        ran = records.read_plan(folder).get("file_digest")  # absent in older plans
        if ran not in (None, records.digest(document.data)):
            complain(
                f"{path} was edited since it was last run, and {folder} has the cells of that "
                'run. "bench run" and "bench submit" take over what it says now.'
            )
    return folder


def one_cell(plan: "Json", path: Path, cell: str) -> "Json":
    """The row of the cell whose key begins so."""
    found: list[Json] = [row for row in plan["cells"] if row["key"].startswith(cell)]
    if len(found) != 1:
        raise SweepError(
            f'{path}: {len(found) or "no"} cells have a key that begins with "{cell}"; expected '
            'one. "bench check" shows the keys of a sweep file.'
        )
    return found[0]


def build_report(
    console: "Console", folders: Path | list[Path], out: Path, chapters: "Sequence[Chapter]" = ()
) -> None:
    from bench import report

    console.print(f"Report: {report.build(folders, out, chapters)}", soft_wrap=True)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Compare diffusion samplers by FID against network function evaluations (NFE).

    A sweep file asks a question; "bench run" answers it with a table and a plot.

    \b
    Example:
        bench run sweeps/quickstart.yaml
    """
    if version:
        print(bench.__version__)
        raise typer.Exit
