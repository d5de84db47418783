"""report.html in a real headless Chromium; `tests/browser/setup.sh` installs one."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.regression.changes import story
from bench.regression.history import Commit, History, Point, Series
from bench.regression.history_chapter import chapter
from bench.report import build
from tests.report import records

pytestmark = pytest.mark.browser

SETUP = Path(__file__).with_name("setup.sh")
IMAGES = {"near_constant": 3, "duplicates": 0, "saturated": 0.0}
DESKTOP, PHONE = (1280, 900), (390, 844)
SHOTS = os.environ.get("BENCH_SCREENSHOTS")
"""A folder for pictures of what the tests see, to look at."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or the tests are skipped; where BENCH_NEEDS_BROWSER is set they fail instead."""
    done = subprocess.run([SETUP], capture_output=True, text=True)
    if done.returncode != 0:
        refuse = pytest.fail if "BENCH_NEEDS_BROWSER" in os.environ else pytest.skip
        refuse(f"NO BROWSER HERE, ITS TESTS DID NOT RUN: {done.stderr.strip()[-500:]}")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep with two metrics, several spacings, a failed cell and samples."""
    folder = tmp_path_factory.mktemp("browser")
    cells = [*records.ddim_table(), *records.quickstart()]
    failed = records.Cell("ddim", 5, {"eta": 1.0}, "uniform")
    records.make(
        folder / "r",
        cells,
        metrics=("fd_cifar", "fid"),
        of=lambda cell: (
            records.failure(cell, "boom")
            if cell == failed
            else records.record(
                cell, ("fd_cifar", "fid"), error=records.quality(cell) / 50, images=IMAGES
            )
        ),
    )
    records.keep_samples(folder / "r", cells)
    out = folder / "out"
    return build(folder / "r", out, [chapter(past(), out, 1)]).with_name("report.html")


def past() -> History:
    """Of a series with a step, and of one in which nothing happened."""
    commits = tuple(Commit(f"{n:08x}", f"2026-01-{n + 1:02d}", f"Change {n}") for n in range(9))
    series = []
    for label, step in (("ddim 10", 0.0), ("ddim 20", 0.5)):
        values = [4 + 0.02 * (n % 3) + step * (n > 4) for n in range(9)]
        points = tuple(Point(n, value, 0.05, n == 5) for n, value in enumerate(values))
        told = story(values, [0.05] * 9, 2)
        series.append(Series(label, "fd_cifar", points, 0, told))
    return History("tiny", commits, tuple(series))


def look(browser: Any, page: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    """Opens the page as on a screen of that size, for somebody who prefers that scheme."""
    width, height = size
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    for log in ("browser", "performance"):
        browser.get_log(log)  # what was there before
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())


def run(browser: Any, script: str, *arguments: Any) -> Any:
    return browser.execute_script(script, *arguments)


def point_at(browser: Any, spot: Any) -> None:
    """Scrolls to a spot and, once the page has been told of that, moves the pointer onto it.

    A scroll takes a value away that is shown, and its event comes with the next frame: on a busy
    machine after a pointer that does not wait.
    """
    from selenium.webdriver import ActionChains

    script = """const [spot, done] = arguments;
        spot.scrollIntoView({block: 'center'});
        requestAnimationFrame(() => requestAnimationFrame(done))"""
    browser.execute_async_script(script, spot)
    ActionChains(browser).move_to_element(spot).perform()


def shoot(browser: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(SHOTS) / f"{name}.png"))


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_without_errors_or_requests_and_fits(
    browser: Any, page: Path, size: tuple[int, int], scheme: str
) -> None:
    look(browser, page, size, scheme)
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    wide = run(browser, "return document.documentElement.scrollWidth")
    assert wide <= size[0]
    shoot(browser, f"{size[0]}-{scheme}")


def test_a_page_from_elsewhere_is_not_asked_for(browser: Any, page: Path, tmp_path: Path) -> None:
    """The policy holds: what somebody adds to the page loads nothing and runs nothing."""
    added = '<img src="http://127.0.0.1:9/x.png" onerror="document.title = 1">'
    added += "<script>document.title = 1</script>"
    changed = tmp_path / "changed.html"
    changed.write_text(page.read_text(encoding="utf-8").replace("<h1>", f"{added}<h1>"))
    look(browser, changed)
    told = " ".join(entry["message"] for entry in browser.get_log("browser"))
    assert "img-src data:" in told
    assert "script-src" in told
    assert browser.title != "1"


def column(browser: Any, ident: str, place: int) -> list[str]:
    script = """return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)]
        .filter((row) => !row.hidden).map((row) => row.cells[arguments[1]].textContent.trim())"""
    found: list[str] = run(browser, script, ident, place)
    return found


SHOWN = """return [...document.querySelectorAll(arguments[0])]
    .filter((each) => each.checkVisibility()).length"""


def press(browser: Any, query: str) -> None:
    run(browser, "document.querySelector(arguments[0]).click()", query)


def test_tables_sort_by_number_and_by_text_with_holes_last(browser: Any, page: Path) -> None:
    look(browser, page)
    header = run(
        browser,
        "return [...document.querySelectorAll('#all-cells th .sort')].map(e => e.textContent)",
    )
    value = header.index("fd_cifar")
    sort = f"#all-cells thead th:nth-child({value + 1}) .sort"
    head = f"#all-cells thead th:nth-child({value + 1})"
    for direction, sign in (("ascending", 1), ("descending", -1)):
        press(browser, sort)
        state = run(browser, "return document.querySelector(arguments[0]).ariaSort", head)
        assert state == direction
        *numbers, last = column(browser, "all-cells", value)
        assert last == "—"
        found = [sign * float(number) for number in numbers]
        assert found == sorted(found)
        assert len(set(found)) > 20
    press(browser, "#all-cells thead th:nth-child(1) .sort")
    names = column(browser, "all-cells", 0)
    assert names[0].startswith("ddim")
    assert names[-1].startswith("heun")


def test_tables_filter_by_words(browser: Any, page: Path) -> None:
    look(browser, page)
    whole = len(column(browser, "all-cells", 0))
    field = browser.find_element("css selector", "input[data-for=all-cells]")
    field.send_keys("DDIM quadratic")
    spacings = set(column(browser, "all-cells", 1))
    shown = len(column(browser, "all-cells", 0))
    assert spacings == {"quadratic"}
    assert 0 < shown < whole
    told = browser.find_element("css selector", "[data-count=all-cells]").text
    assert told == f"{shown} of {whole}"
    field.send_keys(" nothing-has-this")
    assert column(browser, "all-cells", 0) == []


def test_values_of_the_plot_show_by_pointer_and_by_keyboard(browser: Any, page: Path) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    look(browser, page)
    spots = browser.find_elements("css selector", ".metric:not([hidden]) .plot:not([hidden]) .spot")
    tip = browser.find_element("id", "tip")
    assert not tip.is_displayed()
    point_at(browser, spots[3])
    assert tip.is_displayed()
    assert " NFE: " in tip.text
    assert " ± " in tip.text
    shoot(browser, "hover")
    run(browser, "arguments[0].focus({preventScroll: true})", spots[0])
    assert tip.text == spots[0].get_attribute("aria-label")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    active = browser.switch_to.active_element
    assert active == spots[1]
    assert tip.text == spots[1].get_attribute("aria-label")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not tip.is_displayed()
    # A mark lies on its marker: the line's own drawing is under its middle.
    under = """const box = arguments[0].getBoundingClientRect();
        const x = box.x + box.width / 2, y = box.y + box.height / 2;
        arguments[0].style.pointerEvents = 'none';
        const found = document.elementFromPoint(x, y);
        return found.tagName + ' ' + Boolean(found.closest('svg'))"""
    run(browser, "arguments[0].scrollIntoView({block: 'center'})", spots[5])
    assert run(browser, under, spots[5]) in ("use true", "path true")


def test_the_history_has_its_values_too(browser: Any, page: Path) -> None:
    look(browser, page)
    spots = browser.find_elements("css selector", ".chapter .spot")
    assert len(spots) == 18
    point_at(browser, spots[5])
    tip = browser.find_element("id", "tip").text
    assert tip == "ddim 20 at 00000005 (2026-01-06, Change 5): 4.540 ± 0.050"
    said = browser.find_element("css selector", ".chapter table").text
    assert "step at 00000005 (2026-01-06, Change 5)" in said
    shoot(browser, "history")


def test_one_metric_and_one_picture_at_a_time(browser: Any, page: Path) -> None:
    look(browser, page)
    assert run(browser, SHOWN, ".metric") == 1
    assert run(browser, SHOWN, ".metric .plots .plot") == 1
    first = browser.find_element("css selector", ".metric:not([hidden]) h2").text
    choose = """const list = document.getElementById('metric');
        list.selectedIndex = 1; list.dispatchEvent(new Event('change'))"""
    run(browser, choose)
    second = browser.find_element("css selector", ".metric:not([hidden]) h2").text
    assert (first, second) == ("fd_cifar", "fid")
    tabs = browser.find_elements("css selector", ".metric:not([hidden]) [role=tab]")
    assert [tab.text for tab in tabs] == ["against NFE", "against seconds", "η and steps"]
    for tab in tabs:
        tab.click()
        panel = browser.find_element("id", tab.get_attribute("aria-controls"))
        assert panel.is_displayed()
        assert run(browser, SHOWN, ".metric .plots .plot") == 1
        run(browser, "arguments[0].scrollIntoView()", tab)
        shoot(browser, f"tab-{tab.text.split()[-1]}")


def test_light_and_dark_follow_the_system_and_the_button(browser: Any, page: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('.canvas svg text')).fill"
    seen = {}
    for scheme in ("light", "dark"):
        look(browser, page, scheme=scheme)
        seen[scheme] = run(browser, ground), run(browser, ink)
    assert bright(seen["light"][0]) > 200 > 100 > bright(seen["light"][1])
    assert bright(seen["dark"][0]) < 60 < 150 < bright(seen["dark"][1])
    press(browser, "#theme")  # auto -> light, on a dark system
    assert run(browser, ground) == seen["light"][0]
    press(browser, "#theme")
    assert run(browser, ground) == seen["dark"][0]
    browser.get(page.as_uri())  # what was chosen is kept
    assert browser.find_element("id", "theme").text == "Theme: dark"


def bright(colour: str) -> float:
    """The mean of red, green and blue of what a browser says a colour is."""
    numbers = colour[colour.index("(") + 1 : -1].split(",")[:3]
    return sum(map(float, numbers)) / 3


def test_print_shows_everything_on_white(browser: Any, page: Path) -> None:
    look(browser, page, scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert run(browser, SHOWN, ".metric") == 2
    assert run(browser, SHOWN, ".metric .plots .plot") == 6
    assert run(browser, SHOWN, ".bar, .filter, .tabs") == 0
    assert (
        run(browser, "return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


TEXTS = [
    "h1",
    ".lead",
    ".legend",
    "td",
    "a",
    "td abbr",
    "td small",
    "dt",
    ".cautions",
    "figcaption",
]
CONTRAST = """
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => (v <= 10 ? v / 3295 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const contrast = (query) => {
        const node = document.querySelector(query);
        const both = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    };
"""


def test_texts_can_be_read_against_their_ground(browser: Any, page: Path) -> None:
    """Contrast of at least 4.5 (WCAG AA) of text, in light and in dark."""
    script = "return arguments[0].map((query) => [query, contrast(query)])"
    for scheme in ("light", "dark"):
        look(browser, page, scheme=scheme)
        found = dict(run(browser, CONTRAST + script, TEXTS))
        assert {query for query, ratio in found.items() if ratio < 4.5} == set(), (scheme, found)
