"""k-diffusion, by Katherine Crowson. Its sigmas are the times of our schedule edm."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from common import START, Case, Draws, denoise, load
from torch import Tensor

SOURCE = "k-diffusion 0.1.1.post1, k_diffusion/sampling.py: "
TO_ZERO: list[float] = [80, 20, 14, 3, 0.9, 0.01, 0]
TO_MIN = TO_ZERO[:-1]

PP = "dpm-solver++"
# Their function with its arguments, our sampler with its parameters.
BOTH = [
    ("sample_euler", {}, "euler", {}),
    ("sample_euler_ancestral", {"eta": 1.0}, "ddim", {"eta": 1.0}),
    ("sample_euler_ancestral", {"eta": 0.4}, "ddim", {"eta": 0.4}),
    ("sample_heun", {}, "heun", {}),
    ("sample_dpm_2", {}, "dpm-solver", {"order": 2}),
    ("sample_dpmpp_2s_ancestral", {"eta": 0.0}, PP, {"order": 2, "method": "singlestep"}),
    ("sample_dpmpp_2m", {}, PP, {"order": 2}),
    ("sample_dpmpp_2m_sde", {"eta": 0.0}, PP, {"order": 2}),
    ("sample_dpmpp_2m_sde", {"eta": 0.4}, PP, {"order": 2, "eta": 0.4}),
    ("sample_dpmpp_2m_sde", {"eta": 1.0}, PP, {"order": 2, "eta": 1.0}),
]
LMS = [("sample_lms", {"order": n}, "ab", {"order": n}) for n in (1, 2, 3, 4)]
THIRD = [
    ("sample_dpmpp_3m_sde", {"eta": 0.0}, PP, {"order": 3}),
    ("sample_dpmpp_3m_sde", {"eta": 1.0}, PP, {"order": 3, "eta": 1.0}),
]
CHURN = {"s_churn": 2.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.007}
OUR_CHURN = {"s-churn": 2.0, "s-min": 0.05, "s-max": 50.0, "s-noise": 1.007}


def cases(root: Path) -> Iterator[Case]:
    code = load(root, "k_diffusion.sampling")
    yield from _table(code, [*BOTH, *LMS], TO_MIN)
    yield from _table(code, BOTH, TO_ZERO)
    for times in (TO_MIN, TO_ZERO):
        used = [CHURN["s_tmin"] <= t <= CHURN["s_tmax"] for t in times[:-1]]
        with patch.object(torch, "randn_like", Draws(used)):
            ends = _run(code, "sample_heun", times, CHURN)
        yield Case(SOURCE + "sample_heun", "edm", OUR_CHURN, "edm", times, ends)

    sigmas = code.get_sigmas_karras(8, 0.002, 80.0).clamp(max=80).tolist()
    ends = _run(code, "sample_heun", sigmas, {})
    source = SOURCE + "get_sigmas_karras, sample_heun"
    yield Case(source, "heun", {}, "edm", sigmas, ends, spacing=("edm", {}))

    for calls in (6, 7, 8):
        times = torch.linspace(math.log(80), math.log(0.01), calls // 3 + 2).exp().tolist()
        ends = code.sample_dpm_fast(_model, 80 * START, 0.01, 80.0, calls, disable=True)
        params = {"order": f"fast-{calls % 3}"}
        yield Case(SOURCE + "sample_dpm_fast", "dpm-solver", params, "edm", times, ends)


def faults(root: Path) -> Iterator[Case]:
    yield from _table(load(root, "k_diffusion.sampling"), THIRD, TO_MIN)


def _table(code: ModuleType, rows: list[tuple], times: list[float]) -> Iterator[Case]:
    for name, theirs, ours, params in rows:
        noise = {"noise_sampler": Draws()} if "eta" in theirs else {}
        ends = _run(code, name, times, theirs | noise)
        yield Case(SOURCE + name, ours, params, "edm", times, ends)


def _run(code: ModuleType, name: str, times: list[float], given: dict[str, object]) -> Tensor:
    start = times[0] * START
    return getattr(code, name)(_model, start, torch.tensor(times), disable=True, **given)


def _model(x: Tensor, sigma: Tensor) -> Tensor:
    return denoise(x, torch.ones_like(sigma), sigma)[0]
