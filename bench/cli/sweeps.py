"""Sweep files: check them, fetch what they need, run them, report them."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.app import (
    REPORTS,
    RESULTS,
    AsJson,
    Device,
    FilesOrFolders,
    Reports,
    Results,
    SweepFile,
    app,
    build_report,
    device_of,
    one_cell,
    results_folder,
)
from bench.cli.terminal import bar, complain, duration, make_console
from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.fetch import Need
    from bench.launch import RunSummary
    from bench.presets import Expansion
    from bench.sweep import Sweep


class Executor(StrEnum):
    """Where cells run."""

    inline = "inline"
    local = "local"
    slurm = "slurm"


Elsewhere = Annotated[
    Executor | None, typer.Option("--executor", help="Run elsewhere than the sweep file says.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--cell", metavar="KEY", help="Only that cell; may be given more than once (bench check)."
    ),
]
Snapshot = Annotated[
    bool, typer.Option("--snapshot", help="Jobs run from a copy of the code as it is now.")
]


@app.command()
def check(
    file: SweepFile,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Time model calls here: estimates the cost, proposes a batch."
        ),
    ] = False,
) -> None:
    """Validate a sweep file and print its cells with their NFE.

    \b
    Examples:
        bench check sweeps/quickstart.yaml
        bench check sweeps/quickstart.yaml --measure
    """
    from rich.table import Table

    from bench import models
    from bench import sweep as sweeps
    from bench.metrics import registry

    sweep = sweeps.load(file)
    cells = sweep.cells()
    console = make_console()
    # The one thing that a cell's label does not say.
    named = [models.describe(cell.model).label for cell in cells]
    several = len(set(named)) > 1
    heads = ("cell", *(["model"] if several else []), "settings", "NFE", "images")
    table = Table(*heads, title=sweep.question or sweep.name)
    table.columns[-2].justify = table.columns[-1].justify = "right"
    for cell, model in zip(cells, named, strict=True):
        asked = f" (asked {cell.nfe_asked})" if cell.nfe_asked not in (None, cell.nfe) else ""
        calls = "counted" if cell.nfe is None else f"{cell.nfe}"
        told = (cell.short, *([model] if several else []), cell.label)
        table.add_row(*told, f"{calls}{asked}", f"{cell.samples:,}")
    console.print(table)
    for expansion in sweep.presets:
        _print_preset(console, expansion)
    images = sum(cell.samples for cell in cells)
    work = sum(cell.samples * cell.nfe for cell in cells if cell.nfe is not None)
    counted = " and those that are counted" if any(cell.nfe is None for cell in cells) else ""
    console.print(
        f"{sweep.file} is valid: {len(cells)} cells, {images:,} images, {work:,} model calls "
        f"of one image{counted}."
    )
    if measure:
        _print_cost(console, sweep)
        return
    try:
        registry.bind(sweep.metrics, sweep.reference)
    except BenchError as error:
        # The file is right; it may be meant for another machine.
        console.print(f"It cannot run on this machine yet: {error}", markup=False)


def _print_preset(console: "Console", expansion: "Expansion") -> None:
    """The plain keys that a preset stands for, as a row that could be in the file."""
    from bench.yaml_lines import one_line

    preset = expansion.preset
    console.print(f"{expansion.place}: preset {preset.name} ({preset.paper})", markup=False)
    console.print(f"  - {one_line(expansion.row)}", markup=False, soft_wrap=True)
    if expansion.replaced:
        replaced = one_line(expansion.replaced)
        console.print(f"    in place of its {replaced}", markup=False, soft_wrap=True)


def _print_cost(console: "Console", sweep: "Sweep") -> None:
    from bench import estimate

    cost = estimate.measure(sweep)
    for label, seconds in cost.calls.items():
        speed, proposed = cost.speed(label, cost.batch), cost.proposed(label)
        console.print(
            f"One call of {label} for {cost.batch} images on {cost.device}: "
            f"{seconds[cost.batch]:.3g} s ({speed:,.0f} images/s)."
        )
        if proposed != cost.batch:
            console.print(
                f'  "batch: {proposed}" would be faster here: {cost.speed(label, proposed):,.0f} '
                "images/s."
            )
    console.print(
        f"Features of {cost.batch} images: {cost.features:.3g} s. Whole sweep: about "
        f"{duration(cost.total)} of work on one worker like this machine with "
        f"{sweep.launch.threads} thread(s)."
    )


@app.command()
def fetch(
    file: SweepFile,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only say what is there; ask no network.")
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to build statistics.")] = Device.auto,
    as_json: AsJson = False,
) -> None:
    """Download or build what a sweep needs from elsewhere.

    Weights of its models and of Inception-v3, and reference statistics; its jobs then ask no
    network. What cannot be had from here is named with the place to copy it to by hand; HF_HOME,
    BENCH_INCEPTION and BENCH_CACHE name other places. Exits with 1 if anything is still missing.

    \b
    Examples:
        bench fetch sweeps/quickstart.yaml
        bench fetch sweeps/cifar10-fid.yaml --list
    """
    from bench import fetch as fetching

    needs = fetching.needs(file)
    missing = [need for need in needs if not need.present]
    if not only_list:
        for need in missing:
            if need.bring is not None:
                try:
                    with bar(need.what) as progress:
                        need.bring(device_of(device), progress)
                except BenchError as error:
                    complain(f"{need.what}: {error}")
        needs = fetching.needs(file)
        missing = [need for need in needs if not need.present]
    if as_json:
        print(json.dumps([need.facts() for need in needs], indent=2))
    else:
        for need in needs:
            _print_need(need)
        if missing:
            able = sum(need.bring is not None for need in missing)
            hint = f' "bench fetch {file}" tries to get {able} of them.' if only_list else ""
            print(f"{len(missing)} of {len(needs)} are missing.{hint}")
        else:
            print(f"Everything that {file} needs is there.")
    if missing:
        raise typer.Exit(1)


def _print_need(need: "Need") -> None:
    print(f"{'there  ' if need.present else 'MISSING'}  {need.what}")
    print(f"         {need.place}")
    if need.present:
        size = f"{need.size / 1e6:,.1f} MB" if need.size is not None else ""
        digest = f"sha256 {need.digest[:16]}" if need.digest is not None else ""
        print(f"         {', '.join(filter(None, (size, digest)))}")
    else:
        print(f"         {need.remedy}")


@app.command()
def run(
    file: SweepFile,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    executor: Elsewhere = None,
    cell: Only = None,
    snapshot: Snapshot = False,
) -> None:
    """Compute the cells that are not done, then write the report.

    Stopped at any moment, the same command goes on where it was. Cells that other processes or
    jobs work on are left to them and waited for. A report that is younger than all records and
    notes is left as it is.

    \b
    Examples:
        bench run sweeps/quickstart.yaml
        bench run sweeps/cifar10-fid.yaml --executor local --results /scratch/results
        bench run sweeps/quickstart.yaml --cell 3fa91c07 --results again
    """
    from bench import launch

    sweep = _sweep(file, executor)
    console = make_console()
    folder, out = results / sweep.name, reports / sweep.name
    only = _keys(sweep, cell)
    summary = launch.run(sweep, folder, only=only, console=console, snapshot=snapshot)
    _finish(console, summary, file)
    if _up_to_date(out, folder):
        console.print(f"Report: {out / 'report.md'} (up to date)")
    else:
        build_report(console, folder, out)
    if not summary.complete:
        raise typer.Exit(1)


@app.command()
def submit(
    file: SweepFile,
    results: Results = RESULTS,
    executor: Elsewhere = None,
    cell: Only = None,
    snapshot: Snapshot = False,
) -> None:
    """Submit the cells that are not done, and return at once.

    Workers and jobs outlive this shell; "bench status", "bench watch" and "bench run" find them
    again from any shell that sees the results. Cells that somebody works on are left out.

    \b
    Examples:
        bench submit sweeps/cifar10-fid.yaml --snapshot
        bench submit sweeps/quickstart.yaml --executor local
    """
    _submit(file, results, executor, cell, snapshot=snapshot, failed_only=False)


@app.command()
def retry(
    file: SweepFile,
    results: Results = RESULTS,
    executor: Elsewhere = None,
    cell: Only = None,
    snapshot: Snapshot = False,
) -> None:
    """Submit the cells that failed once more, and return at once.

    Their records move to work/<key>/earlier.json.

    \b
    Example:
        bench retry sweeps/cifar10-fid.yaml
    """
    _submit(file, results, executor, cell, snapshot=snapshot, failed_only=True)


def _submit(
    file: Path,
    results: Path,
    executor: Executor | None,
    cells: list[str] | None,
    *,
    snapshot: bool,
    failed_only: bool,
) -> None:
    from bench import launch

    sweep = _sweep(file, executor)
    console = make_console()
    folder = results / sweep.name
    made = launch.submit(
        sweep,
        folder,
        only=_keys(sweep, cells),
        snapshot=snapshot,
        failed_only=failed_only,
        say=console.print,
    )
    jobs = sum(len(one.jobs) for one in made.submissions)
    taken = len(made.todo) - len(made.free)
    console.print(
        f"{len(made.free)} cells submitted in {jobs} jobs, {taken} under way before."
        if made.todo
        else f"Nothing to submit: no cell {'has failed' if failed_only else 'is left'}."
    )
    for one in made.submissions:
        console.print(f"{one.name} ({one.executor}, code {one.code})", markup=False)
    if made.todo:
        console.print(f'"bench watch {file}" shows how it gets on.', markup=False)


def _sweep(file: Path, executor: Executor | None) -> "Sweep":
    from bench import sweep as sweeps

    sweep = sweeps.load(file)
    return sweep if executor is None else _on(sweep, executor.value)


def _keys(sweep: "Sweep", cells: list[str] | None) -> set[str] | None:
    """The keys that begin so, each of one cell; None for all cells."""
    if not cells:
        return None
    plan = sweep.plan()
    return {one_cell(plan, Path(sweep.file), cell)["key"] for cell in cells}


def _up_to_date(out: Path, folder: Path) -> bool:
    """Whether the report in `out` is younger than the plan, records and notes in `folder`."""
    report = out / "report.md"
    sources = [*folder.glob("*.json"), *folder.glob("notes.md")]
    newest = max(path.stat().st_mtime for path in sources)
    return report.exists() and report.stat().st_mtime > newest


def _on(sweep: "Sweep", executor: str) -> "Sweep":
    """The sweep on another executor; this one process is one worker."""
    from dataclasses import replace

    change: dict[str, Any] = {"executor": executor}
    if executor == "inline":
        change["workers"] = 1
    return replace(sweep, launch=sweep.launch.model_copy(update=change))


def _finish(console: "Console", summary: "RunSummary", file: Path) -> None:
    """Say what became of a run; Ctrl-C ends here, before the report."""
    console.print(
        f"{summary.computed} cells computed, {summary.done_before} done before, "
        f"{len(summary.failed)} failed, in {duration(summary.seconds)}."
    )
    for cell in summary.failed:
        complain(f"{cell.label} failed: {cell.reason}{_see(cell.logs)}")
    if summary.interrupted is not None:
        again = f"Stopped. {summary.interrupted} Go on with: bench run {file}"
        complain(" ".join(again.split()))
        raise typer.Exit(130)
    for cell in summary.missing:
        why = f"; {cell.reason}" if cell.reason else ""
        complain(f"{cell.label} left no record{why}{_see(cell.logs)}")


def _see(logs: "Sequence[str]") -> str:
    """' (see LOG, LOG)'; "" if there is none."""
    return f" (see {', '.join(logs)})" if logs else ""


@app.command()
def report(
    paths: FilesOrFolders,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
    history: Annotated[
        bool, typer.Option("--history", help="Draw the values by commit, too (bench history).")
    ] = False,
) -> None:
    """Write the report of what is there: tables, plots, samples.

    It is report.html, one file for a browser, and report.md for a repository's page. Several sweeps
    give one report, in a folder named after all of them.

    What you have to say about the results goes into notes.md in their folder, in Markdown: every
    report shows it, as it is, under "Notes".

    \b
    Examples:
        bench report sweeps/quickstart.yaml
        bench report results/ddim-table
        bench report results/ddim-table results/zoo
        bench report sweeps/ddim-table.yaml --history
    """
    folders = [results_folder(path, results) for path in paths]
    out = reports / "+".join(folder.resolve().name for folder in folders)
    chapters = []
    if history:
        from bench.regression import history as histories
        from bench.regression import history_chapter

        chapters = [
            history_chapter.chapter(histories.read(folder), out, number)
            for number, folder in enumerate(folders, 1)
        ]
    build_report(make_console(), folders, out, chapters)
