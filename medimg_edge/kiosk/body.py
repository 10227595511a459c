"""Bodies of requests, counted while they are read, and never in a file.

By the time an error is raised part of a body may be unread: the protocol discards the rest, so
that a client that sends all of it before it reads is told.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from medimg_edge.errors import BodyTooLarge, Busy, MediaTypeUnknown, RequestInvalid

CURL = "application/x-www-form-urlencoded"
"""What `curl --data-binary @FILE` says of every file."""

RAW = frozenset(
    {
        *("image/png", "image/jpeg", "image/tiff", "application/dicom"),
        *("application/octet-stream", CURL, ""),
    }
)
MULTIPART = "multipart/form-data"
JSON = "application/json"

FILE = "file"
"""The name of the part that is the image."""

JSON_BYTES = 16 * 1024
_PART_HEADERS, _PART_HEADER_BYTES = 8, 4096

# What is wrong with a form is told to who sent it.
logging.getLogger("python_multipart.multipart").disabled = True


T = TypeVar("T")


class Room:
    """How many bytes the bodies of all requests may take of the memory together."""

    def __init__(self, size: int) -> None:
        self._free = self._size = size

    @property
    def taken(self) -> int:
        """Bytes."""
        return self._size - self._free

    def take(self, size: int) -> None:
        """Raises Busy where there is no room."""
        if size > self._free:
            raise Busy(
                "The images that are being received and answered take all the memory there is for "
                "them. Send it again later."
            )
        self._free -= size

    def give(self, size: int) -> None:
        """Back what was taken."""
        self._free += size

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Take it for a block. Raises Busy."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


class Received:
    """A body. It takes its room for as long as anybody holds this.

    media_type: in lower case, without parameters; of the part, where it came as a form; "" where
    none was told.
    """

    def __init__(self, data: bytes, media_type: str) -> None:
        self.data, self.media_type = data, media_type


async def receive(request: Request, limit: int, room: Room | None = None) -> Received:
    """An image: the body itself, or the part "file" of a form. It may be empty.

    limit: bytes of the body, a form's own included. Raises MediaTypeUnknown, BodyTooLarge,
    RequestInvalid, Busy, and Starlette's ClientDisconnect.
    """
    media_type, parameters = _media_type(request)
    sink: _Form | _Raw
    if media_type == MULTIPART:
        sink = _Form(parameters.get("boundary", ""))
    elif media_type in RAW:
        sink = _Raw(media_type)
    else:
        raise MediaTypeUnknown(
            "The body's Content-Type is not taken. Send the image's own, such as image/png or "
            f"application/dicom, or application/octet-stream, or {MULTIPART}."
        )
    share = _Share(room)
    try:
        await _read(request, limit, share, sink)
        received = sink.whole()
    except BaseException:
        share.give_back()
        raise
    weakref.finalize(received, share.give_back).atexit = False
    return received


async def receive_json(request: Request, kind: type[T], limit: int = JSON_BYTES) -> T:
    """A body of JSON, which may leave out its Content-Type.

    Raises MediaTypeUnknown, BodyTooLarge, RequestInvalid, and Starlette's ClientDisconnect.
    """
    if _media_type(request)[0] not in (JSON, ""):
        raise MediaTypeUnknown(f"The body's Content-Type is not taken. Send {JSON}.")
    raw = _Raw(JSON)
    await _read(request, limit, _Share(None), raw)
    try:
        return msgspec.json.decode(raw.whole().data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestInvalid(f"The body does not fit its schema: {error}.") from error


def _media_type(request: Request) -> tuple[str, dict[str, str]]:
    """Raises MediaTypeUnknown at a compressed one, whose size could be anything."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise MediaTypeUnknown("The body has a Content-Encoding. Send it without.")
    media_type, parameters = parse_options_header(request.headers.get("content-type"))
    return media_type.decode("latin-1"), {
        name.decode("latin-1"): value.decode("latin-1") for name, value in parameters.items()
    }


async def _read(request: Request, limit: int, share: _Share, sink: _Raw | _Form) -> None:
    """Hand on all of the body."""
    if int(request.headers.get("content-length", "0")) > limit:  # the parser lets digits through
        _refuse(limit)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            _refuse(limit)
        share.take(len(chunk))
        sink.write(chunk)


def _refuse(limit: int) -> NoReturn:
    raise BodyTooLarge(f"The body is larger than {limit:,} bytes, which is the most that is taken.")


class _Share:
    """What one body takes of the room."""

    def __init__(self, room: Room | None) -> None:
        self._room, self._size = room, 0

    def take(self, size: int) -> None:
        if self._room is not None:
            self._room.take(size)
            self._size += size

    def give_back(self) -> None:
        if self._room is not None:
            self._room.give(self._size)


class _Raw:
    """A body that is what it is."""

    def __init__(self, media_type: str) -> None:
        self._chunks: list[bytes] = []
        self._media_type = media_type

    def write(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def whole(self) -> Received:
        return Received(b"".join(self._chunks), self._media_type)


class _Form:
    """The one part of a form. RFC 7578."""

    def __init__(self, boundary: str) -> None:
        self._chunks: list[bytes] = []
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._parts, self._is_whole, self._media_type = 0, False, ""
        if not boundary:
            raise _form_invalid("its Content-Type names no boundary")
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
            "on_header_field": lambda data, start, end: self._headers[-1][0].extend(
                data[start:end]
            ),
            "on_header_value": lambda data, start, end: self._headers[-1][1].extend(
                data[start:end]
            ),
            "on_headers_finished": self._finish_headers,
            "on_part_data": lambda data, start, end: self._chunks.append(data[start:end]),
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(
                boundary,
                callbacks,
                max_header_count=_PART_HEADERS,
                max_header_size=_PART_HEADER_BYTES,
            )
        except FormParserError as error:
            raise _form_invalid("its boundary is too long") from error

    def write(self, chunk: bytes) -> None:
        """Raises RequestInvalid."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:  # its words repeat what was sent
            raise _form_invalid("it is damaged") from error

    def whole(self) -> Received:
        """The part. Raises RequestInvalid."""
        if not self._is_whole:
            raise _form_invalid("its end is missing")
        if not self._parts:
            raise _form_invalid("it has no part")
        return Received(b"".join(self._chunks), self._media_type)

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > 1:
            raise _form_invalid("it has more than one part")

    def _finish_headers(self) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in self._headers}
        _, parameters = parse_options_header(headers.get(b"content-disposition"))
        if parameters.get(b"name") != FILE.encode():
            raise _form_invalid("its part has another name")
        media_type, _ = parse_options_header(headers.get(b"content-type"))
        self._media_type = media_type.decode("latin-1")

    def _end(self) -> None:
        self._is_whole = True


def _form_invalid(fault: str) -> RequestInvalid:
    return RequestInvalid(
        f"The form cannot be read: {fault}. Send one part named {FILE}, the image's bytes; or the "
        "bytes alone, without a form."
    )
