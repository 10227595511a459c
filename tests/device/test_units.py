"""The systemd unit of docs/hosts is accepted, is closed, and what it starts answers."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.device.control_c import hear_control_c

UNIT = Path(__file__).parents[2] / "docs" / "hosts" / "medimg-edge-watch.service"
PROGRAM = "/opt/medimg-edge/bin/medimg-edge"
STATE = "/var/lib/medimg-edge"
MOST_EXPOSURE = 20
"""In tenths; 100 is a service that may do everything."""

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SYSTEMD_ANALYZE), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def values(name: str) -> list[str]:
    lines = (line.partition("=") for line in UNIT.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


@systemd
def test_it_is_closed():
    security = "security", "--offline=yes", "--no-pager"
    done = analyze(*security, f"--threshold={MOST_EXPOSURE}", UNIT)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze, older than 250, knows no --offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        analyze(*security, "--threshold=0", UNIT).returncode != 0
    )  # or the threshold means nothing


@systemd
def test_systemd_understands_it(tmp_path: Path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))  # one that is there
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", unit).stderr


def test_it_leaves_the_machine_closed():
    """Nothing of an image may leave: no socket, and none wanted."""
    assert values("PrivateNetwork") == ["yes"]
    assert values("RestrictAddressFamilies") == ["none"]


def test_what_it_starts_answers_and_ends(tmp_path: Path, frozen: Path):
    pytest.importorskip("watchfiles", reason="watchfiles, of the watch extra, tells of changes")
    (line,) = values("ExecStart")
    incoming, answers = tmp_path / "incoming", tmp_path / "answers.jsonl"
    incoming.mkdir()
    shutil.copy(frozen / "golden" / "01-gray8.png", incoming)
    program, *arguments = shlex.split(line.replace(STATE, str(tmp_path)))
    assert program == PROGRAM
    command = [sys.executable, "-m", "medimg_edge.cli", *arguments]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_control_c
    )
    try:
        until = time.monotonic() + 60
        while not (answers.exists() and answers.read_text().endswith("\n")):
            assert running.poll() is None, running.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.1)
        running.send_signal(getattr(signal, values("KillSignal")[0]))
        assert running.wait(30) == int(values("SuccessExitStatus")[0])
    finally:
        running.kill()
        running.communicate()
    record = json.loads(answers.read_text())
    assert (record["input"], record["status"]) == (str(incoming / "01-gray8.png"), "ok")
