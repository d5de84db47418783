"""What regression tracking asks of git."""

import subprocess
from pathlib import Path

from bench.errors import ResultError


def ask(*words: str, folder: Path | None = None, stdin: bytes = b"") -> bytes:
    """What a git command prints.

    Raises:
        ResultError: It fails, or there is no git.
    """
    command = ["git", *(["-C", str(folder)] if folder else []), *words]
    try:
        run = subprocess.run(command, input=stdin, capture_output=True)
    except FileNotFoundError:
        raise ResultError("There is no git here, which revisions and histories need.") from None
    if run.returncode:
        said = run.stderr.decode(errors="replace").strip().splitlines()
        raise ResultError(f"{' '.join(command)} failed: {said[-1] if said else run.returncode}.")
    return run.stdout


def commit(text: str) -> str | None:
    """The commit that a revision names, or None."""
    try:
        found = ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    except ResultError:
        return None
    return found.decode().strip()
