import base64
import doctest
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.report import build, frame, heat, page, sections, tex
from bench.results import Result
from tests.report import records
from tests.report.records import Cell

EVIL = "Ünï雪, <script>alert(1)</script> \"q\" 'a' & {{ 7*7 }} | `c` $x$ \\input"


class Page(HTMLParser):
    """A page as a browser would take it apart."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def having(self, name: str) -> list[str]:
        return [str(found[name]) for _, found in self.tags if name in found]

    @property
    def body(self) -> str:
        return "".join(self.texts["body"])


def built(folder: Path, out: Path) -> Page:
    return Page(build(folder, out).with_name("report.html"))


def check_safe(found: Page) -> None:
    """Nothing but the page's own script, and nothing from elsewhere."""
    script = Path(page.__file__).with_name("report.js").read_text(encoding="utf-8")
    assert found.texts["script"] == [script]
    assert {tag for tag, _ in found.tags}.isdisjoint({"iframe", "object", "embed", "base", "form"})
    assert not [name for _, names in found.tags for name in names if name.startswith("on")]
    for address in [*found.having("src"), *found.having("xlink:href")]:
        assert re.fullmatch(r"#[\w-]+|data:.*", address), address
    for address in found.having("href"):  # an author's notes may lead elsewhere, on a click
        local = re.fullmatch(r"#[\w-]+|data:,|[\w+.-]+\.(csv|svg|png|pdf)|https?://.*", address)
        assert local, address
    (policy,) = [p for p in found.having("content") if "default-src" in p]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}'" in policy


def evil_cells() -> list[Cell]:
    model = {"kind": "diffusers", "path": EVIL}
    return [
        Cell(EVIL, n, {"eta": eta, EVIL: EVIL}, spacing=EVIL, model=model)
        for n in (5, 10)
        for eta in (0.0, EVIL)
    ]


def evil(cell: Cell) -> Result:
    if cell.steps == 5 and cell.params["eta"] == EVIL:
        return records.failure(cell, EVIL)
    entry = {"notes": [EVIL], "reference": EVIL}
    result = records.record(cell, (EVIL,), value=1.0, error=0.1, entry=entry)
    return replace(result, provenance={**result.provenance, "host": EVIL, "commit": EVIL})


def test_texts_of_people_show_as_typed_and_do_nothing(tmp_path: Path) -> None:
    folder = records.make(
        tmp_path / "r", evil_cells(), metrics=(EVIL,), question=EVIL, name=EVIL, of=evil
    )
    (folder / "notes.md").write_text(
        f"{EVIL}\n\n![x](http://example.com/x.png) <img src=x onerror=alert(1)> "
        "[y](javascript:alert(1))",
        encoding="utf-8",
    )
    found = built(folder, tmp_path / "out")
    check_safe(found)
    assert found.texts["title"][0] == EVIL
    assert found.texts["h1"] == [EVIL]
    assert EVIL in found.texts["h2"]
    assert any(f"failed: {EVIL}" in text for text in found.texts["td"])
    assert any(EVIL in text for text in found.texts["li"])
    assert [tag for tag, _ in found.tags].count("img") == 0
    assert "<img src=x onerror=alert(1)>" in found.body


def test_doctests() -> None:
    assert doctest.testmod(tex).failed == 0


def test_texts_of_people_are_set_as_typed_by_latex(tmp_path: Path) -> None:
    records.make(tmp_path, evil_cells(), metrics=(EVIL,), question=EVIL, name=EVIL, of=evil)
    found = tex.tables(sections.every(frame.read(tmp_path)))
    assert r"\textbackslash{}input" in found
    assert r"\{\{ 7*7 \}\} \textbar{}" in found
    bare = re.sub(r"\$\\?[a-z\\ ]+\$|\$\^\{\d+\}\$|\\[%$&#_{}]|\$\\pm\$", "", found)
    assert not re.search(r"[$#_]", bare), bare


def test_tables_for_latex_have_their_columns_and_rules(tmp_path: Path) -> None:
    records.make(tmp_path, records.quickstart((5, 10)))
    found = tex.tables(sections.every(frame.read(tmp_path)))
    for block in found.split(r"\begin{tabular}")[1:]:
        columns = len(block[1 : block.index("}")])
        rows = [
            line for line in block.split(r"\bottomrule")[0].splitlines() if line.endswith(r"\\")
        ]
        assert len(rows) > 1
        assert all(len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)
    for rule in ("toprule", "midrule", "bottomrule"):
        assert found.count(f"\\{rule}") == found.count(r"\begin{tabular}") > 2


