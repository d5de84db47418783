"""Interrupts that nothing on the way can swallow or turn into an error of its own.

Ctrl-C, "bench cancel" and a cluster that preempts a job end a worker by what the handler of a
signal raises, wherever the worker is at that moment. Compiled code that calls Python may make
another error of it (safetensors does, while it loads a model) or drop it. So a handler's exception
is remembered, and raised again by whoever has met an error, or comes to a place to stop at.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def remembered() -> Iterator[Callable[[], None]]:
    """Gives what raises again, if handlers of signals have raised within the block.

    Those that are set when it begins; in another thread than the main one there are none.
    """
    raised: list[BaseException] = []

    def reraise() -> None:
        if raised:
            raise raised[0]

    def remembering(handler: Callable[[int, FrameType | None], Any]) -> Callable[..., None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                raised.append(error)
                raise

        return handle

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in signal.valid_signals()}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
    try:
        for number, handler in handlers.items():
            signal.signal(number, remembering(handler))
        yield reraise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
