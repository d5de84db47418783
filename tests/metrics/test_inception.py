"""The Inception extractor on a file of the real layout, against torch-fidelity's own."""

import copy
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.image.fid import FrechetInceptionDistance

from bench.errors import MetricError
from bench.metrics import inception
from bench.metrics.frechet import frechet_distance
from bench.metrics.images import batches
from bench.metrics.inception import (
    FILE,
    URL_INCEPTION_V3,
    Inception,
    download,
    find_weights,
    place,
    resized,
)
from bench.metrics.moments import Moments
from tests.metrics.fakes import colours
from tests.metrics.test_images import Bomb


@pytest.fixture(scope="module")
def extractor(inception_file: Path) -> Inception:
    return Inception(inception_file, "cpu")


@pytest.fixture(scope="module")
def oracle(inception_file: Path) -> FeatureExtractorInceptionV3:
    """Gives the features and the logits without bias."""
    return FeatureExtractorInceptionV3(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        feature_extractor_weights_path=str(inception_file),
    )


def smooth(seed: int, count: int) -> torch.Tensor:
    """Images of 32 x 32 pixels in patches of 8: where noise averages out, these do not."""
    return colours(seed, count, size=4).repeat_interleave(8, 2).repeat_interleave(8, 3)


def largest(difference: torch.Tensor, values: torch.Tensor) -> float:
    """The largest difference, over the largest value."""
    return float(difference.abs().max() / values.abs().max())


def normwise(difference: torch.Tensor, values: torch.Tensor) -> float:
    return float(difference.norm() / values.norm())


def test_features_and_logits_are_torch_fidelitys(
    extractor: Inception, oracle: FeatureExtractorInceptionV3
) -> None:
    images = torch.cat([colours(0, 3, size=32), smooth(1, 3)])
    features, (theirs, logits) = extractor(images), oracle(images)
    assert features.shape == (6, 2048)
    assert features.dtype == torch.float32
    # A dead network would agree with anything.
    assert 0.01 < float(features.std(dim=0).mean()) < 10
    assert largest(features - theirs, theirs) < 1e-5
    assert normwise(features - theirs, theirs) < 3e-6
    assert extractor.head.shape == (1008, 2048)
    ours = features @ torch.from_numpy(extractor.head).T
    assert largest(ours - logits, logits) < 1e-5


def test_features_are_as_near_to_the_exact_ones_as_torch_fidelitys(
    extractor: Inception, oracle: FeatureExtractorInceptionV3
) -> None:
    """Against the same network in float64: what differs is rounding, and no more of it.

    Not through torch-fidelity's argument for float64, which gives float32 (0.4.0).
    """
    images = colours(2, 2, size=32)
    exact = copy.deepcopy(oracle).double()
    seen: list[torch.Tensor] = []
    exact.AvgPool.register_forward_hook(lambda _, __, output: seen.append(output.flatten(1)))
    exact.feature_extractor_internal_dtype = torch.float64
    exact(images)
    ours, theirs = extractor(images) - seen[0], oracle(images)[0] - seen[0]
    assert normwise(theirs, seen[0]) > 1e-8  # it is another precision
    assert normwise(ours, seen[0]) < 3 * normwise(theirs, seen[0])


def test_batch_norms_are_folded_with_their_epsilon(
    extractor: Inception, oracle: FeatureExtractorInceptionV3
) -> None:
    """The first convolution, by the formula; and no batch norm is left."""
    layers = [*extractor._early.modules(), *extractor._late.modules()]
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers)
    assert sum(isinstance(layer, BasicConv2d) for layer in layers) == 94
    folded, plain = extractor._early[0], oracle.Conv2d_1a_3x3
    norm = plain.bn
    gain = norm.weight / (norm.running_var + 0.001).sqrt()
    torch.testing.assert_close(folded.conv.weight, plain.conv.weight * gain.view(-1, 1, 1, 1))
    torch.testing.assert_close(folded.conv.bias, norm.bias - norm.running_mean * gain)


