"""Results of a revision, computed in a clean worktree of it.

    .bench/<commit>/code                 the worktree, while it is used
    .bench/<commit>/results/<sweep>/     stays, so that a revision is computed once
    .bench/<commit>/log.txt              what "bench run" of that revision said
    .bench/<commit>/claim                while a process is at it; others wait, and find its results

The sweep file is that of now, so both revisions answer one question; the environment (torch and so
on) is that of now as well.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import atomic, results, yaml_lines
from bench.claim import CLAIM, alone, holder
from bench.errors import ResultError, SweepError
from bench.regression import git

WORK = Path(".bench")


def results_of(
    text: str, sweep: Path | None, *, work: Path = WORK, say: Callable[[str], None] = lambda _: None
) -> tuple[Path, str]:
    """The results folder behind what somebody typed, and what to call it.

    Args:
        text: a results folder, or a revision, whose results are then computed.
        sweep: the sweep file to compute of a revision.
        work: where worktrees and their results lie.
        say: told what takes long.

    Raises:
        ResultError: It is neither, or the revision does not run.
        SweepError: It is a revision, and there is no sweep file.
    """
    if Path(text).is_dir():
        return Path(text), text
    commit = git.commit(text)
    if commit is None:
        raise ResultError(
            f'"{text}" is neither a results folder nor a revision of the git repository here. '
            "Name a folder such as results/quickstart, or a branch, tag or commit."
        )
    short = commit[:12]
    name = text if text in commit else f"{text} ({short[:8]})"
    if sweep is None:
        raise SweepError(
            f'"{text}" is a revision: say with --sweep FILE which sweep to compute of it. '
            "sweeps/regression.yaml is made for that."
        )
    # From the head of the file alone: that revision expands it, not this one.
    given = yaml_lines.read(sweep).data.get("name", sweep.stem)
    folder = work / short / "results" / str(given)
    _ignored(work)
    claim = atomic.make_folder(work / short) / CLAIM
    if other := holder(claim):
        say(f"{name}: process {other.pid} on {other.host} is at it; waiting …")
    with alone(claim), _worktree(commit, work / short / "code") as code:
        say(f"{sweep} of {name}, in a worktree of it …")
        _run(name, code, sweep, folder)
    return folder, name


def _ignored(work: Path) -> None:
    """The folder of worktrees and their results is nobody's to commit."""
    atomic.make_folder(work)
    if not (work / ".gitignore").exists():
        atomic.write_text(work / ".gitignore", "*\n")


@contextmanager
def _worktree(commit: str, place: Path) -> Iterator[Path]:
    """A clean worktree of a commit, which is gone afterwards."""
    remove = ("worktree", "remove", "--force", str(place))
    if place.exists():  # of a process that was killed
        git.ask(*remove)
    git.ask("worktree", "prune")
    git.ask("worktree", "add", "--detach", str(place), commit)
    try:
        yield place
    finally:
        git.ask(*remove)


def _run(name: str, code: Path, sweep: Path, folder: Path) -> None:
    log = folder.parent.parent / "log.txt"
    # Safe path: else the package in the current folder would come before that of the worktree,
    # here and in the workers that it starts.
    paths = [str(code.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    words = ["run", str(sweep), "--results", str(folder.parent)]
    words += ["--reports", str(folder.parent.parent / "reports")]
    command = [sys.executable, "-c", "from bench.cli import main; main()", *words]
    with atomic.explained(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as out:
            run = subprocess.run(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    # A cell that fails makes the exit code 1, too, and is a result like others.
    if run.returncode and not _complete(folder):
        said = [line.strip() for line in log.read_text(errors="replace").splitlines()]
        last = next((line for line in reversed(said) if line), "it said nothing")
        raise ResultError(
            f"Revision {name} does not run: bench run {sweep} ended with {run.returncode}: {last} "
            f"({log} has all of it). It runs with the packages of this environment and the sweep "
            "file of now: if it needs others, compute its results by hand and compare folders."
        )


def _complete(folder: Path) -> bool:
    """Whether every cell has a record, failed ones too."""
    if not (folder / results.PLAN).exists():
        return False
    keys = {cell["key"] for cell in results.read_plan(folder)["cells"]}
    return keys <= results.read_all(folder).keys()
