"""A headless browser, and assignments made by hand."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.remote.webdriver import WebDriver

from la_det.structures import PointGenerator
from la_det.visualization.locations import Kind, Locations
from la_det.visualization.snapshots import Panel, Picture

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@dataclass
class Browser:
    """A page open in Chromium."""

    driver: WebDriver

    def open(self, page: Path) -> None:
        self.driver.get_log("browser"), self.driver.get_log("performance")  # of the page before
        self.driver.get(page.as_uri())

    def choose(self, name: str, value: object) -> None:
        """As a user does: sets a control and lets it tell its change."""
        control = self.driver.find_element("id", name)
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        self.driver.execute_script(script, control, str(value))

    def count(self, selector: str) -> list[int]:
        """How many elements each figure has."""
        script = "return [...document.querySelectorAll('figure')].map(f => f.querySelectorAll(arguments[0]).length)"
        return self.driver.execute_script(script, selector)

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses of all that the page asked for; the browser itself may ask for more."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [event["request"]["url"] for event in sent if event["documentURL"] == self.driver.current_url]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        missing = "no chromium and chromedriver: apt-get install chromium chromium-driver"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, "--window-size=1400,1000", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def entries(*rows: tuple) -> Locations:
    """From rows of (kind, gt, level, point, weight, target, strength); the predicted box is around the point."""
    kind, gt, level, point, *values = zip(*rows, strict=True) if rows else [[]] * 7
    point = np.array(point, np.float32).reshape(-1, 2)
    weight, target, strength = (np.array(v, np.float32) for v in values)
    box, unknown = np.concatenate([point - 5, point + 5], 1), np.full((len(rows), 4), np.nan, np.float32)
    probability, iou = np.full(len(rows), 0.25, np.float32), np.full(len(rows), 0.75, np.float32)
    indices = (np.array(x, np.int64) for x in (kind, gt, level))
    return Locations(*indices, point, weight, target, strength, probability, iou, box, unknown)


@pytest.fixture(scope="session")
def pictures() -> list[Picture]:
    """Two images of 64 pixels, one with two ground truths and an ignored one, and one without any."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    boxes = np.array([[8, 8, 40, 40], [50, 20, 90, 60], [0, 50, 10, 64]], np.float32)
    names, ignored = ["disc", "</script><b>", "disc"], np.array([False, False, True])
    return [
        Picture("first", pixels, boxes, names, ignored),
        Picture("empty", pixels, np.zeros((0, 4), np.float32), [], np.zeros(0, bool)),
    ]


@pytest.fixture(scope="session")
def make_panel() -> Callable[..., Panel]:
    """A panel from a scheme's name, a moment, and the entries of both pictures."""

    def make(scheme: str, moment: str, first: list[tuple], empty: list[tuple]) -> Panel:
        priors = PointGenerator(strides=(8, 16))([(8, 12), (4, 6)], torch.device("cpu"))
        return Panel(scheme, "POTO", moment, ["P3", "P4"], priors, [entries(*first), entries(*empty)])

    return make


@pytest.fixture(scope="session")
def rows(make_panel: Callable[..., Panel]) -> list[list[Panel]]:
    """Two schemes at two moments, with all kinds of entries, some of the same location."""
    one = [(Kind.POSITIVE, 0, 0, (20, 28), 1, 1, 1)]
    many = [
        (Kind.POSITIVE, 0, 0, (20, 28), 0.5, 1, 1),
        (Kind.SOFT, 0, 1, (24, 24), 0.4, 0.3, 0.3),
        (Kind.NEGATIVE, 0, 0, (20, 28), 0.25, 0, 0.75),
        (Kind.POSITIVE, 1, 1, (72, 40), 1, 1, 1),
        (Kind.DROPPED, 2, 0, (4, 52), 0, 0, 1),
        (Kind.DROPPED, -1, 0, (92, 4), 0, 0, 1),
    ]
    unowned = [(Kind.DROPPED, -1, 0, (4, 4), 0, 0, 1)]
    return [
        [make_panel("a", "early", one, []), make_panel("b", "early", many, unowned)],
        [make_panel("a", "late", one, []), make_panel("b", "late", one, [])],
    ]
