"""The server: its sockets and TLS, its signals, its end. uvicorn serves, on asyncio's own loop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server

from medimg_edge.errors import ServiceRefused
from medimg_edge.kiosk.entrance import Places, TlsEntrance
from medimg_edge.kiosk.guard import place, response_headers
from medimg_edge.kiosk.http_protocol import HttpProtocol
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.settings import Limits, Settings, TlsFiles

STOP_SECONDS = 10
"""For requests to be finished once a signal has come."""

IDLE_SECONDS = 5
"""For a connection without a request."""

_BACKLOG = 128
"""Connections that are accepted at once; of those before, as many may not be closed yet."""

_OTHER_DESCRIPTORS = 100
_TICK_SECONDS = 1.0

_TLS_BYTES = 32 * 1024
"""What asyncio sets aside for each connection. Its own 256 KB are 120 MB for 400 connections."""


def serve(app: ASGIApp, settings: Settings, *, log: Log, started: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT has come, and return its number. Needs the main thread.

    The first signal lets requests finish, for STOP_SECONDS at most; the second does not.
    started: called with the URL, without a slash at its end, once requests are answered.

    Raises ServiceRefused where it cannot listen, and what the application's lifespan does.
    """
    context = _tls(settings.tls) if settings.tls else None
    listening = _listen(settings)
    try:
        server = _Server(app, settings, context, log, started)
        with _logging(log):
            asyncio.run(server.serve([listening]))
    finally:
        listening.close()
    if server.failure is not None:
        raise server.failure
    return server.signal


class _Server(Server):
    """uvicorn's, with our protocol, and signals that end in a return.

    It wakes up once a second, for the Date header, and when a signal comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        context: ssl.SSLContext | None,
        log: Log,
        started: Callable[[str], None],
    ) -> None:
        super().__init__(
            Config(
                self._watched,
                interface="asgi3",
                lifespan="on",
                loop="asyncio",
                ws="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=list(response_headers(settings).items()),
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        self.failure: Exception | None = None
        self.signal = 0
        self._app, self._settings, self._context = app, settings, context
        self._log, self._tell_started = log, started
        self._places = _places(settings.limits)
        self._woken = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The application first, then whoever has connected."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(self._entrance, sock=each, backlog=_BACKLOG)
            for each in sockets or []
        ]
        self.started = True
        await self.on_tick(0)
        self._tell_started(_url(self._settings, self.servers[0].sockets[0]))

    async def main_loop(self) -> None:
        """Until a signal."""
        while not await self.on_tick(0):
            try:
                await asyncio.wait_for(self._woken.wait(), _TICK_SECONDS)
            except TimeoutError:
                continue

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without raising them again at the end, as uvicorn does."""
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self._signalled, each)
        try:
            yield
        finally:
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(each)

    def _signalled(self, number: int) -> None:
        if self.should_exit:
            self.force_exit = True
            self._places.drop_all()
        self.should_exit, self.signal = True, number
        self._woken.set()

    def _entrance(self) -> asyncio.BaseProtocol:
        return TlsEntrance(self._context, self._protocol) if self._context else self._protocol()

    def _protocol(self) -> HttpProtocol:
        return HttpProtocol(
            limits=self._settings.limits,
            places=self._places,
            log=self._log,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application; uvicorn keeps to itself what its lifespan raises."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope["type"] == "lifespan":
                self.failure = error
            raise


class _Handler(logging.Handler):
    """What libraries log: which and where, and an exception's type and place.

    Their words are left out: they may hold what a client sent.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """One line."""
        error = record.exc_info[1] if record.exc_info else None
        self._log(
            "library",
            logger=record.name,
            at=f"{record.filename}:{record.lineno} {record.funcName}",
            type=type(error).__name__ if error else None,
            place=place(error) if error else None,
        )


@contextmanager
def _logging(log: Log) -> Iterator[None]:
    """All logging of this process goes there."""
    root, handler = logging.getLogger(), _Handler(log)
    before = root.handlers
    root.handlers = [handler]
    try:
        yield
    finally:
        root.handlers = before


def _listen(settings: Settings) -> socket.socket:
    """Raises ServiceRefused."""
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        both = host == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        raise ServiceRefused(
            f"Cannot listen on {host} port {port} ({error.strerror or error}). Choose an address "
            "of this machine and a free port."
        ) from error
    # asyncio does so only for sockets that were made otherwise; a response in two parts would wait
    # for the client's acknowledgement of the first, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _url(settings: Settings, listening: socket.socket) -> str:
    scheme = "https" if settings.tls else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{listening.getsockname()[1]}"


def _tls(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or newer, without renegotiation. Raises ServiceRefused."""
    sslproto.SSLProtocol.max_size = _TLS_BYTES
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An encrypted key must not stop a service to ask for its password.
        context.load_cert_chain(files.cert, files.key, password="")
    except OSError as error:  # ssl.SSLError is one
        raise ServiceRefused(
            f"TLS cannot use {files.cert} and {files.key} ({error.strerror or 'unreadable'}). "
            "Accepted are PEM files: a certificate with those that lead to its authority, and its "
            "own key without a password."
        ) from error
    return context


def _places(limits: Limits) -> Places:
    """As many as told, or as there are descriptors for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = 2 * _BACKLOG + _OTHER_DESCRIPTORS
    wanted = limits.connections + others
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return Places(min(limits.connections, max(1, wanted - others)))
