"""The interface against its own document, by schemathesis: whatever it makes up, it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.serving import FROZEN, Served

HOOKS = Path(__file__).with_name("kiosk_schema_hooks.py")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("kiosk"), FROZEN) as it:
        yield it


def test_all_checks(served, tmp_path):
    pytest.importorskip("schemathesis")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/openapi.json"),
            *("--checks", "all", "--max-examples", "25", "--seed", "6", "--no-color"),
            *("--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        env={**__import__("os").environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
