"""What is under way, and what becomes of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import (
    RESULTS,
    AsJson,
    CellKey,
    FileOrFolder,
    Results,
    app,
    one_cell,
    results_folder,
)
from bench.cli.terminal import complain, make_console

if TYPE_CHECKING:
    from bench.states import CellState, Look


@app.command()
def status(path: FileOrFolder, results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Say what is done, failed, missing, running and queued.

    It reads files, and asks SLURM's queue if there are jobs of it, and its accounting, where there
    is one, how the jobs of missing cells ended. Exits with 0 if all cells are done, with 3 while
    anything is under way, else with 1.

    \b
    Examples:
        bench status sweeps/quickstart.yaml
        bench status results/ddim-table --json
    """
    from bench import states

    folder = results_folder(path, results)
    seen = states.explained(folder, states.look(folder))
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
        lost = cell.state == states.MISSING and cell.reason
        if lost or cell.state in (states.FAILED, states.RUNNING, states.STALE):
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
    why = f"; {cell.reason}" if cell.reason else ""
    return f"{cell.state}{where}{job}{since}, {cell.chunks} of {cell.of} chunks{why}"


@app.command()
def watch(path: FileOrFolder, results: Results = RESULTS) -> None:
    """Show progress until nothing is under way any more.

    Ctrl-C ends the watching and nothing else. Exits as "bench status" does.

    \b
    Example:
        bench watch sweeps/cifar10-fid.yaml
    """
    from bench import progress, states

    folder = results_folder(path, results)
    before = states.look(folder)
    if before.under_way:
        settled = (states.DONE, states.FAILED)
        progress.show(
            make_console(), folder, {cell.key for cell in before.cells if cell.state not in settled}
        )
    seen = states.explained(folder, states.look(folder))
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

    done = cancel.cancel(results_folder(path, results).absolute())
    print(f"{done.jobs} jobs cancelled, {done.released} claims released.")
    for line in done.left:
        complain(line)
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

    folder = results_folder(path, results)
    key = one_cell(records.read_plan(folder), path, cell)["key"]
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
