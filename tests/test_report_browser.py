"""The HTML report in a real browser: sorting, filtering, the large view, small screens, and no way out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results import inspected

from dapo.inspection import Failure
from dapo.writers import HtmlReport

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">.png"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium at /usr/bin/chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    noise = np.random.default_rng(0).integers(90, 160, (300, 400, 3), dtype=np.uint8)
    two = [("stain", 0.25, 0.3, 0.12, 0.95), ("scratch", 0.7, 0.6, 0.1, 0.8)]
    with HtmlReport(path, "Line 3") as report:
        report.write(inspected("b/part_10.png", [("scratch", 0.5, 0.5, 0.1, 0.7)], pixels=noise))
        report.write(inspected("a/part_9.png", (), pixels=noise))
        report.write(inspected(HOSTILE, two, pixels=noise))
        report.write(inspected("tall.png", two, size=(900, 90)))
        report.write(Failure(HOSTILE, "unreadable", HOSTILE))
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    yield page
    assert page.title() == "Line 3", "no text of a result was run"
    assert faults == []
    page.close()


def names(page: Any) -> list[str]:
    return list(page.locator("tbody tr:visible td.name > bdi").all_inner_texts())


def test_the_highest_score_comes_first_and_headings_sort(page: Any) -> None:
    assert names(page)[-2:] == ["part_10.png", "part_9.png"]
    page.get_by_role("button", name="Image").click()
    assert names(page)[1:] == ["part_9.png", "part_10.png", "tall.png"], "9 before 10"
    page.get_by_role("button", name="Image").click()
    assert names(page)[0] == "tall.png"
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="No.").click()
    assert names(page) == ["part_10.png", "part_9.png", HOSTILE, "tall.png"]


def test_filters_narrow_and_say_how_far(page: Any) -> None:
    page.get_by_role("button", name="OK").click()
    assert names(page) == ["part_9.png"]
    assert page.locator("#shown").inner_text() == "1 of 4 shown"
    page.get_by_role("button", name="All", exact=False).first.click()
    page.select_option("#type", "stain")
    assert sorted(names(page)) == [HOSTILE, "tall.png"]
    page.fill("#search", "TALL")
    assert names(page) == ["tall.png"]
    page.fill("#search", "nothing like it")
    assert page.locator("#empty").is_visible() and names(page) == []


def test_a_click_opens_the_large_view_with_regions(page: Any) -> None:
    page.locator("tbody tr", has_text="owned").click()
    dialog = page.locator("dialog")
    assert dialog.is_visible()
    assert dialog.locator("h2").inner_text() == HOSTILE
    regions = dialog.locator("table.found tbody tr")
    assert regions.count() == 2
    assert "stain" in regions.first.inner_text() and "0.95" in regions.first.inner_text()
    assert dialog.locator(".label").all_inner_texts() == ["stain 0.95", "scratch 0.80"]
    photo = dialog.locator(".stage img").first
    assert photo.evaluate("image => image.complete && image.naturalWidth") == 400
    regions.first.hover()
    assert dialog.locator("g.on").get_attribute("data-id") == "1"
    assert dialog.locator("details").count() == 2
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_scores_of_picture_and_regions_are_told_apart(page: Any) -> None:
    page.locator("tbody tr", has_text="part_10").click()
    assert "a region is judged on its own pixels" in page.locator("#told").inner_text()
    page.keyboard.press("Escape")
    page.locator("tbody tr", has_text="part_9").click()
    assert "own pixels" not in page.locator("#told").inner_text(), "a good part has no region"


def test_layers_switch_between_outlines_heat_and_photo(page: Any) -> None:
    page.locator("tbody tr", has_text="owned").click()
    outlines, heat = page.locator("#place svg"), page.locator("#place .heat")
    assert outlines.is_visible() and not heat.is_visible()
    page.get_by_role("button", name="Heat map").click()
    assert heat.is_visible() and not outlines.is_visible()
    assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    page.get_by_role("button", name="Photo").click()
    assert not heat.is_visible() and not outlines.is_visible()
    assert page.locator(".label").count() == 0


def test_arrow_keys_step_through_what_the_filters_show(page: Any) -> None:
    page.get_by_role("button", name="Defective").click()
    page.locator("tbody tr:visible").first.click()
    seen = [page.locator("#large-name").inner_text()]
    for _ in range(4):
        page.keyboard.press("ArrowRight")
        seen.append(page.locator("#large-name").inner_text())
    assert seen[:3] == names(page) and set(seen[3:]) == {names(page)[-1]}
    assert page.locator("#after").is_disabled()


def test_rows_open_from_the_keyboard(page: Any) -> None:
    page.locator("tbody tr").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()


@pytest.mark.parametrize("width", [320, 390, 768, 900, 1280])
def test_nothing_runs_off_the_side_of_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(wide) <= 0
    page.locator("tbody tr", has_text="tall").click()
    assert page.evaluate(wide) <= 0
    assert page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('dialog'))") <= 0
    boxes = [label.bounding_box() for label in page.locator(".label").all()]
    assert len(boxes) == 2
    one, two = boxes
    apart = one["x"] + one["width"] <= two["x"] or two["x"] + two["width"] <= one["x"]
    assert apart or one["y"] + one["height"] <= two["y"] or two["y"] + two["height"] <= one["y"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_have_contrast_in_both_schemes(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    weakest = page.evaluate("""() => {
        const light = (rgb) => {
          const [r, g, b] = rgb.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (e) => {
          const c = getComputedStyle(e).backgroundColor;
          return /, 0\\)$/.test(c) && e.parentElement ? ground(e.parentElement) : c;
        };
        const contrast = (e) => {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        };
        const written = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
          && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
        return Math.min(...written.map(contrast));
    }""")
    assert weakest >= 4.5


def test_on_paper_there_are_rows_and_no_controls(page: Any) -> None:
    page.emulate_media(media="print")
    assert page.locator("tbody tr:visible").count() == 4
    assert not page.locator(".filters").is_visible()
    page.set_viewport_size({"width": 794, "height": 1123})  # A4: rows are cards, over which no headings stand
    assert not page.locator("#images thead").is_visible()
    assert page.locator("tbody tr:visible").count() == 4
    page.set_viewport_size({"width": 1123, "height": 794})
    assert page.locator("#images thead").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_the_rows_are_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("tbody tr:visible").count() == 4
    context.close()


def test_a_result_without_a_map_offers_no_heat_map(browser: Any, tmp_path: Path) -> None:
    with HtmlReport(tmp_path / "r.html") as report:
        report.write(inspected("with.png", [("scratch", 0.5, 0.5, 0.1, 0.9)]))
        report.write(replace(inspected("kept.png", [("scratch", 0.5, 0.5, 0.1, 0.8)]), anomaly_map=None))
    page = browser.new_page()
    page.goto((tmp_path / "r.html").as_uri())
    page.locator("tbody tr").first.click()
    page.get_by_role("button", name="Heat map").click()
    page.keyboard.press("ArrowRight")
    assert page.locator("#large-name").inner_text() == "kept.png"
    assert page.get_by_role("button", name="Heat map").is_disabled()
    assert page.locator("#place svg").is_visible()
    page.keyboard.press("ArrowLeft")
    assert page.get_by_role("button", name="Heat map").is_enabled()
    page.close()
