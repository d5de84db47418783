"""Golden values of the samplers, derived a second time: scalars, mpmath, 50 digits.

    python tests/samplers/golden/make.py [FAMILY ...]

A family is a file beside this one with a function `cases()`; its values go to FAMILY.json. No
family imports `bench`: each sampler is written from its paper in the paper's notation. grids.py is
no family, but has `values()` of its own: of schedules and spacings.
`test_golden.py` compares the samplers of the registry with all of them to 1e-10, or to what a case
says.
"""

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from mpmath import mp, mpf
from scalar import LEVELS, MODEL, NOISE, STARTS, Case

HERE = Path(__file__).parent
VALUES = HERE.parents[2] / "bench/certify/golden"


def write(family: str) -> None:
    module = importlib.import_module(family)
    values = module.values() if family == "grids" else runs(module.cases())
    path = VALUES / f"{family}.json"
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def runs(cases: Iterable[Case]) -> dict[str, object]:
    written = []
    for case in cases:
        levels = [LEVELS[case.schedule](t) for t in case.times]
        # Starts are those of N(0, 1), times sigma of the first point for EDM.
        scale = levels[0][1] if case.schedule == "edm" else mpf(1)
        ends = [
            case.solve(scale * mpf(x), levels, [mpf(row[i]) for row in NOISE])
            for i, x in enumerate(STARTS)
        ]
        written.append(
            {
                "sampler": case.sampler,
                "params": case.params,
                "schedule": case.schedule,
                "times": [float(t) for t in case.times],
                "within": case.within,
                "ends": [mp.nstr(x, 18) for x in ends],
            }
        )
    return {"model": MODEL, "starts": STARTS, "noise": NOISE, "cases": written}


if __name__ == "__main__":
    every = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("make", "scalar"))
    for name in sys.argv[1:] or every:
        write(name)
