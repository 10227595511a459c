"""The page in a real browser: Debian's chromium, driven by its own chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SECONDS = 30
"""Until the page shows what is waited for: a busy machine may take long."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

LARGEST, SMALLEST = (1920, 1080), (1024, 600)

AXE = """
    const done = arguments[arguments.length - 1];
    axe.run({ resultTypes: ["violations"] }).then(
        (found) => done(found.violations.map((each) =>
            [each.impact, each.id, each.nodes.map((node) => node.html).slice(0, 3)])),
        (error) => done([["critical", String(error), []]]));
"""


class Page:
    """A browser with the kiosk's page, until the block ends.

    folder: of its profile, new. What it asks for, and every word of its console, is kept.
    """

    def __init__(self, folder: Path) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser")
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not chromium or not driver:
            pytest.skip("chromium or chromium-driver is not installed")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(driver)  # without a path selenium would download one
        self.driver = webdriver.Chrome(options=options, service=service)
        self._events: list[dict[str, Any]] = []
        self._console: list[dict[str, Any]] = []
        self.resize(SMALLEST)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def open(self, url: str, *, language: str = "en", state: str = "ready") -> None:
        """As a browser that has not been here before, in a language that it asks for."""
        self.cdp("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage=language)
        self.cdp("Storage.clearDataForOrigin", origin=url, storageTypes="all")
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(f"document.body.dataset.state === '{state}'")

    def resize(self, size: tuple[int, int]) -> None:
        width, height = size
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def cdp(self, command: str, **words: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, words)

    def run(self, script: str, *words: Any) -> Any:
        return self.driver.execute_script(script, *words)

    def wait(self, condition: str, *words: Any) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + SECONDS
        while not self.run(f"return Boolean({condition})", *words):
            assert time.monotonic() < end, f"{condition}\n{self.text('body')}"
            time.sleep(0.03)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        self.find(selector).click()

    def text(self, selector: str) -> str:
        """What is visible of it; an element that is not there has none."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return self.run(script, selector).strip()

    def texts(self, selector: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)"
        return self.run(script, selector)

    def keys(self, *keys: str) -> None:
        """To whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def choose(self, path: Path) -> None:
        """As if the file had been chosen; until the answer is there, with its picture."""
        self.home()
        self.find("#file").send_keys(str(path))
        self.wait("document.body.dataset.view === 'result'")
        self.wait("document.body.dataset.waiting === 'false'")
        self.wait_for_picture()

    def wait_for_picture(self) -> None:
        """And for the evidence over it, where the model has any."""
        self.wait("document.getElementById('stage').dataset.drawn === 'true'")

    def home(self) -> None:
        if self.run("return document.body.dataset.view") == "result":
            self.click("#next")

    def speak(self, language: str) -> None:
        script = """
            const choice = document.getElementById("language");
            choice.value = arguments[0];
            choice.dispatchEvent(new Event("change"));
        """
        self.run(script, language)

    def pdf(self, width: float, height: float) -> bytes:
        """What it prints, on paper of so many inches."""
        printed = self.cdp("Page.printToPDF", paperWidth=width, paperHeight=height)
        return base64.b64decode(printed["data"])

    def violations(self, axe: Path) -> list[tuple[str, str, list[str]]]:
        """What axe-core calls serious or critical on what is shown now."""
        self.run(axe.read_text("utf-8"))
        found = self.driver.execute_async_script(AXE)
        return [tuple(each) for each in found if each[0] in ("serious", "critical")]

    def asked(self) -> set[str]:
        """The hosts, with their ports, that a page asked anything of so far.

        Not counted is what the browser loads for a new tab of its own.
        """
        requests = (
            each["params"]
            for each in self.events()
            if each["method"] == "Network.requestWillBeSent"
        )
        urls = [
            each["request"]["url"]
            for each in requests
            if not each["documentURL"].startswith(("chrome:", "about:"))
        ]
        return {urlsplit(url).netloc or url[:50] for url in urls}

    def events(self) -> list[dict[str, Any]]:
        for each in self.driver.get_log("performance"):
            self._events.append(json.loads(each["message"])["message"])
        return self._events

    def complaints(self) -> Iterable[str]:
        """Of the console, but for answers that tell an error by their status."""
        self._console += self.driver.get_log("browser")
        return [
            each["message"]
            for each in self._console
            if each["level"] in ("SEVERE", "WARNING")
            and each["source"] != "network"
            and "willReadFrequently" not in each["message"]  # the tests do, not the page
        ]
