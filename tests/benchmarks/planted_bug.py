"""The worked example of docs/regression.md: a bug in DPM-Solver++ 2M, from change to verdict.

    python tests/benchmarks/planted_bug.py

Clones this repository (what is committed), inverts the step ratio of the second-order correction
there, and asks `bench fingerprint` and `bench compare`. Prints what they say; exits with 1 unless
both name dpm-solver++ and nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = "bench/samplers/dpm_solver_pp.py"
RIGHT, WRONG = "h / (2 * gap) * first", "gap / (2 * h) * first"
BENCH = "from bench.cli import main; main()"
WHO = ("-c", "user.name=bench", "-c", "user.email=bench@example.org")


def bench(place: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a command of the clone."""
    environment = os.environ | {"PYTHONPATH": str(place)}
    command = [sys.executable, "-c", BENCH, *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    return done.returncode, done.stdout


def main() -> int:
    """Plants it, asks, and says whether the answers are right."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
        source = (place / FILE).read_text("utf-8")
        assert source.count(RIGHT) == 1, f"{FILE} has not one of: {RIGHT}"
        (place / FILE).write_text(source.replace(RIGHT, WRONG), "utf-8")
        said = subprocess.run(["git", "-C", place, "diff"], capture_output=True, text=True)
        print(said.stdout)
        subprocess.run(
            ["git", "-C", place, *WHO, "commit", "--quiet", "-am", "Simplify 2M"], check=True
        )
        print("$ bench fingerprint", flush=True)
        code, text = bench(place, "fingerprint")
        print(text)
        named = [line.split()[0] for line in text.splitlines() if " changed, " in line]
        right = code == 1 and named == ["dpm-solver++"]
        words = ("compare", "HEAD~1", "HEAD", "--sweep", "sweeps/regression.yaml")
        print(f"$ bench {' '.join(words)}", flush=True)
        code, text = bench(place, *words, "--out", "comment.md", "--json")
        print((place / "comment.md").read_text("utf-8"))
        worse = {c["cell"].split(" ")[0] for c in json.loads(text)["cells"] if c["regression"]}
        right &= code == 1 and worse == {"dpm-solver++"}
    print("as expected" if right else "NOT as expected")
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
