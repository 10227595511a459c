"""The systemd units of docs/hosts are accepted, are closed, and what they start answers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.device.control_c import hear_control_c

HOSTS = Path(__file__).parents[2] / "docs" / "hosts"
WATCH, LISTEN = HOSTS / "medimg-edge-watch.service", HOSTS / "medimg-edge-listen.service"
PROGRAM = "/opt/medimg-edge/bin/medimg-edge"
STATE = "/var/lib/medimg-edge"
MOST_EXPOSURE = 20
"""In tenths; 100 is a service that may do everything."""

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
each = pytest.mark.parametrize("unit", [WATCH, LISTEN], ids=lambda path: path.stem)
systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SYSTEMD_ANALYZE), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def values(unit: Path, name: str) -> list[str]:
    lines = (line.partition("=") for line in unit.read_text().splitlines())
    return [value for key, _, value in lines if key == name]


@systemd
@each
def test_it_is_closed(unit: Path):
    security = "security", "--offline=yes", "--no-pager"
    done = analyze(*security, f"--threshold={MOST_EXPOSURE}", unit)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze, older than 250, knows no --offline")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        analyze(*security, "--threshold=0", unit).returncode != 0
    )  # or the threshold means nothing


@systemd
@each
def test_systemd_understands_it(unit: Path, tmp_path: Path):
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(PROGRAM, sys.executable))  # one that is there
    done = analyze("verify", copy)
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", copy).stderr


def test_it_leaves_the_machine_closed():
    """Nothing of an image may leave: no socket, and none wanted."""
    assert values(WATCH, "PrivateNetwork") == ["yes"]
    assert values(WATCH, "RestrictAddressFamilies") == ["none"]


def test_the_units_differ_in_the_network_alone():
    kinds = ("Protect", "Private", "Restrict", "NoNew", "Capab", "Ambient", "System", "Lock", "Mem")
    lines = [
        {line for line in unit.read_text().splitlines() if line.startswith(kinds)}
        for unit in (WATCH, LISTEN)
    ]
    assert {line.partition("=")[0] for line in lines[0] ^ lines[1]} == {
        "PrivateNetwork",
        "RestrictAddressFamilies",
    }
    assert "0.0.0.0/0" not in " ".join(values(LISTEN, "IPAddressAllow"))


def test_what_it_starts_answers_and_ends(tmp_path: Path, frozen: Path):
    pytest.importorskip("watchfiles", reason="watchfiles, of the watch extra, tells of changes")
    (line,) = values(WATCH, "ExecStart")
    incoming, answers = tmp_path / "incoming", tmp_path / "answers.jsonl"
    incoming.mkdir()
    shutil.copy(frozen / "golden" / "01-gray8.png", incoming)
    program, *arguments = shlex.split(line.replace(STATE, str(tmp_path)))
    assert program == PROGRAM
    command = [sys.executable, "-m", "medimg_edge.cli", *arguments]
    environment = {**os.environ, "MEDIMG_EDGE_BUNDLE": str(frozen)}
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_control_c, env=environment
    )
    try:
        until = time.monotonic() + 60
        while not (answers.exists() and answers.read_text().endswith("\n")):
            assert running.poll() is None, running.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.1)
        running.send_signal(getattr(signal, values(WATCH, "KillSignal")[0]))
        assert running.wait(30) == int(values(WATCH, "SuccessExitStatus")[0])
    finally:
        running.kill()
        running.communicate()
    record = json.loads(answers.read_text())
    assert (record["input"], record["status"]) == (str(incoming / "01-gray8.png"), "ok")


def test_what_the_node_starts_listens_and_ends(tmp_path: Path):
    pytest.importorskip("pynetdicom", reason="pynetdicom, of the dicom extra, listens")
    (line,) = values(LISTEN, "ExecStart")
    line = line.replace("${MEDIMG_EDGE_BUNDLE}", "pneumonia-cxr").replace(STATE, str(tmp_path))
    program, *arguments = shlex.split(line.replace("$MEDIMG_EDGE_LISTEN", "--port 0"))
    assert program == PROGRAM
    command = [sys.executable, "-m", "medimg_edge.cli", *arguments]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        assert "MEDIMG listens on 127.0.0.1" in running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.communicate()
