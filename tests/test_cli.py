"""The commands, each on something tiny but real; and what a person sees when it goes wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import cli, estimate, executors
from bench.cell import Setting
from bench.cli.terminal import duration
from bench.metrics.registry import METRICS
from tests import fakes


@pytest.fixture(autouse=True)
def tiny_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "fd_tiny", fakes.FD_TINY)


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of three cells beside its model and reference, in the working directory."""
    monkeypatch.chdir(tmp_path)
    # By their full paths: a process keeps opened models and statistics by the names they go by.
    model, statistics = tmp_path / "tiny.safetensors", tmp_path / "tiny.npz"
    fakes.write_reference(statistics, fakes.write_mixture(model))
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "# Does anything get lost?\n"
        f"model: {{kind: mixture, name: {model}}}\n"
        "samples: 100\n"
        "metrics: [fd_tiny]\n"
        f"reference: {statistics}\n"
        "batch: 50\n"
        "grid: [{sampler: ddim, steps: 3}, {sampler: heun, nfe: 4, unreachable: below}]\n"
    )
    return file


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def bench(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Said:
    """Run a command in this process, as the installed script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    printed = capsys.readouterr()
    return Said(code, printed.out, printed.err)


def commands() -> dict[str, str]:
    """Every command with its docstring: `train mixture` as well as `run`."""
    found = {}
    for prefix, app in (("", cli.app), ("train ", cli.train)):
        for command in app.registered_commands:
            function = command.callback
            assert function is not None
            found[prefix + (command.name or function.__name__)] = function.__doc__ or ""
    return found


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['bench', '--help']\nfrom bench.cli import main\n"
        "try: main()\nfinally: print(*sorted(set(sys.modules) & {'torch', 'rich', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: bench" in done.stdout
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("command", commands())
def test_help_of_every_command_has_an_example(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    said = bench(capsys, *command.split(), "--help")
    assert said.code == 0
    examples = re.findall(rf"^ +bench {command} .*", said.out, re.MULTILINE)
    assert examples, "an example on a line of its own"


def test_every_command_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(capsys, "--help")
    for name in {command.split()[0] for command in commands()}:
        assert re.search(rf"^  {name} +\w", said.out, re.MULTILINE), name
    assert "..." not in said.out.split("Commands:")[1]  # no summary is cut off


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", bench(capsys, "--version").out)


def test_check_prints_cells_with_their_nfe(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    said = bench(capsys, "check", sweep_file)
    assert said.code == 0
    assert "Does anything get lost?" in said.out
    rows = [re.split(r" *│ *", line)[2:5] for line in said.out.splitlines() if line.startswith("│")]
    assert rows == [
        ["exact", "0", "100"],
        ["ddim eta=0 spacing=uniform steps=3", "3", "100"],
        ["heun spacing=uniform steps=2", "3 (asked 4)", "100"],
    ]
    assert "3 cells, 300 images, 600 model calls of one image" in said.out
    assert "cannot run" not in said.out
    assert not (sweep_file.parent / "results").exists()


def test_check_names_the_model_of_each_cell_where_there_are_several(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    text = re.sub("grid: .*", "grid: [{sampler: ddim, steps: 3}]", sweep_file.read_text())
    (model,) = re.findall("model: (.*)", text)
    other = model.replace("}", ", schedule: vp-cosine}")
    sweep_file.write_text(text.replace(model, f"[{model}, {other}]"))
    said = bench(capsys, "check", sweep_file)
    rows = [re.split(r" *│ *", line)[2:4] for line in said.out.splitlines() if line.startswith("│")]
    exact, ddim = "exact", "ddim eta=0 spacing=uniform steps=3"
    assert [row[1] for row in rows] == [exact, exact, ddim, ddim]
    first, second = rows[0][0], rows[1][0]
    assert second == f"{first} (vp-cosine)"
    assert [row[0] for row in rows] == [first, second, first, second]


def test_check_shows_the_plain_keys_of_presets(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    rows = "grid: [{sampler: ddim, steps: 3}, {preset: ddim-paper, eta: 1, steps: [5, 10]}]"
    sweep_file.write_text(re.sub("grid: .*", rows, sweep_file.read_text()))
    said = bench(capsys, "check", sweep_file)
    assert said.code == 0
    lines = [line.strip() for line in said.out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("line 7, grid[1]:"))
    assert lines[start].startswith("line 7, grid[1]: preset ddim-paper (Song, Meng and Ermon 2021")
    assert lines[start + 1 : start + 3] == [
        "- {sampler: ddim, eta: 1, spacing: quadratic, final: zero, steps: [5, 10]}",
        "in place of its {eta: 0, steps: [10, 20, 50, 100]}",
    ]


def test_check_tells_what_is_missing_here(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    Path("tiny.npz").unlink()
    said = bench(capsys, "check", sweep_file)
    assert said.code == 0
    assert "It cannot run on this machine yet: " in said.out
    assert "tiny.npz" in said.out.split("cannot run")[1]


def test_check_measure_says_that_a_batch_does_not_fit(
    sweep_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Setting, "load", fakes.small_memory(Setting.load, 10))
    said = bench(capsys, "check", sweep_file, "--measure")
    assert said.code == 1
    assert (
        f"{sweep_file}: there is not enough memory here for a batch of 50 (OutOfMemoryError: no "
        "room for 50 images). A run would halve it; write a smaller batch to measure with."
    ) in said.err


def test_check_measure_estimates_the_cost(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    said = bench(capsys, "check", sweep_file, "--measure")
    assert said.code == 0
    assert re.search(r"One call of tiny for 50 images on (cpu|cuda): [\d.e-]+ s", said.out)
    assert re.search(r"Whole sweep: about [\d.]+ s of work on one worker", said.out)


def test_check_measure_proposes_a_faster_batch(
    capsys: pytest.CaptureFixture[str], sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "_call", lambda model, batch, device: 1.0 - batch / 200)
    said = bench(capsys, "check", sweep_file, "--measure")
    assert "for 50 images" in said.out
    assert '"batch: 100" would be faster here: 200 images/s.' in said.out
    monkeypatch.setattr(estimate, "_call", lambda model, batch, device: batch / 100)
    assert "would be faster" not in bench(capsys, "check", sweep_file, "--measure").out


def test_run_computes_then_finds_everything_done(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    first = bench(capsys, "run", sweep_file)
    assert first.code == 0, first.err
    assert "3 cells computed, 0 done before, 0 failed" in first.out
    assert "Report: reports/tiny/report.md" in first.out
    assert "heun" in Path("reports/tiny/report.md").read_text()
    assert len(list(Path("results/tiny").glob("*.json"))) == 3 + 1  # and the plan

    second = bench(capsys, "run", sweep_file)
    assert "0 cells computed, 3 done before, 0 failed" in second.out
    assert second.out.endswith("report.md (up to date)\n")

    Path("results/tiny/notes.md").write_text("Three cells show nothing.")
    third = bench(capsys, "run", sweep_file)
    assert third.out.endswith("reports/tiny/report.md\n")
    assert "Three cells show nothing." in Path("reports/tiny/report.md").read_text()


def test_run_elsewhere(capsys: pytest.CaptureFixture[str], sweep_file: Path) -> None:
    text = sweep_file.read_text() + "launch: {executor: slurm, workers: 2, partition: gpu}\n"
    sweep_file.write_text(text)
    said = bench(
        capsys, "run", sweep_file, "--executor", "inline", "--results", "r", "--reports", "p"
    )
    assert said.code == 0, said.err
    assert Path("r/tiny/sweep.json").is_file()
    assert Path("p/tiny/report.md").is_file()
    assert not Path("results").exists()


def test_run_with_a_failing_cell_reports_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    fakes.write_mixture(Path("tiny.safetensors"), spoiled=True)
    said = bench(capsys, "run", sweep_file)
    assert said.code == 1
    assert "0 cells computed, 0 done before, 3 failed" in said.out
    assert "ddim eta=0 spacing=uniform steps=3 failed: " in said.err
    assert "not finite" in said.err
    assert "Report: " in said.out

    counted = bench(capsys, "status", sweep_file)
    assert "3 cells: 0 done, 3 failed, 0 missing." in counted.out
    assert "not finite" in counted.out


@pytest.mark.parametrize("path", ["tiny.yaml", "results/tiny"])
def test_report_of_a_half_finished_sweep(
    capsys: pytest.CaptureFixture[str], sweep_file: Path, path: str
) -> None:
    bench(capsys, "run", sweep_file)
    record = next(p for p in Path("results/tiny").glob("*.json") if p.name != "sweep.json")
    record.unlink()
    said = bench(capsys, "report", path, "--reports", "again")
    assert said.code == 0
    assert said.out == "Report: again/tiny/report.md\n"
    assert "2 done, 0 failed, 1 missing" in bench(capsys, "status", path).out


def test_report_without_results(capsys: pytest.CaptureFixture[str], sweep_file: Path) -> None:
    said = bench(capsys, "report", sweep_file)
    assert said.code == 1
    assert said.err == 'results/tiny holds no results. "bench run SWEEP.yaml" makes some.\n'


def test_train_mixture_then_run_on_it(capsys: pytest.CaptureFixture[str], sweep_file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4, 3), dtype=np.uint8)
    np.savez("images.npz", images)
    said = bench(
        capsys,
        *("train", "mixture", "--data", "images.npz", "--out", "mine.safetensors"),
        *("--components", "2", "--rank", "8"),
    )
    assert said.code == 0, said.err
    assert said.out.startswith("mine.safetensors: 2 components, rank 8, log-likelihood ")
    made = bench(
        capsys, "reference", "mine.safetensors", "--metric", "fd_tiny", "--out", "mine.npz",
        *("--count", "500"),
    )  # fmt: skip
    assert made.code == 0, made.err
    assert re.fullmatch(r"mine\.npz: 500 images, digest [0-9a-f]{16}\.\n", made.out)
    text = sweep_file.read_text().replace("tiny.safetensors", "mine.safetensors")
    sweep_file.write_text(text.replace("tiny.npz", "mine.npz"))
    assert bench(capsys, "run", sweep_file).code == 0


def test_reference_of_images(
    capsys: pytest.CaptureFixture[str], sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", "cache")
    images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    np.savez("images.npz", images)
    said = bench(capsys, "reference", "images.npz", "--metric", "fd_tiny", "--name", "mine")
    assert said.code == 0, said.err
    # Where a sweep that says `reference: mine` looks for it.
    assert said.out.startswith("cache/reference/mine.tiny.npz: 64 images")
    text = sweep_file.read_text()
    sweep_file.write_text(text.replace(f"{sweep_file.parent / 'tiny.npz'}", "mine"))
    assert "cannot run" not in bench(capsys, "check", sweep_file).out


def test_reference_of_a_folder_with_its_features(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(f"photos/{index}.{'png' if index else 'jpg'}")
    said = bench(
        capsys,
        *("reference", "photos", "--metric", "fd_tiny", "--features", "--out", "photos.npz"),
    )
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].startswith("photos.npz: 6 images, digest ")
    assert lines[1:] == [
        "photos.features.npy: their features.",
        "1 of these images are JPEG or lossy WebP: compression moves the distance, so compare only "
        "with images that went through the same.",
    ]
    assert np.load("photos.features.npy").shape == (6, 16)


def test_reference_of_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = bench(capsys, "reference", "cifar10-tarin", "--metric", "fd_tiny")
    assert said.code == 1
    assert said.err == (
        '"cifar10-tarin" is neither a folder or file of images nor one of cifar10-train, '
        'cifar10-test, cifar10-mixture. Did you mean "cifar10-train"?\n'
    )
    said = bench(capsys, "reference", "./photos", "--metric", "fd_tiny")
    assert said.err == "There is no folder or file photos.\n"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("samplers", ["ddim", "eta 0", "heun", "2n - 1 to zero", "arXiv:2010.02502"]),
        ("spacings", ["trailing", "rho: a number above 0 (default 7)", "trained indices"]),
        ("presets", ["ddim-paper", "{sampler: ddim, eta: 0, spacing: quadratic"]),
        ("schedules", ["vp-cosine", "flow"]),
        ("models", ["{kind: mixture, name: cifar10-mixture, schedule: vp-linear}"]),
        ("metrics", ["fd_cifar", "fid", "Inception"]),
    ],
)
def test_list(capsys: pytest.CaptureFixture[str], kind: str, expected: list[str]) -> None:
    said = bench(capsys, "list", kind)
    assert said.code == 0
    # A cell of the table may be broken over lines.
    text = " ".join(re.sub(r"[│┃]", " ", said.out).split())
    for words in expected:
        assert all(word in text for word in words.split()), words


def test_list_and_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(bench(capsys, "list", "presets", "--json").out)
    shown = json.loads(bench(capsys, "show", "preset", "ddim-paper", "--json").out)
    assert shown in listed
    assert shown["keys"]["sampler"] == "ddim"


def test_list_as_a_page(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(capsys, "list", "samplers", "--markdown")
    assert said.code == 0
    assert said.out.startswith("# Samplers\n")
    assert "\n| ddim | implicit |" in said.out
    refused = bench(capsys, "list", "spacings", "--markdown")
    assert refused.code == 2
    assert "only samplers have a page" in refused.err


def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench(capsys, "show", "sampler", "heun")
    assert said.code == 0
    assert said.out.startswith("heun: Heun's method")
    assert "\n  NFE of n steps  2n - 1 to zero, 2n to sigma-min" in said.out
    assert "t_i = (" in bench(capsys, "show", "spacing", "time-power").out
    unknown = bench(capsys, "show", "sampler", "huen")
    assert unknown.code == 1
    assert unknown.err.startswith('There is no sampler "huen". Did you mean "heun"? ')


def test_a_persons_mistake_exits_with_1_and_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = bench(capsys, "run", tmp_path / "nowhere.yaml")
    assert said.code == 1
    assert said.out == ""
    assert said.err == f"{tmp_path / 'nowhere.yaml'}: there is no such file.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["runs"], "No such command 'runs'"),
        (["list", "sampler"], "is not one of 'samplers'"),
        (["run", "x.yaml", "--executor", "slrum"], "is not one of 'inline'"),
        (["check", "x.yaml", "--mesure"], "No such option"),
    ],
)
def test_wrong_usage_exits_with_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    said = bench(capsys, *arguments)
    assert said.code == 2
    assert message in said.err


def test_a_bug_keeps_its_traceback(sweep_file: Path) -> None:
    code = (
        "import sys, bench.sweep\ndef broken(path): raise ZeroDivisionError('a bug')\n"
        "bench.sweep.load = broken\nsys.argv = ['bench', 'check', 'x.yaml']\n"
        "from bench.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def finished(
    capsys: pytest.CaptureFixture[str], sweep_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The sweep after a run that kept the images."""
    monkeypatch.setitem(METRICS, "cs_tiny", fakes.TINY["cs_tiny"])
    sweep_file.write_text(sweep_file.read_text() + "keep: images\n")
    assert bench(capsys, "run", sweep_file).code == 0
    return sweep_file


def keys(folder: Path) -> dict[str, str]:
    """Label of each cell of a results folder, with its key."""
    plan = json.loads((folder / "sweep.json").read_text())
    return {cell["label"]: cell["key"] for cell in plan["cells"]}


def test_a_value_is_made_again_and_compared(
    capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    found = keys(Path("results/tiny"))
    key = found["ddim eta=0 spacing=uniform steps=3"]
    again = bench(capsys, "run", finished, "--cell", key[:6], "--results", "again")
    assert again.code == 0, again.err
    assert "1 cells computed, 0 done before, 0 failed" in again.out
    assert {path.stem for path in Path("again/tiny").glob("*.json")} == {key, "sweep"}
    said = bench(capsys, "compare", "results/tiny", "again/tiny")
    assert said.code == 0, said.out
    assert "1 identical" in said.out
    both = bench(
        *(capsys, "run", finished, "--results", "again"),
        *(word for each in found.values() for word in ("--cell", each)),
    )
    assert f"{len(found) - 1} cells computed, 1 done before" in both.out


def test_a_cell_that_is_not_there_is_told(
    capsys: pytest.CaptureFixture[str], sweep_file: Path
) -> None:
    for command in ("run", "submit", "retry"):
        said = bench(capsys, command, sweep_file, "--cell", "nothing")
        assert said.code == 1
        assert said.err.startswith(f'{sweep_file}: no cells have a key that begins with "nothing"')


def test_score_gives_the_numbers_of_the_cell_that_was_exported(
    capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    results = Path("results/tiny")
    key = keys(results)["ddim eta=0 spacing=uniform steps=3"]
    record = json.loads((results / f"{key}.json").read_text())
    for form, out in (("npz", "images.npz"), ("folder", "images")):
        source = finished if form == "npz" else results
        said = bench(capsys, "export", source, key[:6], "--to", form, "--out", out)
        assert said.out == f"{out}: 100 images of ddim eta=0 spacing=uniform steps=3.\n"
        statistics = finished.parent / "tiny.npz"
        metrics = ("--metric", "fd_tiny", "--metric", "cs_tiny")
        said = bench(capsys, "score", out, "--reference", statistics, *metrics, "--json")
        assert said.code == 0
        scored = json.loads(said.out)
        assert scored["images"] == 100
        assert scored["facts"] == record["images"]
        assert scored["metrics"]["fd_tiny"] == record["metrics"]["fd_tiny"]
        assert scored["metrics"]["cs_tiny"]["better"] == "higher"
        assert scored["cautions"] == [
            "31% of all bytes are 0 or 255: is the range of values right?",
            "fd_tiny: fewer than 10,000 images (100), so biased upwards.",
        ]


def test_score_as_a_table(capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), dtype=np.uint8)
    images[:10] = 255
    np.savez("mine.npz", images)
    statistics = finished.parent / "tiny.npz"
    said = bench(capsys, "score", "mine.npz", "--reference", statistics, "--metric", "fd_tiny")
    assert said.code == 0
    assert "50 images, 4 x 4" in said.out
    assert re.search(r"│ fd_tiny │ \d+\.\d+ ± 0\.\d+ +│ lower", said.out)
    assert "Against tiny-mixture" in said.out
    assert said.out.splitlines()[-4:] == [
        "Caution: 10 images are near-constant: they show nothing.",
        "Caution: 9 images are copies of others.",
        "Caution: 21% of all bytes are 0 or 255: is the range of values right?",
        "Caution: fd_tiny: fewer than 10,000 images (50), so biased upwards.",
    ]


def test_score_without_the_published_weights(
    capsys: pytest.CaptureFixture[str], finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_INCEPTION", "nowhere.pth")
    said = bench(capsys, "score", "mine.npz", "--reference", "cifar10-train")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("BENCH_INCEPTION is nowhere.pth, and there is no such file.")


def test_export_of_no_cell_of_two_and_over_a_folder(
    capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    to = ("--to", "folder", "--out", "results")
    said = bench(capsys, "export", finished, "zz", *to)
    expected = (
        f'{finished}: no cells have a key that begins with "zz"; expected one. "bench check" shows '
        "the keys of a sweep file.\n"
    )
    assert (said.code, said.err) == (1, expected)
    assert "3 cells have a key that begins with" in bench(capsys, "export", finished, "", *to).err
    key = keys(Path("results/tiny"))["exact"]
    said = bench(capsys, "export", finished, key, *to)
    assert said.err == ("results is there already. Choose another folder, or move it away.\n")


def test_rescore_adds_a_metric_without_sampling(
    capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    text = finished.read_text()
    finished.write_text(text.replace("metrics: [fd_tiny]", "metrics: [fd_tiny, cs_tiny]"))
    said = bench(capsys, "rescore", finished)
    assert said.code == 0
    assert said.out.splitlines() == [
        "3 cells scored again, 0 left as they were.",
        "Report: reports/tiny/report.md",
    ]
    assert "## cs_tiny" in Path("reports/tiny/report.md").read_text().splitlines()
    said = bench(capsys, "run", finished)
    assert "0 cells computed, 3 done before" in said.out
    # Without what was kept there is nothing to score.
    for kept in Path("results/tiny/kept").iterdir():
        for chunk in kept.iterdir():
            chunk.unlink()
    said = bench(capsys, "rescore", finished)
    assert said.code == 1
    assert "0 cells scored again, 3 left as they were." in said.out
    assert said.err.count("was not kept, so it needs sampling again.") == 3


@pytest.fixture
def local_file(sweep_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep for workers on this machine, which find the metric as well."""
    sweep_file.write_text(sweep_file.read_text() + "launch: {executor: local, workers: 2}\n")
    monkeypatch.setattr(executors, "Job", fakes.TinyJob)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    return sweep_file


def test_submit_watch_status_and_logs(capsys: pytest.CaptureFixture[str], local_file: Path) -> None:
    said = bench(capsys, "submit", local_file)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0] == "3 cells submitted in 2 jobs, 0 under way before."
    assert re.fullmatch(r"bench-tiny-\d+T\d+-\w{6} \(local, code [0-9a-f]{16}\)", lines[1])
    assert lines[2] == f'"bench watch {local_file}" shows how it gets on.'
    under_way = bench(capsys, "status", local_file)
    assert under_way.code in (0, 3)  # three cells do not take long
    watched = bench(capsys, "watch", "results/tiny")
    assert watched.code == 0
    assert watched.out.splitlines()[-1] == "3 cells: 3 done, 0 failed, 0 missing."
    executors.collect()

    said = bench(capsys, "status", local_file, "--json")
    assert said.code == 0
    facts = json.loads(said.out)
    assert facts["counts"]["done"] == 3
    assert [cell["state"] for cell in facts["cells"]] == ["done"] * 3
    assert bench(capsys, "submit", local_file).out == "Nothing to submit: no cell is left.\n"
    key = facts["cells"][0]["key"]
    said = bench(capsys, "logs", local_file, key[:8], "--lines", "1000")
    assert said.code == 0
    assert said.out.count("== ") == 4, "two workers looked at it, with two logs each"
    assert "exact: done in" in said.out


def test_retry_and_cancel_with_nothing_to_do(
    capsys: pytest.CaptureFixture[str], local_file: Path
) -> None:
    assert bench(capsys, "run", local_file, "--executor", "inline").code == 0
    said = bench(capsys, "retry", local_file)
    assert (said.code, said.out) == (0, "Nothing to submit: no cell has failed.\n")
    said = bench(capsys, "cancel", local_file)
    assert (said.code, said.out) == (0, "0 jobs cancelled, 0 claims released.\n")
    key = keys(Path("results/tiny"))["exact"]
    assert bench(capsys, "logs", local_file, key).out == (
        "No job that looked at this cell is on record.\n"
    )


def test_status_of_what_is_missing_exits_with_1_and_needs_no_torch(
    capsys: pytest.CaptureFixture[str], finished: Path
) -> None:
    key = keys(Path("results/tiny"))["exact"]
    Path(f"results/tiny/{key}.json").unlink()
    code = (
        f"import sys\nsys.argv = ['bench', 'status', {str(finished)!r}]\n"
        "from bench.cli import main\n"
        "try: main()\nfinally: print(*sorted(set(sys.modules) & {'torch', 'submitit', 'pandas'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "3 cells: 2 done, 0 failed, 1 missing.\n\n"


@pytest.mark.parametrize("command", ["status", "report"])
def test_of_an_edited_sweep_the_cells_that_ran_are_told(
    capsys: pytest.CaptureFixture[str], finished: Path, command: str
) -> None:
    text = finished.read_text()
    finished.write_text(text.replace("steps: 3", "steps: [3, 4]"))
    said = bench(capsys, command, finished)
    assert said.code == 0
    assert said.err == (
        f"{finished} was edited since it was last run, and results/tiny has the cells of that run. "
        '"bench run" and "bench submit" take over what it says now.\n'
    )
    assert bench(capsys, command, "results/tiny").err == ""
    finished.write_text(f"{text}# in other words\n")
    assert bench(capsys, command, finished).err == ""
    plan = Path("results/tiny/sweep.json")  # as it was before plans knew it
    plan.write_text(re.sub('.*"file_digest".*\n', "", plan.read_text()))
    finished.write_text(text.replace("steps: 3", "steps: [3, 4]"))
    assert bench(capsys, command, finished).err == ""


def test_submit_of_an_inline_sweep(capsys: pytest.CaptureFixture[str], sweep_file: Path) -> None:
    said = bench(capsys, "submit", sweep_file)
    assert said.code == 1
    assert said.err == (
        f'{sweep_file}: the executor is "inline", which is the process of "bench run". To submit '
        'cells, write "launch: {executor: local}" or use --executor.\n'
    )
