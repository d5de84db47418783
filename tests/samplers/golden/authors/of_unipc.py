"""UniPC, its authors' file for Stable Diffusion, on vp-linear."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from common import SPACINGS, START, Case, abar, denoise, indices, load
from torch import Tensor

SOURCE = "sdkit 2.1.1, sdkit/generate/sampler/unipc_samplers/unipc_sampler.py: UniPC.sample"
STEPS = 6


def cases(root: Path) -> Iterator[Case]:
    code = load(root, "sdkit.generate.sampler.unipc_samplers.unipc_sampler")
    schedule = code.NoiseScheduleVP("discrete", alphas_cumprod=abar())

    class UniP(code.UniPC):
        """The predictor alone: their `sample` always asks for the corrector."""

        def multistep_uni_pc_update(self, *args: object, use_corrector: bool) -> object:
            return super().multistep_uni_pc_update(*args, use_corrector=False)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return denoise(x, schedule.marginal_alpha(t), schedule.marginal_std(t))[1]

    def case(variant: str, order: int, corrects: bool, lowers: bool, skip: str) -> Case:
        solver = (code.UniPC if corrects else UniP)(eps, schedule, variant=variant)
        times = indices(solver.get_time_steps(skip, 1.0, 0.001, STEPS, "cpu"))
        given = {"steps": STEPS, "order": order, "skip_type": skip, "method": "multistep"}
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            ends = solver.sample(START, lower_order_final=lowers, **given)
        rule = "always" if lowers else "never"
        params = {"variant": variant, "order": order, "corrector": corrects}
        params |= {"lower-order-final": rule}
        return Case(SOURCE, "unipc", params, "vp-linear", times, ends, spacing=SPACINGS[skip])

    for variant in ("bh1", "bh2"):
        for order in (1, 2, 3):
            for corrects in (True, False):
                yield case(variant, order, corrects, True, "logSNR")
        yield case(variant, 3, True, False, "logSNR")
        yield case(variant, 3, True, True, "time_uniform")
        yield case(variant, 3, True, True, "time_quadratic")
