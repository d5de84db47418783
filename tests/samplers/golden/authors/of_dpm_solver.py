"""DPM-Solver and DPM-Solver++, Cheng Lu's file as Stable Diffusion 2 has it.

On vp-linear, log alpha linear between the indices as in ours.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from common import SPACINGS, START, Case, abar, denoise, indices, load
from torch import Tensor

SOURCE = (
    "stable-diffusion-sdkit 2.1.5, ldm/models/diffusion/dpm_solver/dpm_solver.py: DPM_Solver.sample"
)
EPS, X0 = "dpm-solver", "dpm-solver++"


def cases(root: Path) -> Iterator[Case]:
    run = _Runs(root)
    # Singlestep on steps even in lambda, where their points inside a step are ours.
    for ours, order, calls, extra in [
        *((EPS, 1, 6, {}), (EPS, 2, 10, {}), (EPS, 3, 15, {})),
        *((X0, 1, 6, {"method": "singlestep"}), (X0, 2, 10, {"method": "singlestep"})),
    ]:
        given = {"steps": calls, "order": order, "method": "singlestep_fixed"}
        yield run(ours, {"order": order, **extra}, "logSNR", calls // order, given)
    for calls in (9, 10, 11):
        given = {"steps": calls, "order": 3, "method": "singlestep"}
        yield run(EPS, {"order": f"fast-{calls % 3}"}, "logSNR", calls // 3 + 1, given)
    for skip in SPACINGS:
        for steps, lowers in [(6, False), (6, True), (16, True)]:
            given = {"steps": steps, "order": 2, "method": "multistep"}
            rule = "lt15" if lowers else "never"
            params = {"order": 2, "lower-order-final": rule}
            yield run(X0, params, skip, steps, given | {"lower_order_final": lowers})
    yield from run.adaptive()


def faults(root: Path) -> Iterator[Case]:
    run = _Runs(root)
    given = {"steps": 6, "order": 3, "method": "multistep", "lower_order_final": False}
    for skip in ("time_uniform", "logSNR"):
        yield run(X0, {"order": 3}, skip, 6, given)


class _Runs:
    """Their solver on the problem."""

    def __init__(self, root: Path) -> None:
        self._code = load(root, "ldm.models.diffusion.dpm_solver.dpm_solver")
        self._schedule = self._code.NoiseScheduleVP("discrete", alphas_cumprod=abar())

    def __call__(
        self,
        ours: str,
        params: dict[str, object],
        skip: str,
        intervals: int,
        given: dict[str, object],
    ) -> Case:
        solver = self._code.DPM_Solver(self._eps, self._schedule, predict_x0=ours == X0)
        times = indices(solver.get_time_steps(skip, 1.0, 0.001, intervals, "cpu"))
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            ends = solver.sample(START, skip_type=skip, **given)
        return Case(SOURCE, ours, params, "vp-linear", times, ends, spacing=SPACINGS[skip])

    def adaptive(self) -> Iterator[Case]:
        """A sample at a time, as their error is the largest of a batch.

        They round the factor of the next step to float32.
        """
        solver = self._code.DPM_Solver(self._eps, self._schedule)
        for order in (2, 3):
            with contextlib.redirect_stdout(io.StringIO()):
                ends = [solver.sample(x[None], order=order, method="adaptive") for x in START]
            yield Case(
                source=SOURCE,
                sampler="dpm-solver-adaptive",
                params={"order": order},
                schedule="vp-linear",
                times=[999, 0],
                ends=torch.cat(ends),
                within=1e-7,
            )

    def _eps(self, x: Tensor, t: Tensor) -> Tensor:
        return denoise(x, self._schedule.marginal_alpha(t), self._schedule.marginal_std(t))[1]
