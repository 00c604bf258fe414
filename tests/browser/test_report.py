"""The report in a real browser: wide and narrow, light and dark."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from metisfl.local.report import write_report
from tests.unit.local.samples import record

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)",
)

WIDTHS = [1280, 400]
SCHEMES = ["light", "dark"]

CONTRAST = """
const channels = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
const luminance = colour => {
  const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = channels(colour).map(c => linear(c / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!colour.endsWith(", 0)")) return colour;
  }
  return getComputedStyle(document.body).backgroundColor;
};
const ratio = (element, property) => {
  const [a, b] = [getComputedStyle(element)[property], behind(element)].map(luminance);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const shown = e => e.getClientRects().length > 0 && e.textContent.trim() !== "";
const words = [...document.querySelectorAll("h1, h2, h3, p, .verdict, dt, dd, th, td, figcaption, summary, footer")];
return {
  words: Math.min(...words.filter(shown).map(e => ratio(e, "color"))),
  labels: Math.min(...[...document.querySelectorAll("svg text")].filter(shown).map(e => ratio(e, "fill"))),
};
"""

CURVES = """
return [...document.querySelectorAll("figure svg")].filter(svg => svg.getClientRects().length).map(svg => {
  const box = svg.getBoundingClientRect();
  const curves = [...svg.querySelectorAll("path")].filter(path => {
    const style = getComputedStyle(path);
    const paint = style.stroke !== "none" ? style.stroke : style.fill;
    const size = path.getBoundingClientRect();
    return path.getAttribute("style")?.includes("--series-") && paint.startsWith("rgb") && size.height > 2
      && size.left >= box.left - 1 && size.right <= box.right + 1;
  });
  return curves.length;
});
"""


class Browser:
    """Chromium with the log of everything it asks for."""

    def __init__(self) -> None:
        options = Options()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
            options.add_argument(argument)
        options.binary_location = str(CHROMIUM)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(DRIVER))

    def show(self, page: Path, width: int, scheme: str) -> None:
        """Open a page on a screen of this width."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.as_uri())

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self.driver.execute_script(script)

    def requested(self) -> list[str]:
        """Every address asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the browser's console holds."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("report") / "report.html"
    write_report(record(12, message="version 12 reached accuracy ≥ 0.95"), page)
    return page


def test_the_page_is_quiet_and_asks_for_nothing_but_itself(browser: Browser, report: Path) -> None:
    browser.requested()
    browser.show(report, 1280, "light")
    assert browser.run("return document.title") == "digits: complete"
    assert browser.complaints() == []
    asked = browser.requested()
    assert report.as_uri() in asked
    assert all(address == report.as_uri() or address.startswith("data:") for address in asked)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_curves_and_bars_are_drawn_inside_their_frames(browser: Browser, report: Path, width: int, scheme: str) -> None:
    browser.show(report, width, scheme)
    accuracy, loss, phases = browser.run(CURVES)
    assert accuracy >= 1
    assert loss >= 2
    assert phases >= 12 * 4, "four phases of twelve rounds"


@pytest.mark.parametrize("width", [1280, 768, 400, 320])
def test_the_page_never_scrolls_sideways(browser: Browser, report: Path, width: int) -> None:
    browser.show(report, width, "light")
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_can_be_read(browser: Browser, report: Path, scheme: str) -> None:
    browser.show(report, 1280, scheme)
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    contrast = browser.run(CONTRAST)
    assert contrast["words"] >= 4.5, "WCAG 2.2, 1.4.3"
    assert contrast["labels"] >= 4.5


def test_light_and_dark_differ(browser: Browser, report: Path) -> None:
    colours = set()
    for scheme in SCHEMES:
        browser.show(report, 1280, scheme)
        colours.add(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_are_large_enough(browser: Browser, report: Path, width: int) -> None:
    browser.show(report, width, "light")
    sizes = browser.run(
        "return [...document.querySelectorAll('svg text')].filter(t => t.getClientRects().length).map(t =>"
        " parseFloat(getComputedStyle(t).fontSize) * Math.hypot(t.getScreenCTM().a, t.getScreenCTM().b))"
    )
    assert min(sizes) >= 9, "CSS pixels"
