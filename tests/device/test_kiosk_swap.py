"""Bundles that are installed and rolled back under a service that answers: no request fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from medimg_edge.bundle import Bundle
from tests.device.installing import NAME, Build, Signer, pointer, release, zipped
from tests.device.kiosk_images import png
from tests.device.listening import wait_until
from tests.device.serving import SECONDS, Served
from tests.device.test_kiosk_kills import ended

CLIENTS = 8
THRESHOLDS = {"1": 0.3, "2": 0.6, "3": 0.4}
"""Of each version, so that an answer's operating point tells which one it is of."""

Command = Callable[..., Any]


class Clinic:
    """Signed versions of one bundle, and the command line that installs them."""

    def __init__(self, build: Build, folder: Path, state: Path, command: Command) -> None:
        self._build, self._command, self.state = build, command, state
        self.signer = Signer(folder)

    def zip(self, version: str, signer: Signer | None = None) -> tuple[Path, str]:
        """The file, and the hash of the bundle in it."""
        folder = release(self._build, version, float(version) / 10)
        path = folder / "manifest.json"
        raw = json.loads(path.read_bytes())
        for point in raw["decision"]["model.onnx"].values():
            point["threshold"] = THRESHOLDS[version]
        path.write_text(json.dumps(raw))
        (signer or self.signer).sign(folder)
        return zipped(folder), Bundle.open(folder).hash

    def run(self, *words: object) -> None:
        done = self._command(*words)
        assert done.returncode == 0, done.stderr

    def install(self, path: Path, signer: Signer | None = None) -> None:
        self.run("install", path, "--trusted", (signer or self.signer).trusted)

    def serve(self, folder: Path, *words: object, **options: Any) -> Served:
        trusted = ("--trusted", self.signer.trusted)
        return Served(folder, NAME, *trusted, *words, unsigned=False, **options)

    @property
    def pointer(self) -> dict[str, Any]:
        return json.loads(pointer(self.state).read_bytes())

    @property
    def starts(self) -> int:
        return self.pointer["starts"]


@pytest.fixture
def clinic(mean_bundle: Build, tmp_path: Path, state: Path, command: Command) -> Clinic:
    return Clinic(mean_bundle, tmp_path, state, command)


