"""Networks that a function makes: each target, schedule and time against an exact pair."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench import sweep
from bench.diffusion.denoiser import per_sample
from bench.errors import ModelError, SweepError
from bench.models import Model, describe, files
from bench.models.function import TARGETS, TIMES
from tests import fakes
from tests.models.edm_file import MEAN, VARIANCE, exact

# The network as its author has it: alpha and sigma are found from the time alone, by formulas of
# its own, so that a wrong time gives a wrong prediction.
NETWORKS = f"""
import math
import torch

MEAN, VARIANCE = {MEAN}, {VARIANCE}
BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
LOG_ALPHAS = 0.5 * torch.log1p(-BETAS).cumsum(0)


def levels(schedule, time, told):
    told = told.double()
    if time in ("sigma", "lambda"):
        s = told if time == "sigma" else torch.exp(-told)
        return {{
            "vp-linear": ((1 + s**2) ** -0.5, s * (1 + s**2) ** -0.5),
            "edm": (torch.ones_like(s), s),
            "flow": (1 / (1 + s), s / (1 + s)),
        }}[schedule]
    if schedule == "edm":
        return torch.ones_like(told), told
    if schedule == "flow":
        return 1 - told, told
    index = 1000 * told - 1 if time == "unit" else told
    below = index.long().clamp(max=998)
    left, right = LOG_ALPHAS[below], LOG_ALPHAS[below + 1]
    alpha = torch.exp(left + (index - below) * (right - left))
    return alpha, (1 - alpha**2) ** 0.5


class Network(torch.nn.Module):
    def __init__(self, target, schedule, time):
        super().__init__()
        self.target, self.schedule, self.time = target, schedule, time
        self.mean = torch.nn.Parameter(torch.tensor(MEAN).view(1, -1, 1, 1))
        self.register_buffer("variance", torch.tensor(VARIANCE).view(1, -1, 1, 1))

    def forward(self, x, told):
        assert told.shape == x.shape[:1] and not self.training
        assert told.dtype == (torch.int64 if self.time == "rounded" else torch.float32)
        alpha, sigma = (v.view(-1, 1, 1, 1) for v in levels(self.schedule, self.time, told))
        if self.target == "D":  # its image has no scale
            alpha, sigma = torch.ones_like(alpha), sigma / alpha
        x, mean, variance = x.double(), self.mean.double(), self.variance.double()
        eps = sigma * (x - alpha * mean) / (alpha**2 * variance + sigma**2)
        x0 = (x - sigma * eps) / alpha
        return {{
            "eps": eps,
            "x0": x0,
            "D": x0,
            "v": alpha * eps - sigma * x0,
            "score": -eps / sigma,
            "velocity": eps - x0,
        }}[self.target].float()


def make():
    return Network("eps", "vp-linear", "real")


def plain():
    return lambda x, time: 0 * x


class Named:
    digest = "weights of the year"

    def __call__(self, x, time):
        return x


def small():
    return lambda x, time: x[:, :2]


def fails():
    return lambda x, time: x @ x.new_zeros(7, 7)


def nothing():
    return None


def broken():
    raise FileNotFoundError("weights.pt")


class Layer(torch.nn.Conv2d):
    def __init__(self):
        super().__init__(3, 3, 1)

    def forward(self, x, time):
        assert x.dtype == self.weight.dtype
        return super().forward(x)
"""
DESCRIPTION = {
    "kind": "torch",
    "path": "own_networks:make",
    "target": "eps",
    "schedule": "vp-linear",
    "time": "real",
    "shape": [3, 4, 4],
}


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the module `own_networks`."""
    path = tmp_path / "own_networks.py"
    path.write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop("own_networks", None)


def add(module: Path, text: str) -> None:
    module.write_text(f"{module.read_text()}\n\n{text}\n")
    sys.modules.pop("own_networks", None)


def load(**more: Any) -> Model:
    return describe({**DESCRIPTION, **more}).load("cpu")


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))


