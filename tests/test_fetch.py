"""What a sweep needs: found without a network, brought where it can be, named where it cannot."""

import hashlib
import importlib
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from bench import fetch, models
from bench import sweep as sweeps
from bench.errors import ModelError, SweepError
from bench.fetch import Need, needs
from bench.metrics import inception, kept_features, reference, registry
from bench.metrics.inception import FILE
from bench.metrics.registry import METRICS
from bench.models import diffusers
from tests import fakes
from tests.inception_file import write as write_inception
from tests.models.test_diffusers import write_folder
from tests.test_cli import bench

SWEEPS = Path(__file__).parents[1] / "sweeps"


def refuse(*_: Any, **__: Any) -> Any:
    pytest.fail("asked for the network")


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and no network."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("BENCH_INCEPTION", raising=False)
    for module in ("constants", "file_download.constants"):
        monkeypatch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", str(tmp_path / "hf/hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(diffusers, "snapshot_download", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", refuse)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inception") / FILE
    write_inception(path, images=4)
    return path


@pytest.fixture
def forget_inception() -> Any:
    yield
    registry._open_inception.cache_clear()


def write_sweep(
    tmp_path: Path, *, model: str = "cifar10-mixture", metric: str, of: str = "cifar10-train"
) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"model: {model}\nsamples: 100\nmetrics: [{metric}]\nreference: {of}\n"
        "grid: [{sampler: ddim, steps: 3}]\n"
    )
    return file


def test_quickstart_has_everything() -> None:
    model, statistics = needs(SWEEPS / "quickstart.yaml")
    assets = Path(fetch.__file__).parent / "assets"
    weights = assets / "cifar10-mixture.safetensors"
    assert model == Need(
        "model cifar10-mixture",
        weights,
        True,
        weights.stat().st_size,
        hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    file = assets / "reference/cifar10-mixture.cifar-features.npz"
    assert statistics == Need(
        "statistics of cifar10-mixture in the features of cifar-features",
        file,
        True,
        file.stat().st_size,
        reference.read(file).digest,
    )


def test_the_cluster_sweep_lists_what_is_missing(tmp_path: Path) -> None:
    found = needs(SWEEPS / "cifar10-fid.yaml")
    assert not any(need.present for need in found)
    assert all(need.bring is not None for need in found)
    hub, cache = tmp_path / "hf/hub/models--google--ddpm-cifar10-32", tmp_path / "cache"
    weights = tmp_path / "torch/hub/checkpoints" / FILE
    assert [(need.what, need.place, need.remedy) for need in found] == [
        (
            "model google/ddpm-cifar10-32",
            hub,
            "Missing: config.json, scheduler_config.json, diffusion_pytorch_model.safetensors. "
            f"Copy the folder {hub} from a machine that has it (HF_HOME names another place than "
            f"{tmp_path}/hf). Or: copy the checkpoint's folder (config.json, scheduler_config.json "
            "and diffusion_pytorch_model.safetensors, at the top or in unet/ and scheduler/) to "
            "this machine and write path: ./FOLDER.",
        ),
        (
            "Inception-v3 weights",
            weights,
            f"Put the file there, from {URL_INCEPTION_V3}, or set BENCH_INCEPTION to where it is.",
        ),
        (
            "CIFAR-10, to build the statistics from",
            cache / "data/cifar-10-batches-py",
            f"Put the folder cifar-10-batches-py (or cifar-10-python.tar.gz) into {cache}/data, "
            f"from {torchvision.datasets.CIFAR10.url}.",
        ),
        (
            "statistics of cifar10-train in the features of inception-v3",
            cache / "reference/cifar10-train.inception-v3.npz",
            "To build them takes the weights of the network, which come first. Or copy "
            f"cifar10-train.inception-v3.npz to {cache}/reference from a machine that has it "
            f"(BENCH_CACHE names another cache than {cache}).",
        ),
    ]


def test_statistics_copied_before_the_weights_are_there(tmp_path: Path) -> None:
    place = tmp_path / "cache/reference/cifar10-train.inception-v3.npz"
    place.parent.mkdir(parents=True)
    np.savez(place, mu=np.zeros(2048), sigma=np.eye(2048))
    weights, statistics = needs(write_sweep(tmp_path, metric="fid"))[1:]
    assert (weights.present, statistics.present, statistics.place) == (False, True, place)


@pytest.mark.usefixtures("forget_inception")
def test_inception_by_its_variable(
    tmp_path: Path, inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_INCEPTION", str(inception_file))
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    weights, data, statistics = needs(write_sweep(tmp_path, metric="fd_inception"))[1:]
    size = inception_file.stat().st_size
    assert weights == Need("Inception-v3 weights", inception_file, True, size, digest)
    assert not data.present
    name = f"inception-{digest[:8]}"
    assert statistics.place == tmp_path / f"cache/reference/cifar10-train.{name}.npz"
    assert statistics.remedy == (
        f'There are no statistics of "cifar10-train" in the features of {name}. Did you mean '
        '"cifar10-test"? Build them with "bench reference cifar10-train --metric fd_inception", or '
        f"give the path of an npz file. Or copy {statistics.place.name} to "
        f"{statistics.place.parent} from a machine that has it (BENCH_CACHE names another cache "
        f"than {tmp_path}/cache)."
    )
    # The same file is not the one that fid wants, and downloading would not change that.
    other = needs(write_sweep(tmp_path, metric="fid"))[1]
    assert (other.present, other.place, other.bring) == (False, inception_file, None)
    assert other.remedy.startswith(f"The Inception weights at {inception_file} are not the publis")


def test_variable_that_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "none.pth"))
    weights = needs(write_sweep(tmp_path, metric="fid"))[1]
    assert (weights.place, weights.bring) == (tmp_path / "none.pth", None)
    assert weights.remedy == (
        f"BENCH_INCEPTION names this place. Put {FILE} there, from {URL_INCEPTION_V3}, or unset it."
    )


