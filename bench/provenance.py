"""With what a result was made, for information: commit, versions, host, time."""

import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import bench


def describe() -> dict[str, Any]:
    """Commit and dirty flag (None outside a checkout), versions, host, and the time in UTC."""
    commit, dirty = checkout()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "host": socket.gethostname(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers pass through."""
    import numpy as np
    import torch

    return {
        "bench": bench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


@cache
def checkout() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code runs from, and whether its code was edited since.

    An installed copy inside somebody's repository (a virtual environment) is not a checkout.
    """
    package = Path(__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    edits = _git(package, "status", "--porcelain", "--", ".")
    return commit, None if edits is None else bool(edits)


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command, or None if it fails or there is no git."""
    try:
        run = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None
