"""Samplers from outside: `package.module:function` and `diffusers:SchedulerClass`.

A function has the signature of ours, `(denoise, x, grid, noise, *, parameters) -> x`. Decorated
with `bench.samplers.registry.sampler` it brings its facts; otherwise nothing is known but its
parameters, and its calls are counted.

A scheduler of diffusers takes noise predictions, one a step, on the grid of the cell: it gets the
grid's indices if it takes timesteps, and otherwise its own must be the grid's. Its parameters are
the plain arguments of its constructor, with underscores as dashes. Noise that it draws is the
cell's, so that its images are paired with ours.
"""

import importlib
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin
from unittest.mock import patch

import numpy as np
from torch import Tensor

from bench.diffusion.denoiser import Denoiser
from bench.diffusion.noise import Noise
from bench.diffusion.schedule import DiscreteVP
from bench.diffusion.spacing import TimeGrid
from bench.errors import SweepError, nearest
from bench.parameters import Parameter, Value, as_keywords, parameters_of
from bench.samplers.registry import REGISTRY, Params, Sampler

# What the cell's model says already, and what would change the meaning of its prediction.
_NOT_SWEPT = {
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas"),
    "prediction_type",
}
_PLAIN = (bool, int, float, str)

FAMILY = "from outside"
"""Of samplers of which nothing is known but their parameters."""


@cache
def load(name: str) -> Sampler:
    """The sampler that `name`, "module:attribute", stands for.

    Raises:
        SweepError: there is no such module or attribute, or it is no sampler.
    """
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        made = getattr(found, attribute, None)
    except ImportError as error:
        raise SweepError(
            f'There is no sampler "{name}": the module {module} cannot be imported ({error}). '
            "It must be installed, or on PYTHONPATH, here and where the cells run."
        ) from error
    if module == "diffusers":
        return _scheduler(name, made)
    if not inspect.isfunction(made):
        functions = [n for n, value in vars(found).items() if inspect.isfunction(value)]
        raise SweepError(
            f'There is no sampler "{name}": {found.__file__} has no function "{attribute}".'
            f"{nearest(attribute, functions)}"
        )
    given = inspect.signature(made).parameters.values()
    takes = [p.name for p in given if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    if len(takes) != 4:
        raise SweepError(
            f'"{name}" is no sampler: it takes ({", ".join(takes)}), and a sampler takes (denoise, '
            "x, grid, noise) and its parameters as keyword-only arguments."
        )
    known = [sampler for sampler in REGISTRY.values() if sampler.function is made]
    if known:
        return replace(known[0], name=name)
    return _unknown(name, made, parameters_of(made), made.__doc__)


def _unknown(
    name: str,
    function: Callable[..., Tensor],
    params: dict[str, Parameter],
    doc: str | None,
    refuses: Callable[[TimeGrid, Params], str | None] = lambda grid, params: None,
) -> Sampler:
    return Sampler(
        name=name,
        family=FAMILY,
        order=lambda params: 0,
        rough_order=lambda params: 0,
        formula_order=lambda params: 0,
        stochastic=lambda params: True,
        calls=None,
        min_steps=lambda params: 1,
        refuses=refuses,
        exact=False,
        paper="",
        summary=(doc or "").strip().partition("\n")[0],
        function=function,
        params=params,
    )


def _scheduler(name: str, made: Any) -> Sampler:
    """A diffusers scheduler as a sampler."""
    import diffusers

    is_scheduler = inspect.isclass(made) and issubclass(made, diffusers.SchedulerMixin)
    if not is_scheduler:
        known = [n for n in dir(diffusers) if n.endswith("Scheduler") and not n.startswith("Flax")]
        raise SweepError(
            f'There is no sampler "{name}": diffusers {diffusers.__version__} has no scheduler '
            f'"{name.partition(":")[2]}".{nearest(name.partition(":")[2], known)}'
        )
    takes = inspect.signature(made.__init__).parameters
    if "trained_betas" not in takes:
        raise SweepError(
            f'"{name}" does not take trained betas, so it cannot follow the model of a sweep. '
            "Schedulers of VP networks do."
        )

    def prepared(grid: TimeGrid, params: Params) -> Any:
        """The scheduler, set to the steps of the grid."""
        schedule = grid.schedule
        assert isinstance(schedule, DiscreteVP)
        scheduler = made(
            num_train_timesteps=schedule.num_train,
            trained_betas=np.array(schedule.betas),
            **as_keywords(params),
        )
        if "timesteps" in inspect.signature(scheduler.set_timesteps).parameters:
            scheduler.set_timesteps(timesteps=[round(p.t) for p in grid.points[:-1]])
        else:
            scheduler.set_timesteps(len(grid))
        return scheduler

    def refuses(grid: TimeGrid, params: Params) -> str | None:
        if not isinstance(grid.schedule, DiscreteVP) or not grid.ends_at_zero:
            return "steps over the trained indices of a VP model and to zero: final: zero."
        times = [point.t for point in grid.points[:-1]]
        if any(t != round(t) for t in times):
            return "takes whole indices only; use an index spacing."
        own = list(dict.fromkeys(float(t) for t in prepared(grid, params).timesteps))
        # Schedulers with two calls a step may have indices between those of the grid.
        if own[0] != times[0] or not set(times) <= set(own):
            return (
                f"chooses its indices itself, {_few(own)}, and the grid has {_few(times)}. Choose "
                "its timestep-spacing and steps-offset so that they agree, or the grid."
            )
        return None

    def run(denoise: Denoiser, x: Tensor, grid: TimeGrid, noise: Noise, **given: Value) -> Tensor:
        params = {key.replace("_", "-"): value for key, value in given.items()}
        scheduler = prepared(grid, params)
        x = x * float(scheduler.init_noise_sigma)
        # Schedulers draw by this function, as a name of their own module.
        drawn = f"{made.__module__}.randn_tensor"
        with patch(drawn, lambda *_, **__: noise(), create=True):
            for t in scheduler.timesteps:
                level = grid.schedule.at(t=float(t))
                _, eps = denoise(scheduler.scale_model_input(x, t), level)
                x = scheduler.step(eps, t, x).prev_sample
        return x

    return _unknown(name, run, _plain_parameters(takes), made.__doc__, refuses)


def _plain_parameters(arguments: Mapping[str, inspect.Parameter]) -> dict[str, Parameter]:
    """Those that a sweep can write: flags, numbers, texts and choices of texts."""
    found = {}
    for argument in arguments.values():
        union = get_origin(argument.annotation) in (Union, types.UnionType)
        kinds = get_args(argument.annotation) if union else (argument.annotation,)
        plain = [k for k in kinds if k in (*_PLAIN, type(None)) or get_origin(k) is Literal]
        if argument.name in _NOT_SWEPT or not plain or plain == [type(None)]:
            continue
        key = argument.name.replace("_", "-")
        parameter = Parameter(key, Union[tuple(plain)], argument.default)  # noqa: UP007
        try:
            parameter.validate(argument.default)
        except SweepError:  # an infinity, say
            continue
        found[key] = parameter
    return found


def _few(times: list[float]) -> str:
    shown = [f"{t:g}" for t in times]
    return ", ".join(shown if len(shown) < 5 else [*shown[:2], "...", shown[-1]])
