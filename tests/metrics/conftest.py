"""A cache of its own for each test, and Inception weights of the real layout."""

from pathlib import Path

import pytest

from tests.inception_file import write
from tests.metrics.fakes import Projection


@pytest.fixture
def projection() -> Projection:
    return Projection()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes what the user keeps."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCH_INCEPTION", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file of the published one's layout, written once: 96 MB."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    write(path, images=4)
    return path
