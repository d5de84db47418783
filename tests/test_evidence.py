"""What the whole path must show on the shipped mixture, metric and statistics.

Claims about quality on real components: a sampler, a spacing or a metric that is wrong in a way
that no unit test sees shows here as a table in another order.
"""

from pathlib import Path
from statistics import stdev

import pytest

from bench import launch, results
from bench.sweep import parse

pytestmark = pytest.mark.slow

HEAD = """
name: evidence
model: cifar10-mixture
metrics: [fd_cifar]
reference: cifar10-mixture
launch: {executor: inline}
"""
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
  - {sampler: ddim, eta: [0, 1], spacing: uniform, steps: [5, 10, 200]}
  - {sampler: dpm-solver++, order: 2, spacing: logsnr, steps: [10, 50]}
  - {sampler: heun, spacing: [trailing, quadratic], steps: 60}
  - {sampler: ddim, eta: [0, 1], spacing: quadratic, steps: 200}
""",
    )


def test_the_deterministic_limit_wins_on_a_coarse_grid(table: Values) -> None:
    for steps in (5, 10):
        deterministic = table[f"ddim eta=0 spacing=uniform steps={steps}"]
        assert 1.2 * deterministic < table[f"ddim eta=1 spacing=uniform steps={steps}"]


def test_second_order_wins_at_ten_calls(table: Values) -> None:
    second = table["dpm-solver++ order=2 spacing=logsnr steps=10"]
    assert 2 * second < table["ddim eta=0 spacing=uniform steps=10"]


def test_grids_from_T_to_zero_come_down_to_the_exact_floor(table: Values) -> None:
    for label in (
        "dpm-solver++ order=2 spacing=logsnr steps=50",
        "heun spacing=trailing steps=60",
    ):
        assert table[label] < 1.3 * table["exact"]


def test_a_start_at_index_800_costs_deterministic_samplers_what_the_exact_flow_loses(
    table: Values,
) -> None:
    # Heun with 60 steps is the flow from that start, to a few percent of its distance.
    flow = table["heun spacing=quadratic steps=60"]
    assert flow > 1.5 * table["exact"]
    assert table["ddim eta=0 spacing=quadratic steps=200"] == pytest.approx(flow, rel=0.3)
    assert table["ddim eta=1 spacing=quadratic steps=200"] < flow


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
