"""The whole flow in a namespace with nothing but a loopback: by the interface, and by the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

INTERFACE = """
import sys
from pathlib import Path
from tests.device.kiosk_images import png
from tests.device.serving import FROZEN, Served
with Served(Path(sys.argv[1]), FROZEN) as served:
    assert served.get("/").status == 200
    told = served.predict(png()).json
    path = "/v1/predictions/" + told["id"]
    for each in ("", "/image", "/heatmap", "/samples"):
        assert served.get(path + each).status == 200
    print(told["record"]["status"])
"""


def offline(*words: object) -> str:
    """What a Python program says without a network."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    inner = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *map(str, words)]
    command = ["unshare", "-rn", *inner]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_interface(tmp_path):
    assert offline("-c", INTERFACE, tmp_path) == "ok\n"


@pytest.mark.browser
def test_the_page():
    """An answer, its evidence and its print, in Chromium."""
    chosen = "test_a_picture_is_answered or test_the_print_is_one_page"
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-rA", "-k", chosen)
    said = offline(*words, Path(__file__).with_name("test_kiosk_browser.py"))
    if "SKIPPED" in said and "PASSED" not in said:
        pytest.skip("Chromium is not installed")
    assert said.count("PASSED") == 3