SAMPLED = records.quickstart((5, 10))


@pytest.mark.parametrize(
    ("cells", "of", "expected"),
    [
        ([], None, "0 of 0 cells done"),
        ([records.exact()], None, "1 of 1 cell done"),
        ([Cell("ddim", 10)], None, "At 10 NFE, ddim has the only value, 1.21."),
        (SAMPLED, lambda cell: records.failure(cell, "boom"), "failed: boom"),
        (SAMPLED, lambda _: None, "13 not computed yet"),
        (SAMPLED, lambda cell: records.record(cell, value=-1e-9), "has the lowest value, -1.00"),
    ],
    ids=["no cells", "exact only", "one cell", "all failed", "none run", "negative"],
)
def test_any_state_of_a_sweep_has_a_page(
    tmp_path: Path, cells: list[Cell], of: Callable[[Cell], Result | None] | None, expected: str
) -> None:
    found = built(records.make(tmp_path / "r", cells, of=of), tmp_path / "out")
    check_safe(found)
    assert expected in found.body
    rows = [row for row in found.texts.get("tr", []) if "done" in row or "missing" in row]
    failed = [row for row in found.texts.get("tr", []) if "failed: boom" in row]
    assert len(rows) + len(failed) == len(cells)


def test_a_failed_cell_has_a_footnote_that_its_mark_leads_to(tmp_path: Path) -> None:
    cells = [Cell("ddim", n) for n in (5, 10)]
    folder = records.make(
        tmp_path / "r",
        cells,
        of=lambda c: records.failure(c, "boom") if c.steps == 5 else records.record(c),
    )
    found = built(folder, tmp_path / "out")
    marks = [href for href in found.having("href") if re.fullmatch(r"#.*-n\d+", href)]
    assert marks
    assert {mark.removeprefix("#") for mark in marks} <= set(found.having("id"))
    assert found.texts["ol"] == ["failed: boom"]


def test_ids_are_unique_and_references_lead_somewhere(tmp_path: Path) -> None:
    folder = records.make(
        tmp_path / "r", records.ddim_table(), metrics=("fd", "fid"), families=records.FAMILIES
    )
    found = built(folder, tmp_path / "out")
    ids = found.having("id")
    assert len(ids) == len(set(ids)) > 20
    for name in ("aria-controls", "aria-labelledby", "data-for", "data-count"):
        assert set(found.having(name)) <= set(ids), name
    anchors = [*found.having("href"), *found.having("xlink:href")]
    assert {address[1:] for address in anchors if address.startswith("#")} <= set(ids)


def test_every_value_of_the_plot_has_its_words(tmp_path: Path) -> None:
    cells = [Cell("ddim", n, {"eta": 0.0}) for n in (5, 10, 20)]
    folder = records.make(
        tmp_path / "r",
        cells,
        of=lambda c: None if c.steps == 10 else records.record(c, value=c.steps, error=0.5),
    )
    found = built(folder, tmp_path / "out")
    spots = [names["aria-label"] for tag, names in found.tags if tag == "circle"]
    said = [f"ddim, {n} NFE: {n}.00 ± 0.50 (0.700 s for 1,000 images)" for n in (5, 20)]
    assert spots == [*said, *said]  # against NFE and against seconds


def test_different_sample_counts_never_share_a_table(tmp_path: Path) -> None:
    cells = [
        replace(cell, samples=n, seed=seed)
        for n in (1000, 5000)
        for seed in (0, 1)
        for cell in records.quickstart((5,))
    ]
    records.make(tmp_path, cells)
    parts = list(sections.parts(frame.read(tmp_path), "fd_cifar"))
    assert [part.name for part in parts] == ["1,000 samples", "5,000 samples"]
    for part, samples in zip(parts, (1000, 5000), strict=True):
        used = {key for table in part.tables for row in table.rows for p in row for key in keys(p)}
        assert used == {cell.key for cell in cells if cell.samples == samples}


def keys(place: Any) -> tuple[str, ...]:
    return () if place.value is None else tuple(place.value.keys)


