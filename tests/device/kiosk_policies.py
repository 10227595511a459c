"""What Chromium shows under a station's policies: `python -m tests.device.kiosk_policies FOLDER`.

Run in a mount namespace of its own: FOLDER/policies.json is put where Chromium looks for policies.
Prints, for each URL on standard input, the first line that is shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from selenium import webdriver
from selenium.common.exceptions import WebDriverException

from medimg_edge.kiosk.units import POLICIES

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
)
SECONDS = 10
"""Until something is shown."""


def main(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/etc/chromium"], check=True)
    POLICIES.parent.mkdir(parents=True)
    rules = json.loads((folder / "policies.json").read_bytes())
    del rules["DeveloperToolsAvailability"]  # it shuts out the driver, too
    POLICIES.write_text(json.dumps(rules))
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for each in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(each)
    browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        time.sleep(1)  # an authority is trusted a moment after the start
        for url in sys.stdin.read().split():
            print(json.dumps([url, shown(browser, url)]))
    finally:
        browser.quit()


def shown(browser: webdriver.Chrome, url: str) -> str:
    with suppress(WebDriverException):  # it is told, too, where an error is shown
        browser.get(url)
    script = "return document.body ? document.body.innerText.trim().split('\\n')[0] : ''"
    line, end = "", time.monotonic() + SECONDS
    while not line and time.monotonic() < end:
        with suppress(WebDriverException):  # the page is being left for the one of an error
            line = browser.execute_script(script)
        time.sleep(0.1)
    return line


if __name__ == "__main__":
    main(Path(sys.argv[1]))
