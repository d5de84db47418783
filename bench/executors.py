"""Where the worker loop runs: in this process, in local jobs, or as an array on SLURM."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import submitit
import torch
from submitit.core.utils import FailedJobError

from bench import results
from bench.errors import LaunchError
from bench.jobs import JobSpec, jobs_of_plan
from bench.sweep import Launch
from bench.worker import Job, worker

HOUR = 60
"""Minutes that a SLURM job has by default. It is requeued when they are over."""
GRACE = 3.0
"""Seconds that local jobs have to end by themselves after Ctrl-C."""
NO_LIMIT = 10**6
"""For limits of submitit that would stop work that gets on."""

Jobs = list[submitit.Job[str]]


class Executor(Protocol):
    """Starts the work on some cells, waits for its end, and knows how to leave it early."""

    def run(self) -> list[str]:
        """Returns when no work is under way any more, with what made workers stop early.

        Raises:
            LaunchError: Jobs cannot be submitted.
            ResultError: (in this process) something cannot be written.
        """

    def interrupt(self) -> str:
        """After Ctrl-C: leaves a clean state; returns what became of the jobs."""

    def log_of(self, key: str) -> str:
        """Where to read what happened to a cell that has no record."""


def make(launch: Launch, folder: Path, keys: Sequence[str]) -> Executor:
    """The executor that a sweep asks for.

    Args:
        launch: the sweep's launch section.
        folder: the sweep's results folder, absolute.
        keys: the cells that have to be computed.
    """
    match launch.executor:
        case "inline":
            return Inline(folder, keys)
        case "local":
            return Local(launch, folder, keys)
        case "slurm":
            return Slurm(launch, folder, keys)


class Inline:
    """The worker loop in this process."""

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self._folder, self._keys = folder, keys

    def run(self) -> list[str]:
        """See `Executor`."""
        worker(self._folder, self._keys)
        return []

    def interrupt(self) -> str:
        """See `Executor`."""
        return ""

    def log_of(self, key: str) -> str:
        """See `Executor`."""
        return ""


class Local:
    """`workers` jobs of submitit's local executor, each with the worker loop over all cells."""

    def __init__(self, launch: Launch, folder: Path, keys: Sequence[str]) -> None:
        self._launch, self._folder, self._keys = launch, folder, tuple(keys)
        self._jobs: Jobs = []

    def run(self) -> list[str]:
        """See `Executor`."""
        executor = submitit.LocalExecutor(_logs(self._folder), max_num_timeout=NO_LIMIT)
        gpus = torch.cuda.device_count() if self._launch.device != "cpu" else 0
        with _stderr_to(_logs(self._folder) / "controllers.log"):
            for index, spec in enumerate(_specs(self._launch, self._folder, self._keys)):
                executor.update_parameters(timeout_min=NO_LIMIT)
                if gpus:
                    executor.update_parameters(gpus_per_node=1, visible_gpus=(index % gpus,))
                self._jobs.append(executor.submit(Job(str(self._folder), spec.keys, spec.first)))
        while not all(job.done() for job in self._jobs):
            time.sleep(0.1)
        return _said(self._jobs)

    def interrupt(self) -> str:
        """See `Executor`."""
        # A terminal has sent Ctrl-C to the jobs as well; a second one would disturb their cleaning.
        ending = time.monotonic() + GRACE
        while not all(job.done() for job in self._jobs):
            if time.monotonic() > ending:
                ending = math.inf
                for job in self._jobs:
                    job.cancel()
            time.sleep(0.1)
        return "The local workers were stopped."

    def log_of(self, key: str) -> str:
        """See `Executor`."""
        return ", ".join(str(job.paths.stderr) for job in self._jobs)


class Slurm:
    """One array with a task a cell, a slice or a pack. The jobs outlive this process."""

    def __init__(self, launch: Launch, folder: Path, keys: Sequence[str]) -> None:
        self._launch, self._folder, self._keys = launch, folder, tuple(keys)
        self._specs: list[JobSpec] = []
        self._jobs: Jobs = []

    def run(self) -> list[str]:
        """See `Executor`."""
        try:
            executor = submitit.SlurmExecutor(_logs(self._folder), max_num_timeout=NO_LIMIT)
        except RuntimeError:
            raise LaunchError(
                'The executor is "slurm", and there is no srun here. Run this on a node of the '
                'cluster, or set "launch: {executor: local}".'
            ) from None
        executor.update_parameters(**self._parameters())
        self._specs = _specs(self._launch, self._folder, self._keys)
        work = [Job(str(self._folder), spec.keys, spec.first) for spec in self._specs]
        try:
            self._jobs = executor.map_array(Job.__call__, work)
        except FailedJobError as error:
            raise LaunchError(f"SLURM refused the jobs: {_last_line(error)}") from None
        pause = 0.5
        while self._queued():
            time.sleep(pause)
            pause = min(10.0, pause * 1.2)
        return _said(self._jobs)

    def interrupt(self) -> str:
        """See `Executor`."""
        if not self._jobs:
            return ""
        array = _array_id(self._jobs)
        return f'The SLURM jobs {array} go on; "scancel {array}" stops them.'

    def log_of(self, key: str) -> str:
        """See `Executor`."""
        pairs = zip(self._specs, self._jobs, strict=False)
        return ", ".join(str(job.paths.stderr) for spec, job in pairs if key in spec.keys)

    def _parameters(self) -> dict[str, Any]:
        """Of sbatch, by submitit's names; what the sweep leaves out is left to the cluster."""
        launch = self._launch
        workers = launch.workers if "workers" in launch.model_fields_set else None
        given = {
            "partition": launch.partition,
            "account": launch.account,
            "qos": launch.qos,
            "gres": launch.gres,
            "constraint": launch.constraint,
            "mem": launch.mem,
            "array_parallelism": launch.array_parallelism or workers,
            "setup": list(launch.setup),
            "comment": launch.comment,
        }
        return {name: value for name, value in given.items() if value} | {
            "job_name": f"bench-{self._folder.name}",
            "cpus_per_task": launch.cpus or launch.threads,
            "time": launch.time or HOUR,
        }

    def _queued(self) -> bool:
        """Whether a task is pending, running or requeued; without accounting only squeue knows."""
        command = ["squeue", "--noheader", "--jobs", _array_id(self._jobs), "--format", "%i"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode == 0:
            return bool(run.stdout.strip())
        return "Invalid job id" not in run.stderr  # else the controller is away for a moment


def _specs(launch: Launch, folder: Path, keys: Sequence[str]) -> list[JobSpec]:
    return jobs_of_plan(results.read_plan(folder), launch, keys)


def _array_id(jobs: Jobs) -> str:
    return jobs[0].job_id.split("_")[0]


def _logs(folder: Path) -> Path:
    return folder / "work" / "logs"


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Sends what processes started in the block say to a file.

    submitit's controllers inherit the terminal, and would fill it with tracebacks at Ctrl-C.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with path.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _said(jobs: Jobs) -> list[str]:
    """What the jobs returned that ended by themselves; the others speak through their logs."""
    said = []
    for job in jobs:
        if job.paths.result_pickle.exists() and job.exception() is None:
            said.append(job.result())
    return [message for message in dict.fromkeys(said) if message]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
