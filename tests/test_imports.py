"""Imports point one way, and what only reads records does without torch.

Both facts are read from the source, so that an import hidden in a function counts for the first
and a chain of harmless-looking modules counts for the second.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bench"

# What each unit (a module or a sub-package of bench) may import, at any depth of nesting.
ARROWS: dict[str, set[str]] = {
    # nothing of ours, then files
    "errors": set(),
    "parameters": {"errors"},
    "yaml_lines": {"errors"},
    "provenance": set(),
    "process": set(),
    "interrupt": set(),
    "atomic": {"errors", "process"},
    "code": {"atomic"},
    "claim": {"atomic", "errors", "process"},
    "results": {"atomic", "errors"},
    "scheduler": {"errors"},
    "submissions": {"atomic", "errors", "process", "results"},
    "states": {"claim", "errors", "process", "results", "scheduler", "submissions"},
    "cancel": {"claim", "process", "scheduler", "states", "submissions"},
    "progress": {"results", "states"},
    "arrays": {"results"},
    "influences": {"atomic", "errors", "results"},
    "published": {"errors"},
    "report": {"atomic", "errors", "influences", "published", "results"},
    "regression": {
        *("atomic", "claim", "errors", "influences", "report", "results", "yaml_lines"),
    },
    # the mathematics
    "diffusion": {"errors", "parameters"},
    "samplers": {"diffusion", "errors", "parameters"},
    "numerics": set(),
    "models": {"atomic", "diffusion", "errors", "numerics"},
    "metrics": {"atomic", "diffusion", "errors"},
    "training": {"atomic", "diffusion", "errors", "metrics", "models", "samplers"},
    # a sweep and its cells
    "presets": {"errors", "yaml_lines"},
    "sweep_file": {"diffusion", "errors", "yaml_lines"},
    "sweep_grid": {
        *("diffusion", "errors", "models", "parameters", "samplers", "sweep_file", "yaml_lines"),
    },
    "sweep": {
        *("diffusion", "errors", "metrics", "models", "parameters", "presets", "results"),
        *("samplers", "sweep_file", "sweep_grid", "yaml_lines"),
    },
    "chunks": {"atomic", "errors", "metrics", "results"},
    "fingerprint": {"diffusion", "errors", "models", "numerics", "samplers", "sweep"},
    "sampling": {"chunks", "diffusion", "errors", "metrics", "models", "samplers", "sweep"},
    "cell": {
        *("atomic", "chunks", "errors", "fingerprint", "influences", "metrics", "models"),
        *("numerics", "provenance", "results", "sampling", "sweep"),
    },
    "scoring": {"atomic", "errors", "metrics"},
    # where cells run
    "estimate": {"cell", "diffusion", "errors", "metrics", "models", "numerics", "sweep"},
    "jobs": {"cell", "results", "sweep"},
    "worker": {
        *("atomic", "cell", "chunks", "claim", "errors", "interrupt", "jobs", "numerics"),
        *("results", "sweep"),
    },
    "executors": {
        *("arrays", "atomic", "claim", "code", "errors", "jobs", "process", "provenance"),
        *("results", "scheduler", "submissions", "sweep", "worker"),
    },
    "launch": {
        *("arrays", "atomic", "cancel", "cell", "chunks", "claim", "errors", "executors"),
        *("influences", "progress", "results", "scheduler", "states", "submissions", "sweep"),
        "worker",
    },
    "fetch": {"errors", "metrics", "models", "sweep_file", "yaml_lines"},
    "certify": {"diffusion", "errors", "parameters", "samplers"},
    "arithmetic": {"atomic", "certify", "diffusion", "errors", "numerics", "samplers"},
    "catalogue": {
        *("certify", "diffusion", "errors", "metrics", "models", "parameters", "presets"),
        *("samplers", "yaml_lines"),
    },
    "cli": {
        *("arithmetic", "cancel", "catalogue", "cell", "certify", "errors", "estimate", "fetch"),
        *("launch", "metrics", "models", "presets", "progress", "published", "regression"),
        *("report", "results", "scoring", "states", "submissions", "sweep", "training"),
        "yaml_lines",
    },
}

# These load torch, or are as slow to import.
HEAVY = {"diffusers", "submitit", "torch", "torch_fidelity", "torchmetrics", "torchvision"}
LIGHT = (
    *("errors", "atomic", "results", "influences", "published", "report", "yaml_lines", "cli"),
    "regression",
    *("cancel", "progress", "states", "submissions"),
)


def modules() -> dict[str, Path]:
    """Name of every module of the package, `bench.report.plots`, with its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["bench", *path.relative_to(PACKAGE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def statements(body: list[ast.stmt], *, top_only: bool) -> Iterator[ast.stmt]:
    """The statements of a module; with `top_only`, those that run when it is imported."""
    for node in body:
        yield node
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if top_only and (is_function or (isinstance(node, ast.If) and _for_types(node.test))):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from statements(getattr(node, field, []), top_only=top_only)
        for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            yield from statements(part.body, top_only=top_only)


def _for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(name: str, path: Path, *, top_only: bool) -> set[str]:
    """Full names of what a module imports, of ours and of others."""
    names = set()
    for node in statements(ast.parse(path.read_text()).body, top_only=top_only):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                parents = package.split(".")
                above = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{above}.{base}" if base else above
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names


def unit(name: str) -> str | None:
    """`report` for `bench.report.plots`; None for what is not ours and for the bare package."""
    parts = name.split(".")
    return parts[1] if parts[0] == "bench" and len(parts) > 1 else None


def test_arrows_have_no_cycle() -> None:
    below: set[str] = set()
    for name, allowed in ARROWS.items():
        assert allowed <= below, f"{name} stands above what it may import"
        below.add(name)


@pytest.mark.parametrize(("name", "path"), modules().items(), ids=modules())
def test_imports_point_one_way(name: str, path: Path) -> None:
    own = unit(name)
    if own is None:
        assert not {unit(target) for target in imports(name, path, top_only=False)} - {None}
        return
    assert own in ARROWS, f"{name} is new: give it a place in ARROWS and in the architecture"
    used = {unit(target) for target in imports(name, path, top_only=False)} - {None, own}
    assert used <= ARROWS[own], f"{name} may not import {sorted(map(str, used - ARROWS[own]))}"


@pytest.mark.parametrize(
    "name", [name for name in modules() if unit(name) in LIGHT], ids=lambda name: str(name)
)
def test_no_heavy_import_at_module_level(name: str) -> None:
    ours = modules()
    # A waiting entry is a chain of modules: the message should name the culprit and the way to it.
    waiting = [[name]]
    seen = {name}
    while waiting:
        chain = waiting.pop()
        for target in imports(chain[-1], ours[chain[-1]], top_only=True):
            assert target.split(".")[0] not in HEAVY, " -> ".join([*chain, target])
            parts = target.split(".")
            for depth in range(1, len(parts) + 1):  # importing a.b.c imports a and a.b as well
                parent = ".".join(parts[:depth])
                if parent in ours and parent not in seen:
                    seen.add(parent)
                    waiting.append([*chain, parent])


def test_torch_stays_out_in_practice() -> None:
    names = ", ".join(f"bench.{name}" for name in LIGHT)
    code = f"import sys, {names}; sys.exit(', '.join({HEAVY!r} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
