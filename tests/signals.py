"""A handler of a signal for the time of a block."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled(
    number: signal.Signals, handler: Callable[..., Any] | signal.Handlers
) -> Iterator[None]:
    """Within it `handler` is that of the signal; afterwards the one from before is."""
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
