"""The commands; the only place that prints and exits.

Nothing heavy is imported here: `bench --help` answers at once, and each command imports what it
uses. An error meant for a person (`BenchError`) is printed without a traceback and exits with 1, a
wrong usage with 2; anything else is a bug and keeps its traceback.
"""

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bench
from bench.errors import BenchError, SweepError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from bench.certify import Finding
    from bench.fetch import Need
    from bench.launch import RunSummary
    from bench.presets import Expansion
    from bench.results import Json
    from bench.states import CellState, Look
    from bench.sweep import Sweep

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


class Executor(StrEnum):
    """Where cells run."""

    inline = "inline"
    local = "local"
    slurm = "slurm"


class Device(StrEnum):
    """Where extractors compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Kind(StrEnum):
    """What a sweep may name."""

    sampler = "sampler"
    spacing = "spacing"
    schedule = "schedule"
    preset = "preset"
    model = "model"
    metric = "metric"


class Kinds(StrEnum):
    """All of a kind."""

    samplers = "samplers"
    spacings = "spacings"
    schedules = "schedules"
    presets = "presets"
    models = "models"
    metrics = "metrics"


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
Elsewhere = Annotated[
    Executor | None, typer.Option("--executor", help="Run elsewhere than the sweep file says.")
]
Snapshot = Annotated[
    bool, typer.Option("--snapshot", help="Jobs run from a copy of the code as it is now.")
]
CellKey = Annotated[
    str, typer.Argument(metavar="CELL", help="Its key, or how that begins (bench check).")
]
RESULTS, REPORTS = Path("results"), Path("reports")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point of `bench`."""
    try:
        app()
    except BenchError as error:
        _complain(str(error))
        sys.exit(1)


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


