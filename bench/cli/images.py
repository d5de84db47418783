"""Images and their scores; the statistics they are compared with."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import (
    REPORTS,
    RESULTS,
    AsJson,
    CellKey,
    Device,
    FileOrFolder,
    Reports,
    Results,
    SweepFile,
    app,
    build_report,
    device_of,
    one_cell,
    results_folder,
)
from bench.cli.terminal import bar, complain, make_console


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
    console = make_console()
    done = launch.rescore(sweep, results / sweep.name)
    console.print(f"{done.scored} cells scored again, {len(done.left)} left as they were.")
    for label, reason in done.left:
        complain(f"{label}: {reason}")
    build_report(console, results / sweep.name, reports / sweep.name)
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
    bound = registry.bind(asked, reference, device_of(device))
    images = open_images(path)
    with bar(f"features of {path}") as progress:
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
    console = make_console()
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
    one = sweeps.Cell(**one_cell(plan, path, cell)["cell"])
    parts = images(one, Setting.of(plan), results_folder(path, results))
    write = scoring.write_npz if to is Form.npz else scoring.write_folder
    print(f"{out}: {write(out, parts):,} images of {one.label}.")


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

    where = device_of(device)
    spec = registry.get(metric)
    extractor = spec.extractor(where)
    with bar(f"features of {source}") as progress:
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
