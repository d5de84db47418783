"""Golden values from the authors' own code; README.md beside says where to get it.

    python tests/samplers/golden/authors/make.py FOLDER

FOLDER holds their code. Where theirs is right the values go to bench/certify/golden/authors.json,
in the layout of the other golden files; where it is in error, to faults.json beside this file.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import of_deis
import of_dpm_solver
import of_edm
import of_k_diffusion
import of_unipc
from common import MODEL, NOISE, STARTS, Case

HERE = Path(__file__).parent
GOLDEN = HERE.parents[3] / "bench/certify/golden"


def write(path: Path, cases: Iterator[Case]) -> None:
    written = []
    for case in cases:
        entry = {
            "source": case.source,
            "sampler": case.sampler,
            "params": case.params,
            "schedule": case.schedule,
            "times": [float(t) for t in case.times],
            "within": case.within,
            "ends": [repr(x) for x in case.ends.flatten().tolist()],
        }
        if case.spacing is not None:
            name, params = case.spacing
            entry["spacing"] = {"name": name, "params": params}
        written.append(entry)
    values = {"model": MODEL, "starts": STARTS, "noise": NOISE, "cases": written}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="their code, unpacked as README.md says")
    folder = parser.parse_args().folder
    right = [of_k_diffusion, of_dpm_solver, of_unipc, of_edm, of_deis]
    wrong = [of_k_diffusion, of_dpm_solver, of_deis]
    write(GOLDEN / "authors.json", (c for author in right for c in author.cases(folder)))
    write(HERE / "faults.json", (c for author in wrong for c in author.faults(folder)))