COMBINATIONS = [
    (schedule, time)
    for schedule in ("vp-linear", "edm", "flow")
    for time in TIMES
    if schedule == "vp-linear" or time not in ("rounded", "unit")
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("schedule", "time"), COMBINATIONS)
def test_pair_is_the_exact_one(module: Path, target: str, schedule: str, time: str) -> None:
    add(module, f"def one():\n    return Network({target!r}, {schedule!r}, {time!r})")
    model = load(path="own_networks:one", target=target, schedule=schedule, time=time)
    x = images()
    points = [model.schedule.at(s=s) for s in (0.05, 0.8, 6.0)]
    if time == "rounded":
        points = [model.schedule.at(t=round(point.t)) for point in points]
    for point in points:
        x0, eps = model.denoiser()(x, point)
        expected = exact(x.double(), point.alpha, point.sigma)
        # What is divided by alpha or sigma has their rounding, and t is told in float32.
        torch.testing.assert_close(x0.double(), expected[0], rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(eps.double(), expected[1], rtol=1e-3, atol=1e-3)
    together = model.denoiser()(x, per_sample(points, x))
    for i, point in enumerate(points):
        alone = model.denoiser()(x, point)
        for part, whole in zip(together, alone, strict=True):
            torch.testing.assert_close(part[i], whole[i], rtol=1e-3, atol=1e-3)


def test_images_are_those_of_the_mixture_itself(tmp_path: Path, module: Path) -> None:
    """A mixture as somebody's own velocity network, on the same grid and noise."""
    path = fakes.write_mixture(tmp_path / "tiny.safetensors")
    add(
        module,
        "from bench.models.mixture import Mixture\n\n\n"
        "def mixture():\n"
        f"    exact = Mixture.load({str(path)!r})\n\n"
        "    def network(x, time):\n"
        "        t = time.view(-1, 1, 1, 1).double()\n"
        "        x0, eps = exact.denoise(x, 1 - t, t)\n"
        "        return eps - x0\n\n"
        "    return network",
    )
    own = load(path="own_networks:mixture", target="velocity", schedule="flow")
    mixture = describe({"kind": "mixture", "name": str(path), "schedule": "flow"}).load("cpu")
    x, points = images(), [own.schedule.at(t=t) for t in np.linspace(0.95, 0.05, 7)]
    ends = []
    for model in (own, mixture):
        denoise, y = model.denoiser(), x
        for a, b in zip(points, [*points[1:], own.schedule.clean], strict=True):
            x0, eps = denoise(y, a)
            y = b.alpha * x0 + b.sigma * eps
        ends.append(y)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-4)
    assert ends[0].std() > 0.1


def test_description_round_trip() -> None:
    spec = describe(DESCRIPTION)
    assert spec.canonical() == {**DESCRIPTION, "dtype": "float32"}
    assert describe(spec.canonical()) == spec
    assert (spec.exact, spec.exact_score) == (False, False)
    assert spec.label == "own_networks:make"
    assert describe({**DESCRIPTION, "dtype": "bfloat16"}).label == "own_networks:make (bfloat16)"


def test_a_schedule_with_other_settings() -> None:
    own = {"name": "vp-linear", "beta-max": 0.01, "T": 400}
    spec = describe({**DESCRIPTION, "schedule": own})
    assert spec.schedule().num_train == 400
    assert spec.canonical()["schedule"] == {**own, "beta-min": 1e-4}
    assert describe(spec.canonical()) == spec
    usual = describe({**DESCRIPTION, "schedule": {"name": "edm", "sigma-max": 80}})
    assert usual.canonical()["schedule"] == "edm"


def test_digest_is_that_of_the_weights_and_the_record_says_so(module: Path) -> None:
    first = load()
    assert first.notes == {
        "target": "eps",
        "time": "real",
        "digest": "of the module's weights (state_dict)",
    }
    add(module, "# A comment changes nothing.")
    assert load().digest == first.digest
    assert load(dtype="bfloat16").digest == first.digest
    module.write_text(NETWORKS.replace(str(MEAN), str((MEAN[0] + 1e-6, *MEAN[1:]))))
    sys.modules.pop("own_networks")
    assert load().digest != first.digest


