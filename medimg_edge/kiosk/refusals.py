"""Responses to what never becomes a request of the application, and so has no entry in the table.

It is no request at all, or its head is too large, or its end does not come.
"""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from medimg_edge.errors import MedimgEdgeError, ReceiveDeadline, RequestInvalid
from medimg_edge.kiosk.problems import MEDIA_TYPE, Problem

HEAD_BYTES = 16 * 1024
"""Of a request's line and headers, and of whatever else is no body."""

_ERRORS: dict[HTTPStatus, MedimgEdgeError] = {
    HTTPStatus.BAD_REQUEST: RequestInvalid("This is no request of HTTP/1.1 as it is read here."),
    HTTPStatus.REQUEST_TIMEOUT: ReceiveDeadline(
        "The request did not arrive in time. Send it again, on a faster connection."
    ),
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: RequestInvalid(
        f"The head of the request is larger than {HEAD_BYTES:,} bytes. Send fewer or shorter "
        "headers."
    ),
}


def refusal(status: HTTPStatus, headers: list[tuple[bytes, bytes]]) -> tuple[str, bytes]:
    """The code, and all bytes of the response. headers: those that every response has.

    status: 400, 408 or 431.
    """
    error = _ERRORS[status]
    told = Problem(
        type="about:blank",
        title=status.phrase,
        status=status,
        code=error.code,
        detail=error.message,
        rejected=False,
    )
    body = msgspec.json.encode(told)
    every = [
        *headers,
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode())]
    lines += [b"%s: %s" % each for each in every]
    return error.code, b"\r\n".join([*lines, b"", body])
