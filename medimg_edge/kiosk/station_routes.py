"""The routes about the station: what answers here, how it is, and who may ask."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from medimg_edge import __version__
from medimg_edge.errors import MedimgEdgeError, TokenMissing
from medimg_edge.kiosk import wire
from medimg_edge.kiosk.body import receive_json
from medimg_edge.kiosk.drifting import Found
from medimg_edge.kiosk.guard import is_token, shows_who
from medimg_edge.kiosk.metrics import MEDIA_TYPE
from medimg_edge.kiosk.openapi import binary, takes_json, told
from medimg_edge.kiosk.sessions import COOKIE, Sessions
from medimg_edge.kiosk.settings import Settings
from medimg_edge.kiosk.station import Station
from medimg_edge.kiosk.wire import respond


def about(station: Station) -> APIRouter:
    """What answers here, and how it does."""
    router = APIRouter(tags=["station"])

    @router.get("/v1/model", responses=told(wire.About, 503))
    def model() -> Response:
        """What answers, for whom it is, and how good it was."""
        station.answers.require_ready()
        assert station.answers.facts is not None
        return respond(wire.About(__version__, station.answers.facts))

    @router.get("/healthz", responses=told(wire.Health))
    async def healthz() -> Response:
        """That the service is alive."""
        return respond(wire.Health("alive"))

    @router.get("/readyz", responses=told(wire.Health, 503))
    async def readyz() -> Response:
        """That the golden set has passed since the start."""
        station.answers.require_ready()
        return respond(wire.Health("ready"))

    @router.get("/metrics", response_class=Response, responses=binary("text/plain"))
    def metrics() -> Response:
        """For Prometheus."""
        return Response(station.metrics.text(), media_type=MEDIA_TYPE)

    return router


def signing_in(
    station: Station,
    settings: Settings,
    sessions: Sessions,
    drift: Callable[[], Found] = Found,
) -> APIRouter:
    """How a page begins, and a browser's session where a token is needed."""
    router = APIRouter(prefix="/v1", tags=["station"])

    @router.get("/station", responses=told(wire.StationState))
    def state(request: Request) -> Response:
        """How the station is."""
        signed_in = shows_who(request.scope, settings, sessions)
        return respond(_state(station, settings, signed_in, drift))

    @router.put(
        "/session",
        status_code=204,
        responses=told(None, 413, 415, 422, success=204),
        openapi_extra=takes_json(wire.SignIn),
    )
    async def sign_in(request: Request) -> Response:
        """Show the token once, and get a cookie."""
        given = await receive_json(request, wire.SignIn)
        if settings.token is None or not is_token(given.token, settings.token):
            raise TokenMissing("That is not this station's token.")
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            sessions.create(),
            httponly=True,
            samesite="strict",
            secure=settings.tls is not None,
        )
        return response

    @router.delete("/session", status_code=204, responses=told(None, success=204))
    async def sign_out(request: Request) -> Response:
        """End the session of the cookie."""
        sessions.end(request.cookies.get(COOKIE, ""))
        response = Response(status_code=204)
        response.delete_cookie(COOKIE)
        return response

    return router


def _state(
    station: Station, settings: Settings, signed_in: bool, drift: Callable[[], Found]
) -> wire.StationState:
    told_to_all = {
        "token_required": settings.token is not None,
        "signed_in": signed_in,
        "state": station.answers.state,
        "medimg_edge": __version__,
    }
    if not signed_in:
        return wire.StationState(**told_to_all)
    refusal: MedimgEdgeError | None = station.answers.refusal
    declined = station.answers.declined
    return wire.StationState(
        **told_to_all,
        code=refusal.code if refusal else None,
        message=refusal.message if refusal else None,
        inbox=station.inbox.is_watching,
        retention=station.retention,
        record=wire.LedgerState(station.ledger.entries, station.ledger.head),
        drift=drift().drift,
        declined=declined.message if declined else None,
    )
