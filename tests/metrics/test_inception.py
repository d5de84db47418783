"""The Inception extractor on a file of the real layout, against torch-fidelity's own."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from bench.errors import MetricError
from bench.metrics import inception
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import batches
from bench.metrics.inception import FILE, URL_INCEPTION_V3, Inception, find_weights
from bench.metrics.moments import Moments
from tests.metrics.fakes import colours
from tests.metrics.test_images import Bomb


@pytest.fixture(scope="module")
def extractor(inception_file: Path) -> Inception:
    return Inception(inception_file, "cpu")


def test_features_are_torch_fidelitys(extractor: Inception, inception_file: Path) -> None:
    oracle = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    images = colours(0, 4, size=32)
    features = extractor(images)
    assert features.shape == (4, 2048)
    assert features.dtype == torch.float32
    # A dead network would agree with anything.
    assert 0.01 < float(features.std(dim=0).mean()) < 10
    torch.testing.assert_close(features, oracle(images)[0], rtol=1e-5, atol=1e-5)


def test_resize_is_that_of_tensorflow_1(extractor: Inception) -> None:
    """Output pixel i looks at i * 32/299, not at (i + 1/2) * 32/299 - 1/2."""
    images = colours(1, 1, size=32)
    position = np.arange(299, dtype=np.float32) * np.float32(32 / 299)
    low = position.astype(int)
    high, part = np.minimum(low + 1, 31), position - low
    pixels = images[0].numpy().astype(np.float32)
    rows = pixels[:, low] + (pixels[:, high] - pixels[:, low]) * part[:, None]
    resized = rows[:, :, low] + (rows[:, :, high] - rows[:, :, low]) * part
    seen: list[torch.Tensor] = []
    first = extractor._network.get_submodule("Conv2d_1a_3x3")
    handle = first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    extractor(images)
    handle.remove()
    np.testing.assert_allclose(seen[0].numpy(), (resized - 128) / 128, atol=1e-5)


def test_arithmetic_is_float32_whatever_surrounds_it(extractor: Inception) -> None:
    images, allowed = colours(2, 1, size=32), []
    first = extractor._network.get_submodule("Conv2d_1a_3x3")
    handle = first.register_forward_pre_hook(
        lambda *_: allowed.append(torch.backends.cudnn.allow_tf32)
    )
    plain = extractor(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        surrounded = extractor(images)
    handle.remove()
    assert torch.equal(plain, surrounded)
    assert allowed == [False, False]


def test_slices_do_not_show(extractor: Inception, monkeypatch: pytest.MonkeyPatch) -> None:
    images = colours(3, 3, size=32)
    whole = extractor(images)
    monkeypatch.setattr(inception, "SLICE", 2)
    torch.testing.assert_close(extractor(images), whole, rtol=1e-5, atol=1e-5)


def test_facts_for_the_record(extractor: Inception, inception_file: Path) -> None:
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    assert (extractor.digest, extractor.dim, extractor.numerics) == (digest, 2048, "float32")
    assert extractor.resize == "tf1-bilinear-299"
    # The name of the published network is not for every file of its layout.
    assert not extractor.published
    assert extractor.name == f"inception-{digest[:8]}"


def test_known_digest() -> None:
    assert inception.PUBLISHED == "6726825d"
    assert FILE == "weights-inception-2015-12-05-6726825d.pth"


class Images(torch.utils.data.Dataset[torch.Tensor]):
    """Images as torch-fidelity takes them: one by one, without a tuple around each."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


@pytest.mark.slow
def test_distance_is_that_of_the_tools_of_the_literature(
    extractor: Inception, inception_file: Path
) -> None:
    """From the same images and weights file; torchmetrics without its default antialiasing."""
    first, second = colours(4, 10, size=32), colours(5, 10, size=32, brightness=40)
    ours = frechet_distance(
        *(Moments.from_features(extractor(images).numpy()) for images in (first, second))
    )
    fidelity = calculate_metrics(
        input1=Images(first),
        input2=Images(second),
        feature_extractor_weights_path=str(inception_file),
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    metric = FrechetInceptionDistance(
        feature=2048, feature_extractor_weights_path=str(inception_file), antialias=False
    ).set_dtype(torch.float64)
    metric.update(first, real=True)
    metric.update(second, real=False)
    assert fidelity["frechet_inception_distance"] == pytest.approx(ours, rel=1e-3)
    assert float(metric.compute()) == pytest.approx(ours, rel=1e-3)


def test_batches_of_an_npz_are_what_it_reads(extractor: Inception) -> None:
    stored = colours(6, 2, size=32).permute(0, 2, 3, 1).numpy()
    (batch,) = batches(stored, 2)
    torch.testing.assert_close(extractor(batch), extractor(colours(6, 2, size=32)))


def test_named_file_is_taken(inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_INCEPTION", str(inception_file))
    assert find_weights() == inception_file


def test_named_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "none.pth"
    monkeypatch.setenv("BENCH_INCEPTION", str(path))
    with pytest.raises(MetricError) as error:
        find_weights()
    assert str(error.value) == (
        f"BENCH_INCEPTION is {path}, and there is no such file. Set it to the Inception weights "
        f"({FILE}), or unset it to have them downloaded."
    )


def test_cache_of_torch_fidelity_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "torch/hub/checkpoints" / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"anything")
    assert find_weights() == path


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens on port 9 of this machine: refused at once, as without a network.
    url = f"http://127.0.0.1:9/{FILE}"
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", url)
    monkeypatch.setenv("no_proxy", "*")
    path = tmp_path / "torch/hub/checkpoints" / FILE
    with pytest.raises(MetricError) as error:
        find_weights()
    assert str(error.value) == (
        f"Inception weights are not at {path} and could not be downloaded ([Errno 111] Connection "
        f"refused). Put the file there, from {url}, or set BENCH_INCEPTION to where it is."
    )
    assert list(path.parent.iterdir()) == []


def test_download_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "login.html"
    page.write_text("Please log in")
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", page.as_uri())
    path = tmp_path / "torch/hub/checkpoints" / FILE
    digest = hashlib.sha256(b"Please log in").hexdigest()
    with pytest.raises(MetricError) as error:
        find_weights()
    assert str(error.value) == (
        f"What {page.as_uri()} sent is not the published file: its sha256 begins with "
        f"{digest[:8]}, not 6726825d. Put {FILE} at {path}, or set BENCH_INCEPTION to where it is."
    )
    assert list(path.parent.iterdir()) == []


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = tmp_path / "remote.pth"
    remote.write_bytes(b"weights")
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", remote.as_uri())
    monkeypatch.setattr(inception, "PUBLISHED", hashlib.sha256(b"weights").hexdigest()[:8])
    assert find_weights().read_bytes() == b"weights"
    assert [path.name for path in find_weights().parent.iterdir()] == [FILE]


@pytest.mark.parametrize("keep", [0, 1000, 50_000_000])
def test_truncated_file(inception_file: Path, tmp_path: Path, keep: int) -> None:
    path = tmp_path / FILE
    with inception_file.open("rb") as file:
        path.write_bytes(file.read(keep))
    with pytest.raises(MetricError) as error:
        Inception(path, "cpu")
    start, _, rest = str(error.value).partition("(")
    assert start == (
        f"Inception weights at {path} cannot be read: the file is incomplete or not a file of "
        "weights "
    )
    assert rest.endswith(f"). Put {FILE} there, from {URL_INCEPTION_V3}.")


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / FILE
    torch.save(torch.nn.Linear(2048, 1000).state_dict(), path)
    with pytest.raises(MetricError) as error:
        Inception(path, "cpu")
    assert str(error.value) == (
        f"Inception weights at {path} are of another network: 2 entries, and not the 566 that are "
        f"needed. Put {FILE} there, from {URL_INCEPTION_V3}; torchvision's Inception is another "
        "network."
    )


def test_weights_are_not_unpickled(tmp_path: Path) -> None:
    path, touched = tmp_path / FILE, tmp_path / "touched"
    torch.save({"bomb": Bomb(touched)}, path)
    with pytest.raises(MetricError, match="cannot be read: the file is incomplete or not a file"):
        Inception(path, "cpu")
    assert not touched.exists()


def test_floats_are_refused(extractor: Inception) -> None:
    with pytest.raises(MetricError, match=r"^Images are float32; expected uint8\."):
        extractor(torch.zeros(1, 3, 32, 32))
