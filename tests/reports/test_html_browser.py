"""The HTML report in headless Chromium without a network: read, sorted, filtered, on a phone, printed."""

import base64
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from report_records import attribute_names, make_calibration, make_record, widened

from mlcls.reports.html import ConfidentError, Picture, report_html, thumbnail

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

if CHROMIUM is None or DRIVER is None:
    pytest.skip("needs chromium and chromedriver on PATH", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
HUNDRED = attribute_names(100)
HOSTILE = (
    "<script>document.title='x'</script>",
    '"><img src=x onerror="document.title=2">',
    "שלום",
    "x" * 200,
    "👩‍👩‍👧",
)
Show = Callable[..., Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NO_PROXY", "no_proxy"):  # the driver is on this machine
            patch.setenv(name, "localhost,127.0.0.1")
        service = webdriver.ChromeService(executable_path=DRIVER, log_output=subprocess.DEVNULL)
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Show:
    """Open a page, given as text, in a window of this width; refuse any complaint of the browser."""

    def go(text: str, *, width: int = 1280, dark: bool = False) -> Any:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)  # windows have a least width
        browser.get_log("browser")
        browser.get(path.as_uri())
        return browser

    return go


def jpeg(value: int) -> bytes:
    return thumbnail(np.full((90, 120, 3), value, np.uint8))


def png(width: int = 2000) -> bytes:
    done, encoded = cv2.imencode(".png", np.full((300, width, 3), 240, np.uint8))
    assert done
    return bytes(encoded)


@pytest.fixture(scope="module")
def full() -> str:
    """A report with every part, of a hundred attributes."""
    errors = [
        ConfidentError(
            image=f"folder/image_{i}.jpg", attribute=HUNDRED[i], label=i % 2, probability=0.9 - 0.01 * i,
            threshold=0.4, thumbnail=None if i == 3 else jpeg(10 * i),
        )
        for i in range(24)
    ]  # fmt: skip
    record = widened(
        make_record(HUNDRED, images=120),
        calibration=make_calibration(HUNDRED),
        leaks=(("a.jpg", "b.jpg"),),
        health=("'vest' is unknown more often in small images",),
    )
    pictures = [Picture(title=f"Picture {i}", caption="What to see", png=png()) for i in range(3)]
    return report_html(
        record, subset="test", errors=errors, pictures=pictures, title="A run", source="outputs"
    )


def column(driver: Any, number: int, table: str = "#attributes table") -> list[str]:
    """The first lines of a column's cells, as they stand from top to bottom."""
    rows = "[...document.querySelectorAll(arguments[0] + ' tbody tr')]"
    script = f"return {rows}.map(r => r.cells[arguments[1]].innerText)"
    cells: list[str] = driver.execute_script(script, table, number)
    return [cell.strip().split("\n")[0] for cell in cells]


def complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def test_it_is_read_without_a_network(show: Show, full: str) -> None:
    driver = show(full)
    assert driver.title == "A run"
    verdict = driver.find_element("id", "verdict").text
    assert "of 100 attributes are recognised better than chance" in verdict
    assert "Macro average precision" in verdict
    assert len(column(driver, 0)) == 100
    widths = driver.execute_script("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(widths) == 23 + 3
    assert all(complete and width > 0 for complete, width in widths)
    loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert complaints(driver) == []


def test_a_heading_sorts_and_undefined_stays_last(show: Show, full: str) -> None:
    driver = show(full)
    headings = driver.find_elements("css selector", "#attributes thead th")
    number = next(i for i, heading in enumerate(headings) if heading.text.startswith("AUROC"))
    for expected, order in (("descending", True), ("ascending", False)):
        headings[number].find_element("tag name", "button").click()
        assert headings[number].get_attribute("aria-sort") == expected
        cells = column(driver, number)
        known = [float(cell) for cell in cells if cell != "–"]
        assert known == sorted(known, reverse=order)
        assert len(known) < len(cells)  # the record has undefined ones
        assert cells[len(known) :] == ["–"] * (len(cells) - len(known))
    button = headings[0].find_element("tag name", "button")
    button.send_keys("\n")  # from the keyboard
    names = column(driver, 0)
    assert headings[0].get_attribute("aria-sort") == "ascending"
    assert headings[number].get_attribute("aria-sort") is None
    assert set(names) == set(HUNDRED)
    assert names[0] == min(HUNDRED)
    assert complaints(driver) == []


def test_the_rows_move_whole(show: Show, full: str) -> None:
    driver = show(full)
    before = dict(zip(column(driver, 0), zip(column(driver, 2), column(driver, 4), strict=True), strict=True))
    driver.find_elements("css selector", "#attributes thead button")[1].click()
    after = dict(zip(column(driver, 0), zip(column(driver, 2), column(driver, 4), strict=True), strict=True))
    assert after == before
    assert list(after) != list(before)


def test_the_filter_leaves_the_rows_that_match(show: Show, full: str) -> None:
    driver = show(full)
    field = driver.find_element("css selector", "[data-filter]")
    assert field.is_displayed()
    field.send_keys("HELMET")
    visible = (
        "return [...document.querySelectorAll('#attributes tbody tr')].filter(r => r.offsetParent).length"
    )
    wanted = sum("helmet" in name for name in HUNDRED)
    assert driver.execute_script(visible) == wanted
    assert driver.find_element("css selector", ".filter output").text == f"{wanted} of 100"


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("hostile", [False, True])
def test_no_page_is_wider_than_its_window(show: Show, full: str, width: int, hostile: bool) -> None:
    if hostile:
        record = widened(
            make_record(HOSTILE), calibration=make_calibration(HOSTILE), health=HOSTILE, missing=HOSTILE
        )
        record.command = "x" * 500
        error = ConfidentError(
            image="y" * 300, attribute=HOSTILE[3], label=1, probability=0.1, threshold=0.5, thumbnail=jpeg(0)
        )
        full = report_html(record, subset="test", title="z" * 200, source=HOSTILE[0], errors=[error])
    driver = show(full, width=width)
    driver.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
    wide, window = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert window == width
    assert wide <= window
    assert complaints(driver) == []
    if hostile:
        assert driver.title == "z" * 200  # no name of an attribute has run
        names = driver.execute_script(
            "return [...document.querySelectorAll('#attributes tbody th')].map(h => h.textContent)"
        )
        assert names == list(HOSTILE)


def test_the_name_stays_in_sight_while_a_wide_table_scrolls(show: Show, full: str) -> None:
    driver = show(full, width=390)
    place = "return document.querySelector('#attributes tbody th').getBoundingClientRect().left"
    before = driver.execute_script(place)
    driver.execute_script("document.querySelector('#attributes .scroll').scrollLeft = 400")
    assert driver.execute_script("return document.querySelector('#attributes .scroll').scrollLeft") == 400
    assert driver.execute_script(place) == pytest.approx(before, abs=2)


def test_what_matters_most_is_in_sight_without_scrolling(show: Show, full: str) -> None:
    driver = show(full, width=1280)
    headings = driver.execute_script(
        "const edge = document.querySelector('#attributes .scroll').getBoundingClientRect().right;"
        "return [...document.querySelectorAll('#attributes thead th')]"
        ".filter(h => h.getBoundingClientRect().right <= edge).map(h => h.querySelector('.title').textContent)"
    )
    assert headings[:7] == ["attribute", "against chance", "AP", "base rate", "AUROC", "F1", "base F1"]


def test_a_table_that_is_cut_off_says_that_it_scrolls(show: Show, full: str) -> None:
    driver = show(full, width=390)
    cue = (
        "return getComputedStyle(document.querySelector('#attributes caption span'), '::after').content"
        ".includes('scrolls sideways')"
    )
    wait = WebDriverWait(driver, 5)
    wait.until(lambda driver: driver.execute_script(cue))
    driver.execute_script("document.querySelector('#attributes .scroll').scrollLeft = 9999")
    wait.until(lambda driver: not driver.execute_script(cue))


def test_a_wide_picture_is_shown_whole_and_at_its_size_when_asked(show: Show, full: str) -> None:
    driver = show(full, width=390)
    shown = "return document.querySelector('.picture img').getBoundingClientRect().width"
    assert driver.execute_script(shown) < 390
    driver.find_element("css selector", ".enlarge").send_keys("\n")
    assert driver.execute_script(shown) >= 2000
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390


def test_light_and_dark_follow_the_reader(show: Show, full: str) -> None:
    colour = "return getComputedStyle(document.body).backgroundColor"
    light, dark = show(full).execute_script(colour), show(full, dark=True).execute_script(colour)
    assert sum(map(int, re.findall(r"\d+", light))) > 600
    assert sum(map(int, re.findall(r"\d+", dark))) < 150


def test_it_prints_with_every_part_unfolded(show: Show, full: str) -> None:
    driver = show(full)
    pages = driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})["data"]
    pdf = base64.b64decode(pages)
    assert pdf.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 10
    # what stands on paper: nothing folded, sticky, scrolling or hidden, and no table cut at the right
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    size = {"width": 1031, "height": 700, "deviceScaleFactor": 1, "mobile": False}  # A4 across, less margins
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert driver.execute_script("return document.querySelectorAll('details:not([open])').length") == 0
    script = "return [...document.querySelectorAll('table')].map(t => [t.offsetWidth, t.parentElement.clientWidth])"
    assert all(table <= room for table, room in driver.execute_script(script))
    sticky = "return [...document.querySelectorAll('th')].filter(h => getComputedStyle(h).position === 'sticky').length"
    assert driver.execute_script(sticky) == 0
    driver.execute_script("dispatchEvent(new Event('afterprint'))")
    assert driver.execute_script("return document.querySelectorAll('details:not([open])').length") > 0


def test_without_script_the_tables_are_there_and_no_dead_buttons(show: Show, full: str) -> None:
    bare = re.sub(r"<script>.*?</script>", "", full, flags=re.DOTALL)
    driver = show(bare)
    assert len(column(driver, 0)) == 100
    assert driver.find_elements("tag name", "button") == []
    assert not driver.find_element("css selector", "[data-filter]").is_displayed()


def test_the_policy_is_obeyed(show: Show, full: str) -> None:
    """Even a page that someone wrote into runs no other script and loads nothing."""
    hurt = full.replace(
        "</main>", "<script>document.title = 'run'</script><img id=far src='http://127.0.0.1:9/x.png'></main>"
    )
    driver = show(hurt)
    assert driver.title == "A run"
    assert any("Content Security Policy" in message for message in complaints(driver))
    assert driver.execute_script("return document.getElementById('far').naturalWidth") == 0
