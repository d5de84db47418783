"""Moved: for files that others are changing."""

from bench.certify.variants import *  # noqa: F403
