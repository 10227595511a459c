"""A small application behind the kiosk's guard and server, in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from medimg_edge.errors import MedimgEdgeError
from medimg_edge.kiosk import body, http_protocol, server
from medimg_edge.kiosk.guard import Guard, shows_who
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.metrics import Metrics
from medimg_edge.kiosk.problems import problem
from medimg_edge.kiosk.sessions import COOKIE, Sessions
from medimg_edge.kiosk.settings import Limits, Settings, TlsFiles

SECRET = "DOE^JANE"
"""What a patient's name looks like. It must not be in a log."""

LARGE = 30 * 10**6
ROOM = 50 * 10**6


class GuardedProcess:
    """The server, until the end of the context: then it has to stop well."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        *,
        descriptors: int = 0,
        send_seconds: float = http_protocol.SEND_SECONDS,
        stop_seconds: int = server.STOP_SECONDS,
    ) -> None:
        self._log = folder / "log"
        words = [json.dumps(asdict(settings), default=str)]
        words += [json.dumps([descriptors, send_seconds, stop_seconds])]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.device.guarded", *words],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, self.log()
        self.port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> GuardedProcess:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            self.process.send_signal(signal.SIGTERM)
            out, _ = self.process.communicate(timeout=30)
        finally:
            self.process.kill()
        if kind is None:
            assert out.decode() == f"ended by {signal.SIGTERM.value}\n"
            assert SECRET not in self.log()
            assert "Traceback" not in self.log()

    def log(self) -> str:
        return self._log.read_text()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines()]

    def has_told(self, **values: object) -> bool:
        """Whether a line of the log has these; it may follow the response by a moment."""
        for _ in range(100):
            if any(values.items() <= each.items() for each in self.events()):
                return True
            time.sleep(0.02)
        return False

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def application(settings: Settings, log: Log) -> Guard:
    """Routes of each kind."""
    sessions, room = Sessions(), body.Room(ROOM)
    app = FastAPI(lifespan=_lifespan)
    app.add_exception_handler(MedimgEdgeError, _told)
    _takes_bodies(app, settings, room)
    _keeps_sessions(app, settings, sessions)
    _is_awkward(app)

    @app.get("/")
    @app.get("/page/kiosk.css")
    @app.get("/healthz")
    @app.get("/metrics")
    async def text() -> Response:
        return Response("text", media_type="text/plain")

    return Guard(app, settings=settings, sessions=sessions, log=log, metrics=_metrics())


def _takes_bodies(app: FastAPI, settings: Settings, room: body.Room) -> None:
    @app.post("/v1/predictions", status_code=201)
    async def predict(request: Request) -> dict[str, object]:
        received = await body.receive(request, settings.limits.body_bytes, room)
        return {
            "bytes": len(received.data),
            "sha256": hashlib.sha256(received.data).hexdigest(),
            "media_type": received.media_type,
        }

    @app.post("/v1/kept")
    async def keep(request: Request, seconds: float) -> Response:
        received = await body.receive(request, settings.limits.body_bytes, room)
        await asyncio.sleep(seconds)
        return Response(str(len(received.data)))

    @app.get("/v1/room")
    async def taken() -> int:
        return room.taken

    @app.put("/v1/predictions/{id}/acknowledgement")
    async def acknowledge(request: Request) -> int:
        return len(await body.receive_json(request, dict))


def _keeps_sessions(app: FastAPI, settings: Settings, sessions: Sessions) -> None:
    @app.get("/v1/station")
    async def station(request: Request) -> bool:
        return shows_who(request.scope, settings, sessions)

    @app.put("/v1/session", status_code=204)
    async def sign_in() -> Response:
        response = Response(status_code=204)
        response.set_cookie(COOKIE, sessions.create())
        return response


def _is_awkward(app: FastAPI) -> None:
    @app.get("/v1/large")
    async def large() -> Response:
        return Response(bytes(LARGE), media_type="application/octet-stream")

    @app.get("/v1/slow")
    async def slow(seconds: float) -> Response:
        await asyncio.sleep(seconds)
        return Response(str(seconds))

    @app.get("/v1/fault/{name}")
    async def fault(name: str, when: str = "before") -> Response:
        if when == "before":
            raise ValueError(f"{name} cannot be served")
        return _Breaking(name)


class _Breaking(Response):
    """Raises in its midst."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError(bytes(self.body))


@asynccontextmanager
async def _lifespan(app: FastAPI):
    yield


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, MedimgEdgeError)
    return problem(error)


def _metrics() -> Metrics:
    return Metrics(
        waiting=lambda: 0, is_ready=lambda: True, entries=lambda: 0, free_bytes=lambda: 0
    )


def _main(described: str, numbers: str) -> None:
    descriptors, http_protocol.SEND_SECONDS, server.STOP_SECONDS = json.loads(numbers)
    values = json.loads(described)
    values["limits"] = Limits(**values["limits"])
    values["hosts"] = tuple(values["hosts"])
    if values["tls"]:
        values["tls"] = TlsFiles(*map(Path, values["tls"].values()))
    if descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    settings = Settings(**values)
    log = Log(as_json=True)
    number = server.serve(
        application(settings, log), settings, log=log, started=lambda url: print(url, flush=True)
    )
    print(f"ended by {number}")


if __name__ == "__main__":
    _main(*sys.argv[1:])
