"""What a change of the code did: to arithmetic, to quality, over the history of the results."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import (
    RESULTS,
    AsJson,
    FileOrFolder,
    Results,
    app,
    results_folder,
)
from bench.cli.terminal import complain

if TYPE_CHECKING:
    from bench.arithmetic import Change, Found


@app.command()
def fingerprint(
    sampler: Annotated[
        str | None, typer.Argument(metavar="[SAMPLER]", help="All of ours, if none is given.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Record the arithmetic of now as it should be.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --update: why numbers on record changed.")] = "",
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another record, such as that of a branch.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether the samplers' arithmetic is as on record.

    Each sampler runs at every value of its parameters on small grids, without weights or data, in
    seconds. Differences below 1e-9 are rounding. Exits with 1 if anything changed.

    \b
    Examples:
        bench fingerprint
        bench fingerprint dpm-solver++
        bench fingerprint --update --reason "dpm-solver++ 3M: the whole curvature, as in the paper"
    """
    from bench import arithmetic

    path = against or arithmetic.RECORD
    if update:
        if sampler or against:
            raise typer.BadParameter("records all samplers.", param_hint="--update")
        found = arithmetic.update(path, arithmetic.measure(), reason)
        _print_found(found)
        print(f"{path}: as now." if found.changes else f"{path} was up to date.")
        if any(change.what != "not on record" for change in found.changes):
            print(f'Put the reason into CHANGELOG.md, under "### Numbers": {reason}')
        return
    names = [sampler] if sampler else None
    now = arithmetic.measure(names)
    then = arithmetic.read(path).cases
    found = arithmetic.compare(now, {k: v for k, v in then.items() if k in now or not names})
    if as_json:
        facts = asdict(found)
        for change in facts["changes"]:
            if change["size"] == math.inf:  # which JSON does not know
                change["size"] = None
        print(json.dumps(facts, indent=1, allow_nan=False))
    else:
        _print_found(found)
    if found.changes:
        raise typer.Exit(1)


def _print_found(found: "Found") -> None:
    from bench.arithmetic import ROUNDING

    named = found.named()
    for name, changes in named.items():
        _print_changes(name, changes)
    inherited = {change.name for change in found.changes if change.inherited} - named.keys()
    if inherited:
        print(f"With these, since they stand on them: {', '.join(sorted(inherited))}.")
    print(
        f"{found.cases - len(found.changes):,} of {found.cases:,} cases are as on record; their "
        f"differences, up to {found.rounding:.0e}, are rounding ({ROUNDING:.0e} is a change)."
    )


def _print_changes(name: str, changes: "list[Change]") -> None:
    """'ddim changed, by 0.87 at most', and a line for each of its parameters."""
    known = [change for change in changes if change.size is not None]
    if not known:
        print(f"{name}: {len(changes)} cases {changes[0].what}.")
        return
    largest = max(known, key=lambda change: change.size or 0.0)
    print(f"{name} changed, {largest.what} at most:")
    for settings in dict.fromkeys(change.settings for change in changes):
        here = [change for change in changes if change.settings == settings]
        worst = max(here, key=lambda change: change.size or 0.0)
        print(f"    {settings}: {len(here)} cases, most on {worst.grid}, {worst.what}")


@app.command()
def compare(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="A results folder, or a git revision.")
    ],
    head: Annotated[str, typer.Argument(metavar="HEAD", help="Another, which is judged.")],
    sweep: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The sweep that is computed of revisions."),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(min=0, help="In percent: smaller changes are no regression."),
    ] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the Markdown there, for a pull request."),
    ] = None,
    work: Annotated[
        Path, typer.Option(metavar="DIR", help="Where revisions are computed, and kept.")
    ] = Path(".bench"),
    as_json: AsJson = False,
) -> None:
    """Say which cells became better or worse, beyond the noise.

    Cells at equal seeds are compared image by image, and all of them together at 95 %. Exits with
    1 if a cell is worse beyond noise and beyond the threshold, or fails where it had a value.

    \b
    Examples:
        bench compare results/before results/after
        bench compare main HEAD --sweep sweeps/regression.yaml --out comment.md
    """
    from bench.regression import revisions, text
    from bench.regression.compare import compare as compared

    made = [revisions.results_of(each, sweep, work=work, say=complain) for each in (base, head)]
    (a, of_a), (b, of_b) = made
    found = compared(a, b, threshold=threshold / 100, names=(of_a, of_b))
    if out is not None:
        out.write_text(text.markdown(found), "utf-8")
    print(json.dumps(text.data(found), indent=1) if as_json else text.markdown(found), end="")
    if found.failed:
        raise typer.Exit(1)


@app.command()
def history(
    path: FileOrFolder,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Say when values of a sweep changed, by commit.

    Reads the records from git, along first parents, and weighs them by their standard errors:
    steps, drifts and outliers. "bench report --history" draws them.

    \b
    Examples:
        bench history sweeps/ddim-table.yaml
        bench history results/ddim-table --json
    """
    from bench.regression import history as histories
    from bench.regression import history_text

    found = histories.read(results_folder(path, results))
    if as_json:
        print(json.dumps(history_text.data(found), indent=1, allow_nan=False))
    else:
        print(history_text.markdown(found), end="")
