"""HTTP by hand: bytes to a port, and what comes back."""

from __future__ import annotations

import json
import re
import socket
import time
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Said(NamedTuple):
    """The statuses of the responses, in order, and whether the connection was ended after."""

    statuses: list[int]
    is_ended: bool
    text: str


def say(port: int, *parts: bytes, seconds: float = 5) -> Said:
    """Send the parts, a moment between them, and read until the end or for some seconds.

    After parts that leave the connection open, a request for /healthz that ends it has to follow.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as peer:
        for number, part in enumerate(parts):
            time.sleep(0.05 if number else 0)
            peer.sendall(part)
        received, is_ended = bytearray(), False
        try:
            while chunk := peer.recv(65536):
                received += chunk
            is_ended = True
        except ConnectionResetError:
            is_ended = True
        except TimeoutError:
            pass
    text = received.decode("latin-1")
    statuses = re.findall(r"HTTP/1\.1 (\d{3}) ", text)  # in front of it may be a body's end
    return Said([int(each) for each in statuses], is_ended, text)


def ask(
    port: int,
    method: str = "GET",
    path: str = "/healthz",
    headers: dict[str, str] | None = None,
    body: Any = None,
) -> tuple[HTTPResponse, bytes]:
    """A request of http.client's, which asks for ``localhost`` unless the headers say a Host."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, {"Host": "localhost"} | (headers or {}))
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def code_of(body: bytes) -> str:
    return json.loads(body)["code"]
