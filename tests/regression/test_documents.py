"""What docs/regression.md promises."""

import re
from pathlib import Path

from tests.certify.defects import DEFECTS, ROOT
from tests.regression.planted import REFACTORINGS

PAGE = (ROOT / "docs" / "regression.md").read_text("utf-8")


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
