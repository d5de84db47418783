"""Progress of a run, read from the files that workers leave: the same for every executor."""

import threading
import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bench import chunks, results
from bench.sweep import Cell

POLL = 0.5
"""Seconds between two looks at the files."""
PLAIN_EVERY = 10.0
"""Seconds between two lines where the output is not a terminal."""

SURE = 0.02
"""Share of the work after which the time left is more than a guess."""


class Watch:
    """Shows cells, images per second and time left while its block runs.

    Args:
        console: where to.
        folder: the sweep's results folder.
        cells: the cells that are to be computed; they have no record yet.
        chunk: images per chunk.
    """

    def __init__(self, console: Console, folder: Path, cells: list[Cell], chunk: int) -> None:
        self._console, self._folder, self._chunk = console, folder, chunk
        self._open = {cell.key: cell for cell in cells}
        self._count = len(cells)
        self._images_total = sum(cell.samples for cell in cells)
        self._work_total = sum(_work(cell, cell.samples) for cell in cells)
        self._images_closed = self._work_closed = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._look()
        self._began, self._before = time.monotonic(), (self._images, self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        for key in [key for key in self._open if results.path_of(self._folder, key).exists()]:
            cell = self._open.pop(key)
            self._images_closed += cell.samples
            self._work_closed += _work(cell, cell.samples)
        self._images, self._work = self._images_closed, self._work_closed
        for key, cell in self._open.items():
            finished = chunks.finished(chunks.folder_of(self._folder, key)) * self._chunk
            self._images += min(finished, cell.samples)
            self._work += _work(cell, min(finished, cell.samples))

    def _show(self) -> None:
        if not self._console.is_terminal:
            self._show_lines()
            return
        columns = (BarColumn(None), TextColumn("{task.description}"))
        with Progress(*columns, console=self._console, expand=True, transient=True) as bar:
            task = bar.add_task(self._line(), total=self._work_total)
            while not self._ended.wait(POLL):
                self._look()
                bar.update(task, completed=self._work, description=self._line())
        self._look()
        self._console.print(self._line(), highlight=False)

    def _show_lines(self) -> None:
        shown = time.monotonic()
        while not self._ended.wait(POLL):
            if time.monotonic() - shown >= PLAIN_EVERY:
                shown = time.monotonic()
                self._look()
                self._console.print(self._line(), highlight=False)
        self._look()
        self._console.print(self._line(), highlight=False)

    def _line(self) -> str:
        """'7 of 26 cells, 35,000 of 130,000 images, 2,900 images/s, 0:01:10 left'."""
        elapsed = time.monotonic() - self._began
        images, work = self._images - self._before[0], self._work - self._before[1]
        line = (
            f"{self._count - len(self._open)} of {self._count} cells, "
            f"{self._images:,} of {self._images_total:,} images"
        )
        if images:
            line += f", {images / elapsed:,.0f} images/s"
        if self._open and work > SURE * self._work_total:
            line += f", {_clock(elapsed * (self._work_total - self._work) / work)} left"
        return line


def _work(cell: Cell, images: int) -> int:
    """Model calls, and one more an image for its features: good enough for the time left."""
    return images * (cell.nfe + 1)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
