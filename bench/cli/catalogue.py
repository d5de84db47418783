"""What a sweep may name, and the evidence for it."""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import AsJson, app
from bench.cli.terminal import make_console

if TYPE_CHECKING:
    from bench.certify import Finding


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
        make_console().print(table)


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
        make_console().print(table)
    held = sum(finding.ok is not None for finding in findings)
    print(f"{name}: {held - len(wrong)} of {held} findings as expected.", flush=True)


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
    console = make_console()
    console.print(table)
    console.print(f"{len(found)} of {len(published.rows())} published values.")
