"""Where the worker loop runs: in workers on this machine, or in arrays on SLURM.

What is started here outlives the process that starts it, and is known by its submission
(`bench.submissions`) from then on.
"""

import os
import pickle
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.core.utils import FailedJobError, JobPaths

from bench import (
    arrays,
    atomic,
    claim,
    code,
    process,
    provenance,
    results,
    scheduler,
    submissions,
)
from bench.arrays import Array
from bench.code import Guarded
from bench.errors import LaunchError
from bench.jobs import JobSpec, jobs_of_plan
from bench.submissions import Submission
from bench.sweep import Launch
from bench.worker import Job

NO_LIMIT = 10**6
"""For limits of submitit that would stop work that gets on."""

_children: list["subprocess.Popen[bytes]"] = []
"""Local jobs of this process that have not been collected; they may outlive it."""


def specs(launch: Launch, folder: Path, keys: Sequence[str]) -> list[JobSpec]:
    """The jobs for these cells: which looks at what is decided in `bench.jobs`."""
    return jobs_of_plan(results.read_plan(folder), launch, keys)


def describe(folder: Path, spec: JobSpec) -> Job:
    """The one description of a job: the worker loop over some cells of a sweep."""
    return Job(str(folder), spec.keys, spec.first)


def submit(
    launch: Launch,
    folder: Path,
    keys: Sequence[str],
    *,
    seconds: Mapping[str, float],
    snapshot: bool,
    say: Callable[[str], None],
) -> list[Submission]:
    """Starts what computes these cells, and returns at once.

    Args:
        launch: the sweep's launch section; its executor is "local" or "slurm".
        folder: the sweep's results folder, absolute.
        keys: the cells that have to be computed.
        seconds: what each is expected to take, as far as that is known.
        snapshot: whether the jobs run from a copy of the package.
        say: hears of a cluster that does not answer.

    Raises:
        LaunchError: Jobs cannot be submitted.
        ResultError: Something cannot be written.
    """
    copy = code.snapshot(folder / "work") if snapshot else None
    made_with = {
        "code": copy.name if copy else code.digest(),
        "commit": provenance.checkout()[0],
        "snapshot": copy,
    }
    if launch.executor == "local":
        return [_local(launch, folder, keys, made_with)]
    return _slurm(launch, folder, keys, made_with, seconds, say)


def said(folder: Path, made: Iterable[Submission]) -> list[str]:
    """What stopped jobs early that ended by themselves; the others speak through their logs."""
    found = []
    for submission in made:
        for job in submission.jobs:
            path = JobPaths(_logs(folder, submission), job.id, 0).result_pickle
            if job.id is not None and path.exists():
                outcome, message = pickle.loads(path.read_bytes())
                found += [message] if outcome == "success" and message else []
    return list(dict.fromkeys(found))


def collect() -> None:
    """Collects what the system keeps of local jobs of this process that are over."""
    _children[:] = [child for child in _children if child.poll() is None]


