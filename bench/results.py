"""The record of a cell, its JSON form, and a folder of them as a DataFrame. No torch here.

`results/<sweep>/` holds `sweep.json` (the plan: the list of cells, written by `bench run`), one
`<key>.json` per finished or failed cell, `work/` (chunks and logs of what is under way; safe to
delete when nothing runs), and `influences/` (`bench.influences`: sharper comparisons while it is
there). Records are plain JSON, a few kB each, made to be kept in git.

A record, key by key (format 1):

    format              1; a reader that meets another number refuses instead of guessing
    key                 16 hex digits: digest of `cell`; also the name of the file
    label               the cell in words: "ddim eta=0 spacing=uniform steps=10"
    cell                what determines the images, exactly as `Cell.canonical()` gives it
    status              "done" or "failed"
    error               null, or the reason of the failure in a sentence
    metrics             {name: {value, standard_error, better, n, reference, reference_digest,
                        extractor, extractor_digest, quantiser, notes}}; empty if failed, never a
                        sentinel number; standard_error is that of the value over other images of
                        the same law (absent in records from before there were any); better is
                        "lower" or "higher" (absent: lower); notes are sentences that belong below
                        a table with the value
    images              {near_constant, duplicates, saturated}: counts of images, and the share of
                        bytes that are 0 or 255; absent in older records, null if failed
    nfe                 {declared, counted}: model calls per image; declared is null for a sampler
                        that chooses its own steps, counted is {mean, min, max}, null if it failed
                        before the first chunk
    steps               {asked, effective}: as the sweep says, and what duplicates left of it;
                        null for exact draws
    samples             number of images behind the metrics
    seconds             {sampling, features, total}: of all chunks and the scoring, also of chunks
                        made by an earlier, interrupted run; empty if it failed
    samples_per_second  samples / (sampling + features), or null
    peak_memory_mb      largest memory of the process or, on a GPU, of its allocator
    provenance          with what it was made; the first four are absent if it failed:
      fingerprint         the sampler's output on a tiny exact problem (list of numbers)
      model_digest        digest of the model's weights and configuration
      model_notes         {target, time, ...}: what else there is to know about the model, in words
      numerics            {device, dtype, batch, threads}: what the last bits depend on
      commit, dirty       of the git checkout, or null
      versions            {bench, python, torch, numpy}
      host, time          where and when (UTC, ISO 8601) it was finished
    digest              of all before it, which tells a record that was edited (`verify`); absent in
                        older records
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import atomic
from bench.errors import ResultError

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
TOLERANCE = 1e-9
"""How far two fingerprints of the same arithmetic may be apart, on different machines; see also
`bench.arithmetic.ROUNDING`."""
PLAN = "sweep.json"
CALLS_GUESS = 100
"""Model calls an image to reckon with where a sampler chooses its own steps."""
Json = dict[str, Any]

_RECORD_NAME = re.compile(r"[0-9a-f]{16}\.json")


@dataclass(frozen=True, kw_only=True)
class Result:
    """The record of one cell; the fields are explained in the module's docstring."""

    key: str
    label: str
    cell: Json
    status: str
    error: str | None
    metrics: dict[str, Json]
    nfe: Json
    steps: Json
    samples: int
    seconds: Json
    samples_per_second: float | None
    peak_memory_mb: float | None
    provenance: Json
    images: Json | None = None
    format: int = FORMAT


def same_fingerprint(found: Sequence[float], expected: Sequence[float]) -> bool:
    """Whether two fingerprints show the same arithmetic."""
    return len(found) == len(expected) and all(
        abs(a - b) <= TOLERANCE * max(1.0, abs(b)) for a, b in zip(found, expected, strict=True)
    )


def path_of(folder: Path, key: str) -> Path:
    """Where the record of cell `key` lies."""
    return folder / f"{key}.json"


def write(folder: Path, result: Result) -> Path:
    """Writes the record atomically and returns its path.

    Raises:
        ResultError: The file cannot be written.
        ValueError: A number is not finite (a bug: failures are recorded as failures).
    """
    path = path_of(folder, result.key)
    record = {"format": result.format, **asdict(result)}  # the format number comes first
    record["digest"] = digest(record)
    atomic.write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Result:
    """Reads one record.

    Raises:
        ResultError: Not there, not JSON, of another format, or without a key it should have.
    """
    return _record(read_json(path), path)


def parse(text: str, name: Path) -> Result:
    """A record from its text, where it does not lie in a file; `name` is what errors call it.

    Raises:
        ResultError: As for `read`.
    """
    return _record(_parsed(text, name), name)


def _record(record: Json, path: Path) -> Result:
    names = {field.name for field in fields(Result)}
    added = {"images"}  # since the first records of this format
    if absent := sorted(names - added - record.keys()):
        raise ResultError(
            f'{path} lacks the key "{absent[0]}" that every record has. '
            "Remove the file to compute its cell again."
        )
    return Result(**{name: record[name] for name in names & record.keys()})


