import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench import interrupt
from tests.signals import handled


def leave(*_: object) -> None:
    sys.exit(3)


@pytest.fixture
def number() -> Iterator[signal.Signals]:
    """A signal whose handler exits, as submitit's does."""
    with handled(signal.SIGUSR2, leave):
        yield signal.SIGUSR2


def swallow(number: signal.Signals) -> None:
    try:
        signal.raise_signal(number)
    except SystemExit:
        return
    raise AssertionError


def test_what_a_handler_raised_is_raised_again(number: signal.Signals) -> None:
    with interrupt.remembered() as reraise:
        reraise()  # nothing yet
        swallow(number)
        for _ in range(2):
            with pytest.raises(SystemExit) as raised:
                reraise()
            assert raised.value.code == 3
    assert signal.getsignal(number) is leave


def test_each_block_remembers_its_own(number: signal.Signals) -> None:
    with interrupt.remembered() as outer, interrupt.remembered() as inner:
        swallow(number)
        for reraise in (outer, inner):
            with pytest.raises(SystemExit):
                reraise()
    with interrupt.remembered() as later:
        later()


def test_handlers_are_set_back_after_an_error(number: signal.Signals) -> None:
    with pytest.raises(SystemExit), interrupt.remembered():
        signal.raise_signal(number)
    assert signal.getsignal(number) is leave


def test_a_thread_has_no_handlers_of_its_own(number: signal.Signals) -> None:
    def block() -> object:
        with interrupt.remembered() as reraise:
            reraise()
            return signal.getsignal(number)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(block).result() is leave
