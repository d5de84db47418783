"""The planted defects: each fits the code of today, and the certificate finds it."""

import pytest

from bench.certify import names
from tests.certify.defects import DEFECTS, LIST, ROOT, Defect, wrong_findings

IDS = [f"{defect.name}: {defect.what}" for defect in DEFECTS]


@pytest.mark.parametrize("defect", DEFECTS, ids=IDS)
def test_fits_one_place_of_the_code(defect: Defect) -> None:
    source = (ROOT / "bench" / defect.file).read_text("utf-8")
    assert source.count(defect.old) == 1
    assert defect.old != defect.new


def test_they_are_in_everything_that_can_be_certified() -> None:
    assert {defect.name for defect in DEFECTS} == set(names())
    assert len(set(IDS)) == len(IDS) >= 40


def test_the_list_has_each_with_what_found_it() -> None:
    rows = [row for row in LIST.read_text("utf-8").splitlines() if row.startswith("| ")][2:]
    assert [row.split(" | ")[:2] for row in rows] == [[f"| {d.name}", d.what] for d in DEFECTS]
    assert not any("nothing" in row for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS, ids=IDS)
def test_is_found(defect: Defect) -> None:
    assert wrong_findings(defect, first=True)
