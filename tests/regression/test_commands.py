"""`bench fingerprint`, `bench compare` and `bench history`, as a person types them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench import arithmetic
from bench.samplers import REGISTRY
from tests.regression.repository import commit, git
from tests.regression.test_compare import make
from tests.regression.test_history import put_all
from tests.test_cli import bench


def test_compare_exits_with_1_on_a_regression(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", times={"heun": 1.02})
    said = bench(capsys, "compare", a, b, "--out", tmp_path / "comment.md")
    assert said.code == 1
    assert "**1 regression**" in said.out
    assert (tmp_path / "comment.md").read_text() == said.out
    assert bench(capsys, "compare", a, a).code == 0
    assert bench(capsys, "compare", a, b, "--threshold", "3").code == 0
    assert bench(capsys, "compare", b, a).code == 0  # better is no regression


def test_compare_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = make(tmp_path / "a"), make(tmp_path / "b", times={"heun": 1.02})
    said = bench(capsys, "compare", a, b, "--json")
    assert said.code == 1
    assert json.loads(said.out)["failed"] is True


def test_compare_with_what_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = bench(capsys, "compare", make(tmp_path / "a"), "nothing")
    assert said.code == 1
    assert said.err.startswith('"nothing" is neither a results folder nor a revision')


def test_history_prints_and_reports_draw_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    folder = tmp_path / "results" / "tiny"
    folder.mkdir(parents=True)
    put_all(folder, [4.0, 4.01, 5.0, 5.01])
    said = bench(capsys, "history", "results/tiny")
    assert said.code == 0, said.err
    assert "step at " in said.out
    said = bench(capsys, "report", "results/tiny", "--history")
    assert said.code == 0, said.err
    assert Path("reports/tiny/history-1.svg").is_file()
    assert "## History of tiny" in Path("reports/tiny/report.md").read_text("utf-8")
    facts = json.loads(bench(capsys, "history", "results/tiny", "--json").out)
    assert len(facts["commits"]) == 4
    (tmp_path / "results" / "new").mkdir()
    said = bench(capsys, "history", "results/new")
    assert said.code == 1
    assert said.err.startswith("results/new has no history")
    commit(tmp_path, "Reports")


@pytest.fixture
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the record, of two samplers."""
    path = tmp_path / "fingerprints.json"
    shutil.copy(arithmetic.RECORD, path)
    # A list of names of its own: an entry that a test takes out of the registry comes back as the
    # last one, and its order is that of docs/samplers.md.
    monkeypatch.setattr(arithmetic, "REGISTRY", dict.fromkeys(["ddim", "heun"]))
    arithmetic.update(path, arithmetic.measure(), "two are enough for a test")
    monkeypatch.setattr(arithmetic, "RECORD", path)
    return path


def test_fingerprint_names_what_changed(
    capsys: pytest.CaptureFixture[str], own_record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = bench(capsys, "fingerprint")
    assert said.code == 0
    assert "cases are as on record" in said.out
    base = own_record.with_name("base.json")
    shutil.copy(own_record, base)

    right = REGISTRY["heun"].function

    def wrong(denoise, x, grid, noise, **params):  # type: ignore[no-untyped-def]
        x = right(denoise, x, grid, noise, **params)
        return x + 0.25 if params["variable"] == "lam" else x

    monkeypatch.setitem(REGISTRY, "heun", replace(REGISTRY["heun"], function=wrong))
    said = bench(capsys, "fingerprint")
    assert said.code == 1
    assert "heun changed, by 0.25 at most:\n    variable=lam: 10 cases, most on " in said.out
    assert "ddim" not in said.out
    assert bench(capsys, "fingerprint", "ddim").code == 0
    assert bench(capsys, "fingerprint", "heun").code == 1
    facts = json.loads(bench(capsys, "fingerprint", "--json").out)
    assert {change["name"] for change in facts["changes"]} == {"heun"}

    said = bench(capsys, "fingerprint", "--update")
    assert said.code == 1
    assert "The arithmetic of heun changed." in said.err
    said = bench(capsys, "fingerprint", "--update", "--reason", "heun: a quarter more")
    assert said.code == 0
    assert 'under "### Numbers": heun: a quarter more' in said.out
    assert bench(capsys, "fingerprint").code == 0
    # Against the record of before, it is still a change.
    assert bench(capsys, "fingerprint", "--against", base).code == 1
    assert arithmetic.unexplained(arithmetic.read(own_record), "### Numbers\n- Nothing.\n") == [
        "two are enough for a test",
        "heun: a quarter more",
    ]


def test_fingerprint_records_all_samplers_or_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(capsys, "fingerprint", "ddim", "--update").code == 2
