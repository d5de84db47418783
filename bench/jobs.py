"""Which job does what: a cell, a slice of one (`launch.split`) or a pack of them (`launch.pack`).

Decisions only, no files: jobs are started by `bench.executors` and work as `bench.worker` says.
Every job of an array works through its own cells; local workers share all of them.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.cell import Setting
from bench.results import Json
from bench.sweep import Cell, Launch


@dataclass(frozen=True)
class JobSpec:
    """The work of one job.

    Attributes:
        keys: its cells, in no order that matters: the worker begins with the dearest.
        first: the slice of a cell that it tries first, so that the jobs of a cell do not all reach
            for the same one. It goes on with whatever slice is free.
    """

    keys: tuple[str, ...]
    first: int = 0


def plan_jobs(
    cells: Sequence[Cell], launch: Launch, chunks_of: Callable[[Cell], int]
) -> list[JobSpec]:
    """The jobs for `cells`, those with the most work first.

    Args:
        cells: what has to be computed.
        launch: the sweep's launch section.
        chunks_of: how many chunks a cell has.
    """
    split = launch.split or 1
    if launch.executor == "slurm":
        packs = _packs(cells, launch.pack or 1)
        return [
            JobSpec(tuple(cell.key for cell in pack), first)
            for pack in packs
            for first in range(max(len(slices(chunks_of(cell), split)) for cell in pack))
        ]
    useful = sum(len(slices(chunks_of(cell), split)) for cell in cells)
    workers = min(launch.workers, useful)
    return [JobSpec(tuple(cell.key for cell in cells), index) for index in range(workers)]


def jobs_of_plan(plan: Json, launch: Launch, keys: Collection[str]) -> list[JobSpec]:
    """The jobs for the cells `keys` of a sweep's plan."""
    wanted = set(keys)
    cells = [Cell(**row["cell"]) for row in plan["cells"] if row["key"] in wanted]
    return plan_jobs(cells, launch, Setting.of(plan).chunks)


def slices(chunks: int, split: int) -> list[range]:
    """`chunks` chunks as at most `split` consecutive slices of almost equal length.

    >>> slices(10, 3)
    [range(0, 3), range(3, 6), range(6, 10)]
    >>> slices(2, 3)
    [range(0, 1), range(1, 2)]
    """
    count = min(split, chunks)
    bounds = [chunks * index // count for index in range(count + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


def dearest_first(cells: Iterable[Cell]) -> list[Cell]:
    """By cost, so that no long cell is left at the end; model by model, as one is loaded once."""
    models: dict[str, int] = {}
    cells = list(cells)
    for cell in cells:
        models.setdefault(str(cell.model), len(models))
    return sorted(cells, key=lambda cell: (models[str(cell.model)], -cost(cell)))


def cost(cell: Cell) -> int:
    """Model calls of a cell, at least one an image for what comes after them."""
    return (cell.work + 1) * cell.samples


def _packs(cells: Sequence[Cell], size: int) -> list[list[Cell]]:
    """Packs of at most `size` cells, each of about the same work, with as few models as can be."""
    by_model: dict[str, list[Cell]] = {}
    for cell in dearest_first(cells):
        by_model.setdefault(str(cell.model), []).append(cell)
    packs: list[list[Cell]] = []
    for group in by_model.values():
        count = -(-len(group) // size)
        for pack in (group[index::count] for index in range(count)):  # dealt out, like cards
            if packs and len(packs[-1]) + len(pack) <= size:
                packs[-1] += pack
            else:
                packs.append(pack)
    return sorted(packs, key=lambda pack: -sum(map(cost, pack)))
