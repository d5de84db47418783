"""From names of metrics to the records of a cell."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.errors import MetricError
from bench.metrics import reference, registry
from bench.metrics.frechet import frechet_distance
from bench.metrics.inception import FILE
from bench.metrics.measures import MEASURES
from bench.metrics.moments import Moments
from bench.metrics.registry import METRICS, MetricSpec, bind, extractors, score
from tests.metrics.fakes import Projection, colours


@pytest.fixture
def metrics(projection: Projection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two metrics of one extractor, and the reference "grey"."""
    for name in ("fd_one", "fd_two"):
        spec = MetricSpec(name, MEASURES["fd"], "sixteen numbers", lambda device: projection)
        monkeypatch.setitem(METRICS, name, spec)
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(images, projection, name="grey", source="grey", details={})
    reference.save(reference.place("grey", projection), built)
    return ["fd_one", "fd_two"]


def test_records(metrics: list[str], projection: Projection) -> None:
    bound = bind(metrics, "grey")
    assert list(extractors(bound)) == ["projection"]
    features = projection(colours(1, 30, brightness=20)).numpy()
    scores = score({"projection": features}, bound)
    records = scores.records
    assert list(records) == metrics
    found = bound[0].reference
    expected = frechet_distance(Moments.from_features(features), found.moments)
    influence = scores.influences["fd_one"]
    assert records["fd_one"] == {
        "value": pytest.approx(expected, rel=1e-12),
        "standard_error": pytest.approx(influence.std(ddof=1) / 30**0.5),
        "better": "lower",
        "n": 30,
        "reference": "grey",
        "reference_digest": found.digest,
        "extractor": "projection",
        "extractor_digest": projection.digest,
        "quantiser": "round",
        "notes": ["fewer than 10,000 images (30), so biased upwards"],
    }
    assert records["fd_one"]["value"] > 0.1
    assert json.loads(json.dumps(records)) == records


def test_few_images_are_noted(metrics: list[str], projection: Projection) -> None:
    features = projection(colours(1, 16)).numpy()
    (record,) = score({"projection": features}, bind(["fd_one"], "grey")).records.values()
    assert record["notes"] == [
        "16 images for 16 features: the covariance is singular and the distance far too large"
    ]


def test_small_reference_is_noted(metrics: list[str], projection: Projection) -> None:
    images = colours(0, 9).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(images, projection, name="few", source="few", details={})
    reference.save(reference.place("few", projection), built)
    features = projection(colours(1, 30)).numpy()
    (record,) = score({"projection": features}, bind(["fd_one"], "few")).records.values()
    assert record["notes"][1:] == ["the reference is of only 9 images"]


def test_unknown_metric() -> None:
    with pytest.raises(MetricError) as error:
        bind(["fd_cifra"], "cifar10-train")
    assert str(error.value) == (
        'There is no metric "fd_cifra". Did you mean "fd_cifar"? '
        '"bench list metrics" shows all 18; in your own features, "fd@package.module:function".'
    )


def test_missing_reference_is_refused(metrics: list[str]) -> None:
    with pytest.raises(MetricError) as error:
        bind(metrics, "gray")
    assert str(error.value) == (
        'There are no statistics of "gray" in the features of projection. Did you mean "grey"? '
        'Build them with "bench reference gray --metric fd_one", or give the path of an npz file.'
    )


def test_reference_that_is_no_covariance_is_refused(
    metrics: list[str], projection: Projection, tmp_path: Path
) -> None:
    path = tmp_path / "bad.npz"
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(images, projection, name="bad", source="bad", details={})
    bad = Moments(60, built.moments.mean, np.diag(np.r_[-59.0, np.full(15, 59.0)]))
    reference.save(path, reference.Reference("bad", bad, built.certificate, ""))
    with pytest.raises(MetricError, match=r"^An eigenvalue of the reference's covariance is -1, "):
        bind(metrics, str(path))


def test_missing_inception_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_INCEPTION", str(tmp_path / "none.pth"))
    with pytest.raises(MetricError, match=r"^BENCH_INCEPTION is .*none\.pth, and there is no such"):
        bind(["fid"], "cifar10-train")


