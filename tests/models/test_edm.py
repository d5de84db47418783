"""EDM's pickles: what is run of them and when, against a Gaussian's exact denoiser."""

import hashlib
import io
import math
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import models, sweep
from bench.diffusion.denoiser import per_sample
from bench.errors import ModelError, SweepError
from bench.models import Model, describe, edm_pickle
from tests.models import edm_file
from tests.models.edm_file import SIDE, SOURCE, exact, write

LAYOUT = (
    "expected NVIDIA's layout, {'ema': network} with an EDMPrecond, VPPrecond, VEPrecond or "
    "iDDPMPrecond"
)


def spec(path: Path, **more: Any) -> Any:
    return describe({"kind": "edm", "path": str(path), "trust": True, **more})


def load(path: Path, **more: Any) -> Model:
    return spec(path, **more).load("cpu")  # type: ignore[no-any-return]


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("schedule", ["edm", "vp-linear", "vp-scaled-linear"])
def test_pair_is_that_of_the_network_on_any_schedule(tmp_path: Path, schedule: str) -> None:
    model = load(write(tmp_path / "net.pkl"), schedule=schedule)
    denoise, x = model.denoiser(), images()
    points = [model.schedule.at(s=s) for s in (0.05, 0.7, 10.0)]
    for point in points:
        found = denoise(point.alpha * x, point)
        expected = exact(point.alpha * x, point.alpha, point.sigma)
        # eps is a difference over sigma, in float32.
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6 / point.s)
    assert denoise.nfe == 3
    together = denoise(x, per_sample(points, x))
    for i, point in enumerate(points):
        alone = denoise(x, point)
        for part, whole in zip(together, alone, strict=True):
            torch.testing.assert_close(part[i], whole[i], rtol=1e-5, atol=1e-6 / point.s)


