"""The workflow for pull requests: its form, and its steps as a runner would take them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.benchmarks.planted_bug import FILE, RIGHT, WRONG
from tests.certify.defects import ROOT
from tests.regression.repository import commit, git
from tests.test_cli import bench, commands

WORKFLOW = ROOT / ".github" / "workflows" / "regression.yml"
SWEEP = """\
name: regression
model: cifar10-mixture
samples: 500
metrics: [fd_cifar]
reference: cifar10-mixture
grid: [{sampler: [ddim, dpm-solver++], spacing: quadratic, steps: 6}]
"""
GH = """\
#!/bin/sh
# What GitHub's tool is asked; there is no comment to edit yet.
case "$*" in *--edit-last*) exit 1 ;; esac
echo "$@" > {asked}
while [ "$1" != --body-file ]; do shift; done
cp "$2" {comment}
"""


def test_it_is_a_workflow() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    done = subprocess.run(
        [*command, "vendor.github-workflows", WORKFLOW], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def steps() -> dict[str, dict[str, Any]]:
    """The steps with a command, by name."""
    (job,) = yaml.safe_load(WORKFLOW.read_text("utf-8"))["jobs"].values()
    return {step["name"]: step for step in job["steps"] if "run" in step}


def lines() -> list[str]:
    """The lines of all commands."""
    return [line for step in steps().values() for line in step["run"].splitlines()]


def test_it_runs_on_pull_requests_and_may_comment() -> None:
    flow = yaml.safe_load(WORKFLOW.read_text("utf-8"))
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


@pytest.mark.slow
def test_its_steps_say_what_a_pull_request_does(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(ROOT), str(clone))
    (clone / "sweeps" / "regression.yaml").write_text(SWEEP)
    base = commit(clone, "The base")
    source = clone / FILE
    source.write_text(source.read_text("utf-8").replace(RIGHT, WRONG))
    commit(clone, "The change")
    tools = tmp_path / "tools"
    tools.mkdir()
    gh = GH.format(asked=tmp_path / "asked", comment=tmp_path / "comment.md")
    own = f'#!/bin/sh\nexec {sys.executable} -c "from bench.cli import main; main()" "$@"\n'
    for name, text in (("gh", gh), ("bench", own)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
    }
    facts = {
        "github.event.pull_request.base.sha": base,
        "github.event.pull_request.number": "17",
        "github.token": "none",
    }
    codes = {}
    found = steps()
    assert list(found) == ["Install", "Arithmetic", "Quality", "Comment"]
    for name in ("Arithmetic", "Quality", "Comment"):
        script = re.sub(r"\$\{\{ (\S+) \}\}", lambda match: facts[match[1]], found[name]["run"])
        # As a runner calls it: the first command that fails ends the step.
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-c", script],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
        )
        codes[name] = done.returncode
    assert codes == {"Arithmetic": 1, "Quality": 1, "Comment": 0}
    assert (tmp_path / "asked").read_text().startswith("pr comment 17 --body-file")
    comment = (tmp_path / "comment.md").read_text("utf-8")
    assert comment.startswith("## Arithmetic\n")
    assert "dpm-solver++ changed, by" in comment
    assert "**1 regression**: dpm-solver++" in comment
