"""A git repository to test with."""

import os
import subprocess
from pathlib import Path

WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
ENVIRONMENT = {**WHO, "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}


def git(folder: Path, *words: str, day: str = "2026-01-01") -> str:
    """What a git command prints."""
    dates = {"GIT_AUTHOR_DATE": f"{day}T12:00:00Z", "GIT_COMMITTER_DATE": f"{day}T12:00:00Z"}
    done = subprocess.run(
        ["git", "-C", str(folder), *words],
        env=os.environ | ENVIRONMENT | dates,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def commit(folder: Path, subject: str, day: str = "2026-01-01") -> str:
    """Commits everything; the hash."""
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", subject, day=day)
    return git(folder, "rev-parse", "HEAD")
