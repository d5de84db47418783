"""Runs a small sweep again and again under disturbances, and reports what it saw as JSON.

    python -m tests.kills FOLDER COUNT SEED [split | pack]

A process of its own, so that it can fork: a child starts in milliseconds, with everything loaded,
and is killed after a random time. When the sweep gets to its end, a new folder is begun. Start it
with OMP_NUM_THREADS=1.

With `split` or `pack` several workers share the sweep, each as if on a machine of its own, and
there are kills, pauses longer than claims live, deleted temporary files and chunks cut short.
"""

import io
import json
import math
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import atomic, chunks, claim, launch, process, results
from bench.errors import ResultError
from bench.jobs import jobs_of_plan
from bench.sweep import Sweep
from bench.worker import worker
from tests import fakes


def run_in_child(sweep: Sweep, folder: Path, kill_after: float | None) -> bool:
    """Whether a child that runs the sweep got to its end before it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if launch.run(sweep, folder).complete else 2
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the run failed with status {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def torn(folder: Path) -> list[str]:
    """Files under `folder` that are not whole; temporary ones do not count."""
    found = []
    for path in folder.rglob("*"):
        if path.name.endswith(atomic.SUFFIX) or path.is_dir():
            continue
        data = path.read_bytes()
        try:
            if path.suffix == ".json" or path.name.startswith("claim"):
                json.loads(data)
            elif path.suffix == ".jsonl":
                [json.loads(line) for line in data.splitlines()]
            elif path.suffix == ".npy":
                np.load(io.BytesIO(data))
            elif sha256(data[:-32]).digest() != data[-32:]:
                found.append(str(path))
        except ValueError:
            found.append(str(path))
    return found


def scores(folder: Path) -> dict[str, str]:
    """The metrics of every record, as text: bytes are compared, not numbers."""
    return {key: json.dumps(result.metrics) for key, result in results.read_all(folder).items()}


def computed_twice(
    folder: Path, pids: Collection[int] = (), cut: Collection[tuple[str, int]] = ()
) -> list[str]:
    """Chunks that stand more than once in the ledgers.

    Args:
        folder: the results folder.
        pids: processes that were paused; what they were at may have been done by others meanwhile.
        cut: chunks that were spoiled after they were finished.
    """
    seen: set[tuple[str, int]] = set()
    twice = []
    for path in folder.glob(f"work/*/{chunks.LEDGER}"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "halved":  # the batch of the whole cell
                continue
            chunk = (path.parent.name, entry["chunk"])
            if chunk in cut or entry["pid"] in pids:
                continue
            if entry["event"] != "computed" or chunk in seen:
                twice.append(f"{chunk}: {line}")
            seen.add(chunk)
    return twice


def leftovers(folder: Path) -> list[str]:
    """What a finished sweep should not keep."""
    patterns = (f"**/.*{atomic.SUFFIX}", "work/*/claim*", "work/*/chunk-*")
    return [str(path) for pattern in patterns for path in folder.glob(pattern)]


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """The report of `kills` kills."""
    torch.set_num_threads(1)  # a thread pool does not survive a fork, and a child would hang
    fakes.register()
    sweep = fakes.make_sweep(folder)
    began = time.monotonic()
    assert run_in_child(sweep, folder / "undisturbed", None)
    undisturbed = time.monotonic() - began
    expected = scores(folder / "undisturbed")
    chance = random.Random(seed)
    report: dict[str, Any] = {"kills": 0, "sweeps": 0, "torn": [], "twice": [], "left": []}
    report |= {"cells": len(expected), "different": []}
    while report["kills"] < kills:
        report["sweeps"] += 1
        disturbed = folder / f"disturbed-{report['sweeps']}"
        while not run_in_child(sweep, disturbed, chance.uniform(0, undisturbed / 3)):
            report["kills"] += 1
            report["torn"] += torn(disturbed)
            if report["kills"] == kills:
                run_in_child(sweep, disturbed, None)
                break
        run_in_child(sweep, disturbed, None)  # computes nothing, and cleans up
        report["twice"] += computed_twice(disturbed)
        report["left"] += leftovers(disturbed)
        found = scores(disturbed)
        report["different"] += [key for key in expected if found.get(key) != expected[key]]
    return report


STALE = 2.0
"""Seconds that a claim lives without a heartbeat in disturbed sweeps."""
STOPPED = 3
"""Exit status of a worker that stopped with a `ResultError`: somebody deleted its file."""
LAUNCH = {
    "split": "{executor: local, workers: 3, split: 3, device: cpu}",
    "pack": "{executor: slurm, pack: 2, device: cpu}",
}


class Disturbed:
    """Workers over one results folder, started again until all is done, and what befalls them."""

    def __init__(self, sweep: Sweep, folder: Path, chance: random.Random) -> None:
        self._sweep, self._folder, self._chance = sweep, folder, chance
        self._keys = [cell.key for cell in sweep.cells()]
        self._specs = dict(enumerate(jobs_of_plan(sweep.plan(), sweep.launch, self._keys)))
        self._alive: dict[int, int] = {}
        self._started = 0
        self.paused: dict[int, float] = {}
        self.cut: set[tuple[str, int]] = set()
        self.counts = dict.fromkeys(("killed", "paused", "deleted", "cut", "stopped"), 0)
        results.write_plan(atomic.make_folder(folder), sweep.plan())

    def run(self, count: int) -> int:
        """Runs the sweep to its end under at most `count` disturbances; returns how many."""
        made, due = 0, time.monotonic() + self._pause()
        try:
            while not self._complete() or self._alive:
                for index in self._specs.keys() - self._alive.values():
                    if not self._complete():
                        self._start(index)
                if made < count and time.monotonic() > due and not self._complete():
                    made += self._disturb()
                    due = time.monotonic() + self._pause()
                self._look_after()
                time.sleep(0.01)
        finally:
            for pid in self._alive:  # a paused one would hold on to this process's output for ever
                os.kill(pid, signal.SIGKILL)
        return made

    def path_of(self, key: str, index: int) -> Path:
        """The file of a chunk."""
        return chunks.path_of(chunks.folder_of(self._folder, key), index)

    def _complete(self) -> bool:
        return all(results.path_of(self._folder, key).exists() for key in self._keys)

    def _pause(self) -> float:
        return self._chance.uniform(0, 0.3)

    def _start(self, index: int) -> None:
        self._started += 1
        machine = f"machine{self._started}-of{os.getpid()}"
        spec, job = self._specs[index], f"job{index}" if self._sweep.launch.pack else ""
        child = os.fork()
        if child:
            self._alive[child] = index
            return
        status = 1
        try:
            process.machine = lambda: machine  # type: ignore[assignment]
            worker(self._folder, spec.keys, job=job, first=spec.first)
            status = 0
        except ResultError:
            status = STOPPED
        finally:
            if status == 1:
                traceback.print_exc()
            os._exit(status)

    def _look_after(self) -> None:
        """Wakes those that slept long enough, and collects those that ended."""
        for pid in [pid for pid, until in self.paused.items() if time.monotonic() > until]:
            self.paused[pid] = math.inf
            if pid in self._alive:
                os.kill(pid, signal.SIGCONT)
        for pid in list(self._alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self._alive[pid]
            code = os.waitstatus_to_exitcode(status)
            self.counts["stopped"] += code == STOPPED
            if code not in (0, STOPPED, -signal.SIGKILL):
                raise SystemExit(f"a worker failed with status {code}")

    def _disturb(self) -> int:
        """Does something unkind; 0 if what it was to befall is not there just now."""
        what = self._chance.choice(["killed", "paused", "deleted", "cut"])
        awake = [pid for pid in self._alive if self.paused.get(pid, math.inf) == math.inf]
        found: list[Path] = []
        match what:
            case "killed" if self._alive:
                os.kill(self._chance.choice(list(self._alive)), signal.SIGKILL)
            case "paused" if awake:
                pid = self._chance.choice(awake)
                os.kill(pid, signal.SIGSTOP)
                self.paused[pid] = time.monotonic() + 1.5 * STALE
            case "deleted":
                deadline = time.monotonic() + 0.3
                while not found and time.monotonic() < deadline:
                    found = [
                        path
                        for path in self._folder.rglob(f".*{atomic.SUFFIX}")
                        if not path.name.startswith(".claim")  # a claim's is there for an instant
                    ]
                with suppress(FileNotFoundError):
                    self._chance.choice(found).unlink() if found else None
            case "cut":
                found = list(self._folder.glob("work/*/chunk-*.npz"))
                with suppress(FileNotFoundError):
                    if found:
                        path = self._chance.choice(found)
                        self.cut.add((path.parent.name, int(path.stem.removeprefix("chunk-"))))
                        size = path.stat().st_size  # 0 if it was cut to nothing before
                        os.truncate(path, self._chance.randrange(size) if size else 0)
        happened = bool(found) or (what == "killed" and self._alive) or (what == "paused" and awake)
        self.counts[what] += bool(happened)
        return int(bool(happened))


def disturb(folder: Path, count: int, seed: int, mode: str) -> dict[str, Any]:
    """The report of `count` disturbances of workers that share sweeps."""
    torch.set_num_threads(1)
    fakes.register()
    claim.STALE_AFTER, claim.HEARTBEAT = STALE, STALE / 20
    plain = fakes.make_sweep(folder)
    sweep = fakes.make_sweep(folder, launch=LAUNCH[mode])
    assert run_in_child(plain, folder / "undisturbed", None)
    expected = scores(folder / "undisturbed")
    chance = random.Random(seed)
    report: dict[str, Any] = {"made": 0, "sweeps": 0, "torn": [], "twice": [], "left": []}
    report |= {"cells": len(expected), "different": [], "counts": Counter()}
    while report["made"] < count:
        report["sweeps"] += 1
        run = Disturbed(sweep, folder / f"disturbed-{report['sweeps']}", chance)
        report["made"] += run.run(count - report["made"])
        report["counts"].update(run.counts)
        disturbed = folder / f"disturbed-{report['sweeps']}"
        spoiled = {str(run.path_of(*chunk)) for chunk in run.cut}  # by us, after their use
        report["torn"] += [path for path in torn(disturbed) if path not in spoiled]
        found = scores(disturbed)
        report["different"] += [key for key in expected if found.get(key) != expected[key]]
        report["twice"] += computed_twice(disturbed, run.paused, run.cut)
        before = {path.name: path.stat().st_mtime for path in disturbed.glob("*.json")}
        # The machines that the workers pretended to be on are no more.
        atomic.ABANDONED_AFTER = claim.STALE_AFTER = -1.0
        assert run_in_child(plain, disturbed, None)  # computes nothing, and cleans up
        after = {path.name: path.stat().st_mtime for path in disturbed.glob("*.json")}
        report["twice"] += [k for k in before if k != results.PLAN and after[k] != before[k]]
        atomic.ABANDONED_AFTER, claim.STALE_AFTER = 3600.0, STALE
        report["left"] += leftovers(disturbed)
    return report


if __name__ == "__main__":
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    report = (
        disturb(folder, count, seed, sys.argv[4]) if sys.argv[4:] else main(folder, count, seed)
    )
    sys.stdout.write(json.dumps(report))