@pytest.fixture
def random_inception(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[registry.Extractor]:
    monkeypatch.setenv("BENCH_INCEPTION", str(inception_file))
    yield METRICS["fd_inception"].extractor("cpu")
    registry._open_inception.cache_clear()


def test_only_the_published_weights_give_a_fid(
    random_inception: registry.Extractor, inception_file: Path
) -> None:
    with pytest.raises(MetricError) as error:
        bind(["fid"], "cifar10-train")
    assert str(error.value) == (
        f"The Inception weights at {inception_file} are not the published ones: their sha256 "
        f"begins with {random_inception.digest[:8]}, not 6726825d. Put {FILE} there, or ask for "
        'the metric "fd_inception", which takes any weights and is never called FID.'
    )


@pytest.mark.slow  # eigenvectors of 2048 x 2048
def test_other_weights_give_a_distance_of_another_name(
    random_inception: registry.Extractor,
) -> None:
    images = colours(0, 3, size=32).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(images, random_inception, name="grey", source="grey", details={})
    reference.save(reference.place("grey", random_inception), built)
    bound = bind(["fd_inception"], "grey")
    assert bound[0].extractor is random_inception
    features = random_inception(colours(1, 3, size=32)).numpy()
    (record,) = score({random_inception.name: features}, bound).records.values()
    assert record["value"] > 0
    assert record["extractor"] == f"inception-{random_inception.digest[:8]}"
    assert record["notes"] == [
        "3 images for 2048 features: the covariance is singular and the distance far too large",
        "the reference is of only 3 images",
        f"Inception weights {random_inception.digest[:8]} are not the published ones: this is not "
        "a FID",
    ]


def test_metrics_in_somebodys_own_features(projection: Projection) -> None:
    names = [f"{measure}@tests.metrics.fakes:opened" for measure in ("fd", "fd_inf", "kd")]
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(
        images, projection, name="grey", source="grey", details={}, keep_features=True
    )
    reference.save(reference.place("grey", projection), built)
    bound = bind(names, "grey")
    assert list(extractors(bound)) == ["projection"]
    features = projection(colours(1, 30, brightness=20)).numpy()
    records = score({"projection": features}, bound).records
    assert list(records) == names
    assert {record["extractor"] for record in records.values()} == {"projection"}
    assert records[names[0]]["value"] > records[names[1]]["value"]
    assert records[names[1]]["notes"] == [
        "30 images for 16 features: half of them do not span the space, and a part of the bias "
        "stays"
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "fd@tests.metrics.fakes:open",
            'The extractor "tests.metrics.fakes:open" cannot be imported (module '
            "'tests.metrics.fakes' has no attribute 'open'). It is written "
            "package.module:function, and the module must be importable from where bench runs.",
        ),
        (
            "fd@nowhere:opened",
            "The extractor \"nowhere:opened\" cannot be imported (No module named 'nowhere'). It "
            "is written package.module:function, and the module must be importable from where "
            "bench runs.",
        ),
        (
            "fd@tests.metrics.fakes:nothing",
            'What "tests.metrics.fakes:nothing" gave is no extractor: it lacks name, dim, digest, '
            "numerics, resize, head. See bench.metrics.protocol.",
        ),
        (
            "cs@tests.metrics.fakes:opened",
            "cs@tests.metrics.fakes:opened needs a classifier, and projection has none (its head "
            "is None).",
        ),
        (
            "fdd@tests.metrics.fakes:opened",
            'There is no metric "fdd@tests.metrics.fakes:opened". "bench list metrics" shows all '
            '18; in your own features, "fd@package.module:function".',
        ),
    ],
)
def test_extractors_that_are_none(name: str, message: str) -> None:
    with pytest.raises(MetricError) as error:
        bind([name], "cifar10-train")
    assert str(error.value) == message


def test_metrics_of_one_extractor_share_the_statistics(
    projection: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only the last of them needs the features, which are not read for the others."""
    for name in ("fd_one", "kd_one"):
        measure = MEASURES[name.partition("_")[0]]
        spec = MetricSpec(name, measure, "sixteen numbers", lambda device: projection)
        monkeypatch.setitem(METRICS, name, spec)
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    built = reference.from_images(
        images, projection, name="grey", source="grey", details={}, keep_features=True
    )
    reference.save(reference.place("grey", projection), built)
    first, second = bind(["fd_one", "kd_one"], "grey")
    assert first.reference is second.reference
    assert first.reference.features is not None
    (alone,) = bind(["fd_one"], "grey")
    assert alone.reference.features is None
