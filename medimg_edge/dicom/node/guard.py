"""What peers may take of pynetdicom's server: bytes, connections, seconds, each with an end.

By itself pynetdicom reads a PDU of any length a peer declares, waits for its last byte for ever,
keeps any number of messages in memory, leaves its file behind when a peer goes, and does the TLS
handshake in the thread that accepts. Here a connection is a socket that follows the PDUs it
delivers, and a thread from its first byte to the end of its association.

Of pynetdicom's own, only ``NamedTemporaryFile`` in ``dimse_messages`` is replaced; the rest are
its events, and the methods that socket, socketserver and threading mean to be overridden.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import socket
import socketserver
import ssl
import struct
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from errno import EFBIG
from pathlib import Path
from queue import Queue
from typing import Any, cast

from pynetdicom import _config, dimse_messages, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from medimg_edge.dicom.node.settings import Limits

MESSAGE_BYTES = 64 * 1024
"""What one message may take of the memory: a command, or data where none belong."""

OWED_MESSAGES = 4
"""Requests without an answer yet; without negotiation it is one (PS3.7 section D.3.3.3)."""

BUSY_SECONDS = 5.0
"""For so long after a message a connection is not displaced by a newcomer."""

_REQUEST, _DATA, _LAST = 1, 4, 7
_HEADER_BYTES = 6
_BACKLOG = 128
_RESET = struct.pack("ii", 1, 0)


class Connection(socket.socket):
    """A peer's socket, which ends as a lost connection does where the peer exceeds a limit.

    It follows the PDUs that are read through it (PS3.8 section 9.3.1): each has a type, a length
    up to a limit, and until a deadline to arrive. ``fault`` says what was exceeded.
    """

    limits: Limits
    host: str
    folder: Path
    fault: str | None = None
    is_accepted: bool = False
    asked: int = 0
    answered: int = 0
    association: Association | None = None
    incoming: dict[Path, IncomingFile]

    def accepted(self, host: str, limits: Limits, folder: Path) -> None:
        """Start its clock."""
        self.host, self.limits, self.folder, self.incoming = host, limits, folder, {}
        self.is_accepted = True
        self._header, self._left = bytearray(), 0
        self._talks = self._associates = False
        self._since = time.monotonic()
        self._deadline: float | None = self._since + limits.association_seconds

    def greet(self) -> None:
        """Wait for what is not garbage, before anything is built for the peer. Raises OSError."""
        raise NotImplementedError

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As of a socket, within the deadline."""
        if not self.is_accepted:  # ssl looks what a peer left that has gone already
            return super().recv(buflen, flags)
        data = self._timed(super().recv, buflen, flags)
        self._follow(data)
        return data

    def send(self, data: Any, flags: int = 0) -> int:
        """As of a socket; a peer that does not read has as long as for one PDU."""
        self.settimeout(self.limits.pdu_seconds)
        self._since = time.monotonic()
        return super().send(data, flags)

    def shutdown(self, how: int) -> None:
        """As of a socket, and also of one that the peer has left: pynetdicom closes it after."""
        with contextlib.suppress(OSError):
            super().shutdown(how)

    def drop(self, fault: str) -> None:
        """End it from any thread: whoever reads or waits meets the end of the stream.

        The peer is reset: one that keeps sending would not notice else.
        """
        self.fault = self.fault or fault
        with contextlib.suppress(OSError):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            socket.socket.shutdown(self, socket.SHUT_RDWR)

    @property
    def owed(self) -> int:
        """Requests without an answer yet. Each count is of one thread: one reads, one answers."""
        return self.asked - self.answered

    @property
    def may_be_displaced(self) -> bool:
        """Whether no message is being answered, nor was one a moment ago."""
        idle = time.monotonic() - self._since > BUSY_SECONDS
        return not self.owed and (idle or not self._talks)

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """The order in which connections are displaced: without association, mute, idle."""
        return self._associates, self._talks, self._since

    def _timed(self, read: Callable[..., bytes], *arguments: Any) -> bytes:
        seconds = self.limits.pdu_seconds
        if self._deadline is not None:
            seconds = self._deadline - time.monotonic()
        try:
            if seconds <= 0:
                raise TimeoutError
            self.settimeout(seconds)
            return read(*arguments)
        except TimeoutError:
            self.fault = self.fault or "too slow"
            raise

    def _follow(self, data: bytes) -> None:
        while data:
            if not self._header and self._deadline is None:
                self._deadline = time.monotonic() + self.limits.pdu_seconds
            if len(self._header) < _HEADER_BYTES:
                size = _HEADER_BYTES - len(self._header)
                self._header += data[:size]
                self._check_header()
            else:
                size = self._left
                self._left -= len(data[:size])
            data = data[size:]
            if len(self._header) == _HEADER_BYTES and not self._left:
                self._finish_pdu()

    def _check_header(self) -> None:
        kind = self._header[0]
        if not (_REQUEST <= kind <= _LAST if self._associates else kind == _REQUEST):
            self._refuse("not DICOM" if not self._associates else f"a PDU of type {kind}")
        if len(self._header) == _HEADER_BYTES:
            self._left = int.from_bytes(self._header[2:], "big")
            limits = self.limits
            if self._left > (limits.pdu_bytes if self._associates else limits.request_bytes):
                self._refuse(f"a PDU of {self._left:,} bytes")

    def _finish_pdu(self) -> None:
        self._associates, self._talks = True, self._talks or self._header[0] == _DATA
        self._since, self._deadline = time.monotonic(), None
        self._header.clear()

    def _refuse(self, fault: str) -> None:
        self.fault = self.fault or fault
        raise ConnectionAbortedError(fault)


