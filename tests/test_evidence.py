"""What the whole path must show on the shipped mixture, metric and statistics.

Claims about quality on real components: a sampler, a spacing or a metric that is wrong in a way
that no unit test sees shows here as a table in another order.
"""

from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import yaml

from bench import launch, report, results
from bench.metrics import reference
from bench.metrics.registry import METRICS
from bench.sweep import parse
from tests import inception_file
from tests.models.test_diffusers import write_folder

pytestmark = pytest.mark.slow

HEAD = """
name: evidence
model: cifar10-mixture
metrics: [fd_cifar]
reference: cifar10-mixture
launch: {executor: inline}
"""
FLOW_FROM_T = "heun spacing=karras rho=7 steps=60"
Values = dict[str, float]


def values(folder: Path, body: str) -> Values:
    """fd_cifar by the label of the cell."""
    sweep = parse(HEAD + body)
    summary = launch.run(sweep, folder)
    assert summary.complete, summary
    frame = results.load(folder)
    return dict(zip(frame["label"], frame["metric.fd_cifar"].astype(float), strict=True))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Values:
    return values(
        tmp_path_factory.mktemp("table"),
        """
samples: 2000
grid:
  - {sampler: ddim, eta: [0, 1], spacing: uniform, steps: [5, 10]}
  - {sampler: dpm-solver++, order: 2, spacing: logsnr, steps: [10, 50]}
  - {sampler: heun, spacing: [karras, quadratic], steps: 60}
  - {sampler: ddim, spacing: quadratic, steps: 200}
""",
    )


def test_the_deterministic_limit_wins_on_a_coarse_grid(table: Values) -> None:
    for steps in (5, 10):
        deterministic = table[f"ddim eta=0 spacing=uniform steps={steps}"]
        assert 1.1 * deterministic < table[f"ddim eta=1 spacing=uniform steps={steps}"]


def test_second_order_wins_at_ten_calls(table: Values) -> None:
    second = table["dpm-solver++ order=2 spacing=logsnr steps=10"]
    assert 2 * second < table["ddim eta=0 spacing=uniform steps=10"]


def test_grids_from_T_to_zero_come_down_to_the_exact_floor(table: Values) -> None:
    for label in ("dpm-solver++ order=2 spacing=logsnr steps=50", FLOW_FROM_T):
        assert table[label] < 1.1 * table["exact"]


def test_a_start_at_index_800_costs_what_the_exact_flow_from_there_loses(table: Values) -> None:
    # Heun with 60 steps is the flow, to a few percent of its distance; equal seeds make the two
    # starts a pair.
    flow = table["heun spacing=quadratic steps=60"]
    assert table[FLOW_FROM_T] < flow
    assert table["ddim eta=0 spacing=quadratic steps=200"] == pytest.approx(flow, rel=0.15)


def test_batch_size_moves_the_metric_by_less_than_a_twentieth_of_its_spread(
    tmp_path: Path,
) -> None:
    row = "\nsamples: 1000\ngrid: [{sampler: ddim, spacing: uniform, steps: 10}]\n"
    label = "ddim eta=0 spacing=uniform steps=10"
    spread = stdev(
        value
        for name, value in values(tmp_path / "seeds", row + "seed: [0, 1, 2, 3, 4, 5]\n").items()
        if name.startswith("ddim")
    )
    by_batch = [
        values(tmp_path / f"batch-{batch}", f"{row}batch: {batch}\nchunk: {chunk}\n")[label]
        for batch, chunk in ((32, 320), (100, 500), (500, 500))
    ]
    assert max(by_batch) - min(by_batch) < spread / 20


def test_the_cluster_sweep_is_walked_with_a_random_network_and_random_inception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sweeps/cifar10-fid.yaml through the real loaders of both files, small and in this process."""
    weights = tmp_path / "inception.pth"
    inception_file.write(weights)
    monkeypatch.setenv("BENCH_INCEPTION", str(weights))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", arr_0=pictures)
    extractor = METRICS["fd_inception"].extractor("cpu")
    built = reference.from_npz(tmp_path / "images.npz", extractor, name="cifar10-train")
    reference.save(reference.place(built.name, extractor), built)

    shipped = yaml.safe_load((Path(__file__).parents[1] / "sweeps/cifar10-fid.yaml").read_text())
    network = write_folder(tmp_path / "network", flat=True)
    small = {
        "model": {"kind": "diffusers", "path": str(network)},
        "samples": 4,
        "metrics": ["fd_inception"],  # random weights do not give a FID
        "launch": {"executor": "inline"},
    }
    shipped["grid"][0]["steps"] = [10]
    shipped["grid"][1]["eta"] = [0]
    sweep = parse(yaml.safe_dump(shipped | small))
    assert launch.run(sweep, tmp_path / "results").complete
    frame = results.load(tmp_path / "results")
    assert len(frame) == 11
    assert frame["metric.fd_inception"].gt(0).all()
    text = report.build(tmp_path / "results", tmp_path / "report").read_text()
    assert "are not the published ones: this is not a FID" in text
