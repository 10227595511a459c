"""Where connections come in: a place for each, up to a number, and with TLS a handshake."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, cast

_HANDSHAKE_SECONDS = 3600.0  # the connection's own clock is faster
_GOODBYE_SECONDS = 1.0


class Connection(Protocol):
    """What has a place."""

    @property
    def waits_since(self) -> float | None:
        """Since when no whole request is here that has to be answered; None: one is."""

    def drop(self) -> None:
        """End it at once."""


class Places:
    """Who is connected, up to a number.

    A newcomer takes the place of the connection that has been without a whole request for
    longest, never of one whose request is being answered.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: set[Connection] = set()

    def admit(self, newcomer: Connection) -> bool:
        """Whether there is a place for it now."""
        if len(self._taken) >= self._most:
            waiting = [each for each in self._taken if each.waits_since is not None]
            if not waiting:
                return False
            displaced = min(waiting, key=lambda each: cast(float, each.waits_since))
            self.release(displaced)
            displaced.drop()
        self._taken.add(newcomer)
        return True

    def release(self, connection: Connection) -> None:
        """Once it has ended; again is harmless."""
        self._taken.discard(connection)

    def drop_all(self) -> None:
        """End them."""
        for each in list(self._taken):
            each.drop()


class Entering(Protocol):
    """A connection's protocol, which can be told of it before its TLS handshake."""

    has_ended: bool

    def accept(self, tcp: asyncio.Transport) -> bool:
        """Take a place and start the clock; False: there is no place."""
        ...

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of an asyncio protocol."""

    def end(self) -> None:
        """Give up its place and stop its clocks; again is harmless."""


class TlsEntrance(asyncio.Protocol):
    """A TCP connection until its TLS handshake is done, on the same clock and in the same place.

    asyncio's own TLS server tells nobody of a connection before that.
    """

    def __init__(self, context: ssl.SSLContext, make: Callable[[], Entering]) -> None:
        self._context, self._protocol = context, make()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of a TCP transport."""
        tcp = cast(asyncio.Transport, transport)
        tcp.pause_reading()  # what comes is for TLS
        if self._protocol.accept(tcp):
            self._task = asyncio.get_running_loop().create_task(self._greet(tcp))

    async def _greet(self, tcp: asyncio.Transport) -> None:
        tls: asyncio.Transport | None = None
        with suppress(OSError):  # ssl.SSLError is one
            tls = await asyncio.get_running_loop().start_tls(
                tcp,
                cast(asyncio.Protocol, self._protocol),
                self._context,
                server_side=True,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
        if tls is None or self._protocol.has_ended:
            self._protocol.end()
            tcp.abort()
        else:
            self._protocol.connection_made(tls)
