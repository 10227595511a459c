"""Every way in, for FUZZ_SECONDS each: only our errors come out, and memory stays below 1 GB."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.fuzz.harness import HANG, TARGETS

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SEED = os.environ.get("FUZZ_SEED", "0")
ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.fuzz


@pytest.mark.parametrize("target", [each for each in TARGETS if not each.endswith("-run")])
def test_nothing_escapes(target, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz.harness", target, str(SECONDS), tmp_path, SEED]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=SECONDS + 10 * HANG
    )
    if run.returncode:
        tried = tmp_path / "input"
        packed = base64.b85encode(zlib.compress(tried.read_bytes(), 9)).decode()
        pytest.fail(
            f"{target} ended with {run.returncode} over {tried}\n"
            f"{run.stdout}{run.stderr[-4000:]}{(tmp_path / 'traceback').read_text()[-4000:]}"
            f"\nzlib.decompress(base64.b85decode({packed[:6000]!r}))"
        )
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["tried"] > 10 * min(SECONDS, 60)
    assert found["megabytes"] < 1024


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("int('x') if len(data) % 7 == 3 else None", "ValueError: invalid literal"),
        ("HELD.append(b'x' * 2**24)", "MB were held|MemoryError"),
        ("time.sleep(9) if len(data) % 7 == 3 else None", "Timeout"),
        ("os.abort() if len(data) % 7 == 3 else None", ""),
    ],
)
def test_a_harness_finds_what_escapes(tmp_path, body, says):
    """An error that is not ours, memory, a file that takes too long, the end of the process."""
    program = (
        "import os, sys, time\n"
        "from tests.fuzz import harness\n"
        "HELD = []\n"
        f"def attempt(data, folder): {body}\n"
        "harness.HANG = 3\n"
        "harness.TARGETS['manifest'] = harness.TARGETS['manifest']._replace(attempt=attempt)\n"
        "harness.limit()\n"
        "harness.main('manifest', '5', sys.argv[1])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode != 0
    assert re.search(says, run.stderr + (tmp_path / "traceback").read_text())
    assert (tmp_path / "input").read_bytes()
