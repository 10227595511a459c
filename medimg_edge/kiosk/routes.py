"""The routes to answers: images in, predictions and their pictures out."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BeforeValidator

from medimg_edge.kiosk import wire
from medimg_edge.kiosk.body import receive, receive_json
from medimg_edge.kiosk.openapi import BYTES, PNG, binary, takes_image, takes_json, told
from medimg_edge.kiosk.pictures import header, samples
from medimg_edge.kiosk.problems import problem
from medimg_edge.kiosk.station import Station, Told
from medimg_edge.kiosk.wire import respond


def rfc3339(text: str) -> datetime:
    """A time with its zone, such as 2026-11-25T08:00:00Z. Raises ValueError."""
    if "T" not in text.upper():
        raise ValueError("a time as of RFC 3339, such as 2026-11-25T08:00:00Z")
    return msgspec.json.decode(msgspec.json.encode(text), type=datetime)


Id = Annotated[str, Path(description="Of a prediction: 32 hexadecimal characters.")]
Frame = Annotated[
    int | None, Query(ge=1, le=10_000, description="Of a DICOM file that has several: from 1.")
]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="A word of your own for this image and frame, to repeat a request by.",
    ),
]
Time = Annotated[datetime, BeforeValidator(rfc3339)]

_NO_ANSWER = (408, 409, 413, 415, 422, 500, 503, 507)


def predictions(station: Station) -> APIRouter:
    """Images in, answers out; what was answered before; that somebody has seen it."""
    router = APIRouter(prefix="/v1/predictions", tags=["predictions"])

    @router.post(
        "",
        status_code=201,
        responses={200: told(wire.Prediction)[200]}
        | told(wire.Prediction, *_NO_ANSWER, success=201, words="Answered."),
        openapi_extra=takes_image(),
    )
    async def predict(request: Request, frame: Frame = None, key: Key = None) -> Response:
        """Answer one image: its bytes, or multipart/form-data with one part, `file`.

        An image that gets no answer ends in a problem, and is in the record all the same. 200:
        it was answered before, to the same Idempotency-Key.
        """
        received = await receive(request, station.limits.body_bytes, station.room)
        return _answer(
            station, await station.predict(received.data, source="upload", frame=frame, key=key)
        )

    @router.get("", responses=told(wire.Page, 422, 507))
    def page(
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        before: Annotated[
            int | None, Query(ge=1, le=2**53, description="`next` of the page before.")
        ] = None,
        status: Annotated[Literal["ok", "rejected", "error"] | None, Query()] = None,
        decision: Annotated[str | None, Query(max_length=200)] = None,
        code: Annotated[str | None, Query(max_length=100)] = None,
        since: Annotated[Time | None, Query(description="Not before.")] = None,
        until: Annotated[Time | None, Query(description="Before.")] = None,
        input_sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
        acknowledged: Annotated[bool | None, Query()] = None,
    ) -> Response:
        """What was answered, the newest first."""
        found, following = station.ledger.page(
            limit=limit,
            before=before,
            status=status,
            decision=decision,
            code=code,
            since=since,
            until=until,
            input_sha256=input_sha256,
            acknowledged=acknowledged,
        )
        return respond(wire.Page(tuple(map(station.shown, found)), following))

    @router.get("/{id}", responses=told(wire.Prediction, 404, 507))
    def prediction(id: Id) -> Response:  # noqa: A002 - what the interface calls it
        """One image and its answer."""
        return respond(station.shown(station.kept(id)))

    @router.put(
        "/{id}/acknowledgement",
        responses=told(wire.Prediction, 404, 413, 415, 422, 507),
        openapi_extra=takes_json(wire.Acknowledgement),
    )
    async def acknowledge(request: Request, id: Id) -> Response:  # noqa: A002
        """Say that somebody has seen an answer, with a comment; the newest one is told."""
        given = await receive_json(request, wire.Acknowledgement)
        await asyncio.to_thread(station.kept, id)
        await asyncio.wrap_future(station.ledger.acknowledge(id, given.comment))
        return respond(station.shown(await asyncio.to_thread(station.kept, id)))

    return router


def pictures(station: Station) -> APIRouter:
    """What an answer is drawn from."""
    router = APIRouter(prefix="/v1/predictions/{id}", tags=["pictures"])

    @router.get("/image", response_class=Response, responses=binary(PNG, 404, 422, 503))
    async def image(id: Id) -> Response:  # noqa: A002
        """The image as it is displayed, the longer side at most 1024 pixels."""
        view = await asyncio.to_thread(station.view, id)
        return Response(await station.answers.render(view, "image", None), media_type=PNG)

    @router.get("/heatmap", response_class=Response, responses=binary(PNG, 404, 422, 503))
    async def heatmap(
        id: Id,  # noqa: A002
        label: Annotated[
            str | None, Query(max_length=200, description="By default the answer's.")
        ] = None,
        layer: Annotated[
            Literal["overlay", "heat"],
            Query(description="Over the image; or alone, transparent, as large as the image."),
        ] = "overlay",
    ) -> Response:
        """Where the network found evidence for a label."""
        view = await asyncio.to_thread(station.view, id)
        return Response(await station.answers.render(view, layer, label), media_type=PNG)

    @router.get("/samples", response_class=Response, responses=binary(BYTES, 404))
    def raw(id: Id) -> Response:  # noqa: A002
        """The image's values, uint8 or uint16, little endian, row by row, for a viewer.

        X-Rows, X-Columns, X-Channels and X-Bits tell their form; X-Low, X-High and X-Inverted how
        they are displayed; X-Slope and X-Intercept what they mean.
        """
        view = station.view(id)
        return Response(samples(view), headers=_sample_headers(header(view)), media_type=BYTES)

    return router


def inbox(station: Station) -> APIRouter:
    """Images that lie in watched folders."""
    router = APIRouter(prefix="/v1/inbox", tags=["inbox"])

    @router.get("", responses=told(wire.InboxItems))
    def items() -> Response:
        """What lies there, the newest first."""
        found = station.inbox.look()
        listed = tuple(wire.InboxItem(**each._asdict()) for each in found.items)
        return respond(wire.InboxItems(listed, tuple(found.notes)))

    @router.post(
        "/{id}/predictions",
        status_code=201,
        responses={200: told(wire.Prediction)[200]}
        | told(wire.Prediction, 404, *_NO_ANSWER, success=201, words="Answered."),
    )
    async def predict_item(
        id: Annotated[str, Path(description="Of an item.")],  # noqa: A002
        frame: Frame = None,
        key: Key = None,
    ) -> Response:
        """Answer one of them; it stays where it is."""
        return _answer(station, await station.predict_item(id, frame=frame, key=key))

    return router


def _answer(station: Station, found: Told) -> Response:
    if found.error is not None:
        return problem(found.error, prediction=found.kept.id)
    headers = {"Location": f"/v1/predictions/{found.kept.id}"}
    if found.is_replayed:
        headers["Idempotent-Replayed"] = "true"
    return respond(station.shown(found.kept), 200 if found.is_replayed else 201, headers)


def _sample_headers(facts: dict[str, Any]) -> dict[str, str]:
    names = ("rows", "columns", "channels", "bits", "low", "high", "inverted", "slope", "intercept")
    return {f"X-{name.capitalize()}": str(facts[name]) for name in names}