def test_models_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = write_folder(tmp_path / "network", flat=True)
    (network / "scheduler_config.json").rename(network / "kept.json")
    file = write_sweep(
        tmp_path,
        model="[{kind: diffusers, path: ./network}, {kind: mixture, name: mine.safetensors}, "
        "{kind: consistency, of: mine.safetensors}, {kind: diffusers, path: ./nowhere}]",
        metric="fd_cifar",
    )
    folder, mixture, nowhere, statistics = needs(file)
    assert statistics.present
    assert (folder.place, folder.present, folder.bring) == (Path("network"), False, None)
    assert folder.remedy.startswith("Missing: scheduler_config.json. Copy the checkpoint's folder")
    assert (nowhere.place, nowhere.present, nowhere.bring) == (Path("nowhere"), False, None)
    assert mixture.remedy == (
        "Missing: mine.safetensors. Copy the file to mine.safetensors, or make one: bench train "
        "mixture --out mine.safetensors."
    )
    (network / "kept.json").rename(network / "scheduler_config.json")
    fakes.write_mixture(tmp_path / "mine.safetensors")
    folder, mixture, _, _ = needs(file)
    assert folder.present
    weights = (network / "diffusion_pytorch_model.safetensors").read_bytes()
    assert folder.digest == hashlib.sha256(weights).hexdigest()
    assert mixture.present


