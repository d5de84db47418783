"""Errors meant for people: printed without a traceback, exit code 1.

Every message says where (file, line, key or cell), what was found in the user's own words, what
was expected and what to do. Anything that is not a `BenchError` is a bug and keeps its traceback.

    BenchError
    ├── SweepError       a sweep file or a value on the command line
    ├── ScheduleError    a noise schedule, spacing or time grid that cannot be built
    ├── ModelError       weights, configuration or schedule of a model
    ├── MetricError      an extractor, its weights, images or reference statistics
    ├── CellError        a cell that cannot go on (non-finite images, disagreeing numerics)
    ├── ResultError      records, chunks and folders on disk
    ├── LaunchError      submitting and watching jobs
    └── TrainingError    the recipes behind the shipped weights
"""

from collections.abc import Iterable
from difflib import get_close_matches


class BenchError(Exception):
    """Base of all errors with a message for the user."""


class SweepError(BenchError):
    """A sweep file, or a value given on the command line, is not valid."""


class ScheduleError(BenchError):
    """A noise schedule, a spacing or a time grid cannot be built as asked."""


class ModelError(BenchError):
    """Weights, configuration or schedule of a model are missing, wrong or contradictory."""


class MetricError(BenchError):
    """An extractor, its weights, its input images or reference statistics are wrong."""


class CellError(BenchError):
    """A cell cannot be computed; it is recorded as failed."""


class ResultError(BenchError):
    """A record, a chunk or a results folder cannot be read or written."""


class LaunchError(BenchError):
    """Jobs cannot be submitted or watched."""


class TrainingError(BenchError):
    """A training recipe cannot start or go on."""


def nearest(word: str, names: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest of `names`, or an empty string.

    >>> nearest("dpm-solver+", ["ddim", "dpm-solver++"])
    ' Did you mean "dpm-solver++"?'
    >>> nearest("zebra", ["ddim"])
    ''
    """
    close = get_close_matches(word, list(names), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""
