"""The torchmetrics class gives the number of a sweep's cell, however it is fed."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from bench.errors import MetricError
from bench.metrics import reference as references
from bench.metrics import registry, torchmetric
from bench.metrics.frechet import frechet_distance
from bench.metrics.measures import MEASURES
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference, from_images
from bench.metrics.torchmetric import FrechetDistance, Scores
from tests.metrics.fakes import Projection, colours


@pytest.fixture
def reference(projection: Projection) -> Reference:
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    return from_images(images, projection, name="grey", source="grey", details={})


@pytest.fixture
def metric(projection: Projection, reference: Reference) -> FrechetDistance:
    return FrechetDistance(projection, reference)


def expected(reference: Reference, images: torch.Tensor) -> float:
    """As `bench.cell` gets it: moments of chunks, merged."""
    chunks = [Moments.from_features(Projection()(chunk).numpy()) for chunk in images.split(17)]
    return frechet_distance(Moments.merged(chunks), reference.moments)


IMAGES = colours(1, 50, brightness=20)


def test_same_number_as_a_cell(metric: FrechetDistance, reference: Reference) -> None:
    for batch in IMAGES.split(10):
        metric.update(batch)
    assert float(metric.compute()) == pytest.approx(expected(reference, IMAGES), rel=1e-12)
    assert metric.compute().dtype == torch.float64


def test_far_from_the_reference(projection: Projection, reference: Reference) -> None:
    """Sums centred on the reference still hold when the samples are nowhere near it."""
    moved = Moments(60, reference.moments.mean + 1e3, reference.moments.scatter)
    far = Reference("far", moved, {}, "")
    metric = FrechetDistance(projection, far)
    metric.update(IMAGES)
    assert float(metric.compute()) == pytest.approx(expected(far, IMAGES), rel=1e-9)


def test_reset(metric: FrechetDistance, reference: Reference) -> None:
    metric.update(colours(2, 20))
    metric.reset()
    metric.update(IMAGES)
    assert float(metric.compute()) == pytest.approx(expected(reference, IMAGES), rel=1e-12)


def test_forward_gives_the_batch_and_keeps_the_sum(
    metric: FrechetDistance, reference: Reference
) -> None:
    first, second = IMAGES[:30], IMAGES[30:]
    assert float(metric(first)) == pytest.approx(expected(reference, first), rel=1e-12)
    assert float(metric(second)) == pytest.approx(expected(reference, second), rel=1e-12)
    assert float(metric.compute()) == pytest.approx(expected(reference, IMAGES), rel=1e-12)


def test_merged_metrics(metric: FrechetDistance, reference: Reference) -> None:
    other = metric.clone()
    metric.update(IMAGES[:30])
    other.update(IMAGES[30:])
    metric.merge_state(other)
    assert float(metric.compute()) == pytest.approx(expected(reference, IMAGES), rel=1e-12)


@pytest.mark.slow
def test_two_processes(tmp_path: Path, reference: Reference) -> None:
    script = Path(__file__).with_name("two_processes.py")
    root = Path(__file__).parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, script, tmp_path / "rendezvous", str(rank), "2"],
            cwd=root,
            env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    distances = [float(out.split()[-1]) for out, _ in outputs]
    assert distances[0] == distances[1]
    assert distances[0] == pytest.approx(expected(reference, IMAGES), rel=1e-12)


def test_one_image_is_refused(metric: FrechetDistance) -> None:
    metric.update(IMAGES[:1])
    with pytest.raises(MetricError) as error:
        metric.compute()
    assert str(error.value) == (
        "A covariance needs at least two images; there is 1. Ask for more samples."
    )


def test_torchmetrics_own(projection: Projection, metric: FrechetDistance) -> None:
    """The same images and features through torchmetrics' FrechetInceptionDistance."""

    class AsModule(torch.nn.Module):
        num_features = 16

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return projection(images)

    theirs = FrechetInceptionDistance(feature=AsModule()).set_dtype(torch.float64)
    theirs.update(colours(0, 60), real=True)
    theirs.update(IMAGES, real=False)
    metric.update(IMAGES)
    assert float(theirs.compute()) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_states_are_float64_and_stay_so(metric: FrechetDistance) -> None:
    metric.half().float()
    metric.update(IMAGES)
    assert {metric.count.dtype, metric.total.dtype, metric.products.dtype} == {torch.float64}
    assert np.isfinite(float(metric.compute()))


@pytest.fixture
def names(projection: Projection, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every measure in the features of the projection, and the reference "grey" with features."""
    monkeypatch.setattr(Projection, "head", projection.matrix.numpy()[:5], raising=True)
    names = []
    for measure in MEASURES.values():
        spec = registry.MetricSpec(measure.name, measure, "16 numbers", lambda _: projection)
        monkeypatch.setitem(registry.METRICS, measure.name, spec)
        names.append(measure.name)
    images = colours(0, 60).permute(0, 2, 3, 1).numpy()
    options = {"name": "grey", "source": "grey", "details": {}, "keep_features": True}
    built = from_images(images, projection, **options)  # type: ignore[arg-type]
    references.save(references.place("grey", projection), built)
    return names


def test_all_scores_from_one_pass(names: list[str], projection: Projection) -> None:
    scores = Scores(names, "grey")
    for batch in IMAGES.split(7):
        scores.update(batch)
    found = scores.compute()
    features = projection(IMAGES).numpy()
    records = registry.score({"projection": features}, registry.bind(names, "grey")).records
    for name in names:
        assert float(found[name]) == records[name]["value"]
        assert float(found[f"{name}_error"]) == records[name]["standard_error"] >= 0
    assert len(found) == 2 * len(names)
    scores.reset()
    scores.update(IMAGES[:25])
    assert float(scores.compute()["fd"]) != float(found["fd"])


def test_scores_merge(names: list[str]) -> None:
    scores = Scores(names, "grey")
    other = scores.clone()
    scores.update(IMAGES[:30])
    other.update(IMAGES[30:])
    whole = Scores(names, "grey")
    whole.update(IMAGES)
    scores.merge_state(other)
    # A merged state stands before the metric's own.
    expected, found = whole.compute(), scores.compute()
    for name in ("fd", "precision", "recall"):
        assert float(found[name]) == pytest.approx(float(expected[name]), rel=1e-12)


def test_documented_examples() -> None:
    assert doctest.testmod(torchmetric).failed == 0
    assert doctest.testmod(torchmetric).attempted > 5
