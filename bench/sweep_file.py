"""The shape of a sweep file: pydantic models of its keys, and their errors in words.

The description of a field is what its error message says is expected. What the keys of a grid
row may hold beyond their shape (which samplers there are, which parameters those take) is
checked in `bench.sweep`, by asking the registries.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    AliasGenerator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import ErrorDetails

from bench.diffusion.spacing import Final
from bench.errors import nearest
from bench.yaml_lines import Document, Keys, show

Item = TypeVar("Item")
Schema = TypeVar("Schema", bound=BaseModel)


def _listed(value: object) -> object:
    """A value that is not a list is an axis of one."""
    return tuple(value) if isinstance(value, list) else (value,)


def _minutes(value: object) -> object:
    """`HH:MM:SS` (or `D-HH:MM:SS`) as whole minutes, rounded up; anything else as it is."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)", str(value))
    if not match:
        return value
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes + (seconds > 0)


OURS = {
    *("array", "job-name", "output", "error", "open-mode", "signal", "requeue", "no-requeue"),
    *("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "mail-user", "time", "mem"),
    *("partition", "account", "qos", "gres", "constraint", "nodelist", "exclude", "dependency"),
    *("comment",),
}
"""Options of sbatch that `launch.additional` may not set."""


def _not_ours(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is not None and any(name.replace("_", "-") in OURS for name in value):
        raise ValueError
    return value


Axis = Annotated[tuple[Item, ...], BeforeValidator(_listed), Field(min_length=1)]
Natural = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")


class Launch(BaseModel):
    """Where the cells run: in this process, in worker processes here, or as a SLURM array."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=AliasGenerator(alias=lambda name: name.replace("_", "-")),
    )

    executor: Literal["inline", "local", "slurm"] = Field(
        "inline", description='"inline" (this process), "local" (workers here) or "slurm"'
    )
    workers: Natural = Field(
        1, description="a number of worker processes or of jobs in the array, at least 1"
    )
    threads: Natural = Field(1, description="a number of CPU threads per worker, at least 1")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description='"cpu", "cuda" or "auto" (cuda where there is one)'
    )
    compile: bool = Field(
        False, description="true or false: whether networks are compiled (torch.compile)"
    )
    split: Natural | None = Field(
        None,
        description="a number of slices of a cell that different workers may do, at least 1",
    )
    pack: Natural | None = Field(None, description="a number of cells per job, at least 1")
    partition: Text | None = Field(None, description="the name of a SLURM partition")
    account: Text | None = Field(None, description="the name of a SLURM account")
    qos: Text | None = Field(None, description="the name of a SLURM quality of service")
    gres: Text | None = Field(
        None, description='generic resources as SLURM writes them, like "gpu:1"'
    )
    constraint: Text | None = Field(None, description="a SLURM constraint on nodes")
    nodelist: Text | None = Field(
        None, description='the nodes to run on, as SLURM writes them, like "node[01-04]"'
    )
    exclude: Text | None = Field(
        None, description='nodes to stay away from, as SLURM writes them, like "node07"'
    )
    dependency: Text | None = Field(
        None, description='what has to be over before, as SLURM writes it, like "afterok:1234"'
    )
    mem: str | None = Field(
        None, pattern=r"^\d+[KMGT]B?$", description='memory with its unit, like "16GB"'
    )
    cpus: Natural | None = Field(None, description="a number of CPUs per job, at least 1")
    time: Annotated[Natural, BeforeValidator(_minutes)] | None = Field(
        None, description='whole minutes, or a time like "HH:MM:SS"'
    )
    array_parallelism: Natural | None = Field(
        None, description="a number of jobs at a time, at least 1"
    )
    setup: Annotated[tuple[Text, ...], BeforeValidator(_listed)] = Field(
        (), description="shell lines that run before the job"
    )
    comment: Text | None = Field(None, description="a text for SLURM's accounting")
    mail: Text | None = Field(
        None, description="an address to write to when an array ends or fails"
    )
    additional: Annotated[
        dict[Text, Text | int | Literal[True]] | None, AfterValidator(_not_ours)
    ] = Field(
        None,
        description='a mapping of further sbatch options, like "{reservation: NAME}"; true for '
        "options without a value; none that bench sets or that a key of launch is for",
    )


_ANYWHERE = {"executor", "workers", "threads", "device", "compile", "split"}
SLURM_ONLY = tuple(name for name in Launch.model_fields if name not in _ANYWHERE)


class Head(BaseModel):
    """The top level of a sweep file."""

    model_config = _STRICT

    name: str | None = Field(
        None,
        pattern=f"^{FOLDER_NAME.pattern}$",
        description="a text of letters, digits and . _ - because it names folders",
    )
    model: Axis[str | dict[str, Any]] = Field(
        description='the name of a model, or a mapping like "{kind: diffusers, path: FOLDER}"'
    )
    samples: Annotated[int, Field(ge=2)] = Field(description="a whole number of images, at least 2")
    seed: Axis[Annotated[int, Field(ge=0, lt=2**63)]] = Field(
        (0,), description="a whole number, at least 0 and below 2^63"
    )
    metrics: Axis[Text] = Field(description="a list of metrics")
    reference: Text = Field(description="the name or path of reference statistics")
    batch: Natural | None = Field(None, description="a number of images, at least 1")
    chunk: Natural | None = Field(None, description="a number of images, at least 1")
    keep: Literal["nothing", "features", "images"] = Field(
        "nothing",
        description='what stays beside the records for "bench rescore": "nothing", "features" or '
        '"images"',
    )
    grid: list[dict[str, Any]] = Field(
        min_length=1, description='a list of rows like "- {sampler: ddim, steps: 10}"'
    )
    launch: dict[str, Any] = Field({}, description='a mapping like "{executor: local, workers: 2}"')


class Row(BaseModel):
    """A row of the grid; the parameters of its samplers and spacings stand in `model_extra`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="allow")

    sampler: Axis[str] = Field(description="the name of a sampler")
    spacing: Axis[str] = Field(("uniform",), description="the name of a spacing")
    final: Axis[Final] = Field(
        ("zero",), description='where a grid ends: "zero", "sigma-min" or "denoise"'
    )
    steps: Axis[Natural] | None = Field(None, description="a whole number of at least 1")
    nfe: Axis[Natural] | None = Field(None, description="a whole number of at least 1")
    unreachable: Literal["refuse", "below", "skip"] = Field(
        "refuse",
        description='what becomes of an NFE that no number of steps costs: "refuse", "below" '
        'or "skip"',
    )


_AXES = {"model", "seed", "metrics", "sampler", "spacing", "final", "steps", "nfe", "setup"}


def validated(
    schema: type[Schema], document: Document, data: Mapping[str, Any], at: Keys
) -> Schema | None:
    """`data`, the mapping at `at`, as a `schema`; problems go into the document.

    If there are any, the result has defaults in place of the keys concerned, so that checking can
    go on; None if it cannot.
    """
    # None is how a field says that its key is left out; in a file it is a key without a value.
    for name, field in schema.model_fields.items():
        key = field.alias or name
        if field.default is None and key in data and data[key] is None:
            document.unexpected((*at, key), f"{field.description}")
            data = {k: v for k, v in data.items() if k != key}
    try:
        return schema.model_validate(data)
    except ValidationError as errors:
        details = errors.errors(include_url=False)
    # A union has an error for each of its branches; one says it all.
    once = {(e["loc"][0], document.written((*at, *e["loc"]))): e for e in details}
    for error in once.values():
        _explain(schema, document, error, at)
    wrong = {error["loc"][0] for error in details}
    try:
        return schema.model_validate({k: v for k, v in data.items() if k not in wrong})
    except ValidationError:
        return None


def _explain(schema: type[BaseModel], document: Document, error: ErrorDetails, at: Keys) -> None:
    """One pydantic error as a problem of the document."""
    name = str(error["loc"][0])
    keys = (*at, *error["loc"])
    owner = f" in {show(at)}" if at else ""
    if error["type"] == "extra_forbidden":
        names = [field.alias or key for key, field in schema.model_fields.items()]
        document.problem(
            keys,
            f'there is no key "{name}"{owner or " in a sweep"}.{nearest(name, names)} '
            f"The keys are {', '.join(names)}.",
        )
        return
    field = schema.model_fields[name.replace("-", "_")]
    assert field.description is not None
    if error["type"] == "missing":
        # Where any key is allowed, a misspelt one has not been reported as unknown.
        stray = error["input"] if schema.model_config.get("extra") == "allow" else ()
        meant = [f' Is "{key}" meant to be it?' for key in get_close_matches(name, stray, 1)]
        document.problem(
            at, f'the key "{name}" is missing{owner}: {field.description}.{"".join(meant)}'
        )
        return
    advice = ""
    value = document.value(keys)
    if isinstance(value, list) and value and name not in _AXES:
        advice = " Lists stand only where a key is swept: model, seed and the keys of the grid."
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        text = document.texts[document.written(keys)]
        advice = f' If it is meant as text, put it in quotes: "{text}".'
    # A union adds its branches to the path; the value itself stands at the last part that exists.
    document.unexpected(keys, field.description, advice)
