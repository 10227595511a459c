"""What goes over the wire, as JSON. The record within is that of the command line, version 1."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from starlette.responses import Response

from medimg_edge.kiosk.answers import Facts
from medimg_edge.kiosk.drifting import Drift
from medimg_edge.kiosk.kept import COMMENT_CHARACTERS, Acknowledged, Kept, Source, Timings

Name = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One image and its answer.

    operating_points: by label, where a probability becomes a decision, as they were then.
    picture: whether it can be drawn now.
    """

    id: Name
    time: str
    source: Source
    input_sha256: str
    record: msgspec.Raw
    operating_points: msgspec.Raw
    timings: Timings
    picture: bool
    acknowledged: Acknowledged | None


class Page(msgspec.Struct, frozen=True):
    """Answers, the newest first. ``next`` is the ``before`` of those that follow, if any do."""

    predictions: tuple[Prediction, ...]
    next: int | None


class Acknowledgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That somebody has seen an answer."""

    comment: Annotated[str, msgspec.Meta(max_length=COMMENT_CHARACTERS)] = ""


class SignIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a browser shows once, for a session."""

    token: Annotated[str, msgspec.Meta(max_length=500)]


class InboxItem(msgspec.Struct, frozen=True):
    """An image that lies in a watched folder. ``arrived`` is UTC, RFC 3339."""

    id: str
    name: str
    kind: Literal["folder", "dicom"]
    arrived: str
    bytes: int


class InboxItems(msgspec.Struct, frozen=True):
    """The newest first, at most a hundred; ``notes`` tell a person which folders cannot be read."""

    items: tuple[InboxItem, ...]
    notes: tuple[str, ...]


class About(msgspec.Struct, frozen=True):
    """What answers here, and the release that runs it."""

    medimg_edge: str
    model: Facts


class Retention(msgspec.Struct, frozen=True):
    """For how many days pictures and the record are kept; null: pictures not, records for ever."""

    images_days: float | None = None
    records_days: float | None = None


class LedgerState(msgspec.Struct, frozen=True):
    """How many entries the record has, and the hash of the last, which stands for all."""

    entries: int
    head: str


class StationState(msgspec.Struct, frozen=True, kw_only=True):
    """How a page begins. Without a token only the first four members are told.

    message: why it does not answer; code: of that. drift: null where none was found. declined: why
    the bundle that is installed is not the one that answers; null where it is.
    """

    token_required: bool
    signed_in: bool
    state: Literal["starting", "ready", "refused"]
    medimg_edge: str
    code: str | None = None
    message: str | None = None
    inbox: bool | None = None
    retention: Retention | None = None
    record: LedgerState | None = None
    drift: Drift | None = None
    declined: str | None = None


class Health(msgspec.Struct, frozen=True):
    """``alive``: it takes requests. ``ready``: the golden set has passed since the start."""

    status: Literal["alive", "ready"]


def prediction(kept: Kept, *, picture: bool) -> Prediction:
    """An entry of the record, as it is told."""
    return Prediction(
        id=kept.id,
        time=kept.time,
        source=kept.source,
        input_sha256=kept.input_sha256,
        record=kept.record,
        operating_points=kept.operating_points,
        timings=kept.timings,
        picture=picture,
        acknowledged=kept.acknowledged,
    )


def respond(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")
