"""Runs the comparisons of speed on this machine and writes what they say to README.md beside it.

    python tests/benchmarks/write_readme.py --data cifar10_test.npz

Twenty minutes of two cores that do nothing else. A promise that is broken is written
down like one that is kept.
"""

import argparse
import ast
import os
import subprocess
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.inception_speed import processor

HERE = Path(__file__).parent
COMMANDS = (
    "sampling_speed.py --images 16 --batch 16 --threads 2 --rounds 7",
    "sampling_speed.py --images 16 --batch 16 --threads 2 --rounds 7 --compile",
    "sampling_speed.py --images 32 --batch 16 --threads 2 --rounds 7 --dtype bfloat16",
    "sampling_speed.py --images 32 --batch 16 --threads 2 --rounds 7 --dtype bfloat16 --compile",
    "inception_speed.py --data {data} --images 64 --rounds 3",
)
ON_A_GPU = ("sampling_speed.py --device cuda --dtype float16 --images 3000 --batch 1000 --compile",)
HEAD = """# Benchmarks

Performance is promised as ratios, of two ways that take turns in one process. Each script says in
its head what it compares and promises, and exits with 1 where a promise is broken.

{scripts}

## Measured

Written by `python tests/benchmarks/write_readme.py --data cifar10_test.npz`, on {machine}, with
torch {torch}.
"""


def scripts() -> str:
    """A list of the scripts, with the first line of each."""
    said = {file: ast.get_docstring(ast.parse(file.read_text())) for file in HERE.glob("*.py")}
    return "\n".join(
        f"- `{file.name}`: {text.splitlines()[0]}" for file, text in sorted(said.items()) if text
    )


def measured(command: str, data: Path) -> str:
    """A command, what it printed, and whether its promises were kept."""
    script, *given = command.format(data=data).split()
    done = subprocess.run(
        [sys.executable, HERE / script, *given], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{command}: {done.stderr}")
    shown = command.format(data=data.name)
    verdict = "kept" if done.returncode == 0 else "**broken**"
    print(f"{shown}: promises {verdict}\n{done.stdout}", flush=True)
    return (
        f"\n`python tests/benchmarks/{shown}`: promises {verdict}.\n\n"
        f"```\n{done.stdout.strip()}\n```\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="npz of images, (N, 32, 32, 3)")
    data = parser.parse_args().data
    machine = f"{processor()}, {os.cpu_count()} cores"
    commands = COMMANDS
    if torch.cuda.is_available():
        machine += f", {torch.cuda.get_device_name()}"
        commands += ON_A_GPU
    text = HEAD.format(scripts=scripts(), machine=machine, torch=torch.__version__)
    text += "".join(measured(command, data) for command in commands)
    (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