@app.command()
def check(
    file: SweepFile,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time a model call here and estimate the cost.")
    ] = False,
) -> None:
    """Validate a sweep file and print its cells with their NFE.

    \b
    Examples:
        bench check sweeps/quickstart.yaml
        bench check sweeps/quickstart.yaml --measure
    """
    from rich.table import Table

    from bench import sweep as sweeps
    from bench.metrics import registry

    sweep = sweeps.load(file)
    cells = sweep.cells()
    console = _console()
    table = Table("cell", "settings", "NFE", "images", title=sweep.question or sweep.name)
    table.columns[2].justify = table.columns[3].justify = "right"
    for cell in cells:
        asked = f" (asked {cell.nfe_asked})" if cell.nfe_asked not in (None, cell.nfe) else ""
        calls = "counted" if cell.nfe is None else f"{cell.nfe}"
        table.add_row(cell.short, cell.label, f"{calls}{asked}", f"{cell.samples:,}")
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
        console.print(
            f"One call of {label} for {cost.batch} images on {cost.device}: {seconds:.3g} s "
            f"({cost.batch / seconds:,.0f} images/s)."
        )
    console.print(
        f"Features of {cost.batch} images: {cost.features:.3g} s. Whole sweep: about "
        f"{_duration(cost.total)} of work on one worker like this machine with "
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
                    with _bar(need.what) as progress:
                        need.bring(_device(device), progress)
                except BenchError as error:
                    _complain(f"{need.what}: {error}")
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
    """
    from bench import launch

    sweep = _sweep(file, executor)
    console = _console()
    summary = launch.run(sweep, results / sweep.name, console=console, snapshot=snapshot)
    _finish(console, summary, file)
    folder, out = results / sweep.name, reports / sweep.name
    if _up_to_date(out, folder):
        console.print(f"Report: {out / 'report.md'} (up to date)")
    else:
        _build(console, folder, out)
    if not summary.complete:
        raise typer.Exit(1)


@app.command()
def submit(
    file: SweepFile,
    results: Results = RESULTS,
    executor: Elsewhere = None,
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
    _submit(file, results, executor, snapshot=snapshot, failed_only=False)


@app.command()
def retry(
    file: SweepFile,
    results: Results = RESULTS,
    executor: Elsewhere = None,
    snapshot: Snapshot = False,
) -> None:
    """Submit the cells that failed once more, and return at once.

    Their records move to work/<key>/earlier.json.

    \b
    Example:
        bench retry sweeps/cifar10-fid.yaml
    """
    _submit(file, results, executor, snapshot=snapshot, failed_only=True)


def _submit(
    file: Path, results: Path, executor: Executor | None, *, snapshot: bool, failed_only: bool
) -> None:
    from bench import launch

    sweep = _sweep(file, executor)
    console = _console()
    folder = results / sweep.name
    made = launch.submit(
        sweep, folder, snapshot=snapshot, failed_only=failed_only, say=console.print
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
        f"{len(summary.failed)} failed, in {_duration(summary.seconds)}."
    )
    for label, reason in summary.failed:
        _complain(f"{label} failed: {reason}")
    if summary.interrupted is not None:
        again = f"Stopped. {summary.interrupted} Go on with: bench run {file}"
        _complain(" ".join(again.split()))
        raise typer.Exit(130)
    for label, where in summary.missing:
        _complain(f"{label} left no record{f'; see {where}' if where else ''}")


@app.command()
def report(
    paths: FilesOrFolders,
    results: Results = RESULTS,
    reports: Reports = REPORTS,
) -> None:
    """Write the report of what is there: tables, plots, samples, as report.html and report.md.

    Several sweeps give one report, in a folder named after all of them.

    What you have to say about the results goes into notes.md in their folder, in Markdown: every
    report shows it, as it is, under "Notes".

    \b
    Examples:
        bench report sweeps/quickstart.yaml
        bench report results/ddim-table
        bench report results/ddim-table results/zoo
    """
    folders = [_results_folder(path, results) for path in paths]
    _build(_console(), folders, reports / "+".join(folder.resolve().name for folder in folders))


@app.command("published")
def published_(
    filters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILTER...]", help="A text that a row has, or COLUMN=VALUE."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show FID values that papers report for CIFAR-10, and where.

    A row must pass every filter. Only rows of one base model (model=...) and one spacing compare;
    --json prints every column.

    \b
    Examples:
        bench published ddim spacing=quadratic eta=0
        bench published model=edm-cifar10-uncond-vp nfe=10 --json
    """
    from bench import published

    found = published.find(filters or [])
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    shown = ("fid", "method", "nfe", "steps", "spacing", "eta", "order", "model")
    table = Table(*shown, "paper", box=None, pad_edge=False)
    for row in found:
        where = f"{row['paper']} {row['year']}, {row['table_or_figure']}"
        table.add_row(*(escape(row[name]) for name in shown), escape(where))
    console = _console()
    console.print(table)
    console.print(f"{len(found)} of {len(published.rows())} published values.")


@app.command()
def status(path: FileOrFolder, results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Say what is done, failed, missing, running and queued.

    It reads files, and asks SLURM's queue if there are jobs of it. Exits with 0 if all cells are
    done, with 3 while anything is under way, else with 1.

    \b
    Examples:
        bench status sweeps/quickstart.yaml
        bench status results/ddim-table --json
    """
    from bench import states

    seen = states.look(_results_folder(path, results))
    if as_json:
        facts = {"counts": seen.counts, "said": seen.said}
        print(json.dumps(facts | {"cells": [asdict(cell) for cell in seen.cells]}, indent=1))
    else:
        _print_states(seen)
    raise typer.Exit(states.exit_code(seen))


def _print_states(seen: "Look") -> None:
    from bench import states

    print(seen.sentence())
    for cell in seen.cells:
        if cell.state in (states.FAILED, states.RUNNING, states.STALE):
            print(f"{cell.key[:8]} {cell.label}: {_state(cell)}")
    if waiting := [cell for cell in seen.cells if cell.state == states.QUEUED]:
        reasons = {(cell.job.split("_")[0], cell.reason): 0 for cell in waiting}
        for cell in waiting:
            reasons[cell.job.split("_")[0], cell.reason] += 1
        for (job, reason), number in reasons.items():
            print(f"{number} queued in job {job or '?'}{f' ({reason})' if reason else ''}")
    if seen.said:
        print(f"Of SLURM: {seen.said}.")


def _state(cell: "CellState") -> str:
    """'running on node01 (job 17_4) since 2026-01-01T00:00:00+00:00, 3 of 50 chunks'."""
    if cell.state == "failed":
        return cell.reason
    where = f" on {cell.host}" if cell.host else ""
    job = f" (job {cell.job})" if cell.job else ""
    since = f" since {cell.since}" if cell.since else ""
    return f"{cell.state}{where}{job}{since}, {cell.chunks} of {cell.of} chunks"


@app.command()
def watch(path: FileOrFolder, results: Results = RESULTS) -> None:
    """Show progress until nothing is under way any more.

    Ctrl-C ends the watching and nothing else. Exits as "bench status" does.

    \b
    Example:
        bench watch sweeps/cifar10-fid.yaml
    """
    from bench import progress, states

    folder = _results_folder(path, results)
    before = states.look(folder)
    if before.under_way:
        settled = (states.DONE, states.FAILED)
        progress.show(
            _console(), folder, {cell.key for cell in before.cells if cell.state not in settled}
        )
    seen = states.look(folder)
    _print_states(seen)
    raise typer.Exit(states.exit_code(seen))


@app.command("cancel")
def cancel_(path: FileOrFolder, results: Results = RESULTS) -> None:
    """Stop jobs and local workers, whoever submitted them.

    Those of SLURM, and the workers on this machine. Finished chunks stay; a cell that is submitted
    again goes on with them. Exits with 1 if something could not be stopped from here.

    \b
    Examples:
        bench cancel sweeps/cifar10-fid.yaml
        bench cancel results/cifar10-fid
    """
    from bench import cancel

    done = cancel.cancel(_results_folder(path, results).absolute())
    print(f"{done.jobs} jobs cancelled, {done.released} claims released.")
    for line in done.left:
        _complain(line)
    if done.left:
        raise typer.Exit(1)


@app.command()
def logs(
    path: FileOrFolder,
    cell: CellKey,
    results: Results = RESULTS,
    lines: Annotated[int, typer.Option(min=0, help="How many of the last lines to show.")] = 20,
) -> None:
    """Show where the logs of a cell's jobs lie, and how they end.

    A local worker looks at many cells; its log is shown for each of them.

    \b
    Example:
        bench logs sweeps/cifar10-fid.yaml 3fa91c07 --lines 50
    """
    from bench import results as records
    from bench import submissions

    folder = _results_folder(path, results)
    key = _one_cell(records.read_plan(folder), path, cell)["key"]
    found = [
        Path(log)
        for made in submissions.read_all(folder)
        for job in made.jobs
        if key in job.keys
        for log in job.logs
    ]
    if not found:
        print("No job that looked at this cell is on record.")
    for log in found:
        print(f"== {log}")
        if log.exists():
            text = log.read_text(errors="replace").splitlines()
            print("\n".join(text[-lines:] if lines else []))
        else:
            print("(not there: the job has not started, or somebody removed it)")


def _one_cell(plan: "Json", path: Path, cell: str) -> "Json":
    """The row of the cell whose key begins so."""
    found: list[Json] = [row for row in plan["cells"] if row["key"].startswith(cell)]
    if len(found) != 1:
        raise SweepError(
            f'{path}: {len(found) or "no"} cells have a key that begins with "{cell}"; expected '
            'one. "bench check" shows the keys of a sweep file.'
        )
    return found[0]


@app.command()
def rescore(file: SweepFile, results: Results = RESULTS, reports: Reports = REPORTS) -> None:
    """Compute metrics anew from what cells kept, without sampling.

    A sweep keeps features (keep: features) or images (keep: images) of its cells beside their
    records. Metrics that are new in the file are added; in another network's features they need the
    images. Exits with 1 if a cell has not kept enough: "bench run" samples it again.

    \b
    Example:
        bench rescore sweeps/quickstart.yaml
    """
    from bench import launch
    from bench import sweep as sweeps

    sweep = sweeps.load(file)
    console = _console()
    done = launch.rescore(sweep, results / sweep.name)
    console.print(f"{done.scored} cells scored again, {len(done.left)} left as they were.")
    for label, reason in done.left:
        _complain(f"{label}: {reason}")
    _build(console, results / sweep.name, reports / sweep.name)
    if done.left:
        raise typer.Exit(1)


@app.command()
def score(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="Images: a folder, a .tar, .tar.gz or .tgz, an npz."),
    ],
    reference: Annotated[
        str, typer.Option(help="Name or file of statistics to compare with (bench reference).")
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric, repeatable (bench list metrics); default: fid, fid_inf, kid and "
            "inception_score."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    as_json: AsJson = False,
) -> None:
    """Score images that somebody else made, with error bars.

    The images are taken as they are; they should be as many as those that the values are compared
    with. What stands after ± is one standard error, over other images of the same generator.

    \b
    Examples:
        bench score samples/ --reference cifar10-train
        bench score samples.npz --reference cifar10-train --metric fd_cifar --metric fd_cifar_inf
        bench score samples.tar --reference imagenet64.npz --metric fid --json
    """
    from rich.table import Table

    from bench import scoring
    from bench.metrics import registry
    from bench.metrics.image_files import open_images
    from bench.report.markdown import Scale
    from bench.report.pooled import Pooled

    asked = metric or ["fid", "fid_inf", "kid", "inception_score"]
    bound = registry.bind(asked, reference, _device(device))
    images = open_images(path)
    with _bar(f"features of {path}") as progress:
        done = scoring.score(images, bound, progress)
    said = list(scoring.cautions(done, images))
    if as_json:
        print(json.dumps({"path": str(path), **asdict(done), "cautions": said}, indent=2))
        return
    height, width = images.size
    table = Table("metric", "value", "better", title=f"{done.images:,} images, {height} x {width}")
    for name, record in done.metrics.items():
        value = Pooled(record["value"], 1, error=record["standard_error"])
        table.add_row(name, Scale().pooled(value), record["better"])
    console = _console()
    console.print(table)
    first = bound[0]
    console.print(
        f"Against {first.reference.name} ({first.reference.digest[:8]}); ± is one standard error.",
        markup=False,
    )
    for caution in said:
        console.print(f"Caution: {caution}", markup=False, soft_wrap=True)


class Form(StrEnum):
    """How images are written."""

    npz = "npz"
    folder = "folder"


@app.command()
def export(
    path: FileOrFolder,
    cell: CellKey,
    to: Annotated[Form, typer.Option(help="An npz with arr_0, or a folder of PNG.")],
    out: Annotated[Path, typer.Option(help="The file or the new folder.")],
    results: Results = RESULTS,
) -> None:
    """Write the images of a cell for other tools.

    They come from what the cell kept (keep: images), else they are sampled again: a cell is a pure
    function of its description, so they are the same.

    \b
    Examples:
        bench export sweeps/quickstart.yaml 3fa91c07 --to npz --out samples.npz
        bench export results/ddim-table 3fa91c07 --to folder --out samples/
    """
    from bench import scoring
    from bench import sweep as sweeps
    from bench.cell import Setting, images

    if path.is_dir():
        from bench import results as records

        plan = records.read_plan(path)
    else:
        plan = sweeps.load(path).plan()
    one = sweeps.Cell(**_one_cell(plan, path, cell)["cell"])
    parts = images(one, Setting.of(plan), _results_folder(path, results))
    write = scoring.write_npz if to is Form.npz else scoring.write_folder
    print(f"{out}: {write(out, parts):,} images of {one.label}.")


@train.command()
def mixture(
    data: Annotated[Path, typer.Option(help="npz with arr_0: uint8 images (n, H, W, 3).")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(
        "cifar10-mixture.safetensors"
    ),
    components: Annotated[int, typer.Option(help="Number of Gaussians.")] = 16,
    rank: Annotated[int, typer.Option(help="Directions of the shared basis.")] = 192,
    seed: Annotated[int, typer.Option(help="Of the start of EM.")] = 0,
) -> None:
    """Fit a Gaussian mixture to images; a sweep names it by its file.

    \b
    Example:
        bench train mixture --data cifar10_train.npz
    and in a sweep:
        model: {kind: mixture, name: ./cifar10-mixture.safetensors}
    """
    from bench.training.mixture import fit_mixture

    _show_log()
    made = fit_mixture(data, out, components=components, rank=rank, seed=seed)
    print(
        f"{out}: {made.components} components, rank {made.rank}, log-likelihood "
        f"{made.log_likelihood:.4f} nats a dimension (one Gaussian: "
        f"{made.log_likelihood_single:.4f})."
    )


@train.command()
def features(
    data: Annotated[Path, typer.Option(help="npz of labelled training images: arr_0, arr_1.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path(
        "cifar-features.safetensors"
    ),
    test: Annotated[
        Path | None, typer.Option(help="npz of labelled test images, for the accuracy.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Written after each epoch; an interrupted run goes on.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Default: all cores.")] = None,
) -> None:
    """Train the network behind fd_cifar.

    \b
    Example:
        bench train features --data cifar10_train.npz --test cifar10_test.npz
    """
    from bench.training.features import train_features

    _show_log()
    made = train_features(data, out, test=test, checkpoint=checkpoint, threads=threads)
    accuracy = made.get("test_accuracy")
    print(f"{out}" + (f": {accuracy:.2%} test accuracy." if accuracy is not None else "."))


@app.command()
def reference(
    source: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="cifar10-train, cifar10-test, a model with exact draws (by name or .safetensors "
            "file), or images: a folder, a .tar, .tar.gz or .tgz of them, or an npz.",
        ),
    ],
    metric: Annotated[str, typer.Option(help="The metric they are for.")] = "fd_cifar",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: where sweeps look for the name.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What sweeps call it; default: that of the source.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of torchvision's CIFAR-10; default: a cache.")
    ] = None,
    count: Annotated[int, typer.Option(min=2, help="Draws, where the source is a model.")] = 50_000,
    features: Annotated[
        bool,
        typer.Option(
            "--features", help="Keep the features too: KID, precision and recall need them."
        ),
    ] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
) -> None:
    """Build the statistics of reference images.

    Images are taken as they are: png, jpg, bmp, webp or ppm files of one size, in RGB or greyscale;
    of an npz, arr_0 as uint8 (n, h, w, 3).

    \b
    Examples:
        bench reference cifar10-train --metric fid
        bench reference photos/ --name mine
        bench reference photos.tar --metric fid --features
        bench reference cifar10-mixture --count 50000
    """
    from bench import fetch as fetching
    from bench.metrics import kept_features, registry
    from bench.metrics import reference as references

    where = _device(device)
    spec = registry.get(metric)
    extractor = spec.extractor(where)
    with _bar(f"features of {source}") as progress:
        made = fetching.build_reference(
            source,
            extractor,
            name=name,
            data=data,
            count=count,
            device=where,
            keep_features=features or spec.measure.needs_features,
            progress=progress,
        )
    path = out or references.place(made.name, extractor)
    references.save(path, made)
    print(f"{path}: {made.moments.count:,} images, digest {made.digest[:16]}.")
    if made.features is not None:
        print(f"{kept_features.place(path)}: their features.")
    if lossy := made.certificate.get("lossy"):
        print(
            f"{lossy:,} of these images are JPEG or lossy WebP: compression moves the distance, so "
            "compare only with images that went through the same."
        )


@app.command("list")
def list_(
    kind: Annotated[Kinds, typer.Argument(metavar="|".join(Kinds))],
    as_json: AsJson = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Of samplers: the page docs/samplers.md.")
    ] = False,
) -> None:
    """List what a sweep may name, with parameters and papers.

    \b
    Examples:
        bench list samplers
        bench list presets --json
        bench list samplers --markdown > docs/samplers.md
    """
    from rich.markup import escape
    from rich.table import Table

    from bench import catalogue

    if markdown and kind != Kinds.samplers:
        raise typer.BadParameter("only samplers have a page.", param_hint="--markdown")
    if markdown:
        print(catalogue.markdown(), end="")
    elif as_json:
        print(json.dumps(catalogue.facts(kind), indent=2))
    else:
        head, rows = catalogue.table(kind)
        table = Table(*head, show_lines=any("\n" in cell for row in rows for cell in row))
        for row in rows:
            table.add_row(*map(escape, row))
        _console().print(table)


@app.command()
def show(
    kind: Annotated[Kind, typer.Argument(metavar="|".join(Kind))],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    as_json: AsJson = False,
) -> None:
    """Show the facts of one sampler, spacing, preset and so on.

    \b
    Examples:
        bench show sampler dpm-solver++
        bench show spacing edm
        bench show preset ddim-paper --json
    """
    from bench import catalogue

    facts = catalogue.find(f"{kind}s", name)
    print(json.dumps(facts, indent=2) if as_json else catalogue.page(facts))


@app.command()
def certify(
    name: Annotated[
        str | None, typer.Argument(metavar="[SAMPLER]", help="All of ours, if none is given.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(metavar="SAMPLER", help="One of ours that it is said to be."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter, as in a sweep; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Examine a sampler on problems whose answer is known.

    Orders of convergence, golden values, identities, NFE, robustness. Needs no weights and no
    data. Takes samplers from outside, "module:function" and "diffusers:Class"; "grids" are the
    spacings and schedules. Exits with 1 if anything is wrong.

    \b
    Examples:
        bench certify dpm-solver++
        bench certify mypackage.mine:my_ddim --like ddim --set eta=0.5
        bench certify --json > certificates.json
    """
    from bench import certify as certificates

    if name is None and (like or given):
        raise typer.BadParameter("needs the name of a sampler.", param_hint="--like and --set")
    params = dict(map(_setting, given or []))
    found: dict[str, list[certificates.Finding]] = {}
    for each in [name] if name else certificates.names():
        found[each] = list(certificates.findings(each, params, like))
        if not as_json:
            _print_certificate(each, found[each], whole=name is not None)
    if as_json:
        print(json.dumps({n: [asdict(f) for f in all_] for n, all_ in found.items()}, indent=2))
    if any(finding.ok is False for each in found.values() for finding in each):
        raise typer.Exit(1)


def _setting(text: str) -> tuple[str, object]:
    """A parameter from the command line; its value is read as YAML would."""
    import yaml

    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f'"{text}" is not KEY=VALUE.', param_hint="--set")
    return name, yaml.safe_load(value)


def _print_certificate(name: str, findings: "list[Finding]", *, whole: bool) -> None:
    """The findings as a table; of one among many a line, and what is wrong."""
    from rich.markup import escape
    from rich.table import Table

    wrong = [finding for finding in findings if finding.ok is False]
    shown = findings if whole else wrong
    if shown:
        table = Table("at", "examined", "expected", "found", "")
        marks = {True: "ok", False: "WRONG", None: "-"}
        for each in shown:
            words = (each.settings, each.check, each.expected, each.found, marks[each.ok])
            table.add_row(*map(escape, words))
        _console().print(table)
    held = sum(finding.ok is not None for finding in findings)
    print(f"{name}: {held - len(wrong)} of {held} findings as expected.", flush=True)


def _results_folder(path: Path, results: Path) -> Path:
    """The results folder of a sweep file; a folder is its own."""
    if path.is_dir():
        return path
    # The name alone, without expanding the sweep: a report needs neither torch nor the model.
    from bench import yaml_lines

    document = yaml_lines.read(path)
    name = document.data.get("name", path.stem)
    if not isinstance(name, str):
        raise SweepError(f"{path}: name is {name!r}; expected a text, which names the folder.")
    return results / name


def _build(console: "Console", folders: Path | list[Path], out: Path) -> None:
    from bench import report

    console.print(f"Report: {report.build(folders, out)}", soft_wrap=True)


@contextmanager
def _bar(text: str) -> "Iterator[Callable[[int, int], None]]":
    """A bar on a terminal, and the function that moves it: what is done, of how much."""
    from rich.progress import Progress

    console = _console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _device(device: Device) -> str:
    if device is not Device.auto:
        return device.value
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _console() -> "Console":
    from rich.console import Console

    # A pipe or a log has no width; a terminal's is taken from it.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _complain(message: str) -> None:
    print(message, file=sys.stderr)


def _show_log() -> None:
    """Lines of a recipe's progress, on standard error."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bench").setLevel(logging.INFO)