class PlainConnection(Connection):
    """TCP."""

    def greet(self) -> None:
        """The first byte tells most of what is not DICOM."""
        first = self._timed(socket.socket.recv, self, 1, socket.MSG_PEEK)
        if not first:
            raise ConnectionResetError
        if first[0] != _REQUEST:
            self._refuse("not DICOM")


class TlsConnection(Connection, ssl.SSLSocket):
    """TLS over TCP, from which nothing is read before the handshake."""

    def greet(self) -> None:
        """The handshake, with a deadline of its own, and then the first byte."""
        self.settimeout(self.limits.handshake_seconds)
        try:
            self.do_handshake()
        except OSError as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else None
            self._refuse(f"no TLS handshake ({reason or 'the peer does not answer'})")
        if not select.select([self], [], [], self.limits.association_seconds)[0]:
            self._refuse("too slow")


class IncomingFile(io.FileIO):
    """Where pynetdicom writes a data set. A full disk is kept as ``error``, for the answer."""

    error: OSError | None = None

    def __init__(self, connection: Connection) -> None:
        descriptor, path = tempfile.mkstemp(".dcm", "receiving-", connection.folder)
        super().__init__(descriptor, "wb")
        self.name = path
        self._rest = connection.limits.object_bytes
        self._connection = connection
        connection.incoming[Path(path)] = self

    @property
    def file(self) -> IncomingFile:
        """As of a NamedTemporaryFile."""
        return self

    def write(self, data: Any, /) -> int:
        """All of it. Raises OSError where the object is larger than is accepted."""
        self._rest -= len(data)
        if self._rest < 0:
            self._connection.drop("an object larger than is accepted")
            raise OSError(EFBIG, os.strerror(EFBIG))
        rest = memoryview(data)
        while rest and self.error is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.error = error
                with contextlib.suppress(OSError):
                    self.truncate(0)
        return len(data)

    def discard(self) -> None:
        """Close it, and remove what nobody took."""
        self.close()
        with contextlib.suppress(OSError):
            os.unlink(self.name)