def test_record_says_what_the_network_is(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl")
    model = load(path)
    assert model.shape == (3, SIDE, SIDE)
    assert (model.dtype, model.digest) == (
        "float32",
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    assert model.notes == {
        "target": "D",
        "network": "EDMPrecond",
        "weights": "ema",
        "time": "real",
        "digest": "of the file",
    }
    rounding = load(write(tmp_path / "iddpm.pkl", "iDDPMPrecond"))
    assert rounding.notes["time"] == "rounded to trained noise levels by the network"
    assert rounding.notes["network"] == "iDDPMPrecond"


def test_description_round_trip(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl")
    found = spec(path)
    assert found.canonical() == {
        "kind": "edm",
        "path": str(path),
        "trust": True,
        "schedule": "edm",
        "dtype": "float32",
    }
    assert describe(found.canonical()) == found
    assert (found.exact, found.exact_score) == (False, False)
    assert found.label == "net"
    assert spec(path, schedule="vp-linear").label == "net (vp-linear)"


@pytest.mark.parametrize(
    ("network", "ends"),
    [
        ("EDMPrecond", (0.002, 80.0)),  # says it knows all: EDM's own range
        ("VEPrecond", (0.02, 100.0)),
        ("iDDPMPrecond", (0.0064, 20291.0)),
    ],
)
def test_range_of_the_schedule_is_the_network_s(
    tmp_path: Path, network: str, ends: tuple[float, float]
) -> None:
    schedule = spec(write(tmp_path / "net.pkl", network)).schedule()
    assert (schedule.t_min, schedule.t_max) == ends


PROOF = """
import sys
import numpy as np
sys.proof_that_code_ran = True
"""


def test_describing_runs_no_code_and_loading_leaves_no_module(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl")
    # Put into the file afterwards, because writing runs the source as well.
    data = path.read_bytes()
    proof = SOURCE.replace("import numpy as np\n", PROOF)
    assert proof != SOURCE
    with edm_file.repository():
        pass
    path.write_bytes(_with_source(data, proof))
    before = dict(sys.modules)
    try:
        found = spec(path)
        assert not hasattr(sys, "proof_that_code_ran")
        model = found.load("cpu")
        assert hasattr(sys, "proof_that_code_ran")
    finally:
        vars(sys).pop("proof_that_code_ran", None)
    model.denoiser()(images(), model.schedule.at(t=1.0))
    assert {
        name
        for name in set(sys.modules) - set(before)
        if name.startswith(("torch_utils", "dnnlib"))
    } == set()
    assert not any("edm_pickle_source" in name for name in sys.modules)


class Evil:
    """What a pickle can do to whoever opens it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.proof}",)


def test_what_a_pickle_calls_is_not_called_to_describe_it(tmp_path: Path) -> None:
    path, proof = tmp_path / "net.pkl", tmp_path / "proof"
    path.write_bytes(pickle.dumps({"ema": Evil(proof), "more": [Evil(proof)]}))
    with pytest.raises(ModelError, match="holds no saved network under 'ema'"):
        spec(path)
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists()  # the file is as dangerous as it should be


def _with_source(data: bytes, source: str) -> bytes:
    """The pickle `data` with another source, of which there is one text for all objects."""
    old, new = SOURCE.encode(), source.encode()
    assert data.count(old) == 1
    place = data.index(old)
    # BINUNICODE: a letter and the length in four bytes.
    assert data[place - 5 : place] == b"X" + len(old).to_bytes(4, "little")
    head = data[: place - 5] + b"X" + len(new).to_bytes(4, "little")
    return _unframed(head + new + data[place + len(old) :])


def _unframed(data: bytes) -> bytes:
    """Without the frames of protocol 4, whose lengths would be wrong now."""
    out, place = b"", 0
    while (at := data.find(b"\x95", place)) >= 0 and at < 11:
        out += data[place:at]
        place = at + 9
    return out + data[place:]


def test_weights_that_were_saved_on_a_gpu_are_loaded_on_the_cpu() -> None:
    weights = torch.arange(3.0)
    _, (data,), *_ = weights._typed_storage().__reduce__()
    here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert data.count(here) == 1
    loader = edm_pickle._Loader(io.BytesIO())
    load_from_bytes = loader.find_class("torch.storage", "_load_from_bytes")
    loaded = load_from_bytes(data.replace(here, there))._untyped_storage
    assert loaded.device.type == "cpu"
    assert loaded.tolist() == weights.untyped_storage().tolist()


@pytest.mark.parametrize("trust", [None, False, "true", 1], ids=str)
def test_a_pickle_without_trust_is_refused_unread(tmp_path: Path, trust: object) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(b"what is in it does not matter")
    description = {"kind": "edm", "path": str(path)}
    with pytest.raises(ModelError) as caught:
        describe(description if trust is None else {**description, "trust": trust})
    assert str(caught.value) == (
        f"model.trust is {False if trust is None else trust!r}, and {path} is a pickle: to load it "
        "runs Python code out of the file, which can do whatever you can. If you know who made it "
        "and that it has not been changed since, write trust: true."
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        spec(tmp_path / "none.pkl")
    assert str(caught.value) == (
        f'There is no file "{tmp_path}/none.pkl". Copy it there by hand: pickles are not fetched. '
        "NVIDIA's are at https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/."
    )
    with pytest.raises(ModelError, match=r"model.path is None; expected the path of a .pkl file"):
        describe({"kind": "edm", "trust": True})


@pytest.mark.parametrize("left", [0, 1, 40, 400, -1, -40])
def test_truncated_file(tmp_path: Path, left: int) -> None:
    path = write(tmp_path / "net.pkl")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ModelError) as caught:
        spec(path)
    assert str(caught.value).startswith(f"{path} cannot be unpickled (")
    assert "It is torn, needs another version of PyTorch, or is no pickle of EDM's" in str(
        caught.value
    )


def test_checkpoints_of_torch_save_are_something_else(tmp_path: Path) -> None:
    path = tmp_path / "net.pkl"
    torch.save({"ema": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(ModelError, match="load it in a function of your own, kind: torch"):
        spec(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"G_ema": 1, "D": 2}, "holds a dictionary of 'G_ema', 'D'"),
        ([1, 2], "holds a list"),
        ({"ema": {"weight": 1}}, "holds no saved network under 'ema'"),
        ({"ema": torch.nn.Linear(2, 2)}, "holds no saved network under 'ema'"),
    ],
    ids=["keys", "list", "weights", "module"],
)
def test_pickles_that_are_no_edm_file(tmp_path: Path, data: object, said: str) -> None:
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(data))
    with pytest.raises(ModelError) as caught:
        spec(path)
    assert str(caught.value) == f"{path} {said}; {LAYOUT}."


def test_a_network_of_another_family(tmp_path: Path) -> None:
    source = SOURCE.replace(
        "self.sigma_min, self.sigma_max = self.sigma_min, self.sigma_max", "self.z_dim = 512"
    )
    path = write(tmp_path / "net.pkl", source=source)
    with pytest.raises(ModelError) as caught:
        spec(path)
    assert str(caught.value) == (
        f"{path} holds a EDMPrecond without sigma_min (found: None); {LAYOUT}."
    )


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        (
            {"labels": 10},
            {},
            "{0} is class-conditional (10 classes); only unconditional networks can be run. Take "
            "an unconditional one, or give it labels in a function of your own, kind: torch.",
        ),
        (
            {"channels": 1},
            {},
            "{0}: the network takes 1 channels; expected 3 (RGB). Latents and grey images cannot "
            "be scored.",
        ),
        (
            {},
            {"dtype": "float16"},
            "model.dtype is float16, and {0} was saved without (use_fp16 is false). Write dtype: "
            "float32.",
        ),
        (
            {},
            {"dtype": "bfloat16"},
            'model.dtype is "bfloat16"; expected float32 or float16. Did you mean "float16"?',
        ),
        (
            {},
            {"schedule": "vp-liner"},
            'model.schedule is "vp-liner"; expected vp-linear or vp-cosine or vp-scaled-linear or '
            'edm or flow. Did you mean "vp-linear"?',
        ),
        (
            {},
            {"time": "real"},
            'model of kind edm: there is no key "time". Known are: kind, path, trust, schedule, '
            "dtype.",
        ),
        (
            {},
            {"schedule": "flow"},
            "model.schedule is flow, whose noise levels sigma / alpha run from 0.001 to inf, and "
            "the EDMPrecond in {0} knows 0 to inf. Leave schedule out: edm keeps to the network's "
            "range.",
        ),
    ],
)
def test_networks_that_cannot_be_run(
    tmp_path: Path, settings: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "net.pkl", **settings)
    with pytest.raises(ModelError) as caught:
        spec(path, **more)
    assert str(caught.value) == message.format(path)


def test_a_schedule_that_contradicts_the_checkpoint_is_refused_with_its_line(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "net.pkl", "VEPrecond")
    with pytest.raises(SweepError) as caught:
        sweep.parse(
            "# What does a VE network know?\n"
            f"model:\n  - {{kind: edm, path: {path}, trust: true, schedule: vp-linear}}\n"
            "samples: 10\nmetrics: [fd_cifar]\nreference: cifar10-mixture\n"
            "grid: [{sampler: ddim, steps: 3}]\n"
        )
    (line,) = str(caught.value).splitlines()
    assert line == (
        "sweep.yaml, line 3: model.schedule is vp-linear, whose noise levels sigma / alpha run "
        f"from 0.01 to 157, and the VEPrecond in {path} knows 0.02 to 100. Leave schedule out: edm "
        "keeps to the network's range."
    )


def test_a_spacing_of_indices_contradicts_it_too(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl")
    with pytest.raises(SweepError) as caught:
        sweep.parse(
            f"model: {{kind: edm, path: {path}, trust: true}}\n"
            "samples: 10\nmetrics: [fd_cifar]\nreference: cifar10-mixture\n"
            "grid:\n  - {sampler: ddim, spacing: uniform, steps: 3}\n"
        )
    assert str(caught.value).startswith(
        'sweep.yaml, line 6: grid[0].spacing: Spacing "uniform" speaks of trained indices, and edm '
        "has none."
    )


def test_half_precision_needs_a_gpu(tmp_path: Path) -> None:
    found = spec(write(tmp_path / "net.pkl", use_fp16=True), dtype="float16")
    assert found.label == "net (float16)"
    with pytest.raises(ModelError) as caught:
        found.load("cpu")
    assert str(caught.value) == (
        f"{tmp_path}/net.pkl: dtype is float16, and these networks compute in it on a GPU only; "
        "the device is cpu. Write dtype: float32."
    )


def test_a_network_for_half_precision_computes_in_float32_unless_asked(tmp_path: Path) -> None:
    model = load(write(tmp_path / "net.pkl", use_fp16=True))
    x, point = images(), model.schedule.at(t=0.7)
    torch.testing.assert_close(model.denoiser()(x, point)[0], exact(x, 1.0, 0.7)[0])
    assert model.dtype == "float32"


@pytest.mark.gpu
def test_half_precision_on_a_gpu(tmp_path: Path) -> None:
    model = spec(write(tmp_path / "net.pkl", use_fp16=True), dtype="float16").load("cuda")
    x, point = images().cuda(), model.schedule.at(t=0.7)
    found, expected = model.denoiser()(x, point)[0].cpu(), exact(images(), 1.0, 0.7)[0]
    assert model.dtype == "float16"
    assert 0 < (found - expected).abs().max() < 1e-2


@pytest.mark.slow  # compiles
def test_a_network_out_of_a_file_can_be_compiled(tmp_path: Path) -> None:
    found = spec(write(tmp_path / "net.pkl", "iDDPMPrecond"))
    plain, compiled = found.load("cpu"), models.load(found, "cpu", compiled=True)
    x, point = images(), plain.schedule.at(t=1.5)
    torch.testing.assert_close(compiled.pair(x, point), plain.pair(x, point))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "import numpy as np",
            "from torch_utils import training_stats",
            "cannot be unpickled (ImportError: cannot import name 'training_stats' from "
            "'torch_utils'",
        ),
        (
            "import numpy as np",
            "import torch_utils.ops.bias_act",
            "cannot be unpickled (ImportError: there is no stand-in for torch_utils.ops.bias_act",
        ),
        ("import numpy as np", "1 / 0", "cannot be unpickled (ZeroDivisionError: division by zero"),
        (
            "return self.model(x",
            "return self.modle(x",
            "the network fails for an image of shape (1, 3, 4, 4) (AttributeError: ",
        ),
        (
            ".to(torch.float32)",
            "[:, :2]",
            "the network gives (1, 2, 4, 4) for an image of shape (1, 3, 4, 4); expected the same. "
            "It is not one of EDM's networks.",
        ),
    ],
    ids=["name", "module", "fault", "call", "shape"],
)
def test_code_in_the_file_that_fails(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write(tmp_path / "net.pkl")
    assert old in SOURCE
    path.write_bytes(_with_source(path.read_bytes(), SOURCE.replace(old, new)))
    found = spec(path)
    with pytest.raises(ModelError) as caught:
        found.load("cpu")
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_another_version_of_the_way_of_saving(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl")
    data = path.read_bytes()
    old = b"\x8c\x07version\x94K\x06"
    assert data.count(old) == 1  # memoised: further objects refer to the key
    path.write_bytes(data.replace(old, old[:-1] + b"\x07"))
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value).startswith("EDMPrecond was saved as a class of version 7; expected")


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pkl", "VEPrecond")
    assert spec(path).schedule().t_max == 100
    write(path)
    assert spec(path).schedule().t_max == 80
    assert math.isinf(edm_pickle.facts(path).sigma_max)
