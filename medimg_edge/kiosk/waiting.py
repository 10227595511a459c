"""Until a service answers: a browser that is shown its page before would stay with an error."""

from __future__ import annotations

import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from medimg_edge.errors import ServiceRefused

TRY_SECONDS = 0.5
ONE_TRY_SECONDS = 5.0


def wait(url: str, seconds: float) -> None:
    """Return as soon as /healthz of the service at ``url`` says that it is alive.

    By TLS, whose certificate is not looked at: nothing is told. Raises ServiceRefused where it did
    not in ``seconds``, or the URL is none of http or https.
    """
    end, found = time.monotonic() + seconds, "nothing was tried"
    while True:
        try:
            status = _status(url)
            if status == 200:
                return
            found = f"status {status}"
        except (OSError, HTTPException) as error:
            found = str(error)
        if time.monotonic() >= end:
            raise ServiceRefused(
                f"{url} did not answer in {seconds:g} s: {found}. See `journalctl -u medimg-kiosk`."
            )
        time.sleep(TRY_SECONDS)


def _status(url: str) -> int:
    connection = _connection(url)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def _connection(url: str) -> HTTPConnection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if parts is None or host is None or parts.scheme not in ("http", "https"):
        raise ServiceRefused(f"{url!r} is no URL of a service, such as http://127.0.0.1:8080/.")
    if parts.scheme == "http":
        return HTTPConnection(host, port, timeout=ONE_TRY_SECONDS)
    context = ssl._create_unverified_context()
    return HTTPSConnection(host, port, timeout=ONE_TRY_SECONDS, context=context)
