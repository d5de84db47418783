"""Makes a Python whose path begins with this folder one of another machine, with another clock.

So do all that it starts. BENCH_TEST_HOST names the machine, BENCH_TEST_CLOCK says by how many
seconds its clock is ahead. Files are stamped by the clock of their file system, as ever.

(libfaketime would shift the times of files as well, and breaks `time.sleep`.)
"""

import builtins
import datetime
import os
import socket
import time
from types import SimpleNamespace
from typing import Any

_HOST, _AHEAD = os.environ["BENCH_TEST_HOST"], float(os.environ["BENCH_TEST_CLOCK"])
_time, _import = time.time, builtins.__import__


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "_Datetime":
        return super().now(tz) + datetime.timedelta(seconds=_AHEAD)


def _imported(name: str, globals: Any = None, *others: Any, **named: Any) -> Any:
    """For the modules of bench alone: pandas and its like read the fields of the real class."""
    found = _import(name, globals, *others, **named)
    if name == "datetime" and str((globals or {}).get("__name__")).startswith("bench."):
        return SimpleNamespace(**vars(found) | {"datetime": _Datetime})
    return found


socket.gethostname = lambda: _HOST
time.time = lambda: _time() + _AHEAD
builtins.__import__ = _imported  # type: ignore[assignment]
