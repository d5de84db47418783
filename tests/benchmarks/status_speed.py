"""Seconds that "bench status" takes for a sweep of 2,000 cells, half of them under way.

python tests/benchmarks/status_speed.py
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import claim, results, submissions
from bench.claim import Owner
from bench.results import Result
from bench.submissions import Submission

CELLS, DONE, RUNNING, CHUNKS = 2000, 1000, 100, 20
ROOT = Path(__file__).parents[2]


def make(folder: Path) -> None:
    """Records of the size of real ones, claims with chunks, and an array that has the rest."""
    pattern = next((ROOT / "results" / "ddim-table").glob("[0-9a-f]" * 16 + ".json"))
    record = results.read(pattern)
    keys = [f"{index:016x}" for index in range(CELLS)]
    plan = results.read_plan(pattern.parent)
    row = plan["cells"][0]
    plan["cells"] = [row | {"key": key, "label": f"{row['label']} {key}"} for key in keys]
    results.write_plan(folder, plan)
    for key in keys[:DONE]:
        _write(folder, replace(record, key=key))
    for key in keys[DONE : DONE + RUNNING]:
        work = folder / "work" / key
        work.mkdir(parents=True)
        (work / claim.CLAIM).write_text(json.dumps(asdict(Owner.this())))
        for index in range(CHUNKS):
            (work / f"chunk-{index:05d}.npz").touch()
    others = [[key] for key in keys[DONE:]]
    made = Submission.intended(
        "local", "speed", others, now=time.time(), code="", commit=None, snapshot=None
    )
    submissions.write(folder, made)


def _write(folder: Path, record: Result) -> None:
    """Without waiting for the disk, as `results.write` does."""
    text = json.dumps({"format": record.format, **asdict(record)}, indent=2)
    results.path_of(folder, record.key).write_text(text)


def main() -> None:
    """Prints the seconds of the whole command, three times, and those of this machine's Python."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        command = "import sys; from bench.cli import main; main()"
        for code, arguments in (("pass", []), *[(command, ["status", place])] * 3):
            began, busy = time.perf_counter(), os.times()
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                cwd=ROOT,
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
            now = os.times()
            spent = now.children_user + now.children_system - busy[2] - busy[3]
            said = (done.stdout.splitlines() or ["an empty process"])[0]
            print(f"{time.perf_counter() - began:.2f} s ({spent:.2f} s of CPU): {said}")


if __name__ == "__main__":
    main()
