"""The values of a sweep's cells over the commits that changed its results.

The results are read from git, along the first parents of the commit that is checked out: a merge
counts as the one commit that brought its results here. A commit that leaves a record as it was adds
no point to its cell.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench import results
from bench.errors import ResultError
from bench.regression import git
from bench.regression.changes import Story, story
from bench.regression.fingerprints import same_arithmetic
from bench.results import Result


@dataclass(frozen=True)
class Commit:
    """A commit that changed results: hash, day (ISO 8601) and first line."""

    key: str
    day: str
    subject: str

    @property
    def short(self) -> str:
        """As people write it."""
        return self.key[:8]


@dataclass(frozen=True)
class Point:
    """A value as a commit recorded it.

    Attributes:
        place: of the commit, in the order of the history.
        value: of the metric.
        error: its standard error. A record from before there were any has that of the nearest
            point with one, as a part of the value; NaN where there is none.
        other: whether the sampler's arithmetic is another than at the point before.
    """

    place: int
    value: float
    error: float
    other: bool


@dataclass(frozen=True)
class Series:
    """The values of one metric of one cell.

    Attributes:
        label: the cell in words.
        metric: its name.
        points: those that can be compared with the last one: with its reference, extractor and
            number of images.
        left_out: how many cannot.
        story: what happened; None where no point has a standard error.
    """

    label: str
    metric: str
    points: tuple[Point, ...]
    left_out: int
    story: Story | None

    @property
    def eventful(self) -> bool:
        """Whether anything happened."""
        return self.story is not None and not self.story.flat


@dataclass(frozen=True)
class History:
    """What git knows of a results folder."""

    name: str
    commits: tuple[Commit, ...]
    series: tuple[Series, ...]


def read(folder: Path) -> History:
    """The history of a results folder.

    Raises:
        ResultError: It is not in a git repository, no commit has results in it, or a record cannot
            be read.
    """
    if not folder.is_dir():
        raise ResultError(f'{folder} is not there. "bench run SWEEP.yaml" makes results.')
    commits, changes = _changes(folder)
    if not commits:
        raise ResultError(
            f"{folder} has no history: no commit has records in it. Commit the records "
            "(<key>.json), which are made for that; each commit is then a point."
        )
    texts = _texts(folder, [blob for _, _, blob in changes if blob.strip("0")])
    records: dict[str, list[tuple[int, Result]]] = {}
    for place, name, blob in changes:
        if blob not in texts:  # a record that was removed: a cell that is no longer asked for
            records.pop(name, None)
            continue
        where = Path(f"{commits[place].short}:{folder.name}/{name}")
        records.setdefault(name, []).append((place, results.parse(texts[blob], where)))
    drafts = [series for each in records.values() for series in _series(each)]
    return History(folder.resolve().name, tuple(commits), tuple(_told(drafts)))


def _changes(folder: Path) -> tuple[list[Commit], list[tuple[int, str, str]]]:
    """The commits, the first one first, and (place of the commit, file, blob) of each change."""
    said = git.ask(
        *("log", "--first-parent", "-m", "--reverse", "--raw", "--no-abbrev", "--no-renames"),
        *("--relative", "--format=%x00%H%x09%cs%x09%s", "--", "."),
        folder=folder,
    ).decode(errors="replace")
    commits: list[Commit] = []
    changes = []
    for block in said.split("\0")[1:]:
        head, *lines = block.splitlines()
        found = [_record(line) for line in lines if line.startswith(":")]
        if any(found):
            commits.append(Commit(*head.split("\t", 2)))
            changes += [(len(commits) - 1, *each) for each in found if each]
    return commits, changes


def _record(line: str) -> tuple[str, str] | None:
    """File and blob of a line of git's raw format that is of a record; zeros where it is gone."""
    facts, _, name = line.partition("\t")
    return (name, facts.split()[3]) if results.is_record(Path(name)) else None


def _texts(folder: Path, blobs: list[str]) -> Mapping[str, str]:
    """The contents of blobs, in one call."""
    asked = list(dict.fromkeys(blobs))
    stream = git.ask("cat-file", "--batch", folder=folder, stdin="\n".join(asked).encode())
    texts, at = {}, 0
    for blob in asked:
        end = stream.index(b"\n", at)
        size = int(stream[at:end].split()[2])
        texts[blob] = stream[end + 1 : end + 1 + size].decode(errors="replace")
        at = end + size + 2
    return texts


def _series(records: list[tuple[int, Result]]) -> Iterator[Series]:
    """The series of a cell, one for each metric of its last record."""
    last = records[-1][1]
    for metric, entry in last.metrics.items():
        ties = [entry.get(part) for part in _TIES]
        points: list[Point] = []
        left_out = 0
        before: Result | None = None
        for place, result in records:
            found = result.metrics.get(metric)
            if found is None or [found.get(part) for part in _TIES] != ties:
                left_out += 1
                continue
            error = found.get("standard_error")
            changed = before is not None and not same_arithmetic(
                before.provenance, result.provenance
            )
            points.append(
                Point(place, found["value"], math.nan if error is None else error, changed)
            )
            before = result
        yield Series(last.label, metric, _completed(points), left_out, None)


_TIES = ("n", "reference_digest", "extractor_digest")


def _completed(points: list[Point]) -> tuple[Point, ...]:
    """The points, those without a standard error with that of the nearest one that has one."""
    known = [point for point in points if point.error > 0]  # not for NaN

    def error(point: Point) -> float:
        if point in known or not known:
            return point.error
        near = min(known, key=lambda other: abs(other.place - point.place))
        return abs(near.error / near.value * point.value) if near.value else near.error

    return tuple(replace(point, error=error(point)) for point in points)


def _told(drafts: list[Series]) -> Iterator[Series]:
    """The series with what happened in them, all of them judged together."""
    judged = sum(len(series.points) > 1 for series in drafts)
    for series in drafts:
        errors = [point.error for point in series.points]
        known = all(error > 0 for error in errors)  # not for NaN
        values = [point.value for point in series.points]
        told = story(values, errors, max(1, judged)) if known else None
        yield replace(series, story=told)
