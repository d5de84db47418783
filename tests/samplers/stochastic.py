"""Moved: for files that others are changing."""

from bench.certify.moments import *  # noqa: F403
