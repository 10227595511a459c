"""PDUs as bytes (PS3.8 section 9.3), for peers that no library plays."""

from __future__ import annotations

import socket
from typing import Any

VERIFICATION, CT = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
ACCEPTED, REJECTED, DATA, RELEASED, ABORTED = 2, 3, 4, 6, 7


def associate(called: str = "MEDIMG", abstract: str = CT, transfer: str = IMPLICIT) -> bytes:
    """An A-ASSOCIATE-RQ with presentation context 1."""
    context = b"\1\0\0\0" + item(0x30, abstract.encode()) + item(0x40, transfer.encode())
    user = item(0x51, (16384).to_bytes(4, "big")) + item(0x52, b"1.2.3")
    titles = f"{called:16}{'RAW':16}".encode()
    application = item(0x10, b"1.2.840.10008.3.1.1.1")
    body = b"\0\1\0\0" + titles + bytes(32) + application + item(0x20, context)
    return pdu(1, body + item(0x50, user))


def pdu(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + len(body).to_bytes(4, "big") + body


def item(kind: int, data: bytes) -> bytes:
    """Of an association request: PS3.8 section 9.3.2."""
    return bytes([kind, 0]) + len(data).to_bytes(2, "big") + data


def fragment(data: bytes, *, command: bool, last: bool = True) -> bytes:
    """A P-DATA-TF with one fragment, in presentation context 1."""
    control = int(command) | 2 * int(last)
    return pdu(4, (len(data) + 2).to_bytes(4, "big") + bytes([1, control]) + data)


def store_request(instance: bytes, sop_class: bytes = CT.encode()) -> bytes:
    """The command of a C-STORE: PS3.7 section 9.3.1."""
    return _command(
        (0x0002, _even(sop_class)),
        (0x0100, b"\1\0"),
        (0x0110, b"\1\0"),
        (0x0700, b"\0\0"),
        (0x0800, b"\0\0"),
        (0x1000, _even(instance)),
    )


def echo_request(with_data: bool = False) -> bytes:
    """The command of a C-ECHO: PS3.7 section 9.3.5."""
    return _command(
        (0x0002, _even(VERIFICATION.encode())),
        (0x0100, b"\x30\0"),
        (0x0110, b"\1\0"),
        (0x0800, b"\0\0" if with_data else b"\1\1"),
    )


def data_set(instance: bytes, sop_class: bytes = CT.encode()) -> bytes:
    """Implicit VR Little Endian: the two UIDs."""
    return _element(8, 0x16, _even(sop_class)) + _element(8, 0x18, _even(instance))


def answer(peer: socket.socket) -> tuple[int, bytes]:
    """Type and body of the next PDU; 0 where the connection ends before it."""
    header = _exactly(peer, 6)
    if header is None:
        return 0, b""
    body = _exactly(peer, int.from_bytes(header[2:], "big"))
    return (0, b"") if body is None else (header[0], body)


def status(body: bytes) -> int:
    """(0000,0900) of a response."""
    at = body.index(b"\0\0\0\x09\2\0\0\0") + 8
    return int.from_bytes(body[at : at + 2], "little")


class Peer(socket.socket):
    """Connects, from an address of the loopback network if one is given."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        super().__init__(socket.AF_INET)
        self.bind((source, 0))
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.settimeout(20)
        self.connect(("127.0.0.1", port))

    def associated(self, **options: Any) -> Peer:
        self.sendall(associate(**options))
        assert answer(self)[0] == ACCEPTED
        return self

    def leave(self) -> None:
        """PS3.8 section 7.2."""
        self.sendall(pdu(5, bytes(4)))
        assert answer(self)[0] == RELEASED
        assert answer(self)[0] == 0


def _exactly(peer: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            more = peer.recv(size - len(data))
        except ConnectionError:
            return None
        if not more:
            return None
        data += more
    return data


def _element(group: int, number: int, value: bytes) -> bytes:
    parts = group.to_bytes(2, "little"), number.to_bytes(2, "little")
    return b"".join(parts) + len(value).to_bytes(4, "little") + value


def _command(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(_element(0, number, value) for number, value in elements)
    return _element(0, 0, len(body).to_bytes(4, "little")) + body


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)