SIZES = [(32, 32), (64, 48), (45, 301), (299, 299), (512, 31), (1, 1), (1, 7), (2, 300)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_torch_fidelitys(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (2, 3, *size), generator=generator, dtype=torch.uint8)
    theirs = interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(299, 299), align_corners=False
    )
    ours = resized(images)
    assert torch.equal(ours, (theirs - 128) / 128)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    if size == (299, 299):
        assert torch.equal(ours * 128 + 128, images.float())


def test_resize_is_that_of_tensorflow_1() -> None:
    """Output pixel i looks at i * 32/299, not at (i + 1/2) * 32/299 - 1/2."""
    images = colours(1, 1, size=32)
    position = np.arange(299, dtype=np.float32) * np.float32(32 / 299)
    low = position.astype(int)
    high, part = np.minimum(low + 1, 31), position - low
    pixels = images[0].numpy().astype(np.float32)
    rows = pixels[:, low] + (pixels[:, high] - pixels[:, low]) * part[:, None]
    expected = rows[:, :, low] + (rows[:, :, high] - rows[:, :, low]) * part
    np.testing.assert_allclose(resized(images)[0].numpy(), (expected - 128) / 128, atol=1e-5)


def test_images_need_not_be_contiguous(extractor: Inception) -> None:
    images = smooth(6, 2)
    stored = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    every_second = images.repeat_interleave(2, 0)[::2]
    assert not stored.is_contiguous()
    assert not every_second.is_contiguous()
    features = extractor(images)
    assert torch.equal(extractor(stored), features)
    assert torch.equal(extractor(every_second), features)


def test_a_cpu_keeps_the_channels_innermost(extractor: Inception) -> None:
    """A layer that did not would cost a rearrangement of everything on its way."""
    seen: list[torch.Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, output: seen.append(output))
        for layer in (*extractor._early, *extractor._late)
    ]
    extractor(colours(7, 2, size=32))
    for handle in handles:
        handle.remove()
    maps = [output for output in seen if output.ndim == 4]
    assert len(maps) == 19
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in maps)


def test_arithmetic_is_float32_whatever_surrounds_it(extractor: Inception) -> None:
    images, allowed = colours(2, 1, size=32), []
    handles = [
        part.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
        for part in (extractor._early, extractor._late)
    ]
    plain = extractor(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        surrounded = extractor(images)
    for handle in handles:
        handle.remove()
    assert torch.equal(plain, surrounded)
    assert allowed == [False] * 4


def test_features_do_not_depend_on_the_slice(
    extractor: Inception, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.cat([colours(3, 2, size=32), smooth(4, 3)])
    whole = extractor(images)
    alone = torch.cat([extractor(image[None]) for image in images])
    assert largest(alone - whole, whole) < 1e-6
    monkeypatch.setattr(inception, "SLICE", 3)
    monkeypatch.setattr(extractor, "_few", 2)
    assert largest(extractor(images) - whole, whole) < 1e-6


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


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place() == tmp_path / "torch/hub/checkpoints" / FILE
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "none.pth"))
    assert place() == tmp_path / "none.pth"


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
    assert find_weights() == place()
    assert place().read_bytes() == b"weights"
    assert [path.name for path in place().parent.iterdir()] == [FILE]


def test_download_to_the_named_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never over a file that is there."""
    remote, path = tmp_path / "remote.pth", tmp_path / "mine" / "weights.pth"
    remote.write_bytes(b"weights")
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", remote.as_uri())
    monkeypatch.setattr(inception, "PUBLISHED", hashlib.sha256(b"weights").hexdigest()[:8])
    monkeypatch.setenv("BENCH_INCEPTION", str(path))
    assert download() == path
    path.write_bytes(b"others")
    assert download().read_bytes() == b"others"


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