def calls(planned: Json) -> int:
    """Model calls an image to reckon with for a cell of a plan: those declared, else a guess."""
    declared = planned["nfe"]
    return CALLS_GUESS if declared is None else int(declared)


def find(folder: Path, key: str) -> Result | None:
    """The record of cell `key` in `folder`, or None."""
    path = path_of(folder, key)
    return read(path) if path.exists() else None


def read_all(folder: Path) -> dict[str, Result]:
    """All records of `folder` by key, in the order of their names."""
    return {result.key: result for result in map(read, _records(folder))}


def is_record(path: Path) -> bool:
    """Whether a file of a results folder is the record of a cell, by its name."""
    return path.parent == Path() and _RECORD_NAME.fullmatch(path.name) is not None


def _records(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.json") if _RECORD_NAME.fullmatch(path.name))


def verify(folder: Path) -> None:
    """Looks whether the records of `folder` are as they were written.

    Raises:
        ResultError: One was edited, or cannot be read.
    """
    for path in _records(folder):
        record = read_json(path)
        said = record.pop("digest", None)
        if said is not None and said != (found := digest(record)):
            raise ResultError(
                f"{path} was edited: its digest is {found}, and the record says {said}. "
                "Restore it from version control, or remove it to compute its cell again."
            )


def digest(data: Json) -> str:
    """16 hex digits over JSON data, however it is laid out."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def gather(*folders: Path) -> dict[str, Result]:
    """The records of several folders by key; of a cell in more than one, one that is done."""
    records: dict[str, Result] = {}
    for folder in folders:
        for key, record in read_all(folder).items() if folder.is_dir() else ():
            if key not in records or records[key].status != "done":
                records[key] = record
    return records


def write_plan(folder: Path, plan: Json) -> None:
    """Writes what `Sweep.plan()` gives to `sweep.json`, unless that is what it holds."""
    path, text = folder / PLAN, json.dumps(plan, indent=1, allow_nan=False) + "\n"
    # Its time of change tells whether a report is older than what it reports.
    if not path.exists() or path.read_text() != text:
        atomic.write_text(path, text)


def read_plan(folder: Path) -> Json:
    """Reads `sweep.json` of a results folder.

    Raises:
        ResultError: There is none, or it is broken or of another format.
    """
    return read_json(folder / PLAN)


def read_json(path: Path) -> Json:
    """Reads a JSON file with a format number and checks that number both ways.

    Raises:
        ResultError: With the file, what is wrong with it and what to do. Nothing is deleted.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ResultError(f'{path} is not there. "bench run" makes it.') from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _broken(path, error) from None
    return _parsed(text, path)


def _broken(path: Path, error: ValueError) -> ResultError:
    return ResultError(
        f"{path} is not valid JSON ({error}). Restore it from version control, or remove it "
        "to have it made again."
    )


def _parsed(text: str, path: Path) -> Json:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _broken(path, error) from None
    found = data.get("format") if isinstance(data, dict) else None
    if found == FORMAT:
        return dict(data)
    if isinstance(found, int) and found > FORMAT:
        raise ResultError(
            f"{path} has format {found}; this version of bench reads format {FORMAT}. "
            'Upgrade bench ("pip install --upgrade sampler-bench"), or use another folder.'
        )
    raise ResultError(
        f"{path} has format {found!r}; this version of bench reads format {FORMAT}. "
        "Move it away to have it made again."
    )


def load(*folders: Path) -> "pd.DataFrame":
    """Results folders as a typed DataFrame with one row a cell, whatever became of it.

    With a plan there are rows for exactly its cells in its order; without one, for the records
    that are there. A cell of several folders has one row, where it comes first.

    Columns: key, label, status (done, failed, missing), reason, model, sampler, spacing, final,
    steps, steps_effective, nfe, nfe_asked, nfe_mean, nfe_min, nfe_max (as counted, where none are
    declared), seed, samples, `param.<name>` for every parameter of a sampler, `spacing.<name>` for
    those of a spacing, `metric.<name>`, `error.<name>` (its standard error) and `better.<name>`
    where records have them, `notes.<name>` where a metric's record has notes,
    reference, seconds, seconds_sampling, seconds_features, samples_per_second,
    peak_memory_mb, model_digest, device, dtype, batch, threads, commit, dirty, host, time.

    A cell whose record lacks a metric that the plan asks for is missing, with that reason.

    Raises:
        ResultError: A folder holds neither plan nor record, or something unreadable.
    """
    import pandas as pd

    records = gather(*folders)
    rows: dict[str, Json] = {}
    for folder in folders:
        plan = read_plan(folder) if (folder / PLAN).exists() else None
        own = read_all(folder) if plan is None and folder.is_dir() else {}
        if plan is None and not own:
            raise ResultError(f'{folder} holds no results. "bench run SWEEP.yaml" makes some.')
        planned = map(_planned, own.values()) if plan is None else plan["cells"]
        for cell in planned:
            record = records.get(cell["key"])
            asked = plan["metrics"] if plan is not None else record.metrics if record else ()
            rows.setdefault(cell["key"], _row(cell, record, asked))
    frame = pd.DataFrame(
        rows.values(), dtype=object
    )  # as they come: pandas would make 2 and None a 2.0
    names = [*_COLUMNS, *sorted(name for name in frame.columns if name not in _COLUMNS)]
    frame = frame.reindex(columns=names)
    kinds = {name: _COLUMNS.get(name) or _kind(name, frame[name].dropna()) for name in names}
    texts = [name for name, kind in kinds.items() if kind == "string"]
    frame[texts] = frame[texts].map(str, na_action="ignore")
    return frame.astype(kinds)


_COLUMNS = {
    "key": "string",
    "label": "string",
    "status": "string",
    "reason": "string",
    "model": "string",
    "sampler": "string",
    "spacing": "string",
    "final": "string",
    "steps": "Int64",
    "steps_effective": "Int64",
    "nfe": "Int64",
    "nfe_asked": "Int64",
    "nfe_mean": "float64",
    "nfe_min": "Int64",
    "nfe_max": "Int64",
    "seed": "Int64",
    "samples": "Int64",
    "reference": "string",
    "seconds": "float64",
    "seconds_sampling": "float64",
    "seconds_features": "float64",
    "samples_per_second": "float64",
    "peak_memory_mb": "float64",
    "model_digest": "string",
    "device": "string",
    "dtype": "string",
    "batch": "Int64",
    "threads": "Int64",
    "commit": "string",
    "dirty": "boolean",
    "host": "string",
    "time": "string",
}


def _nfe(nfe: Json) -> int | None:
    """Declared calls per image; the counted mean, to a whole number, where none are declared."""
    declared, counted = nfe["declared"], nfe["counted"]
    if declared is not None:
        return int(declared)
    return None if counted is None else round(counted["mean"])


def _planned(result: Result) -> Json:
    """The row that a plan would have for a record that comes without one."""
    return {
        "key": result.key,
        "label": result.label,
        "cell": result.cell,
        "nfe": _nfe(result.nfe),
        "steps_effective": result.steps["effective"],
        "nfe_asked": None,
    }


def _row(planned: Json, result: Result | None, asked: Iterable[str]) -> Json:
    cell = planned["cell"]
    row: Json = {name: planned[name] for name in ("key", "label", "nfe", "nfe_asked")}
    row["steps_effective"] = planned["steps_effective"]
    for name in ("sampler", "spacing", "final", "steps", "seed", "samples"):
        row[name] = cell[name]
    model = cell["model"]
    row["model"] = model.get("name") or model.get("path") or model["kind"]
    row |= {f"param.{name}": value for name, value in cell["params"].items()}
    row |= {f"spacing.{name}": value for name, value in (cell["spacing_params"] or {}).items()}
    asked = list(asked)
    row |= {f"metric.{name}": None for name in asked}
    if result is None:
        return row | {"status": "missing", "reason": "not computed yet"}
    row |= {f"metric.{name}": entry["value"] for name, entry in result.metrics.items()}
    for name, entry in result.metrics.items():
        row |= {f"error.{name}": entry["standard_error"]} if "standard_error" in entry else {}
        row |= {f"better.{name}": entry["better"]} if "better" in entry else {}
    # Empty lists leave no column: most sweeps have nothing to note.
    row |= {
        f"notes.{name}": "; ".join(entry["notes"])
        for name, entry in result.metrics.items()
        if entry.get("notes")
    }
    row |= {"status": result.status, "reason": result.error, "nfe": _nfe(result.nfe)}
    if result.nfe["declared"] is None:
        row |= {f"nfe_{name}": value for name, value in (result.nfe["counted"] or {}).items()}
    absent = [name for name in asked if name not in result.metrics]
    if absent and result.status == "done":
        row |= {"status": "missing", "reason": f"{', '.join(absent)} not computed yet"}
    row["reference"] = next((entry["reference"] for entry in result.metrics.values()), None)
    row["seconds"] = result.seconds.get("total")
    row["seconds_sampling"] = result.seconds.get("sampling")
    row["seconds_features"] = result.seconds.get("features")
    row["samples_per_second"] = result.samples_per_second
    row["peak_memory_mb"] = result.peak_memory_mb
    for name in ("model_digest", "commit", "dirty", "host", "time"):
        row[name] = result.provenance.get(name)
    return row | dict(result.provenance.get("numerics", {}))


def _kind(column: str, values: "pd.Series[Any]") -> str:
    """The type of a column of parameters or metrics; mixed ones (eta: 0.2, sigma-hat) are text."""
    if column.startswith(("metric.", "error.")):
        return "float64"
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "string"
