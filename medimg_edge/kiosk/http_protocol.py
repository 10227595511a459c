"""HTTP/1.1 with an end to everything: what a request may take, how long, and how many may be.

uvicorn's protocol waits for ever for the rest of a request, keeps a header of any length, starts
any number of pipelined requests, and closes a connection on top of a body that is still being
sent, which takes the response from the client. It passes on what two readers of the same bytes
could understand differently. Here it does none of these.

Of uvicorn's own, the methods that its protocol and asyncio's share are extended, and of each
request's cycle the transport is replaced.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from medimg_edge.errors import ReceiveDeadline
from medimg_edge.kiosk import framing
from medimg_edge.kiosk.entrance import Places
from medimg_edge.kiosk.guard import FAULT
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.refusals import HEAD_BYTES, refusal
from medimg_edge.kiosk.settings import Limits

PIPELINED = 8
"""Requests on one connection that may wait for the responses to those before."""

SEND_SECONDS = 60.0
"""For a client to read what it is sent."""

LINGER_SECONDS = 1.0
"""For a client that has done something wrong to read so."""


class HttpProtocol(HttpToolsProtocol):
    """One connection. Its clock runs from when it is accepted, then from each request's start."""

    def __init__(self, *, limits: Limits, places: Places, log: Log, **rest: Any) -> None:
        super().__init__(**rest)
        self._limits, self._places, self._log = limits, places, log
        self._tcp: asyncio.Transport | None = None
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._early = bytearray()
        self._in_message = self._in_body = self._is_closing = self._is_deaf = False
        self.has_ended = False
        self._upgrade: bytes | None = None
        self._head_bytes = self._quiet_bytes = 0
        self._fault = HTTPStatus.BAD_REQUEST

    @property
    def waits_since(self) -> float | None:
        """Since when no whole request is here that has to be answered; None: one is."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        return None if self.pipeline or (is_answering and not self._in_body) else self._since

    def accept(self, tcp: asyncio.Transport) -> bool:
        """Take a place and start the clock; False: there is no place."""
        self._tcp, self._since = tcp, self.loop.time()
        if not self._places.admit(self):
            tcp.abort()
            return False
        self._start_receiving()
        return True

    def drop(self) -> None:
        """End the connection at once."""
        self._is_deaf = True
        self._places.release(self)
        if self._tcp is not None:
            self._tcp.abort()

    def end(self) -> None:
        """Give up its place and stop its clocks; again is harmless."""
        self._places.release(self)
        self.has_ended = self._is_deaf = True
        for timer in (self._receiving, self._sending):
            if timer is not None:
                timer.cancel()
        self._receiving = self._sending = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of a TCP transport, or of a TLS one above the TCP transport that was accepted."""
        transport = cast(asyncio.Transport, transport)
        if self._tcp is None and not self.accept(transport):
            self._is_deaf = True
        super().connection_made(transport)
        if self._early:
            self.data_received(bytes(self._early))

    def connection_lost(self, exc: Exception | None) -> None:
        """The end of every way that a connection can take."""
        self.end()
        if self.transport is not None:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse what cannot be."""
        if self._is_deaf:
            return
        if self.transport is None:  # TLS gives what came with the end of the handshake before it
            self._early += data
            return
        self._unset_keepalive_if_required()
        self._start_receiving()
        self._quiet_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._fault)
            return
        if self._quiet_bytes > HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    # What the parser calls. An exception there makes it raise HttpParserError.

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_message, self._in_body, self._head_bytes = True, False, 0
        self._since = self.loop.time()
        self._start_receiving()
        if self._is_closing or len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests at once")

    def on_url(self, url: bytes) -> None:
        """Part of the request's target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after a body it is a trailer, and nobody needs those."""
        self._count_head(len(name) + len(value))
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request can be answered, unless it could be understood in two ways."""
        self._quiet_bytes = 0
        framing.check(self.parser.get_http_version(), self.headers)
        self.url = framing.origin_form(self.url, self.headers)
        if self.parser.should_upgrade():
            self._upgrade = framing.without_upgrade(
                self.parser.get_method(), self.url, self.headers
            )
            return
        self._in_body = True
        super().on_headers_complete()
        self.cycle.transport = cast(asyncio.Transport, _Outlet(self))

    def on_chunk_header(self) -> None:
        """The size of a chunk, and as ``on_chunk_complete`` its end."""
        self._quiet_bytes = 0

    on_chunk_complete = on_chunk_header

    def on_body(self, body: bytes) -> None:
        """Part of the body, which nobody waits for once it is answered."""
        self._quiet_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if self._upgrade is not None:
            return
        super().on_message_complete()
        self._quiet_bytes = 0
        self._in_message = self._in_body = False
        self._stop_receiving()
        if self.cycle.response_complete:
            self._since = self.loop.time()
            if self._is_closing:
                self.transport.close()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """The last byte of a response is written, if not read."""
        super().on_response_complete()
        if not self._in_message:
            self._since = self.loop.time()

    # What a request's cycle does with the transport.

    def write(self, data: bytes) -> None:
        """Start the clock of a response, where the client has not read it at once."""
        if self._sending is not None and not self._unsent():
            self._sending.cancel()
            self._sending = None
        self.transport.write(data)
        if self._sending is None and self._unsent():
            self._sending = self.loop.call_later(SEND_SECONDS, self._sending_ended)

    def close(self) -> None:
        """Once the request is here: to close before takes the response from the client."""
        if self._in_body and self.cycle.response_complete and not self._is_deaf:
            self._is_closing = True
        else:
            self.transport.close()

    @property
    def is_closing(self) -> bool:
        """Whether what is written now would reach nobody."""
        return self._is_closing or self._is_deaf or self.transport.is_closing()

    # The rest.

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as pause:
            # As if the upgrade had not been asked for, which is what a server may always do; the
            # parser would take the body for the other protocol.
            if self._upgrade is None:
                raise httptools.HttpParserError("no upgrade") from pause
            head, self._upgrade = self._upgrade, None
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # is not read
            self.parser.feed_data(head + data[pause.args[0] :])

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._fault = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise ValueError("a head larger than is accepted")

    def _start_receiving(self) -> None:
        if self._receiving is None:
            self._receiving = self.loop.call_later(
                self._limits.receive_seconds, self._receiving_ended
            )

    def _stop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _receiving_ended(self) -> None:
        self._receiving = None
        if self.waits_since is None:  # we need not read while one before is answered
            self._start_receiving()
        elif self._in_body and not self.cycle.response_started:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            if self._in_message:
                self._log("ended", code=ReceiveDeadline.code)
            self.drop()

    def _sending_ended(self) -> None:
        self._sending = None
        if self._unsent():
            self.drop()

    def _unsent(self) -> int:
        """Bytes, of TLS and of TCP below it."""
        layers = {self.transport, self._tcp} - {None}
        return sum(cast(asyncio.Transport, each).get_write_buffer_size() for each in layers)

    def _refuse(self, status: HTTPStatus) -> None:
        """Say what is wrong, unless that would be taken for the response to another request."""
        self._is_deaf = True
        if not self._may_tell():
            self.drop()
            return
        code, response = refusal(status, self.server_state.default_headers)
        if self._in_body:
            self.cycle.scope[FAULT] = status.value, code  # type: ignore[typeddict-unknown-key]
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        else:
            self._log("refused", status=status.value, code=code)
        self.transport.write(response)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.drop)

    def _may_tell(self) -> bool:
        if self.pipeline or self.transport.is_closing():
            return False
        if self._in_body:
            return not self.cycle.response_started
        return self.cycle is None or self.cycle.response_complete


class _Outlet:
    """The transport of a request's cycle."""

    def __init__(self, protocol: HttpProtocol) -> None:
        self.write, self.close = protocol.write, protocol.close
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._protocol.is_closing