def test_pickles_and_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    file = write_sweep(
        tmp_path,
        model="[{kind: edm, path: nets/net.pkl}, {kind: torch, path: 'nets_to_fetch:make'}]",
        metric="fd_cifar",
    )
    pickle, function, _ = needs(file)
    assert (pickle.what, pickle.place, pickle.present) == (
        "model net",
        Path("nets/net.pkl"),
        False,
    )
    assert pickle.bring is None
    assert pickle.remedy == (
        "Missing: net.pkl. Copy it there by hand: pickles are not fetched. NVIDIA's are at "
        "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/."
    )
    assert (function.what, function.present, function.bring) == (
        "model nets_to_fetch:make",
        False,
        None,
    )
    assert function.remedy == (
        "Missing: nets_to_fetch. It must be installed, or on PYTHONPATH, here and where the cells "
        "run."
    )
    (tmp_path / "nets").mkdir()
    # Neither is opened for this: no trust is asked for, and no code runs.
    (tmp_path / "nets/net.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    (tmp_path / "nets_to_fetch.py").write_text("raise RuntimeError")
    importlib.invalidate_caches()
    pickle, function, _ = needs(file)
    for need, path in ((pickle, "nets/net.pkl"), (function, "nets_to_fetch.py")):
        digest = hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
        assert (need.present, need.digest) == (True, digest)


def test_statistics_by_path(tmp_path: Path) -> None:
    path = tmp_path / "refs/mine.npz"
    statistics = needs(write_sweep(tmp_path, metric="fd_cifar", of=str(path)))[-1]
    assert (statistics.place, statistics.bring) == (path, None)
    assert statistics.remedy == (
        f"There is no file {path}. Or copy mine.npz to {path.parent} from a machine that has it."
    )


def test_features_are_a_part_of_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for metric in ("fd_tiny", "kd_tiny"):
        monkeypatch.setitem(METRICS, metric, fakes.TINY[metric])
    file = write_sweep(tmp_path, metric="fd_tiny, kd_tiny", of="cifar10-test")
    statistics = needs(file)[-1]
    place = reference.place("cifar10-test", fakes.TinyExtractor())
    beside = kept_features.place(place)
    assert f"Or copy {place.name} and {beside.name} to {place.parent} from" in statistics.remedy
    pictures = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    monkeypatch.setattr(reference, "cifar10_images", lambda *_: pictures)
    assert statistics.bring is not None
    statistics.bring("cpu", lambda done, total: None)
    there = needs(file)[-1]
    assert there.size == place.stat().st_size + beside.stat().st_size
    beside.unlink()
    assert needs(file)[-1].remedy.startswith(f"{place} has no features of its images beside it")


def test_wrong_sweeps(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("model: cifar10-mixtur\nsamples: 9\nmetrics: [fdi]\nreference: x\ngrid: [{}]\n")
    with pytest.raises(SweepError) as error:
        needs(file)
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{file}, line {n}" for n in (1, 3)]
    assert 'There is no model "cifar10-mixtur". Did you mean' in lines[0]
    assert 'There is no metric "fdi"' in lines[1]


def hub(folder: Path, to: Path) -> Callable[..., str]:
    """`snapshot_download` from a folder, in the layout of the hub's cache."""

    def snapshot_download(path: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        repository = to / f"models--{path.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("0" * 40)
        for name in allow_patterns:
            if (folder / name).is_file():
                (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(folder / name, snapshot / name)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs/main").write_text("0" * 40)
        return str(snapshot)

    return snapshot_download


@pytest.mark.slow  # features of a few images, and a square root of 2048 x 2048
@pytest.mark.usefixtures("forget_inception")
def test_after_a_fetch_nothing_asks_for_the_network(
    tmp_path: Path,
    inception_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole of the cluster's sweep, from a hub, a server and a data set of this machine."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

    class Small(torchvision.datasets.CIFAR10):
        def __init__(self, root: str, train: bool, download: bool) -> None:
            self.data = pictures

    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    network = write_folder(tmp_path / "network")
    with monkeypatch.context() as patch:
        patch.setattr(inception, "URL_INCEPTION_V3", inception_file.as_uri())
        patch.setattr(diffusers, "snapshot_download", hub(network, tmp_path / "hf/hub"))
        patch.setattr(torchvision.datasets, "CIFAR10", Small)
        monkeypatch.setattr(inception, "PUBLISHED", digest[:8])
        said = bench(capsys, "fetch", SWEEPS / "cifar10-fid.yaml")
    assert said.code == 0, said.err
    assert said.err == ""
    assert said.out.endswith(f"Everything that {SWEEPS / 'cifar10-fid.yaml'} needs is there.\n")
    assert said.out.count("there  ") == 3  # the data set is not needed any more

    again = bench(capsys, "fetch", SWEEPS / "cifar10-fid.yaml")
    assert (again.code, again.out) == (0, said.out)
    sweep = sweeps.load(SWEEPS / "cifar10-fid.yaml")
    models.load(models.describe(sweep.cells()[0].model), "cpu")
    (bound,) = registry.bind(sweep.metrics, sweep.reference)
    assert bound.reference.moments.count == 6


def test_command_lists_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = SWEEPS / "cifar10-fid.yaml"
    said = bench(capsys, "fetch", file, "--list")
    assert (said.code, said.err) == (1, "")
    lines = said.out.splitlines()
    assert lines[:2] == [
        "MISSING  model google/ddpm-cifar10-32",
        f"         {tmp_path}/hf/hub/models--google--ddpm-cifar10-32",
    ]
    assert lines[-1] == f'4 of 4 are missing. "bench fetch {file}" tries to get 4 of them.'
    listed = json.loads(bench(capsys, "fetch", file, "--list", "--json").out)
    assert listed == [need.facts() for need in needs(file)]
    assert listed[1]["automatic"]


def test_command_finds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(capsys, "fetch", SWEEPS / "quickstart.yaml")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "there    model cifar10-mixture"
    assert lines[2].startswith("         4.8 MB, sha256 f44f5860")
    assert lines[-1] == f"Everything that {SWEEPS / 'quickstart.yaml'} needs is there."


def test_command_says_why_something_could_not_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(diffusers, "snapshot_download", offline)
    file = write_sweep(tmp_path, model="{kind: diffusers, path: a/b}", metric="fd_cifar")
    said = bench(capsys, "fetch", file)
    assert said.code == 1
    assert said.err.startswith(
        'model a/b: There is no folder "a/b", and the hub does not give one (Network is unreachable'
    )
    assert said.out.splitlines()[-1] == "1 of 2 are missing."
    with pytest.raises(ModelError):
        models.describe({"kind": "diffusers", "path": "a/b"})
