"""The commands; the only place that prints and exits.

Nothing heavy is imported here: `bench --help` answers at once, and each command imports what it
uses. An error meant for a person (`BenchError`) is printed without a traceback and exits with 1, a
wrong usage with 2; anything else is a bug and keeps its traceback.

A module for each group of commands; `--help` lists them in the order of the imports below.
"""

import sys

# isort: off
from bench.cli.app import app, train
from bench.cli import sweeps as sweeps
from bench.cli import jobs as jobs
from bench.cli import images as images
from bench.cli import training as training
from bench.cli import catalogue as catalogue
from bench.cli import regression as regression

# isort: on
from bench.cli.terminal import complain
from bench.errors import BenchError

__all__ = ["app", "main", "train"]


def main() -> None:
    """Entry point of `bench`."""
    try:
        app()
    except BenchError as error:
        complain(str(error))
        sys.exit(1)
