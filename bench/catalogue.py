"""What a sweep may name, as facts: for `bench list`, `bench show` and docs/samplers.md.

Facts are read from the registries. A fact that depends on a sampler's parameters is evaluated, at
the defaults and with one parameter changed at a time; the NFE formula is what `calls` gives.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

from bench import models
from bench.certify import golden, identities
from bench.diffusion.schedule import SCHEDULES
from bench.diffusion.spacing import SPACINGS
from bench.errors import SweepError, nearest
from bench.metrics.measures import Measure
from bench.metrics.registry import METRICS
from bench.models import consistency, diffusers, edm, exact, function
from bench.parameters import Parameter, Value, written
from bench.presets import PRESETS
from bench.samplers import REGISTRY, Sampler, get
from bench.yaml_lines import one_line

Facts = dict[str, Any]
"""What there is to know about one name, as JSON data."""

# How many numbers of steps must lie on a line before the formula is called linear.
_ENOUGH = 16


def facts(kind: str) -> list[Facts]:
    """The facts of everything of a kind: "samplers", "spacings", ... (see `KINDS`)."""
    return KINDS[kind]()


def find(kind: str, name: str) -> Facts:
    """The facts of one name; "module:function" and "diffusers:Class" are samplers too.

    Raises:
        SweepError: there is none of that name.
    """
    if kind == "samplers" and ":" in name:
        return _sampler(get(name))
    everything = {each["name"]: each for each in facts(kind)}
    if name not in everything:
        raise SweepError(
            f'There is no {kind[:-1]} "{name}".{nearest(name, everything)} "bench list {kind}" '
            f"shows all {len(everything)}."
        )
    return everything[name]


def _samplers() -> list[Facts]:
    return [_sampler(s) for s in sorted(REGISTRY.values(), key=lambda s: s.family.lower())]


def _sampler(sampler: Sampler) -> Facts:
    order = _varying(sampler, lambda params: sampler.order(params) or None)
    rough = _varying(sampler, lambda params: sampler.rough_order(params) or None)
    return {
        "name": sampler.name,
        "summary": sampler.summary,
        "family": sampler.family,
        "paper": sampler.paper,
        "order": order,
        **({} if rough == order else {"rough-order": rough}),
        "formula-order": _varying(sampler, lambda params: sampler.formula_order(params) or None),
        "stochastic": _varying(sampler, sampler.stochastic),
        "nfe": _varying(sampler, partial(nfe_formula, sampler)),
        "min-steps": _varying(sampler, sampler.min_steps),
        "needs": "a model whose score is exact" if sampler.exact else "",
        "parameters": _parameters(sampler.params),
        "certificate": _certificate(sampler.name),
        "details": _details(sampler.function),
    }


def _certificate(name: str) -> str:
    """What is on file for a sampler, and how to have it examined."""
    values = sum(case.sampler == name for case in golden.cases())
    known = [f"{values} golden values" if values else "", *map(str, identities.of(name))]
    return "; ".join([*filter(None, known), f'examined by "bench certify {name}"'])


def _spacings() -> list[Facts]:
    return [
        {
            "name": spacing.name,
            "summary": spacing.summary,
            "needs": "trained indices" if spacing.needs_indices else "",
            "parameters": _parameters(spacing.params),
            "details": _details(spacing.times),
        }
        for spacing in SPACINGS.values()
    ]


def _schedules() -> list[Facts]:
    return [
        {
            "name": name,
            "summary": (make.__doc__ or "").partition("\n")[0],
            "settings": {key: v for key, v in make().describe().items() if key != "name"},
            "details": _details(make),
        }
        for name, make in SCHEDULES.items()
    ]


def _presets() -> list[Facts]:
    return [
        {
            "name": preset.name,
            "summary": preset.summary,
            "paper": preset.paper,
            "keys": preset.keys,
        }
        for preset in PRESETS.values()
    ]


def _models() -> list[Facts]:
    named = [
        {"name": name, "keys": models.describe(name).canonical(), "summary": "Ships with bench."}
        for name in models.NAMES
    ]
    return [*named, *(_kind_of_model(kind) for kind in models.KINDS)]


# What a description of each kind looks like, and what it is.
_EXAMPLES: dict[str, tuple[Facts, str, ModuleType]] = {
    "mixture": (
        {"name": "FILE.safetensors", "schedule": "vp-linear"},
        'A mixture from "bench train mixture", on any schedule.',
        exact,
    ),
    "consistency": (
        {"of": "NAME or FILE.safetensors"},
        "The exact consistency function of a mixture, for few-step samplers.",
        consistency,
    ),
    "diffusers": (
        {"path": "FOLDER or HUB/NAME", "dtype": "float32"},
        "An unconditional UNet2DModel.",
        diffusers,
    ),
    "edm": (
        {"path": "FILE.pkl", "trust": True},
        "A network of NVIDIA's EDM by its pickle, whose code runs when it is loaded.",
        edm,
    ),
    "torch": (
        {
            "path": "MODULE:FUNCTION",
            "target": "eps",
            "schedule": "vp-linear",
            "time": "real",
            "shape": [3, 32, 32],
        },
        "A network that a function of yours makes.",
        function,
    ),
}


def _kind_of_model(kind: str) -> Facts:
    keys, summary, module = _EXAMPLES[kind]
    return {
        "name": kind,
        "keys": {"kind": kind, **keys},
        "summary": summary,
        "parameters": [{"name": k, "expected": v} for k, v in models.KEYS[kind].items()],
        "details": (module.__doc__ or "").partition("\n")[2].strip("\n"),
    }


def _metrics() -> list[Facts]:
    return [
        {
            "name": spec.name,
            "summary": spec.measure.summary,
            "features": spec.features,
            "better": spec.measure.better,
            "needs": _needs(spec.measure),
            "paper": spec.measure.paper,
        }
        for spec in METRICS.values()
    ]


def _needs(measure: Measure) -> str:
    """What a measure needs beside the moments of the reference."""
    features = "the features of the reference" if measure.needs_features else ""
    return "a classifier" if measure.needs_head else features


KINDS: Mapping[str, Callable[[], list[Facts]]] = {
    "samplers": _samplers,
    "spacings": _spacings,
    "schedules": _schedules,
    "presets": _presets,
    "models": _models,
    "metrics": _metrics,
}


def _varying(sampler: Sampler, fact: Callable[[Mapping[str, Value]], Any]) -> Facts:
    """A fact at the defaults, and what it is otherwise, by the one parameter that is changed.

    A parameter without a default stands at the first of its values.
    """
    base = {
        name: next(iter(p.examples), None) if p.required else p.validate(p.default)
        for name, p in sampler.params.items()
    }
    default, otherwise = fact(base), {}
    for name, parameter in sampler.params.items():
        for value in parameter.examples:
            found = fact({**base, name: value})
            if found != default:
                otherwise[f"{name}: {written(value)}"] = found
    return {"default": default, "otherwise": otherwise}


def nfe_formula(sampler: Sampler, params: Mapping[str, Value]) -> str:
    """NFE of n steps in words, "2n - 1 to zero, 2n to sigma-min": evaluated, not written down."""
    calls, fewest = sampler.calls, sampler.min_steps(params)
    if calls is None:
        return "counted"
    to_zero, to_sigma_min = (
        _formula([calls(fewest + k, ends_at_zero, params) for k in range(2 * _ENOUGH)], fewest)
        for ends_at_zero in (True, False)
    )
    if to_zero == to_sigma_min:
        return to_zero
    return f"{to_zero} to zero, {to_sigma_min} to sigma-min"


def _formula(counts: list[int], fewest: int) -> str:
    """The line on which the counts of `fewest`, `fewest` + 1, ... steps lie."""
    rises = [b - a for a, b in pairwise(counts)]
    slope = rises[-1]
    bend = next((k for k in range(len(rises), 0, -1) if rises[k - 1] != slope), 0)
    if len(rises) - bend < _ENOUGH:
        return f"{', '.join(map(str, counts[:6]))}, ... for n = {fewest}, {fewest + 1}, ..."
    offset = counts[-1] - slope * (fewest + len(rises))
    line = ("" if slope == 1 else f"{slope}") + "n"
    if offset:
        line += f" {'-' if offset < 0 else '+'} {abs(offset)}"
    return line if bend == 0 else f"{line} from n = {fewest + bend} on"


def _parameters(params: Mapping[str, Parameter]) -> list[Facts]:
    return [
        {"name": p.name, "expected": p.expected}
        | ({} if p.required else {"default": p.validate(p.default)})
        for p in params.values()
    ]


def _details(thing: Callable[..., object]) -> str:
    """The docstring after its summary."""
    return (inspect.getdoc(thing) or "").partition("\n")[2].strip()


Column = tuple[str, Callable[[Facts], str]]


def _column(key: str, heading: str | None = None) -> Column:
    return key if heading is None else heading, lambda each: text_of(each[key])


def _defaults(each: Facts) -> str:
    """The parameters with their defaults alone: 'order 2, method multistep'."""
    return ", ".join(
        p["name"] + (f" {written(p['default'])}" if "default" in p else "")
        for p in each["parameters"]
    )


_TABLES: dict[str, list[Column]] = {
    "samplers": [
        _column("name", "sampler"),
        _column("family"),
        _column("summary", ""),
        _column("order"),
        _column("nfe", "NFE of n steps"),
        ("parameters", _defaults),
        _column("paper"),
    ],
    "spacings": [
        _column("name", "spacing"),
        _column("summary", ""),
        _column("needs"),
        _column("parameters"),
    ],
    "schedules": [_column("name", "schedule"), _column("summary", ""), _column("settings")],
    "presets": [
        _column("name", "preset"),
        _column("summary", ""),
        _column("keys", "stands for"),
        _column("paper"),
    ],
    "models": [_column("name", "model"), _column("summary", ""), _column("keys", "in full")],
    "metrics": [
        _column("name", "metric"),
        _column("summary", ""),
        _column("features", "in the features of"),
        _column("better"),
        _column("needs"),
        _column("paper"),
    ],
}
_PAGE_COLUMNS = [
    _column("name", "sampler"),
    _column("family"),
    _column("summary", ""),
    _column("order"),
    _column("formula-order", "order of the formula"),
    _column("stochastic"),
    _column("nfe", "NFE of n steps"),
    _column("min-steps", "fewest steps"),
    _column("needs"),
    _column("parameters"),
    _column("paper"),
]


def table(kind: str) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of everything of a kind; a cell may have several lines."""
    return _table(kind, _TABLES[kind])


