"""A real service, as its user starts it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

FROZEN = Path(__file__).parents[1] / "data" / "frozen-bundle"
"""A bundle of version 1: it answers noise, which newer ones turn away."""

SECONDS = 60
"""Until it listens, or answers a request: a busy machine may take long."""


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """``medimg-edge serve``, until the block ends; it has to end well, and say nothing unexpected.

    words: more of its command line. port: 0 is any free one. before: words before the command, such
    as ``strace``. wait: until the golden set has passed. unsigned: bundles may be, as those that
    tests make.
    """

    def __init__(
        self,
        folder: Path,
        bundle: object,
        *words: object,
        port: int = 0,
        before: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        preexec: Callable[[], None] | None = None,
        unsigned: bool = True,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        options = [*map(str, words), *(["--allow-unsigned"] if unsigned else [])]
        command = (sys.executable, "-m", "medimg_edge.cli", "serve", str(bundle))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *before,
                    *command,
                    "--port",
                    str(port),
                    "--data",
                    folder / "data",
                    *options,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **(environment or {})},
                preexec_fn=preexec,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().rstrip("/")
        assert self.url, self.log.read_text()
        self.port = int(self.url.rpartition(":")[2])
        if wait:
            self.wait_until_ready()

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        code = self.end()
        if kind is None:
            said = self.log.read_text()
            assert "Traceback" not in said, said
            assert code == 0, said

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + SECONDS
        while self.get("/readyz").status != 200:
            assert time.monotonic() < end, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request by a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def predict(self, data: bytes, media_type: str = "", **headers: str) -> Reply:
        """``headers``: underscores are hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {"Content-Type": media_type} if media_type else {}
        return self.request("POST", "/v1/predictions", data, given)

    @property
    def child(self) -> int:
        """The process that answers."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + SECONDS
        while not (children := path.read_text().split()):  # between two of them
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)
        return int(children[0])
