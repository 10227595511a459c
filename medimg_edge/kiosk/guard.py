"""What every request has to pass before the application sees it, and what is told of it.

Pages of other sites, which a browser shows on the same machine, can send requests here: by the
name of this host, by a name of their own that leads here (DNS rebinding), or as images and links.
Each of these is refused by what browsers put into a request and pages cannot change.
"""

from __future__ import annotations

import hmac
import time
import traceback
from asyncio import CancelledError
from http import HTTPMethod
from pathlib import Path

import msgspec
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medimg_edge.errors import (
    HostUnknown,
    MedimgEdgeError,
    NotReady,
    OriginForeign,
    TokenMissing,
    Unexpected,
)
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.metrics import Metrics
from medimg_edge.kiosk.problems import MEDIA_TYPE, problem
from medimg_edge.kiosk.sessions import COOKIE, Sessions
from medimg_edge.kiosk.settings import Settings

FAULT = "medimg_edge.fault"
"""In a scope: status and code of what the protocol ended a request with."""

GONE = 499
"""In the log, the status of a request whose client did not wait; nginx calls it so."""

_GUARDED = ("/v1/", "/metrics")
_OPEN = {("GET", "/v1/station"), ("PUT", "/v1/session"), ("DELETE", "/v1/session")}
_METHODS = frozenset(HTTPMethod)
_PAGE = "/"

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
_HSTS = {"Strict-Transport-Security": "max-age=31536000"}


def response_headers(settings: Settings) -> dict[str, str]:
    """What every response has, also those that are made before the application is reached."""
    return _HEADERS | (_HSTS if settings.tls else {})


def is_token(given: str, token: str) -> bool:
    """Whether they are the same; how long it takes does not tell how much of it is."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())


def shows_who(scope: Scope, settings: Settings, sessions: Sessions) -> bool:
    """Whether a request shows the token or a session, or no token is needed."""
    if settings.token is None:
        return True
    connection = HTTPConnection(scope)
    kind, _, given = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and is_token(given.strip(" "), settings.token):
        return True
    return sessions.valid(connection.cookies.get(COOKIE))


class Guard:
    """ASGI middleware, outermost. Each request gets one line in ``log`` and is counted.

    A line has the pattern of the path, never the path: that, like everything else of a request,
    may hold anything. An exception of the application becomes a problem; the log gets its type
    and place, not its words.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        sessions: Sessions,
        log: Log,
        metrics: Metrics,
    ) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._log, self._metrics = log, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Of the response to HEAD the server leaves out the body.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        exchange = _Exchange(asked, receive, send)
        began = time.perf_counter()
        try:
            await self._answer(exchange)
        finally:
            self._tell(exchange, scope["method"], time.perf_counter() - began)

    async def _answer(self, exchange: _Exchange) -> None:
        try:
            self._check(exchange.scope)
            await self._app(exchange.scope, exchange.receive, exchange.send)
        except MedimgEdgeError as error:
            await exchange.refuse(error)
        except ClientDisconnect:
            exchange.status, exchange.code = exchange.scope.get(FAULT, (GONE, None))
        except CancelledError:  # the only one that cancels is the server, at its end
            await exchange.refuse(NotReady("The station is being stopped. Send it again later."))
        except Exception as error:
            self._log("fault", type=type(error).__name__, place=place(error))
            await exchange.refuse(
                Unexpected(f"A fault of medimg-edge itself ({type(error).__name__}); see its log.")
            )
        else:
            await exchange.finish()

    def _check(self, scope: Scope) -> None:
        """Raises HostUnknown, OriginForeign, TokenMissing."""
        headers = scope["headers"]
        _check_host(_values(headers, b"host"), self._settings.names)
        _check_origin(scope)
        path = scope["path"]
        if not path.startswith(_GUARDED) or (scope["method"], path) in _OPEN:
            return
        if not shows_who(scope, self._settings, self._sessions):
            raise TokenMissing(
                "This needs the station's token. Send it as: Authorization: Bearer TOKEN; or sign "
                "in on the page."
            )

    def _tell(self, exchange: _Exchange, method: str, seconds: float) -> None:
        scope = exchange.scope
        route = getattr(scope.get("route"), "path", None) or "-"
        method = method if method in _METHODS else "-"
        status, code = exchange.status, exchange.code
        self._metrics.request(route, method, status, code, seconds)
        ms = round(seconds * 1000, 1)
        self._log("request", method=method, route=route, status=status, ms=ms, code=code)


