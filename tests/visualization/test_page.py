import json
import re
from pathlib import Path

import pytest

from la_det.visualization.locations import Kind
from la_det.visualization.page import render


@pytest.fixture(scope="module")
def page(pictures, rows, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render("shapes", pictures, rows, "a note"), encoding="utf-8")
    return path


def test_holds_everything_and_names_no_other_file(page, pictures):
    text = page.read_text()
    content = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert [p["name"] for p in content["pictures"]] == ["first", "empty"]
    assert content["pictures"][0]["classes"] == pictures[0].classes
    assert content["rows"][0][1]["found"][0]["anchor"][0] == [None] * 4
    assert set(re.findall(r"""(?:src|href)\s*=\s*["']?([^"' >]*)""", text)) == {"data:,"}
    assert set(re.findall(r"(?:url\(|@import)(.)", text)) == {"#"}
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address


def test_opens_without_errors_and_asks_for_nothing(browser, page):
    browser.open(page)
    assert browser.driver.title == "Label assignment on shapes"
    assert browser.driver.find_element("id", "note").text == "a note"
    requested = browser.requests()
    assert page.as_uri() in requested
    assert all(url == page.as_uri() or url.startswith("data:") for url in requested), requested
    assert browser.errors() == []


def test_choices_change_what_is_drawn(browser, page):
    browser.open(page)
    assert browser.count(".location") == [1, 6, 1, 1]
    assert browser.count(".kind1") == [0, 1, 0, 0]
    assert browser.count(".truth") == [3, 3, 3, 3]
    assert browser.count(".ignored") == [1, 1, 1, 1]
    assert browser.count(".cells") == [0, 0, 0, 0]
    browser.choose("moment", 0)
    assert browser.count(".location") == [1, 6]
    browser.choose("truth", 0)
    assert browser.count(".location") == [1, 3]
    browser.choose("truth", 1)
    assert browser.count(".location") == [0, 1]
    browser.choose("truth", -1)
    browser.choose("level", 0)
    assert browser.count(".location") == [1, 4]
    assert browser.count(".cells") == browser.count("pattern[width='8'][x='0']") == [1, 1]
    browser.choose("level", 1)
    assert browser.count(".location") == [0, 2]
    assert browser.errors() == []


def test_an_image_without_ground_truths(browser, page):
    browser.open(page)
    browser.choose("truth", 1)
    browser.choose("image", 1)
    assert browser.count(".truth") == [0, 0, 0, 0]
    assert browser.count(".location") == [0, 1, 0, 0]
    assert browser.count("tbody tr") == [0, 0, 0, 0]
    assert browser.errors() == []


def view_box(browser) -> list[float]:
    script = "return document.querySelector('svg.image').getAttribute('viewBox')"
    return [float(x) for x in browser.driver.execute_script(script).split()]


def test_a_chosen_ground_truth_is_enlarged_with_its_positives(browser, page):
    browser.open(page)
    assert view_box(browser) == [0, 0, 96, 64]
    browser.choose("truth", 0)
    x, y, width, height = view_box(browser)
    assert width < 96 and x <= 8 and y <= 8 and x + width >= 40 and y + height >= 40
    browser.driver.find_element("id", "zoom").click()
    assert view_box(browser) == [0, 0, 96, 64]


def test_a_far_positive_stays_in_view(browser, pictures, make_panel, tmp_path):
    far = make_panel("a", "now", [(Kind.POSITIVE, 1, 0, (4, 4), 1, 1, 1)], [])
    (tmp_path / "page.html").write_text(render("shapes", pictures, [[far]]), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    browser.choose("truth", 1)
    x, y, width, height = view_box(browser)
    assert x <= 4 and y <= 4 and x + width >= 90 and y + height >= 60


def test_the_pointer_shows_all_that_is_known_of_a_location(browser, page):
    browser.open(page)
    browser.choose("moment", 0)
    browser.choose("level", 0)
    positive = browser.driver.find_elements("css selector", "figure:nth-of-type(2) .kind0")[0]
    hover = "arguments[0].dispatchEvent(new MouseEvent(arguments[1]))"
    browser.driver.execute_script(hover, positive, "mouseenter")
    tooltip = browser.driver.find_element("id", "tooltip").text
    for part in ("P3, stride 8, at (20, 28)", "disc", "weight 0.500", "background weight 0.250", "0.250, IoU 0.750"):
        assert part in tooltip
    assert browser.count(".predicted") == [0, 1] and browser.count(".anchor") == [0, 0]
    browser.driver.execute_script(hover, positive, "mouseleave")
    assert browser.count(".predicted") == [0, 0]
    assert not browser.driver.find_element("id", "tooltip").is_displayed()


def test_the_table_counts_and_chooses(browser, page):
    browser.open(page)
    browser.choose("moment", 0)
    first, second, ignored = browser.driver.find_elements("css selector", "figure:nth-of-type(2) tbody tr")
    assert first.text.split() == ["0", "disc", "1", "0", "+", "1", "0.250", "0.750"]
    assert second.text.split() == ["1", "</script><b>", "1", "0.250", "0.750"]
    assert ignored.get_attribute("class").strip() == ""
    unmatched = browser.driver.find_elements("css selector", "figure:nth-of-type(1) tbody tr")[1]
    assert unmatched.text.endswith("none") and unmatched.get_attribute("class") == "none"
    second.click()
    assert browser.count(".location") == [0, 1]
    assert browser.count("tr.chosen") == [1, 1]
    assert browser.errors() == []


def chosen_image(browser) -> str:
    return browser.driver.find_element("id", "image").get_attribute("value")


def test_buttons_and_arrow_keys_step_through_the_images(browser, page):
    browser.open(page)
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
    browser.driver.find_element("id", "next").click()
    assert chosen_image(browser) == "1" and browser.count(".truth") == [0, 0, 0, 0]
    browser.driver.find_element("id", "next").click()
    assert chosen_image(browser) == "0", "after the last image comes the first"
    browser.driver.find_element("id", "previous").click()
    assert chosen_image(browser) == "1"
    browser.driver.execute_script(press, "ArrowLeft")
    assert chosen_image(browser) == "0"
    browser.driver.execute_script(press, "ArrowRight")
    assert chosen_image(browser) == "1"
    assert browser.errors() == []


@pytest.mark.parametrize(("width", "columns"), [(420, 1), (700, 2), (1280, 2)])
def test_fits_the_window(browser, page, width, columns):
    browser.open(page)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.choose("moment", 0)
        script = "return document.documentElement.scrollWidth"
        assert browser.driver.execute_script(script) <= width, "nothing is cut off at the right"
        script = "return new Set([...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().x)).size"
        assert browser.driver.execute_script(script) == columns
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
