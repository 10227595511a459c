"""A service that is ended at any moment, and a disk that is full: nothing told is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.device.kiosk_images import png
from tests.device.listening import wait_until
from tests.device.serving import FROZEN, SECONDS, Served

KILLS = 50
FULL = 10
"""Times that the disk is full."""

CLIENTS = 4


class Client(threading.Thread):
    """Sends images until it is told to stop, and remembers what it was told of each."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port, self._images = port, [png() for _ in range(4)]
        self._stopping = threading.Event()
        self.told: list[bytes] = []
        self.refused: list[bytes] = []

    def run(self) -> None:
        connection = None
        while not self._stopping.is_set():
            try:
                connection = connection or HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
                connection.request("POST", "/v1/predictions", random.choice(self._images))
                response = connection.getresponse()
                body = response.read()
                (self.told if response.status == 201 else self.refused).append(body)
                if response.status != 201:
                    time.sleep(0.02)
            except (OSError, HTTPException):
                connection = None
                time.sleep(0.02)

    def stop(self) -> None:
        self._stopping.set()
        self.join(SECONDS)


@contextmanager
def clients(port: int) -> Iterator[list[Client]]:
    threads = [Client(port) for _ in range(CLIENTS)]
    for each in threads:
        each.start()
    try:
        yield threads
    finally:
        for each in threads:
            each.stop()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def check_record(folder: Path, threads: list[Client], command) -> int:
    """Every answer that a client was told is in the record, as it was told; how many there are."""
    done = command("audit", "verify", "--data", folder)
    assert done.returncode == 0, done.stderr
    done = command("audit", "export", "--data", folder, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    kept = {}
    for line in done.stdout.splitlines():
        each = json.loads(line)
        if each["kind"] == "answer":
            kept[each["id"]] = json.loads(each["body"])
    told = [json.loads(body) for each in threads for body in each.told]
    for each in told:
        assert kept[each["id"]]["record"] == each["record"]
    return len(told)


def ended(pid: int) -> bool:
    """Whether a process is gone, or waits for nothing but to be asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_killed_fifty_times(tmp_path, command):
    """By SIGKILL, and started again as systemd does; sometimes what answers is killed alone."""
    chance = random.Random(6)
    port = free_port()
    served = Served(tmp_path, FROZEN, port=port)
    with clients(port) as threads:
        for kill in range(KILLS):
            time.sleep(chance.uniform(0, 0.3))
            child = served.child
            if kill % 5 == 4:
                os.kill(child, signal.SIGKILL)
                served.wait_until_ready()
                continue
            served.process.kill()
            served.end()
            served = Served(tmp_path, FROZEN, port=port, wait=False)
            assert ended(child) or _ends(child)
        served.wait_until_ready()
        time.sleep(0.5)
    assert served.end() == 0
    assert check_record(tmp_path / "data", threads, command) > KILLS
    assert "Traceback" not in served.log.read_text()


def _ends(pid: int) -> bool:
    end = time.monotonic() + 5
    while not ended(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a file system of its own")
def test_a_full_disk(tmp_path, command):
    """It fills up under load, is emptied, fills up: what was told is kept, and it goes on.

    Every other time it is also killed while the disk is full.
    """
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    port = free_port()
    try:
        served = Served(disk / "kiosk", FROZEN, "--reserve", 1, port=port)
        with clients(port) as threads:
            for time_full in range(FULL):
                time.sleep(0.3)
                filler = filled(disk)
                time.sleep(0.5)
                if time_full % 2:
                    served.process.kill()
                    served.end()
                filler.unlink()
                if time_full % 2:
                    served = Served(disk / "kiosk", FROZEN, "--reserve", 1, port=port)
                before = sum(len(each.told) for each in threads)
                wait_until(lambda before=before: sum(len(each.told) for each in threads) > before)
        codes = {json.loads(body)["code"] for each in threads for body in each.refused}
        assert codes <= {"write", "disk-low", "busy", "not-ready"}
        assert codes & {"write", "disk-low"}
        assert served.end() == 0
        assert check_record(disk / "kiosk" / "data", threads, command) > 0
        assert "Traceback" not in served.log.read_text()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def filled(disk: Path) -> Path:
    """What fills a disk to its last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 512, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler
