"""Two revisions of a small repository, each in a worktree of its own."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.errors import ResultError, SweepError
from bench.regression import revisions
from bench.regression.compare import compare
from bench.regression.revisions import results_of
from tests import fakes
from tests.certify.defects import ROOT
from tests.regression.repository import commit, git

FEATURES = """\
from tests.fakes import TinyExtractor


def features(device: str) -> TinyExtractor:
    return TinyExtractor()
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, which is the current folder."""
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "--quiet", "--initial-branch", "main")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def sweep(repository: Path) -> Path:
    file = repository / "tiny.yaml"
    file.write_text("name: tiny\n")
    return file


def test_a_folder_is_what_it_is(repository: Path) -> None:
    (repository / "results").mkdir()
    assert results_of("results", None) == (Path("results"), "results")


def test_neither_a_folder_nor_a_revision(repository: Path) -> None:
    commit(repository, "First")
    for text in ("mian", "--help", "main..main"):
        with pytest.raises(ResultError) as caught:
            results_of(text, None)
        assert str(caught.value).startswith(
            f'"{text}" is neither a results folder nor a revision of the git repository here.'
        )


def test_a_revision_needs_a_sweep(repository: Path) -> None:
    commit(repository, "First")
    with pytest.raises(SweepError, match='"main" is a revision: say with --sweep FILE'):
        results_of("main", None)


def test_a_revision_that_does_not_build(repository: Path, sweep: Path) -> None:
    (repository / "bench").mkdir()
    (repository / "bench" / "__init__.py").write_text("")
    (repository / "bench" / "cli.py").write_text("def main(:\n")
    broken = commit(repository, "Broken")
    with pytest.raises(ResultError) as caught:
        results_of("main", sweep)
    said = str(caught.value)
    assert said.startswith(
        f"Revision main ({broken[:8]}) does not run: bench run {sweep} ended with 1: "
        "SyntaxError: invalid syntax"
    )
    log = Path(f".bench/{broken[:12]}/log.txt")
    assert f"({log} has all of it)" in said
    assert "SyntaxError" in log.read_text()
    # Nothing of it is left to git, nor to the next try.
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "status", "--porcelain") == ""
    with pytest.raises(ResultError, match="does not run"):
        results_of("main", sweep)


def test_a_worktree_that_a_killed_process_left_is_replaced(repository: Path, sweep: Path) -> None:
    (repository / "bench").mkdir()
    (repository / "bench" / "cli.py").write_text("def main(:\n")
    key = commit(repository, "Broken")
    left = Path(".bench") / key[:12] / "code"
    git(repository, "worktree", "add", "--detach", str(left), key)
    (left / "edited").write_text("")
    with pytest.raises(ResultError, match="does not run"):
        results_of("main", sweep)
    assert not left.exists()


def test_two_at_once_take_turns(
    repository: Path, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, "First")
    inside: list[int] = []

    def run(name: str, code: Path, sweep: Path, folder: Path) -> None:
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.5)
        assert code.is_dir()
        inside.pop()

    monkeypatch.setattr(revisions, "_run", run)
    said: list[str] = []
    with ThreadPoolExecutor() as pool:
        first = pool.submit(results_of, "main", sweep, say=said.append)
        while not inside:
            time.sleep(0.01)
        second = pool.submit(results_of, "HEAD", sweep, say=said.append)
        assert first.result()[0] == second.result()[0]
    (waited,) = (line for line in said if line.endswith("is at it; waiting …"))
    assert waited.startswith(f"HEAD ({git(repository, 'rev-parse', 'HEAD')[:8]}): process ")


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultError, match='"main" is neither a results folder nor a revision'):
        results_of("main", None)


@pytest.mark.slow
def test_a_planted_bug_from_revisions_to_verdict(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, statistics = tmp_path / "tiny.safetensors", tmp_path / "tiny.npz"
    fakes.write_reference(statistics, fakes.write_mixture(model))
    shutil.copytree(
        ROOT / "bench",
        repository / "bench",
        ignore=shutil.ignore_patterns("*.safetensors", "reference", "__pycache__"),
    )
    shutil.copytree(ROOT / "tests", repository / "tests", ignore=shutil.ignore_patterns("*pyc*"))
    (repository / "own.py").write_text(FEATURES)
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(
        f"model: {{kind: mixture, name: {model}}}\nsamples: 500\nmetrics: ['fd@own:features']\n"
        f"reference: {statistics}\n"
        "grid: [{sampler: [ddim, dpm-solver++], spacing: quadratic, steps: 5}]\n"
    )
    commit(repository, "Right")
    file = repository / "bench" / "samplers" / "dpm_solver_pp.py"
    text = file.read_text()
    file.write_text(text.replace("h / (2 * gap) * first", "2 * h / gap * first"))
    commit(repository, "Four times the weight")
    said: list[str] = []
    folders = [results_of(each, sweep, say=said.append) for each in ("HEAD~1", "HEAD")]
    assert len(said) == 2
    found = compare(*(folder for folder, _ in folders))
    (worse,) = found.regressions
    assert worse.label.startswith("dpm-solver++")
    assert worse.how == "paired"
    assert worse.notes == ("the sampler's arithmetic changed",)
    assert {row.verdict.within for row in found.rows if row != worse} == {0.0}
    # A second time, nothing is computed.
    before = [path.stat().st_mtime_ns for path in sorted(folders[1][0].glob("*.json"))]
    results_of("HEAD", sweep)
    assert [path.stat().st_mtime_ns for path in sorted(folders[1][0].glob("*.json"))] == before


def test_the_folder_of_revisions_ignores_itself(repository: Path) -> None:
    revisions._ignored(Path(".bench"))
    assert git(repository, "status", "--porcelain") == ""
