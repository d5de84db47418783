"""Each kind of model in a process of its own: by the YAML alone, and without a network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import fakes
from tests.models import edm_file
from tests.models.test_diffusers import write_folder

ROOT = Path(__file__).parents[2]

# Whoever asks for a network ends the process, whatever catches errors on the way.
SAMPLE = """
import os, socket, sys


def refuse(*args, **kwargs):
    print("asked for the network", args, file=sys.stderr, flush=True)
    os._exit(3)


socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = socket.create_connection = refuse

import json
from bench import models, sweep
from bench.sampling import Sampling

cell = sweep.load(sys.argv[1]).cells()[-1]
model = models.load(models.describe(cell.model), "cpu")
chunk = Sampling(cell, model, 2, "cpu").chunk(0, range(4), {})
print(json.dumps({"digest": model.digest, "shape": chunk.images.shape, "notes": dict(model.notes)}))
"""

NETWORK = """
import torch


def make():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x, time):
            return self.layer(x) / (1 + time.view(-1, 1, 1, 1))

    return Network()
"""


def write(tmp_path: Path, kind: str) -> str:
    """The `model:` of a sweep, with what it needs beside it."""
    match kind:
        case "shipped":
            return "cifar10-mixture"
        case "mixture" | "consistency":
            fakes.write_mixture(tmp_path / "tiny.safetensors")
            key = "name" if kind == "mixture" else "of"
            return f"{{kind: {kind}, {key}: tiny.safetensors}}"
        case "diffusers":
            write_folder(tmp_path / "network")
            return "{kind: diffusers, path: ./network, dtype: bfloat16, time: rounded}"
        case "hub":  # as "bench fetch" leaves it
            repository = tmp_path / "hf/hub/models--someone--tiny"
            write_folder(repository / "snapshots" / ("0" * 40), flat=True)
            (repository / "refs").mkdir()
            (repository / "refs/main").write_text("0" * 40)
            return "{kind: diffusers, path: someone/tiny}"
        case "edm":
            edm_file.write(tmp_path / "net.pkl")
            return "{kind: edm, path: net.pkl, trust: true, schedule: vp-linear}"
    (tmp_path / "their_networks.py").write_text(NETWORK)
    return (
        "{kind: torch, path: their_networks:make, target: velocity, time: unit, "
        "shape: [3, 8, 8], schedule: {name: vp-linear, T: 100}}"
    )


def sampled(tmp_path: Path, sweep: Path, **more: str) -> dict[str, Any]:
    """What a fresh process in `tmp_path` says of the last cell of a sweep."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "BENCH_", "TORCH_"))}
    places = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", SAMPLE, sweep],
        cwd=tmp_path,
        env=clean | places | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


SLOW = pytest.mark.slow  # to import diffusers takes long


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {}], ids=["offline", "unsaid"])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        pytest.param("shipped", [4, 3, 32, 32], marks=SLOW),
        pytest.param("mixture", [4, 3, 4, 4], marks=SLOW),
        pytest.param("consistency", [4, 3, 4, 4], marks=SLOW),
        pytest.param("diffusers", [4, 3, 8, 8], marks=SLOW),
        pytest.param("hub", [4, 3, 8, 8], marks=SLOW),
        ("edm", [4, 3, 4, 4]),
        ("torch", [4, 3, 8, 8]),
    ],
)
def test_a_fresh_process_samples_by_the_yaml_alone(
    tmp_path: Path, kind: str, shape: list[int], environment: dict[str, str]
) -> None:
    """Nobody has to be told that there is no network: none is asked for."""
    sweep = tmp_path / "mine.yaml"
    sweep.write_text(
        f"model: {write(tmp_path, kind)}\nsamples: 4\nmetrics: [fd_cifar]\n"
        "reference: cifar10-mixture\ngrid: [{sampler: ddim, steps: 3}]\n"
    )
    found = sampled(tmp_path, sweep, **environment)
    assert found["shape"] == shape
    assert found["notes"]["time"]


@pytest.mark.slow
def test_the_guard_catches_who_asks_for_the_network(tmp_path: Path) -> None:
    sweep = tmp_path / "mine.yaml"
    model = write(tmp_path, "hub")
    shutil.rmtree(tmp_path / "hf")
    sweep.write_text(
        f"model: {model}\nsamples: 4\nmetrics: [fd_cifar]\n"
        "reference: cifar10-mixture\ngrid: [{sampler: ddim, steps: 3}]\n"
    )
    with pytest.raises(AssertionError, match="asked for the network"):
        sampled(tmp_path, sweep)
