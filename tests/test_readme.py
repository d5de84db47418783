"""What the documents promise: links lead somewhere, commands exist, shipped sweeps are valid."""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

import bench
from bench import sweep
from bench.sweep_file import Launch
from tests.models.test_diffusers import write_folder
from tests.test_cli import commands

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
README = (ROOT / "README.md").read_text()
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def shell_lines(text: str) -> list[list[str]]:
    """The commands in the ```sh blocks of a document, as words without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_resolve(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target).exists(), target


def test_readme_shows_the_two_commands_first() -> None:
    first, second, *_ = shell_lines(README)
    assert (first, second) == (["make", "quickstart"], ["make", "test"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(document: Path) -> None:
    text = document.read_text()
    inline = re.findall(r"`((?:bench|make|python) [^`]+)`", text)
    for words in [*shell_lines(text), *(shlex.split(command) for command in inline)]:
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).exists(), words
        if words[0] == "make":
            assert words[1] in TARGETS, words
        elif words[0] == "bench":
            known = commands()
            assert words[1] in known or " ".join(words[1:3]) in known, words
            for path in words[2:]:
                if path.startswith("sweeps/"):
                    assert (ROOT / path).exists(), path


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid_and_ask_a_question(file: Path, tmp_path: Path) -> None:
    # The hub's checkpoint is not at hand in a test; a network of the same kind is.
    folder = write_folder(tmp_path / "network", flat=True)
    text = file.read_text().replace("google/ddpm-cifar10-32", str(folder))
    checked = sweep.parse(text, str(file))
    assert checked.name == file.stem
    assert checked.question.endswith("?")
    assert checked.cells()


def test_the_sweep_in_the_readme_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(sweep.parse(text, "readme.yaml").cells()) == 1 + 16 + 4


def test_the_picture_and_the_table_in_the_readme_are_those_of_the_results() -> None:
    """If this fails: python tools/readme.py."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert README.count(tool.START) == README.count(tool.END) == 1
    assert tool.updated(README) == README
    assert "| 10 " not in README.split(tool.START)[0]
    assert "| sigma-hat |" in tool.part()


CLUSTERS = (ROOT / "docs" / "clusters.md").read_text()


def test_the_keys_of_launch_are_in_the_page_on_clusters() -> None:
    """If this fails: the rows that the page should have are those of `expected`."""
    expected = [
        f"| `{field.alias}` | {field.description} |" for field in Launch.model_fields.values()
    ]
    section = CLUSTERS.split("## Keys of `launch`")[1].split("\n## ")[0]
    assert re.findall(r"^\| `.*", section, re.MULTILINE) == expected


def test_the_sweep_in_the_page_on_clusters_has_25_cells(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", CLUSTERS, re.DOTALL)
    folder = write_folder(tmp_path / "network", flat=True)
    text = text.replace("google/ddpm-cifar10-32", str(folder))
    assert len(sweep.parse(text, "clusters.yaml").cells()) == 25


def test_the_messages_in_the_page_on_clusters_are_those_of_the_code() -> None:
    """What is quoted stands in the source, apart from its values and line breaks."""
    source = "".join(path.read_text() for path in (ROOT / "bench").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    for words in (
        "SLURM refused the jobs: ",
        "SLURM does not answer (",
        "; the next try is in ",
        " left no record",
        "times without a finished chunk; given up.",
        "; this job was submitted with ",
        "The local workers on ",
        " can be stopped only there",
        " could not be written: ",
        "Inception weights are not at ",
        'The executor is "slurm", and there is no ',
    ):
        assert words in source, words
        quoted = [part for part in re.split(r"\.\.\.", CLUSTERS) if words.strip() in part]
        assert quoted, words


def test_quickstart_is_what_newcomers_compute() -> None:
    """At least four samplers from NFE 5 to 50, and no records of it in the repository."""
    cells = sweep.load(ROOT / "sweeps" / "quickstart.yaml").cells()
    assert len({cell.sampler for cell in cells} - {"exact"}) >= 4
    counts = [cell.nfe for cell in cells if cell.nfe]
    assert (min(counts), max(counts)) == (5, 50)
    ignored = subprocess.run(
        ["git", "check-ignore", "results/quickstart/x.json", "reports/quickstart/report.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(ignored.stdout.splitlines()) == 2
    kept = ["git", "check-ignore", "results/ddim-table/x.json", "reports/ddim-table/report.md"]
    assert subprocess.run(kept, cwd=ROOT, capture_output=True, check=False).stdout == b""


def test_version_is_one() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {bench.__version__}\n" in citation


def test_markers_of_the_tests_are_declared() -> None:
    """CI selects by the markers that pytest knows; a default run leaves all of them out."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = [line.split(":")[0] for line in options["markers"]]
    assert options["addopts"][-1] == " and ".join(f"not {marker}" for marker in markers)
