"""Who is running: a machine's name, a process and its start, so that dead can be told from alive.

Process ids mean something on one machine only, and are used again after a while; so a process is
named by machine, id and start time.
"""

import os
import socket
from functools import cache
from hashlib import sha256
from pathlib import Path


@cache
def machine() -> str:
    """Host name and a digest of what makes process ids comparable: this boot, this container."""
    marks = [socket.gethostname()]
    for source in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        try:
            marks.append(str(source.readlink() if source.is_symlink() else source.read_text()))
        except OSError:  # not Linux: the host name has to do
            continue
    return f"{marks[0]}-{sha256(''.join(marks).encode()).hexdigest()[:8]}"


def started(pid: int) -> int | None:
    """When process `pid` of this machine started (clock ticks since boot; 0 without /proc).

    None if there is no such process, or only what its parent has not yet collected of it.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it runs, under another user
        return 0
    return 0