class _Exchange:
    """One request and what is sent for it.

    A response of status 500 is held back until the application has ended: where it raises, which
    Starlette does after it has sent such a one, another is sent instead.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive, self._send = receive, send
        self.status: int = GONE
        self.code: str | None = None
        self._is_started = False
        self._held: list[Message] = []
        self._is_problem = False
        self._waits = any(
            name == b"expect" and value.lower() == b"100-continue"
            for name, value in scope["headers"]
        )

    async def receive(self) -> Message:
        """ASGI."""
        self._waits = False
        return await self._receive()

    async def send(self, message: Message) -> None:
        """ASGI."""
        if self._held or (message["type"] == "http.response.start" and message["status"] == 500):
            self._held.append(message)
            return
        await self._pass_on(message)

    async def refuse(self, error: MedimgEdgeError) -> None:
        """Tell an error, where nothing has been told; else the protocol ends the connection."""
        self._held.clear()
        if not self._is_started:
            await problem(error)(self.scope, self._receive, self.send)
            await self.finish()

    async def finish(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for message in held:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            self.status = message["status"]
            headers = list(message.get("headers", []))
            self._is_problem = (b"content-type", MEDIA_TYPE.encode()) in headers
            if self._waits:  # for a "100 Continue" that never comes: the body may come or not
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        elif self._is_problem:
            self.code = _code(message.get("body", b""))
        await self._send(message)


class _Coded(msgspec.Struct):
    code: str


def place(error: BaseException) -> str:
    """Where an exception was raised: file, line and function."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "-"
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}"


def _code(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Coded).code
    except msgspec.MsgspecError:
        return None


def _check_host(hosts: list[bytes], names: frozenset[str]) -> None:
    """RFC 9112 section 3.2: exactly one, whatever the port."""
    name = _name(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
    if name not in names:
        raise HostUnknown(
            "The request's Host is none of this station's names. Call it by localhost or "
            "127.0.0.1, or start it with --allow-host NAME."
        )


def _name(host: str) -> str | None:
    """Of a host and port, in lower case; None where it is neither."""
    name, _, port = host.rpartition(":") if host[-1:] != "]" and ":" in host else (host, "", "")
    if port and not (port.isascii() and port.isdigit()):
        return None
    is_bracketed = name[:1] == "[" and name[-1:] == "]"
    return (name[1:-1] if is_bracketed else name).lower()


def _check_origin(scope: Scope) -> None:
    """Fetch: "Origin" header; Fetch Metadata Request Headers, section 2."""
    headers = scope["headers"]
    host = _values(headers, b"host")[0].decode("latin-1").lower()
    own = f"{scope['scheme']}://{host}".encode("latin-1")
    foreign = any(each.lower() != own for each in _values(headers, b"origin"))
    sites = _values(headers, b"sec-fetch-site")
    if any(each not in (b"same-origin", b"none") for each in sites):
        foreign = foreign or not _is_visit(scope)
    if foreign:
        raise OriginForeign(
            "A page of another site made this request. Only this station's own may."
        )


def _is_visit(scope: Scope) -> bool:
    """A link or bookmark that shows the page, in a tab of its own."""
    headers = scope["headers"]
    return (
        (scope["method"], scope["path"]) == ("GET", _PAGE)
        and _values(headers, b"sec-fetch-mode") == [b"navigate"]
        and _values(headers, b"sec-fetch-dest") == [b"document"]
    )


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for each, value in headers if each == name]
