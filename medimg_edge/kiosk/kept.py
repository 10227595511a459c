"""What the record keeps of an answer, and gives again."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from medimg_edge.kiosk.chain import Entry

ID = re.compile(r"[0-9a-f]{32}")
"""What an answer is called."""

COMMENT_CHARACTERS = 500
"""The most that an operator's comment may have."""

Source = Literal["upload", "folder", "dicom"]


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds: until it was this image's turn, and from then until it was answered."""

    waited_ms: float
    answer_ms: float


class Acknowledged(msgspec.Struct, frozen=True):
    """That an operator has seen an answer, and what he remarked."""

    time: str
    comment: str


class New(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or that there is none, which is to be kept.

    id: 32 lower-case hexadecimal characters, not used before. input_sha256: of the image's bytes,
    in hexadecimal. record: JSON, of ``record.Answer`` or ``record.Failure``. operating_points:
    JSON. key: the SHA-256 in hexadecimal of what the client called the request, None if nothing.
    """

    id: str
    source: Source
    input_sha256: str
    record: bytes
    timings: Timings
    operating_points: bytes = b"{}"
    key: str | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as the record has it. ``sequence`` is that of its entry: later ones are larger.

    acknowledged: the newest, None where there is none.
    """

    sequence: int
    id: str
    time: str
    source: Source
    input_sha256: str
    record: msgspec.Raw
    timings: Timings
    operating_points: msgspec.Raw
    acknowledged: Acknowledged | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an "answer" entry."""

    source: Source
    input_sha256: str
    record: msgspec.Raw
    timings: Timings
    operating_points: msgspec.Raw
    key: str | None = None


class Comment(msgspec.Struct, frozen=True):
    """The body of an "acknowledgement" entry. answer: the sequence of what was seen."""

    comment: str
    answer: int


class _Told(msgspec.Struct, frozen=True):
    """What is asked for in lists."""

    status: Literal["ok", "error", "rejected"]
    decision: str | None = None
    code: str | None = None


def body_of(new: New) -> str:
    """The body of its entry. A record that is none is a fault of the caller's: ValueError."""
    for each in (new.input_sha256, new.key):
        if each is not None and not re.fullmatch("[0-9a-f]{64}", each):
            raise ValueError(f"{each!r} is no SHA-256 in hexadecimal")
    if not ID.fullmatch(new.id):
        raise ValueError(f"{new.id!r} is no id")
    msgspec.json.decode(new.record, type=_Told)
    msgspec.json.decode(new.operating_points, type=dict[str, msgspec.Raw])
    body = Answered(
        source=new.source,
        input_sha256=new.input_sha256,
        record=msgspec.Raw(new.record),
        timings=new.timings,
        operating_points=msgspec.Raw(new.operating_points),
        key=new.key,
    )
    return msgspec.json.encode(body).decode()


def kept_of(entry: Entry, acknowledged: Acknowledged | None = None) -> Kept:
    """What an "answer" entry holds. Raises msgspec.DecodeError where it is damaged."""
    body = msgspec.json.decode(entry.body, type=Answered)
    return Kept(
        sequence=entry.sequence,
        id=entry.id,
        time=entry.time,
        source=body.source,
        input_sha256=body.input_sha256,
        record=body.record,
        timings=body.timings,
        operating_points=body.operating_points,
        acknowledged=acknowledged,
    )


def acknowledged_of(time: str, body: str) -> Acknowledged:
    """What an "acknowledgement" entry holds. Raises msgspec.DecodeError where it is damaged."""
    return Acknowledged(time, msgspec.json.decode(body, type=Comment).comment)