def test_a_value_over_seeds_tells_their_spread(tmp_path: Path) -> None:
    cells = [Cell("ddim", 10, seed=seed) for seed in (0, 1, 2)]
    folder = records.make(
        tmp_path / "r", cells, of=lambda c: records.record(c, value=1.0 + c.seed, error=0.3)
    )
    tips = built(folder, tmp_path / "out").having("data-tip")
    assert "2 ± 0.1732, mean of 3 seeds with standard deviation 1" in tips


def test_several_sweeps_make_one_report(tmp_path: Path) -> None:
    shared = [records.exact(), Cell("ddim", 5), Cell("ddim", 10)]
    a = records.make(tmp_path / "a", shared, name="first", metrics=("fid",), question="One?")
    own = [*shared, Cell("heun", 5), Cell("heun", 10)]
    b = records.make(tmp_path / "b", own, name="second", metrics=("fid",), question="Two?")
    path = build([a, b], tmp_path / "out")
    found = path.read_text(encoding="utf-8")
    assert found.startswith("# first + second\n")
    assert (
        "Sweeps **first**, **second**: 2 samplers in 2 configurations; 5 of 5 cells done" in found
    )
    assert "| NFE | ddim | heun |" in found
    assert "\nbench run sweeps/first.yaml\nbench run sweeps/second.yaml\n" in found
    assert "\nbench report sweeps/first.yaml sweeps/second.yaml\n" in found
    assert "\nbench compare results/second again/second\n" in found
    check_safe(Page(path.with_name("report.html")))


def test_a_metric_is_shown_for_the_sweeps_that_ask_for_it(tmp_path: Path) -> None:
    a = records.make(tmp_path / "a", [Cell("ddim", 5), Cell("ddim", 10)], metrics=("fid",))
    b = records.make(
        tmp_path / "b", [Cell("heun", 5), Cell("heun", 10)], name="b", metrics=("kid",),
        of=lambda cell: records.record(cell, ("kid",)),
    )  # fmt: skip
    found = build([a, b], tmp_path / "out").read_text(encoding="utf-8")
    fid, kid = found.split("\n## ")[1:3]
    assert fid.startswith("fid\n")
    assert kid.startswith("kid\n")
    assert "heun" not in fid
    assert "ddim" not in kid
    assert "not recorded" not in found


def test_folders_of_one_name_stay_two(tmp_path: Path) -> None:
    for place in ("a", "b"):
        cells = [Cell("ddim" if place == "a" else "heun", 5)]
        records.make(tmp_path / place / "r", cells, name=f"sweep-{place}", metrics=(place,))
    study = frame.read(tmp_path / "a" / "r", tmp_path / "b" / "r")
    assert study.name == "sweep-a + sweep-b"
    assert study.metrics == ("a", "b")


def test_a_cell_of_two_sweeps_is_taken_where_it_is_done(tmp_path: Path) -> None:
    cells = [Cell("ddim", 5), Cell("ddim", 10)]
    a = records.make(tmp_path / "a", cells, of=lambda _: None)
    b = records.make(tmp_path / "b", cells)
    for folders in ((a, b), (b, a)):
        assert list(frame.read(*folders).cells["status"]) == ["done", "done"]


def test_the_heat_map_has_a_place_for_each_eta_and_number_of_steps(tmp_path: Path) -> None:
    study = frame.read(records.make(tmp_path, records.ddim_table()))
    maps = heat.maps(study, "fd_cifar")
    assert [each.title for each in maps] == ["ddim, spacing quadratic", "ddim, spacing uniform"]
    for each in maps:
        assert list(each.values.index) == ["0", "0.2", "0.5", "1", "sigma-hat"]
        assert list(each.values.columns) == [10, 20, 50, 100, 1000]
        assert each.values.notna().all(axis=None)
    cell = Cell("ddim", 50, {"eta": 0.2}, "quadratic", effective=46)
    assert maps[0].values.loc["0.2", 50] == pytest.approx(records.quality(cell))


# How long it takes: tests/benchmarks/report_speed.py.
@pytest.mark.slow
def test_two_thousand_cells_are_less_than_15_mb(tmp_path: Path) -> None:
    folder = records.make_large(tmp_path / "r")
    path = build(folder, tmp_path / "out").with_name("report.html")
    assert path.stat().st_size < 15e6
    assert Page(path).body.count("done") >= 2001
