"""Progress of a run, read from the files that workers leave: the same for every executor."""

import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bench import results, states
from bench.results import Json

POLL = 0.5
"""Seconds between two looks at the files, at least."""
SLOWEST_POLL = {False: 1.0, True: 10.0}
"""Seconds between two looks at what is under way, at most; many where SLURM is asked."""
LOOKING = 0.1
"""Share of the time that may pass with looking at the files."""
PLAIN_EVERY = 10.0
"""Seconds between two lines where the output is not a terminal."""

SURE = 0.02
"""Share of the work after which the time left is more than a guess."""


class Watch:
    """Shows cells, images per second and time left while its block runs.

    Args:
        console: where to.
        folder: the sweep's results folder.
        cells: rows of its plan that are to be computed; they have no record yet.
        chunk: images per chunk.
    """

    def __init__(self, console: Console, folder: Path, cells: Sequence[Json], chunk: int) -> None:
        self._console, self._folder, self._chunk = console, folder, chunk
        self._open = {cell["key"]: cell for cell in cells}
        self._count = len(cells)
        self._closed, self._timed = _Work(), _Work()
        self._total = sum((_Work.of(cell) for cell in cells), _Work())
        self._note = ""
        self._spent = {"sampling": 0.0, "features": 0.0}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._began, self._before = time.monotonic(), self._look()
        self._now, self._took = self._before, time.monotonic() - self._began

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def say(self, note: str) -> None:
        """What else there is to show, from now on."""
        self._note = note

    def _look(self) -> "_Work":
        """What is done by now, in finished cells and in finished chunks of the others."""
        for key in list(self._open):
            result = results.find(self._folder, key)
            if result is not None:
                cell = self._open.pop(key)
                self._closed += _Work.of(cell)
                if result.status == "done":
                    self._timed += _Work.of(cell)
                    for part in self._spent:
                        self._spent[part] += result.seconds[part]
        done = self._closed
        for key, cell in self._open.items():
            done += _Work.of(cell, states.chunks(self._folder, key) * self._chunk)
        return done

    def _pause(self) -> float:
        """Seconds until the next look, which may take long where the files are far away."""
        return max(POLL, self._took / LOOKING)

    def _show(self) -> None:
        if not self._console.is_terminal:
            self._show_lines()
            return
        columns = (BarColumn(None), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, expand=True, transient=True) as bar:
            task = bar.add_task(self._line(), total=1.0)
            while not self._ended.wait(self._pause()):
                self._refresh()
                bar.update(task, completed=self._share(self._now), description=self._line())
        self._finish()

    def _show_lines(self) -> None:
        while not self._ended.wait(max(PLAIN_EVERY, self._pause())):
            self._refresh()
            self._console.print(self._line(), highlight=False)
        self._finish()

    def _refresh(self) -> None:
        began = time.monotonic()
        self._now = self._look()
        self._took = time.monotonic() - began

    def _finish(self) -> None:
        self.say("")
        self._refresh()
        self._console.print(self._line(), highlight=False)

    def _line(self) -> str:
        """'7 of 26 cells, 35,000 of 130,000 images, 2,900 images/s, 0:01:10 left'."""
        elapsed = time.monotonic() - self._began
        line = (
            f"{self._count - len(self._open)} of {self._count} cells, "
            f"{self._now.images:,} of {self._total.images:,} images"
        )
        if images := self._now.images - self._before.images:
            rate = images / elapsed
            line += f", {rate:,.0f} images/s" if rate >= 1 else f", {rate:.2g} images/s"
        share = self._share(self._now)
        gained = share - self._share(self._before)
        if self._open and gained > SURE:
            line += f", {_clock(elapsed * (1 - share) / gained)} left"
        return f"{line}; {self._note}" if self._note else line

    def _share(self, work: "_Work") -> float:
        """`work` as a share of all, by what calls and features took in the finished cells."""
        calls, images = self._timed.calls, self._timed.images
        a_call = self._spent["sampling"] / calls if calls else 1.0
        features = self._spent["features"] / images if calls else a_call
        total = a_call * self._total.calls + features * self._total.images
        return (a_call * work.calls + features * work.images) / total


@dataclass(frozen=True)
class _Work:
    """Images, and model calls of one image."""

    images: int = 0
    calls: int = 0

    @classmethod
    def of(cls, cell: Json, images: int | None = None) -> Self:
        """Of so many images of a cell, of all by default."""
        samples: int = cell["cell"]["samples"]
        images = samples if images is None else min(images, samples)
        return cls(images, images * results.calls(cell))

    def __add__(self, other: Self) -> "_Work":
        return _Work(self.images + other.images, self.calls + other.calls)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def show(console: Console, folder: Path, keys: Collection[str]) -> None:
    """Shows progress until nobody works on these cells any more, or will.

    Whoever started the work, this process or another one. Cells of which nothing is under way are
    not waited for.
    """
    plan = results.read_plan(folder)
    rows = [row for row in plan["cells"] if row["key"] in keys]
    with Watch(console, folder, rows, plan["chunk"]) as watch:
        wait(watch, folder, keys)


def wait(watch: Watch, folder: Path, keys: Collection[str]) -> None:
    """Returns when nobody works on these cells any more; a silent cluster is no end."""
    pause = POLL
    while (seen := states.look(folder, keys)).under_way:
        watch.say(seen.said or seen.waiting())
        time.sleep(pause)
        slurm = any(job.submission.executor == "slurm" for job in seen.jobs)
        pause = min(SLOWEST_POLL[slurm], pause * 1.2)