def _local(
    launch: Launch, folder: Path, keys: Sequence[str], made_with: Mapping[str, Any]
) -> Submission:
    """Workers on this machine, spread over its GPUs if it has any."""
    count = torch.cuda.device_count() if launch.device != "cpu" else 0
    gpus = gpu_names(count, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    if "workers" not in launch.model_fields_set:
        fit = len(gpus) or max(1, _cores() // launch.threads)
        launch = launch.model_copy(update={"workers": fit})
    jobs = specs(launch, folder, keys)
    keys_of = [job.keys for job in jobs]
    made = Submission.intended("local", folder.name, keys_of, now=_clock(folder)(), **made_with)
    submissions.write(folder, made)
    for index, spec in enumerate(jobs):
        visible = gpus[index % len(gpus)] if gpus else ""
        environment = _environment(made) | {"CUDA_VISIBLE_DEVICES": visible}
        executor = _Detached(_logs(folder, made), environment)
        job = executor.submit(Guarded(describe(folder, spec), made.code))
        started = process.started(int(job.job_id))
        made = made.with_job(index, job.job_id, _paths(job), started)
        submissions.write(folder, made)
    return made


def gpu_names(count: int, visible: str) -> list[str]:
    """The GPUs that workers here may use, by the names that CUDA_VISIBLE_DEVICES has for them.

    Args:
        count: how many this process sees.
        visible: the variable here; a job of a cluster has some of the machine's.

    >>> gpu_names(2, "")
    ['0', '1']
    >>> gpu_names(2, "4, 5")
    ['4', '5']
    """
    names = visible.split(",") if visible else map(str, range(count))
    return [name.strip() for name in names][:count]


def _cores() -> int:
    """How many this process may use, which on a shared machine are fewer than there are."""
    mine = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(mine(0)) if mine else os.cpu_count() or 1


class _Detached(submitit.LocalExecutor):
    """submitit's local executor, with jobs that no Ctrl-C and no closed terminal reaches."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(atomic.make_folder(folder), max_num_timeout=NO_LIMIT)
        self._environment = environment

    def _submit_command(self, command: str) -> "submitit.LocalJob[Any]":
        environment = {
            **os.environ,
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_TIMEOUT_S": str(NO_LIMIT * 60),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": "30",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "SUBMITIT_STDERR_TO_STDOUT": "",
            **self._environment,
        }
        with (Path(self.folder) / "controllers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "submitit.local._local", str(self.folder)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _children.append(process)
        return submitit.LocalJob(self.folder, str(process.pid), process=process)


def _slurm(
    launch: Launch,
    folder: Path,
    keys: Sequence[str],
    made_with: Mapping[str, Any],
    seconds: Mapping[str, float],
    say: Callable[[str], None],
) -> list[Submission]:
    """Arrays, as few as the site and the time limits of the jobs allow."""
    # submitit looks for srun alone; without the others nothing could be asked.
    for command in ("srun", "sbatch", "squeue", "scontrol"):
        if not scheduler.has(command):
            raise LaunchError(
                f'The executor is "slurm", and there is no {command} here. Run this on a node of '
                'the cluster, or set "launch: {executor: local}".'
            )
    groups = arrays.grouped(
        specs(launch, folder, keys),
        seconds,
        size=scheduler.patiently(scheduler.max_array_size, say),
        minutes=launch.time,
        at_a_time=_at_a_time(launch),
    )
    now = _clock(folder)
    found: list[Submission] = []
    for group in groups:
        looked_at = [spec.keys for spec in group.jobs]
        made = Submission.intended("slurm", folder.name, looked_at, now=now(), **made_with)
        submissions.write(folder, made)
        executor = submitit.SlurmExecutor(
            atomic.make_folder(_logs(folder, made)), max_num_timeout=NO_LIMIT
        )
        executor.update_parameters(**_parameters(launch, group, made))
        work = [Guarded(describe(folder, spec), made.code) for spec in group.jobs]
        try:
            submitted = scheduler.patiently(partial(_sbatch, executor, made.name, work, say), say)
        except LaunchError as error:
            submissions.withdraw(folder, made)
            before = f" {sum(len(one.jobs) for one in found)} jobs are submitted." if found else ""
            raise LaunchError(f"{error}{before}") from None
        for index, job in enumerate(submitted):
            made = made.with_job(index, job.job_id, _paths(job))
        submissions.write(folder, made)
        found.append(made)
    return found


def _sbatch(
    executor: submitit.SlurmExecutor, name: str, work: list[Guarded], say: Callable[[str], None]
) -> "list[submitit.Job[str]]":
    """Submits an array.

    Raises:
        LaunchError: SLURM refuses it.
        Away: The controller did not answer, and nothing of the array is in the queue.
    """
    try:
        with executor.batch():
            # Each as what is called: submitit checkpoints and requeues nothing else (map_array
            # would make it a function with an argument).
            return [executor.submit(one) for one in work]
    except FailedJobError as error:
        message = str(error).strip().splitlines()[-1]
        if not scheduler.is_away(str(error)):
            raise LaunchError(f"SLURM refused the jobs: {message}") from None
        # It may have taken the array before it fell silent.
        scheduler.patiently(partial(scheduler.cancel_named, name), say)
        raise scheduler.Away(message) from None


def _at_a_time(launch: Launch) -> int | None:
    """How many jobs may run at a time, if the sweep says so."""
    workers = launch.workers if "workers" in launch.model_fields_set else None
    return launch.array_parallelism or workers


def _parameters(launch: Launch, group: Array[JobSpec], made: Submission) -> dict[str, Any]:
    """Of sbatch, by submitit's names; what the sweep leaves out is left to the cluster."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in _environment(made).items()]
    given = {
        "partition": launch.partition,
        "account": launch.account,
        "qos": launch.qos,
        "gres": launch.gres,
        "constraint": launch.constraint,
        "nodelist": launch.nodelist,
        "exclude": launch.exclude,
        "dependency": launch.dependency,
        "mem": launch.mem,
        "mail_user": launch.mail,
        "mail_type": "END,FAIL" if launch.mail else None,
        "array_parallelism": group.at_a_time,
        "setup": [*launch.setup, *exports],
        "comment": launch.comment,
    }
    return {name: value for name, value in given.items() if value} | {
        "job_name": made.name,
        "cpus_per_task": launch.cpus or launch.threads,
        "time": group.minutes,
        # A site's default may be that jobs are not requeued after a node fails or preempts them.
        "additional_parameters": {"requeue": True, **(launch.additional or {})},
    }


def _environment(made: Submission) -> dict[str, str]:
    """What makes Python find a snapshot first, and everything else where it was found before."""
    if made.snapshot is None:
        return {}
    places = [made.snapshot, str(Path.cwd()), os.environ.get("PYTHONPATH", "")]
    # Without this the working directory, which may hold the package, would come first.
    return {"PYTHONPATH": os.pathsep.join(filter(None, places)), "PYTHONSAFEPATH": "1"}


def _clock(folder: Path) -> Callable[[], float]:
    """The time by the clock of the folder's file system, as finely as this machine counts it.

    What is submitted one after the other keeps its order also where files have whole seconds.
    """
    ahead = claim.clock(submissions.folder_of(folder)) - time.time()
    return lambda: time.time() + ahead


def _logs(folder: Path, made: Submission) -> Path:
    return folder / "work" / made.log_folder


def _paths(job: "submitit.Job[str]") -> list[Path]:
    return [job.paths.stdout, job.paths.stderr]