class Slots:
    """Who is connected, up to a number for each address and in all.

    A newcomer displaces the connection that is worth least, of its own address where that has
    its share, else of the address that has most: so whoever says nothing keeps nobody out.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._taken: set[Connection] = set()

    def admit(self, newcomer: Connection) -> bool:
        """Whether it has a slot now."""
        with self._lock:
            rivals = self._rivals(newcomer)
            if rivals is not None:
                idle = [each for each in rivals if each.may_be_displaced]
                if not idle:
                    return False
                displaced = min(idle, key=lambda each: each.worth)
                self._taken.remove(displaced)
                displaced.drop("displaced by a newcomer")
            self._taken.add(newcomer)
            return True

    def release(self, connection: Connection) -> None:
        """Once it is closed; again is harmless."""
        with self._lock:
            self._taken.discard(connection)

    def drop_all(self) -> None:
        """End them; each is released by its own thread."""
        with self._lock:
            for each in self._taken:
                each.drop("the listener stops")

    def _rivals(self, newcomer: Connection) -> list[Connection] | None:
        """Those of whom one has to go; None where there is room."""
        number = Counter(each.host for each in self._taken)
        if number[newcomer.host] >= self._limits.connections_per_address:
            return [each for each in self._taken if each.host == newcomer.host]
        if len(self._taken) >= self._limits.connections:
            most = max(number.values())
            return [each for each in self._taken if number[each.host] == most]
        return None


class GuardedServer(ThreadedAssociationServer):
    """pynetdicom's server, with a thread for each connection that outlives its association."""

    request_queue_size = _BACKLOG

    def __init__(
        self, *arguments: Any, limits: Limits, folder: Path, log: Callable[[str], None], **rest: Any
    ) -> None:
        self._limits, self._folder, self._log = limits, folder, log
        self._slots = Slots(limits)
        super().__init__(*arguments, **rest)
        if self.ssl_context is not None:
            self.ssl_context.sslsocket_class = TlsConnection
        for event, handler in _HANDLERS:
            self.bind(event, handler)

    def get_request(self) -> tuple[Connection, Any]:
        """Only accept: whatever takes time is for the connection's thread.

        Raises OSError, and nothing else: at that socketserver goes on, and at the rest it ends.
        """
        opened, address = cast(socket.socket, self.socket).accept()
        try:
            opened = connection = self._connection(opened)
            connection.accepted(address[0], self._limits, self._folder)
        except Exception as error:
            opened.close()
            self._log(f"{address[0]}: ended: {type(error).__name__}")
            raise ConnectionAbortedError from error
        return connection, address

    def _connection(self, accepted: socket.socket) -> Connection:
        if self.ssl_context is None:
            return PlainConnection(fileno=accepted.detach())
        wrapped = self.ssl_context.wrap_socket(
            accepted, server_side=True, do_handshake_on_connect=False
        )
        return cast(TlsConnection, wrapped)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a slot."""
        admitted = self._slots.admit(request)
        if not admitted:
            self._log(f"{client_address[0]}: refused: too many connections")
        return admitted

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's thread, until everything about it has ended."""
        connection = cast(Connection, request)
        _CONNECTION.set(connection)
        try:
            connection.greet()
            super().finish_request(request, client_address)  # starts the association
            if connection.association is not None:
                connection.association.join()
                connection.association.dul.join()
        except OSError:
            pass  # and connection.fault says of which kind
        finally:
            for each in list(connection.incoming.values()):
                each.discard()
            self.close_request(request)
            if connection.fault:
                self._log(f"{connection.host}: ended: {connection.fault}")

    def close_request(self, request: Any) -> None:
        """The end of every way that a connection can take."""
        super().close_request(request)
        self._slots.release(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Without a traceback."""
        kind = sys.exc_info()[0]
        self._log(f"{client_address[0]}: ended: unexpected {kind.__name__ if kind else ''}")

    def shutdown(self) -> None:
        """Return when the last thread has ended."""
        socketserver.BaseServer.shutdown(self)  # pynetdicom's wants to be started by its AE
        self._slots.drop_all()
        self.server_close()


def connection_of_this_thread() -> Connection:
    """The one for which pynetdicom's threads call a handler."""
    return _CONNECTION.get()


def configure() -> None:
    """Set what belongs to the process: data sets go to files, and nothing of a peer is printed."""
    _config.PASS_CONTEXTVARS = True
    _config.STORE_RECV_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    # These repeat what a peer sent, and what is used of it is checked by us.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    dimse_messages.NamedTemporaryFile = _new_file  # pyright: ignore[reportPrivateImportUsage]


_CONNECTION: ContextVar[Connection] = ContextVar("connection")


def _new_file(**options: Any) -> Any:
    """In place of tempfile's, in a thread that reads for a connection of ours."""
    connection = _CONNECTION.get(None)
    if connection is None:
        return tempfile.NamedTemporaryFile(**options)
    return IncomingFile(connection)


def _opened(event: evt.Event) -> None:
    """Before the threads of an association start."""
    connection, association = connection_of_this_thread(), event.assoc
    connection.association = association
    user: Queue[Any] = association.dul.to_user_queue
    association.run = _ending(connection, association.run)
    # Where the connection ends before a request, the association would wait out its timeout.
    association.dul.run = _ending(connection, association.dul.run, lambda: user.put(None))


def _ending(
    connection: Connection, run: Callable[[], None], then: Callable[[], None] = lambda: None
) -> Callable[[], None]:
    """Where pynetdicom raises out of a thread at what a peer sent, the connection ends."""

    def guarded() -> None:
        try:
            run()
        except Exception as error:
            connection.drop(f"a message that cannot be read ({type(error).__name__})")
        finally:
            then()

    return guarded


def _check_memory(event: evt.Event) -> None:
    """A command, or a data set that goes to no file, is kept in memory until its last fragment."""
    message = event.assoc.dimse.message
    if message is None:
        return
    parts = message.encoded_command_set, message.data_set
    if sum(part.tell() for part in parts if part is not None) > MESSAGE_BYTES:
        connection_of_this_thread().drop("a message larger than is accepted")


def _requested(event: evt.Event) -> None:
    connection = connection_of_this_thread()
    connection.asked += 1
    if not isinstance(event.message, dimse_messages.C_ECHO_RQ | dimse_messages.C_STORE_RQ):
        connection.drop("a message that is no request to echo or to store")
    if connection.owed > OWED_MESSAGES:
        connection.drop("more requests than are answered")


def _answered(event: evt.Event) -> None:
    connection_of_this_thread().answered += 1


_HANDLERS = (
    (evt.EVT_CONN_OPEN, _opened),
    (evt.EVT_PDU_RECV, _check_memory),
    (evt.EVT_DIMSE_RECV, _requested),
    (evt.EVT_DIMSE_SENT, _answered),
)
