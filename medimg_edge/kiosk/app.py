"""The application: a value made of a station and its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from medimg_edge.errors import (
    MedimgEdgeError,
    MethodNotAllowed,
    NotFound,
    RequestInvalid,
    Unexpected,
)
from medimg_edge.kiosk import openapi, page, routes, station_routes
from medimg_edge.kiosk.guard import Guard
from medimg_edge.kiosk.log import Log
from medimg_edge.kiosk.problems import problem
from medimg_edge.kiosk.sessions import Sessions
from medimg_edge.kiosk.settings import Settings
from medimg_edge.kiosk.station import Station


def create_app(station: Station, settings: Settings, log: Log) -> ASGIApp:
    """The service as an ASGI application; the station runs as long as its lifespan."""
    sessions = Sessions()

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with station.running():
            yield

    app = FastAPI(
        lifespan=running,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for make in (routes.predictions, routes.pictures, routes.inbox, station_routes.about):
        app.include_router(make(station))
    drift = station.drifting.found
    app.include_router(station_routes.signing_in(station, settings, sessions, drift))
    app.state.document = openapi.document(app, token=settings.token is not None)
    described = msgspec.json.encode(app.state.document)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(described, media_type=openapi.JSON)

    app.include_router(page.router())
    app.add_exception_handler(MedimgEdgeError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    return Guard(app, settings=settings, sessions=sessions, log=log, metrics=station.metrics)


async def _ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, MedimgEdgeError)
    return problem(error)


async def _invalid(request: Request, error: Exception) -> Response:
    """A parameter that does not fit; what it was is not repeated."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = " ".join(map(str, first["loc"]))
    return problem(RequestInvalid(f"{where}: {first['msg']}."))


async def _http(request: Request, error: Exception) -> Response:
    """What Starlette's router finds."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        first = (error.headers or {}).get("Allow", "")
        found = openapi.methods(request.app.state.document, request.url.path)
        allowed = ", ".join(found) or first  # of other routes with this path Starlette tells none
        response = problem(MethodNotAllowed(f"This path takes {allowed}."))
        response.headers["Allow"] = allowed
        return response
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(
            NotFound("There is nothing at this path. /openapi.json lists what there is.")
        )
    return problem(Unexpected(f"A fault of medimg-edge itself: HTTP {error.status_code}."))
