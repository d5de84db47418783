from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from bench.jobs import JobSpec, cost, jobs_of_plan, plan_jobs, slices
from bench.metrics.registry import METRICS
from bench.sweep import Cell, Launch
from tests import fakes

GRID = "[{sampler: ddim, eta: [0, 1], steps: [3, 50, 5]}]"


@pytest.fixture(autouse=True)
def tiny_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)


def cells(folder: Path, grid: str = GRID) -> list[Cell]:
    """Seven cells: exact, and two each of 3, 50 and 5 steps."""
    return fakes.make_sweep(folder, grid=grid).cells()


def several_models(folder: Path, models: int) -> list[Cell]:
    files = [fakes.write_mixture(folder / f"model{k}.safetensors") for k in range(models)]
    some = cells(folder)
    return [
        replace(cell, model=cell.model | {"name": str(file)}) for file in files for cell in some
    ]


def launch(**keys: object) -> Launch:
    return Launch.model_validate(keys)


@pytest.mark.parametrize("chunks", [1, 2, 7, 50])
@pytest.mark.parametrize("split", [1, 2, 3, 8])
def test_slices_are_consecutive_and_even(chunks: int, split: int) -> None:
    found = slices(chunks, split)
    assert [index for part in found for index in part] == list(range(chunks))
    assert len(found) == min(split, chunks)
    sizes = {len(part) for part in found}
    assert max(sizes) - min(sizes) <= 1


def test_a_job_a_cell_with_the_dearest_first(tmp_path: Path) -> None:
    some = cells(tmp_path)
    jobs = plan_jobs(some, launch(executor="slurm"), lambda cell: 4)
    assert {len(job.keys) for job in jobs} == {1}
    work = {cell.key: cell.work for cell in some}
    assert [work[job.keys[0]] for job in jobs] == [50, 50, 5, 5, 3, 3, 0]


def test_split_gives_a_cell_as_many_jobs_as_it_has_slices(tmp_path: Path) -> None:
    some = cells(tmp_path)
    jobs = plan_jobs(some, launch(executor="slurm", split=3), lambda cell: 8)
    assert [job.first for job in jobs] == [0, 1, 2] * 7
    assert all(jobs[k].keys == jobs[k + 1].keys == jobs[k + 2].keys for k in range(0, 21, 3))
    jobs = plan_jobs(some, launch(executor="slurm", split=3), lambda cell: 2)
    assert [job.first for job in jobs] == [0, 1] * 7, "no more slices than chunks"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("models", [1, 2, 9])
def test_packs_hold_every_cell_once_and_no_more_than_asked(
    tmp_path: Path, size: int, models: int
) -> None:
    some = several_models(tmp_path, models)
    jobs = plan_jobs(some, launch(executor="slurm", pack=size), lambda cell: 4)
    assert Counter(key for job in jobs for key in job.keys) == Counter(cell.key for cell in some)
    assert max(len(job.keys) for job in jobs) <= size
    assert len(jobs) <= models * -(-7 // size)
    costs = {cell.key: cost(cell) for cell in some}
    totals = [sum(costs[key] for key in job.keys) for job in jobs]
    assert totals == sorted(totals, reverse=True)


def test_packs_are_of_one_model_where_they_can_be(tmp_path: Path) -> None:
    some = several_models(tmp_path, 3)
    model = {cell.key: cell.model["name"] for cell in some}
    jobs = plan_jobs(some, launch(executor="slurm", pack=7), lambda cell: 4)
    assert [len({model[key] for key in job.keys}) for job in jobs] == [1, 1, 1]
    jobs = plan_jobs(some, launch(executor="slurm", pack=21), lambda cell: 4)
    assert len(jobs) == 1
    assert [model[key] for key in jobs[0].keys] == sorted(model[cell.key] for cell in some)


def test_packs_have_about_the_same_work(tmp_path: Path) -> None:
    grid = "[{sampler: ddim, steps: [1, 2, 4, 8, 16, 32, 64, 63, 31, 15]}]"
    some = cells(tmp_path, grid)
    costs = {cell.key: cost(cell) for cell in some}
    jobs = plan_jobs(some, launch(executor="slurm", pack=6), lambda cell: 4)
    totals = [sum(costs[key] for key in job.keys) for job in jobs]
    assert len(totals) == 2
    assert max(totals) < 1.5 * min(totals)


def test_local_workers_share_all_cells_and_begin_at_different_slices(tmp_path: Path) -> None:
    some = cells(tmp_path)
    keys = tuple(cell.key for cell in some)
    jobs = plan_jobs(some, launch(executor="local", workers=3), lambda cell: 4)
    assert jobs == [JobSpec(keys, 0), JobSpec(keys, 1), JobSpec(keys, 2)]
    one = some[:1]
    assert len(plan_jobs(one, launch(executor="local", workers=3), lambda cell: 4)) == 1
    assert len(plan_jobs(one, launch(executor="local", workers=9, split=5), lambda cell: 4)) == 4
    assert plan_jobs([], launch(executor="local", workers=3), lambda cell: 4) == []


def test_jobs_of_a_plan_are_for_the_cells_asked_for(tmp_path: Path) -> None:
    sweep = fakes.make_sweep(tmp_path, launch="{executor: slurm, split: 2}")
    keys = [cell.key for cell in sweep.cells()[1:3]]
    jobs = jobs_of_plan(sweep.plan(), sweep.launch, keys)
    assert sorted({job.keys for job in jobs}) == sorted((key,) for key in keys)
    assert len(jobs) == 4