class Client(threading.Thread):
    """Sends images until it is told to stop; every answer, and whatever else it was told."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port, self._image, self._stopping = port, png(), threading.Event()
        self.told: list[dict[str, Any]] = []
        self.failed: list[object] = []

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        while not self._stopping.is_set():
            try:
                connection.request("POST", "/v1/predictions", self._image)
                response = connection.getresponse()
                body = response.read()
            except OSError as error:
                self.failed.append(error)
                return
            if response.status == 201:
                self.told.append(json.loads(body))
            else:
                self.failed.append((response.status, body))

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


def hash_of(told: dict[str, Any]) -> str:
    return told["record"]["model"]["hash"]


def answering(served: Served) -> str:
    reply = served.get("/v1/model")
    assert reply.status == 200, reply
    return reply.json["model"]["hash"]


def children(served: Served) -> list[int]:
    path = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children")
    return [int(each) for each in path.read_text().split() if not ended(int(each))]


def lines(served: Served, event: str) -> list[str]:
    return [each for each in served.log.read_text().splitlines() if each.startswith(event)]


def entries(folder: Path, command: Command, kind: str) -> list[dict[str, Any]]:
    done = command("audit", "export", "--data", folder, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return [json.loads(each["body"]) for each in found if each["kind"] == kind]


def test_installed_and_rolled_back_under_load(clinic, tmp_path, command):
    old, old_hash = clinic.zip("1")
    new, new_hash = clinic.zip("2")
    clinic.install(old)
    thresholds = {old_hash: THRESHOLDS["1"], new_hash: THRESHOLDS["2"]}

    def all_by(threads: list[Client], wanted: str) -> bool:
        return all(each.told and hash_of(each.told[-1]) == wanted for each in threads)

    with clinic.serve(tmp_path / "kiosk") as served:
        assert answering(served) == old_hash
        with clients(served.port) as threads:
            wait_until(lambda: all_by(threads, old_hash))
            clinic.install(new)
            wait_until(lambda: all_by(threads, new_hash))
            time.sleep(0.5)
            assert answering(served) == new_hash
            before = [len(each.told) for each in threads]
            clinic.run("rollback", NAME)
            wait_until(lambda: all_by(threads, old_hash))
            time.sleep(0.5)
        assert answering(served) == old_hash
        wait_until(lambda: len(children(served)) == 1)
    assert [each.failed for each in threads] == [[]] * CLIENTS
    for each, first in zip(threads, before, strict=True):
        assert len(each.told) > first > 10
        hashes = [hash_of(told) for told in each.told]
        assert hashes == sorted(hashes[:first], key=[old_hash, new_hash].index) + sorted(
            hashes[first:], key=[new_hash, old_hash].index
        ), "a client that was told of the new one is not answered by the old one again"
        for told in each.told:
            for point in told["operating_points"].values():
                assert point["threshold"] == thresholds[hash_of(told)]
    data = tmp_path / "kiosk" / "data"
    assert command("audit", "verify", "--data", data).returncode == 0
    started = [each["model"]["hash"] for each in entries(data, command, "started")]
    assert started == [old_hash, new_hash, old_hash]
    assert {each["signer"] for each in entries(data, command, "started")} == {"clinic"}
    kept = entries(data, command, "answer")
    assert len(kept) == sum(len(each.told) for each in threads)


def test_what_is_refused_is_not_used_and_not_tried_again(clinic, tmp_path):
    old, old_hash = clinic.zip("1")
    other = Signer(tmp_path, "other")
    foreign, foreign_hash = clinic.zip("2", other)
    right, right_hash = clinic.zip("3")
    clinic.install(old)
    with clinic.serve(tmp_path / "kiosk") as served:
        clinic.install(foreign, other)
        assert clinic.pointer["hash"] == foreign_hash
        wait_until(lambda: bool(lines(served, "what is installed is not used")))
        (line,) = lines(served, "what is installed is not used")
        assert "code=signer-unknown" in line
        assert "is not trusted here" in served.get("/v1/station").json["declined"]
        assert answering(served) == old_hash
        os.kill(served.child, signal.SIGKILL)  # its place is not taken by the other one
        wait_until(lambda: served.predict(png()).status == 201)
        assert hash_of(served.predict(png()).json) == old_hash
        time.sleep(2.5)
        assert len(lines(served, "another bundle is installed")) == 1
        assert clinic.starts == 0, "its operator is at fault, and not the bundle"
        clinic.install(right)
        wait_until(lambda: answering(served) == right_hash)
        assert hash_of(served.predict(png()).json) == right_hash
        assert served.get("/v1/station").json["declined"] is None


def test_one_that_dies_while_it_loads_costs_nothing(clinic, tmp_path):
    old, old_hash = clinic.zip("1")
    new, new_hash = clinic.zip("2")
    clinic.install(old)
    with clinic.serve(tmp_path / "kiosk") as served, clients(served.port) as threads:
        before = served.child
        installing = threading.Thread(target=clinic.install, args=(new,))
        installing.start()  # it may end later than what it installed has loaded
        wait_until(lambda: len(children(served)) > 1)
        (successor,) = set(children(served)) - {before}
        os.kill(successor, signal.SIGKILL)
        installing.join(SECONDS)
        wait_until(lambda: bool(lines(served, "what is installed is not used")))
        time.sleep(1.5)
        assert clinic.pointer["hash"] == new_hash
        assert (answering(served), served.child) == (old_hash, before)
    assert [each.failed for each in threads] == [[]] * CLIENTS


def test_a_folder_is_not_watched(clinic, tmp_path):
    old, old_hash = clinic.zip("1")
    new, _ = clinic.zip("2")
    clinic.install(old)
    folder = clinic.state / "bundles" / NAME / clinic.pointer["slot"]
    words = ("--trusted", clinic.signer.trusted)
    with Served(tmp_path / "kiosk", folder, *words, unsigned=False) as served:
        clinic.install(new)
        time.sleep(2.5)
        assert answering(served) == old_hash
        assert len(children(served)) == 1


def killed_while_it_loads(clinic: Clinic, folder: Path) -> None:
    """By SIGKILL, when the start has been counted."""
    served = clinic.serve(folder, wait=False)
    before = clinic.starts
    end = time.monotonic() + SECONDS
    while clinic.starts == before:
        assert time.monotonic() < end, served.log.read_text()
    with suppress(ProcessLookupError):
        served.process.kill()
    served.end()


def test_three_starts_that_are_killed_go_back(clinic, tmp_path):
    old, old_hash = clinic.zip("1")
    new, new_hash = clinic.zip("2")
    clinic.install(old)
    clinic.install(new)
    for count in range(1, 4):
        killed_while_it_loads(clinic, tmp_path / "kiosk")
        assert (clinic.starts, clinic.pointer["hash"]) == (count, new_hash)
    with clinic.serve(tmp_path / "kiosk") as served:
        assert answering(served) == old_hash
        assert hash_of(served.predict(png()).json) == old_hash
        assert lines(served, f"{NAME} 2 did not start 3 times in a row. 1, the one before it,")
    assert (clinic.starts, clinic.pointer["hash"]) == (0, old_hash)


def test_two_starts_that_are_killed_do_not(clinic, tmp_path):
    old, _ = clinic.zip("1")
    new, new_hash = clinic.zip("2")
    clinic.install(old)
    clinic.install(new)
    for _ in range(2):
        killed_while_it_loads(clinic, tmp_path / "kiosk")
    for _ in range(2):
        with clinic.serve(tmp_path / "kiosk") as served:
            assert answering(served) == new_hash
        assert clinic.starts == 0


def test_one_that_is_damaged_goes_back_by_itself(clinic, tmp_path):
    old, old_hash = clinic.zip("1")
    new, _ = clinic.zip("2")
    clinic.install(old)
    clinic.install(new)
    model = clinic.state / "bundles" / NAME / clinic.pointer["slot"] / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with clinic.serve(tmp_path / "kiosk") as served:
        assert answering(served) == old_hash
        failed = lines(served, "answering does not start")
        assert ["code=bundle-files" in each for each in failed] == [True] * 3
    assert (clinic.starts, clinic.pointer["hash"]) == (0, old_hash)


def test_what_the_operator_has_to_change_does_not_go_back(clinic, tmp_path):
    old, _ = clinic.zip("1")
    new, new_hash = clinic.zip("2")
    clinic.install(old)
    clinic.install(new)
    other = Signer(tmp_path, "other")
    for words in (("--trusted", other.trusted), ("--artifact", "model.tflite")):
        for _ in range(2):
            folder = tmp_path / words[0]
            with clinic.serve(folder, *words, wait=False) as served:
                wait_until(lambda served=served: served.get("/readyz").json["code"] != "not-ready")
                code = served.get("/readyz").json["code"]
                assert code in ("signer-unknown", "bundle-artifact")
    assert (clinic.starts, clinic.pointer["hash"]) == (0, new_hash)
    with clinic.serve(tmp_path / "kiosk") as served:
        assert answering(served) == new_hash


def test_an_update_of_a_shipped_bundle_is_taken_up(rewrite, command, tmp_path):
    shipped = Bundle.open("pneumonia-cxr")
    folder = Path(shutil.copytree(shipped.path, tmp_path / "update"))
    shutil.rmtree(folder / "signatures", ignore_errors=True)
    rewrite(folder, lambda raw: raw.update(version="1000"))
    signer = Signer(tmp_path)
    update = zipped(signer.sign(folder))
    with Served(tmp_path / "kiosk", "pneumonia-cxr", "--trusted", signer.trusted) as served:
        assert answering(served) == shipped.hash
        done = command("install", update, "--trusted", signer.trusted)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: answering(served) == Bundle.open(folder).hash)
        model = served.get("/v1/model").json["model"]
        assert (model["version"], model["signer"]) == ("1000", "clinic")