def _table(kind: str, columns: list[Column]) -> tuple[list[str], list[list[str]]]:
    rows = [[text(each) for _, text in columns] for each in facts(kind)]
    return [heading for heading, _ in columns], rows


def text_of(value: Any) -> str:
    """A fact in words."""
    match value:
        case {"default": default, "otherwise": otherwise}:
            cases = [f"{text_of(v)} with {at}" for v, at in _by_value(otherwise).items()]
            return "; ".join([text_of(default), *cases])
        case dict():
            return one_line(value)
        case list():
            return "\n".join(_parameter(parameter) for parameter in value)
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case _:
            return str(value)


def _by_value(otherwise: Mapping[str, Any]) -> dict[Any, str]:
    """{"order: 1": 2, "order: 2": 2} -> {2: "order: 1, 2"}."""
    found: dict[Any, dict[str, list[str]]] = {}
    for setting, value in otherwise.items():
        name, _, of = setting.partition(": ")
        found.setdefault(value, {}).setdefault(name, []).append(of)
    return {
        value: " or ".join(f"{name}: {', '.join(of)}" for name, of in at.items())
        for value, at in found.items()
    }


def _parameter(parameter: Facts) -> str:
    default = f" (default {written(parameter['default'])})" if "default" in parameter else ""
    return f"{parameter['name']}: {parameter['expected']}{default}"


_LABELS = {
    "rough-order": "order on rough grids",
    "nfe": "NFE of n steps",
    "min-steps": "fewest steps",
}


def page(each: Facts) -> str:
    """The facts of one name as text."""
    rest = {k: v for k, v in each.items() if v and k not in ("name", "summary", "details")}
    parameters = rest.pop("parameters", [])
    labels = {key: _LABELS.get(key, key.replace("-", " ")) for key in rest}
    width = max(map(len, labels.values()), default=0)
    parts = [
        f"{each['name']}: {each['summary']}",
        "\n".join(f"  {labels[key]:{width}}  {text_of(value)}" for key, value in rest.items()),
        "\n".join(
            ["Parameters:", *(f"  {_parameter(p)}" for p in parameters)] if parameters else []
        ),
        each.get("details", ""),
    ]
    return "\n\n".join(part for part in parts if part)


_PAGE = """\
# Samplers

<!-- Written by "bench list samplers --markdown > docs/samplers.md". Do not edit. -->

What a sweep may name as `sampler`, read from the samplers themselves; `bench show sampler NAME`
says more. The order is the global one with the published start-up, of a stochastic sampler the weak
order; beside it stands the order of a step's formula with an exact history. NFE is of n steps on a
grid that ends at `final: zero` or `final: sigma-min`; `final: denoise` makes one call more than
`sigma-min`. Facts are at the defaults, and with one parameter changed where that changes them.

"""


def markdown() -> str:
    """docs/samplers.md: the table of all samplers."""
    head, rows = _table("samplers", _PAGE_COLUMNS)
    lines = [head, ["---"] * len(head), *rows]
    return _PAGE + "".join(f"| {' | '.join(map(_escaped, line))} |\n" for line in lines)


def _escaped(text: str) -> str:
    """Text for a cell of a Markdown table, arXiv ids as links."""
    text = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", "<br>")
    return re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
