"""What every test relies on: one thread, so that its numbers do not depend on the machine."""

import os
import sys
from collections.abc import Iterator

import pytest

# Through the environment, because importing torch here would make it part of every test, also of
# those that prove that something does without it.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Undoes the thread count of a cell that ran in this process."""
    yield
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