def test_digest_of_what_has_no_weights(module: Path) -> None:
    model = load(path="own_networks:plain")
    assert model.notes["digest"] == "of the source of own_networks"
    assert model.digest == hashlib.sha256(module.read_bytes()).hexdigest()
    add(module, "class Both(Layer):\n    digest = 'its weights say more'")
    assert load(path="own_networks:Both").notes["digest"].startswith("of the module's weights")
    named = load(path="own_networks:Named")
    assert (named.digest, named.notes["digest"]) == (
        "weights of the year",
        "as the network gives it",
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_computes_in_the_dtype_and_gives_float32(dtype: str) -> None:
    model = load(path="own_networks:Layer", dtype=dtype)
    point = model.schedule.at(t=500)
    x0, eps = model.denoiser()(images(), point)
    assert {x0.dtype, eps.dtype} == {torch.float32}
    assert model.dtype == dtype
    # A prediction holds what the dtype can hold, whatever it is converted to afterwards.
    assert torch.equal(eps.to(getattr(torch, dtype)).float(), eps)
    assert torch.equal(eps.half().float(), eps) == (dtype != "float32")
    assert torch.equal(eps.bfloat16().float(), eps) == (dtype == "bfloat16")


def test_files_are_the_source(module: Path) -> None:
    found = files(DESCRIPTION)
    assert (found.label, found.place, found.weights) == ("own_networks:make", module, module)
    missing = files({**DESCRIPTION, "path": "no_such.networks:make"})
    assert (missing.weights, missing.missing) == (None, ("no_such.networks",))
    assert missing.remedy == (
        "It must be installed, or on PYTHONPATH, here and where the cells run."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path": "own_networks"},
            "model.path is 'own_networks'; expected module:function, such as mypackage.nets:make.",
        ),
        (
            {"path": "no_such_networks:make"},
            'model.path is "no_such_networks:make", and no_such_networks cannot be imported '
            "(ModuleNotFoundError: No module named 'no_such_networks'). It must be installed, or "
            "on PYTHONPATH, here and where the cells run.",
        ),
        (
            {"path": "own_networks:makes"},
            'model.path is "own_networks:makes", and {0} has no function "makes". Did you mean '
            '"make"?',
        ),
        (
            {"target": "epsilon"},
            'model.target is "epsilon"; expected eps or x0 or v or score or velocity or D. Did you '
            'mean "eps"?',
        ),
        (
            {"time": None},
            'model.time is "None"; expected real or rounded or unit or sigma or lambda.',
        ),
        (
            {"schedule": "edm", "time": "rounded"},
            "model.time is rounded, and edm has no trained indices. Write time: real for its own "
            "t, from 0.002 to 80.",
        ),
        (
            {"schedule": {"name": "vp-linear", "beta-mx": 0.01}},
            'model.schedule: vp-linear has no setting "beta-mx". Did you mean "beta-max"? It has: '
            "T, beta-min, beta-max.",
        ),
        (
            {"schedule": {"beta-max": 0.01}},
            'model.schedule is "None"; expected vp-linear or vp-cosine or vp-scaled-linear or edm '
            "or flow.",
        ),
        (
            {"shape": [1, 28, 28]},
            "model.shape is [1, 28, 28]; expected channels (3, RGB), height and width, such as "
            "[3, 32, 32].",
        ),
        (
            {"shape": 32},
            "model.shape is 32; expected channels (3, RGB), height and width, such as [3, 32, 32].",
        ),
        (
            {"dtype": "half"},
            'model.dtype is "half"; expected float32 or bfloat16 or float16.',
        ),
        (
            {"trust": True},
            'model of kind torch: there is no key "trust". Known are: kind, path, target, '
            "schedule, time, shape, dtype.",
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_descriptions(module: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        describe({**DESCRIPTION, **changes})
    assert str(caught.value) == message.format(module)


def test_a_module_that_cannot_be_imported(module: Path) -> None:
    add(module, "raise RuntimeError('no licence')")
    with pytest.raises(ModelError, match=r"cannot be imported \(RuntimeError: no licence\)"):
        describe(DESCRIPTION)


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        (
            "small",
            {},
            "own_networks:small: the network gives (1, 2, 4, 4) for an image of shape "
            "(1, 3, 4, 4); expected the same. Correct model.shape, or the function.",
        ),
        (
            "fails",
            {},
            "own_networks:fails: the network fails for an image of shape (1, 3, 4, 4) "
            "(RuntimeError: ",
        ),
        (
            "nothing",
            {},
            "own_networks:nothing() gives a NoneType; expected a torch module, or another "
            "callable (x, time) -> prediction.",
        ),
        (
            "broken",
            {},
            "own_networks:broken() failed: FileNotFoundError: weights.pt (own_networks.py:",
        ),
        (
            "Network",
            {},
            "own_networks:Network() failed: TypeError: ",
        ),
    ],
)
def test_what_the_function_gives_cannot_be_used(name: str, more: dict[str, Any], said: str) -> None:
    spec = describe({**DESCRIPTION, "path": f"own_networks:{name}", **more})
    with pytest.raises(ModelError) as caught:
        spec.load("cpu")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        ("torch.OutOfMemoryError('CUDA out of memory')", torch.OutOfMemoryError),
        ("MemoryError()", MemoryError),
    ],
)
def test_want_of_memory_is_not_taken_for_a_wrong_shape(
    module: Path, make: str, error: type[Exception]
) -> None:
    add(
        module, f"def large():\n    def network(x, time):\n        raise {make}\n    return network"
    )
    spec = describe({**DESCRIPTION, "path": "own_networks:large"})
    with pytest.raises(error):
        spec.load("cpu")


def test_mistakes_stand_with_their_line_in_the_sweep() -> None:
    with pytest.raises(SweepError) as caught:
        sweep.parse(
            "model:\n"
            "  - cifar10-mixture\n"
            "  - {kind: torch, path: own_networks:make, target: eps, schedule: edm, time: unit,\n"
            "     shape: [3, 32, 32]}\n"
            "samples: 10\nmetrics: [fd_cifar]\nreference: cifar10-mixture\n"
            "grid: [{sampler: ddim, spacing: karras, steps: 3}]\n"
        )
    assert str(caught.value).startswith("sweep.yaml, line 3: model.time is unit, and edm has no")
