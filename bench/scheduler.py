"""What SLURM says and does, through its own commands, without submitit.

No accounting is needed: where there is some, it tells how jobs ended.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from bench.errors import LaunchError

Answer = TypeVar("Answer")

TIMEOUT = 60.0
"""Seconds that one command may take."""
PAUSES = (1.0, 2.0, 5.0, 10.0)
"""Seconds between two tries while the controller is away; the last one goes on."""
_AWAY = re.compile(
    "unable to contact|timed out|connection refused|connection failure|zero bytes were transmitted"
    "|transport endpoint|temporarily unable|controller not responding|network is unreachable"
    "|no route to host|in standby mode|unspecified error",
    re.IGNORECASE,
)
_MEMORY = "OUT_OF_MEMORY"
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", _MEMORY),
    *("PREEMPTED", "TIMEOUT"),
}
"""States of the accounting after which a job does not come back."""
_MAX_ARRAY = 1000
"""Where the controller does not say; its default is 1001."""


class Away(LaunchError):
    """The controller does not answer; it may in a moment."""


@dataclass(frozen=True)
class Queued:
    """A job in the queue.

    Attributes:
        name: of the job.
        running: whether it runs; else it waits.
        reason: why it waits, as SLURM says it: "Resources", "PartitionNodeLimit".
        host: node that it runs on, or "".
    """

    name: str
    running: bool
    reason: str
    host: str


def has(command: str) -> bool:
    """Whether this machine has a command of SLURM's."""
    return shutil.which(command) is not None


def queue(arrays: Collection[str]) -> dict[str, Queued] | None:
    """The jobs of these arrays that are pending, running or being requeued, by their ids.

    Args:
        arrays: ids of arrays or of single jobs, without task numbers.

    Returns:
        None where there is no squeue.

    Raises:
        Away: The controller does not answer.
    """
    if not arrays:
        return {}
    form = "%F|%K|%T|%r|%N|%j"
    command = ["squeue", "--noheader", "--array", "--jobs", ",".join(arrays), "--format", form]
    try:
        return parse_queue(_run(command))
    except FileNotFoundError:
        return None
    except LaunchError as error:
        if "Invalid job id" in str(error):  # all of them are over, and forgotten
            return {}
        raise Away(str(error)) from None


def parse_queue(text: str) -> dict[str, Queued]:
    """Reads lines of 'array|task|state|reason|node|name'.

    >>> parse_queue("17|4|PENDING|Resources||bench-a")
    {'17_4': Queued(name='bench-a', running=False, reason='Resources', host='')}
    """
    found = {}
    for line in text.splitlines():
        array, task, state, reason, host, name = line.strip().split("|", 5)
        job = array if task == "N/A" else f"{array}_{task}"
        waiting = state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
        said = reason if waiting and reason != "None" else ""  # None until it was looked at
        found[job] = Queued(name, not waiting, said, host)
    return found


def endings(jobs: Mapping[str, str]) -> dict[str, str]:
    """How jobs ended, by their ids: "OUT_OF_MEMORY", "FAILED, exit code 1:0".

    Jobs of which the accounting says nothing are left out, and so are all where there is none:
    this is told to people, and nothing is decided by it.

    Args:
        jobs: id and name of each.
    """
    arrays = sorted({job.split("_")[0] for job in jobs})
    form = "JobID,JobName,State,ExitCode"
    command = ["sacct", "--noheader", "--parsable2", "--format", form, "--jobs"]
    try:
        text = _run([*command, ",".join(arrays)]) if arrays else ""
    except (FileNotFoundError, LaunchError):
        return {}
    found = parse_endings(text)
    return {job: found[job, name] for job, name in jobs.items() if (job, name) in found}


def parse_endings(text: str) -> dict[tuple[str, str], str]:
    """Reads lines of 'job|name|state|exit code', by job and name; jobs that go on are left out.

    The lines of its steps follow that of a job; want of memory is said of a step alone.

    >>> parse_endings("17_4|bench-a|CANCELLED by 0|0:0")
    {('17_4', 'bench-a'): 'CANCELLED'}
    """
    found: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for line in text.splitlines():
        part, name, state, code = line.strip().split("|")
        job, _, step = part.partition(".")
        word = state.split()[0]  # without "by" whom
        if not step:
            names[job] = name
            if word in _ENDED:
                found[job, name] = f"{word}, exit code {code}" if word == "FAILED" else word
        elif word == _MEMORY and (job, names.get(job)) in found:
            found[job, names[job]] = word
    return found


def named(name: str) -> list[str]:
    """Ids of the arrays in the queue whose jobs have this name.

    Raises:
        Away: The controller does not answer.
    """
    text = _run(["squeue", "--noheader", "--name", name, "--format", "%F"])
    return sorted(set(text.split()))


def cancel(arrays: Iterable[str]) -> None:
    """Cancels arrays with all their tasks; ones that are over do not matter.

    Raises:
        LaunchError: They may not be cancelled.
        Away: The controller does not answer.
    """
    if ids := list(arrays):
        try:
            _run(["scancel", *ids])
        except Away:
            raise
        except LaunchError as error:
            if "Invalid job id" not in str(error):
                what = f"SLURM did not cancel the jobs {', '.join(ids)}: {error}"
                raise LaunchError(what) from None


def cancel_named(name: str) -> None:
    """Cancels whatever is in the queue under this name; raises as `named` and `cancel` do."""
    cancel(named(name))


def max_array_size() -> int:
    """How many tasks an array may have at this site.

    Raises:
        Away: The controller does not answer.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.M)
    return max(1, int(found[1])) if found else _MAX_ARRAY


def patiently(ask: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """The answer of `ask`, however long the controller is away; `say` hears of every try."""
    tries = 0
    while True:
        try:
            return ask()
        except Away as error:
            pause = PAUSES[min(tries, len(PAUSES) - 1)]
            say(f"SLURM does not answer ({error}); the next try is in {pause:.0f} s.")
            time.sleep(pause)
            tries += 1


def is_away(message: str) -> bool:
    """Whether an error of SLURM's commands means that the controller does not answer."""
    return bool(_AWAY.search(message))


def _run(command: list[str]) -> str:
    """What a command prints.

    Raises:
        LaunchError: It failed; with its last line.
        Away: The controller did not answer.
        FileNotFoundError: There is no such command.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Away(f"{command[0]} took more than {TIMEOUT:.0f} s") from None
    if done.returncode == 0:
        return done.stdout
    message = (done.stderr.strip().splitlines() or [f"{command[0]} failed"])[-1]
    raise Away(message) if is_away(done.stderr) else LaunchError(message)
