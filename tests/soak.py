"""Thousands of tiny cells over a few workers: what grows meanwhile, as JSON.

    python -m tests.soak FOLDER CELLS WORKERS [SPLIT]

Processes are forked, as in `tests.kills`; start it with OMP_NUM_THREADS=1.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench import atomic, results
from bench.worker import worker
from tests import fakes
from tests.kills import computed_twice, leftovers, torn


def held(pid: int) -> dict[str, int] | None:
    """What a process holds: resident memory (kB), open files, threads, children; None if it ended.

    Its parent has not collected it yet, so there is always something to read.
    """
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split(":")[1].split() for line in status}
    if "VmRSS" not in values:
        return None
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return {
        "rss": int(values["VmRSS"][0]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": int(values["Threads"][0]),
        "children": len(children.read_text().split()) if children.exists() else 0,
    }


def grown(looks: list[dict[str, int]], what: str) -> int:
    """By how much the least that was held in the second half of the looks exceeds the first's.

    The least, because a claim and the gathering of facts each come and go with a thread.
    """
    middle = len(looks) // 2
    early, late = (min(look[what] for look in part) for part in (looks[:middle], looks[middle:]))
    return late - early


def main(folder: Path, count: int, workers: int, split: int) -> dict[str, Any]:
    """Runs the sweep, and looks at every worker ten times a second from a quarter of it on."""
    torch.set_num_threads(1)
    fakes.register()
    seeds = ", ".join(str(seed) for seed in range(count // 2))
    sweep = fakes.make_sweep(
        folder,
        grid="[{sampler: ddim, steps: 2}]",  # with the exact draws two cells a seed
        launch=f"{{executor: local, workers: {workers}, split: {split}}}",
        samples=32 * split,
        batch=32,
        chunk=32,
        seeds=seeds,
    )
    place = atomic.make_folder(folder / "r")
    results.write_plan(place, sweep.plan())
    began = time.monotonic()
    looks: dict[int, list[dict[str, int]]] = {}
    for index in range(workers):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                worker(place, first=index)
                status = 0
            finally:
                os._exit(status)
        looks[child] = []
    running, warm = set(looks), False
    while running:
        time.sleep(0.1)
        warm = warm or sum(1 for _ in place.glob("*.json")) > count / 4
        for pid in list(running):
            look = held(pid)
            if look is None:
                running.remove(pid)
            elif warm:
                looks[pid].append(look)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in looks]
    seconds = time.monotonic() - began
    records = results.read_all(place)
    again = time.monotonic()
    assert worker(place) == 0
    return {
        "cells": len(records),
        "done": sum(result.status == "done" for result in records.values()),
        "statuses": statuses,
        "seconds": round(seconds, 1),
        "grown": {
            what: max(grown(seen, what) for seen in looks.values())
            for what in ("rss", "files", "threads", "children")
        },
        "rss": max(look["rss"] for seen in looks.values() for look in seen),
        "twice": computed_twice(place),
        "torn": torn(place),
        "left": leftovers(place),
        "again": round(time.monotonic() - again, 2),
    }


if __name__ == "__main__":
    folder, numbers = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    report = main(folder, numbers[0], numbers[1], numbers[2] if numbers[2:] else 1)
    sys.stdout.write(json.dumps(report))
