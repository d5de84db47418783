"""DEIS and iPNDM, by Qinsheng Zhang, on vp-linear.

Their alpha is our alpha^2, their t our index.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from common import START, Case, abar, denoise, load
from torch import Tensor

SOURCE = "github.com/qsh-zh/deis at c0110bec, th_deis/sampler.py: get_sampler, "
RUNGE_KUTTA = [("1euler", "euler"), ("2heun", "heun"), ("4rk", "rk4")]


def cases(root: Path) -> Iterator[Case]:
    run = _Runs(root)
    for steps in (3, 8):
        yield run("ipndm", {}, steps, 1, {"method": "ipndm"})
    for theirs, ours in RUNGE_KUTTA:
        yield run(ours, {}, 6, 2, {"method": "rho_rk", "rk_method": theirs})
    # The one order where their sums are exact: see `faults`.
    given = {"method": "rho_ab", "ab_order": 0}
    yield run("deis", {"method": "rhoab", "order": 0}, 6, 2, given)


def faults(root: Path) -> Iterator[Case]:
    run = _Runs(root)
    for theirs, ours, orders in [("t_ab", "tab", (0, 1, 2, 3)), ("rho_ab", "rhoab", (1, 2, 3))]:
        for order in orders:
            params = {"method": ours, "order": order}
            yield run("deis", params, 6, 2, {"method": theirs, "ab_order": order})


class _Runs:
    """Their samplers on the problem, on their grid even in t^(1/power)."""

    def __init__(self, root: Path) -> None:
        import jax
        from jax import numpy as jnp

        jax.config.update("jax_enable_x64", True)
        # A name that jax has dropped since; only their DiscreteVPSDE calls it.
        vars(sys.modules["jax._src.numpy.lax_numpy"]).setdefault("_promote_dtypes_inexact", None)
        self._code = load(root / "deis", "th_deis.sampler")
        index, log_abar = jnp.arange(1000.0), jnp.log(jnp.asarray(abar().numpy()))
        self._abar = lambda t: jnp.exp(jnp.interp(t, index, log_abar))
        self._problem = self._code.VPSDE(
            self._abar, lambda a: jnp.interp(-jnp.log(a), -log_abar, index), 0.0, 999.0
        )

    def __call__(
        self, ours: str, params: dict[str, object], steps: int, power: int, given: dict[str, object]
    ) -> Case:
        times = self._code.get_rev_ts(self._problem, steps, power).tolist()
        sampler = self._code.get_sampler(self._problem, self._eps, "t", power, steps, **given)
        return Case(
            source=SOURCE + str(given["method"]),
            sampler=ours,
            params=params,
            schedule="vp-linear",
            times=times,
            ends=sampler(START),
            spacing=("time-power", {"power": float(power)}),
        )

    def _eps(self, x: Tensor, t: Tensor) -> Tensor:
        abar = torch.tensor(float(self._abar(float(t))))
        return denoise(x, abar.sqrt(), (1 - abar).sqrt())[1]
