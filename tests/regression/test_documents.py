"""The workflow for pull requests, and what docs/regression.md promises."""

import re
from pathlib import Path

import pytest
import yaml

from tests.certify.defects import DEFECTS, ROOT
from tests.regression.planted import REFACTORINGS
from tests.test_cli import bench, commands

WORKFLOW = ROOT / ".github" / "workflows" / "regression.yml"
PAGE = (ROOT / "docs" / "regression.md").read_text("utf-8")


def lines() -> list[str]:
    """The lines of all shell steps of the workflow."""
    (job,) = yaml.safe_load(WORKFLOW.read_text())["jobs"].values()
    return [line for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_the_workflow_runs_on_pull_requests_and_may_comment() -> None:
    flow = yaml.safe_load(WORKFLOW.read_text())
    assert flow[True] == "pull_request"  # YAML takes "on" for a truth value
    assert flow["permissions"] == {"contents": "read", "pull-requests": "write"}
    (job,) = flow["jobs"].values()
    (checkout,) = (s for s in job["steps"] if s.get("uses", "").startswith("actions/checkout"))
    assert checkout["with"]["fetch-depth"] == 0


def test_its_commands_exist_with_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    used = [line for line in lines() if re.search(r"\bbench (?!-)\w+", line)]
    names = {m for line in used for m in re.findall(r"\bbench ([a-z]+)", line)}
    assert names == {"fingerprint", "compare"} <= commands().keys()
    for name in names:
        told = bench(capsys, name, "--help").out
        here = [line.split(f"bench {name}")[1] for line in used if f"bench {name}" in line]
        for option in {o for line in here for o in re.findall(r"(--[a-z-]+)", line)}:
            assert option in told, option


def test_its_files_exist() -> None:
    for path in re.findall(r"(?:sweeps|bench|docs)/[\w./-]+", "\n".join(lines())):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_page_counts_right() -> None:
    assert f"plants the {len(DEFECTS)} defects" in PAGE
    assert f"and {len(REFACTORINGS)} refactorings" in PAGE


def test_the_page_shows_the_bug_that_its_script_plants() -> None:
    script = (ROOT / "tests" / "benchmarks" / "planted_bug.py").read_text("utf-8")
    right, wrong = re.findall(r'^RIGHT, WRONG = "(.*)", "(.*)"$', script, re.MULTILINE)[0]
    assert f"-        return d + {right}" in PAGE
    assert f"+        return d + {wrong}" in PAGE
    source = Path(ROOT / "bench" / "samplers" / "dpm_solver_pp.py").read_text("utf-8")
    assert source.count(right) == 1
