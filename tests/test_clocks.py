"""Machines that share a results folder and whose clocks are ten minutes apart."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import chunks
from bench.claim import CLAIM, STALE_AFTER
from tests import fakes
from tests.kills import computed_twice, leftovers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
HERE, AHEAD, BEHIND = 0, 600, -600
"""Seconds by which the clock of a machine is ahead; this one's is right."""
CLOCKS = pytest.mark.parametrize("clock", [AHEAD, BEHIND], ids=["ahead", "behind"])


class Machines:
    """Processes on this machine and, as far as they can tell, on others."""

    def __init__(self, folder: Path) -> None:
        self.file, self.folder = folder / "tiny.yaml", folder / "results" / "tiny"
        self.file.write_text(fakes.sweep_text(folder, samples=6400))
        self._started: list[subprocess.Popen[str]] = []

    def bench(self, clock: int, verb: str, *words: str) -> "subprocess.Popen[str]":
        """A command on a machine with that clock."""
        environment = dict(os.environ)
        if clock:
            paths = [str(ROOT / "tests" / "elsewhere"), environment.get("PYTHONPATH", "")]
            environment |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
            environment |= {"BENCH_TEST_HOST": f"node{clock}", "BENCH_TEST_CLOCK": str(clock)}
        command = [sys.executable, "-m", "tests.tiny", verb, str(self.file), *words]
        command += ["--results", str(self.folder.parent)]
        if verb == "run":
            command += ["--reports", str(self.folder.parents[1] / "reports")]
        pipe = subprocess.PIPE
        made = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        self._started.append(made)
        return made

    def said(self, clock: int, verb: str, *words: str) -> tuple[int, str, str]:
        """Exit code and output of a command."""
        made = self.bench(clock, verb, *words)
        out, err = made.communicate(timeout=600)
        return made.returncode, out, err

    def states(self, clock: int) -> dict[str, Any]:
        """The states of the cells as a machine sees them."""
        _, out, err = self.said(clock, "status", "--json")
        assert not err
        return {cell["key"]: cell["state"] for cell in json.loads(out)["cells"]}

    def wait_for_chunk(self) -> str:
        """The cell that is the first to have a chunk in its ledger."""
        deadline = time.monotonic() + 120
        ledgers = f"work/*/{chunks.LEDGER}"
        while not (found := [p for p in self.folder.glob(ledgers) if p.stat().st_size]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found[0].parent.name

    def hosts(self) -> set[str]:
        """Where the chunks were computed, by the ledgers."""
        ledgers = self.folder.glob(f"work/*/{chunks.LEDGER}")
        lines = [line for path in ledgers for line in path.read_text().splitlines()]
        return {json.loads(line)["host"] for line in lines}

    def stop(self) -> None:
        """Ends the commands that have not ended."""
        for one in self._started:
            one.kill()
            one.communicate()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    yield made
    made.stop()


@CLOCKS
def test_two_that_are_alive_share_the_cells(machines: Machines, clock: int) -> None:
    """Each waits for what the other one has, and takes none of it."""
    here = machines.bench(HERE, "run")
    machines.wait_for_chunk()
    elsewhere = machines.bench(clock, "run")
    for one in (here, elsewhere):
        _, err = one.communicate(timeout=600)
        assert (one.returncode, err) == (0, ""), err
    assert len(machines.hosts()) == 2
    assert computed_twice(machines.folder) == []
    assert leftovers(machines.folder) == []


@CLOCKS
@pytest.mark.parametrize("off", ["dead", "heir"])
def test_who_is_dead_is_followed_when_its_time_is_over(
    machines: Machines, clock: int, off: str
) -> None:
    dead, heir = (clock, HERE) if off == "dead" else (HERE, clock)
    first = machines.bench(dead, "run")
    key = machines.wait_for_chunk()
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert machines.states(heir)[key] == "running", "its heart beat a moment ago"
    claim = chunks.folder_of(machines.folder, key) / CLAIM
    silent = claim.stat().st_mtime - STALE_AFTER - 10
    os.utime(claim, (silent, silent))
    assert machines.states(heir)[key] == "stale claim"
    code, _, err = machines.said(heir, "run")
    assert (code, err) == (0, "")
    assert len(machines.hosts()) == 2
    assert computed_twice(machines.folder) == []
    # What it was writing when it was killed stays until it is old: from another machine nobody sees
    # that its writer is gone.
    own = f"~{first.pid}~"
    assert [path for path in leftovers(machines.folder) if own not in path] == []


@CLOCKS
def test_workers_that_have_just_been_submitted_are_seen(
    machines: Machines, clock: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no claims yet: that they are young is all that is known of them."""
    gate = tmp_path / "gate"
    monkeypatch.setenv(fakes.GATE, str(gate))
    code, _, err = machines.said(clock, "submit", "--executor", "local")
    assert (code, err) == (0, "")
    code, out, err = machines.said(HERE, "submit", "--executor", "local")
    assert (code, err) == (0, "")
    assert out.startswith("0 cells submitted in 0 jobs, ")
    gate.touch()
    assert machines.said(HERE, "run")[0] == 0
    assert computed_twice(machines.folder) == []
