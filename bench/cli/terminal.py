"""What every command does on the terminal."""

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console


@contextmanager
def bar(text: str) -> "Iterator[Callable[[int, int], None]]":
    """A bar on a terminal, and the function that moves it: what is done, of how much."""
    from rich.progress import Progress

    console = make_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(text)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def make_console() -> "Console":
    from rich.console import Console

    # A pipe or a log has no width; a terminal's is taken from it.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def complain(message: str) -> None:
    print(message, file=sys.stderr)


def show_log() -> None:
    """Lines of a recipe's progress, on standard error."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("bench").setLevel(logging.INFO)
