"""The OpenAPI document: what each route takes and returns, and the schemas of that."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import compile_path

from medimg_edge import __version__
from medimg_edge.kiosk import wire
from medimg_edge.kiosk.problems import MEDIA_TYPE, Problem
from medimg_edge.manifest import OperatingPoint
from medimg_edge.record import Answer, Failure

JSON, PNG, BYTES = "application/json", "image/png", "application/octet-stream"
IMAGES = ("image/png", "image/jpeg", "image/tiff", "application/dicom", BYTES)

_REFERENCE = "#/components/schemas/{name}"
_STRUCTS = (
    wire.Prediction,
    wire.Page,
    wire.Acknowledgement,
    wire.SignIn,
    wire.InboxItems,
    wire.About,
    wire.StationState,
    wire.Health,
    Problem,
    Answer,
    Failure,
    OperatingPoint,
)
_WORDS = {
    "401": "A token is needed, and it is missing or wrong.",
    "403": "A page of another site asks.",
    "404": "There is no such thing, or not any more.",
    "408": "The body did not arrive in time.",
    "409": "An Idempotency-Key of another image, or of one that is still being answered.",
    "413": "The body is too large.",
    "415": "Of a type that is not taken, or not an image.",
    "421": "The Host is not this service's.",
    "422": "The request or the image is not as it has to be; or the model must not answer it.",
    "500": "The record cannot be read, the model gave no number, or medimg-edge is at fault.",
    "503": "Not now: try again after Retry-After.",
    "507": "The disk is full.",
}
_ALWAYS = (401, 403, 421, 500)
_DESCRIPTION = """A reading station's interface. Decision support, not a diagnosis.

A station that others reach takes requests with `Authorization: Bearer TOKEN`. Errors are
problem+json (RFC 9457), with the codes of the command line."""


def reference(struct: type) -> dict[str, Any]:
    """The schema of a struct that the document describes."""
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


def told(
    struct: type | None, *statuses: int, success: int = 200, words: str = "Done."
) -> dict[int | str, dict[str, Any]]:
    """A route's responses: JSON of a struct (None: nothing), and problems."""
    content = {JSON: {"schema": reference(struct)}} if struct else None
    return {success: _response(words, content)} | problems(*statuses)


def binary(media_type: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """A route's responses: bytes, and problems."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {200: _response("Here it is.", content)} | problems(*statuses)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses whose body is a Problem, with those that any request may meet."""
    content = {MEDIA_TYPE: {"schema": reference(Problem)}}
    return {
        status: _response(_WORDS[str(status)], content) for status in sorted({*statuses, *_ALWAYS})
    }


def takes_json(struct: type) -> dict[str, Any]:
    """What a route takes: JSON of a struct."""
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference(struct)}}}}


def takes_image() -> dict[str, Any]:
    """What a route takes: the bytes of an image, or a form with one."""
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "properties": {"file": binary},
        "required": ["file"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {each: {"schema": binary} for each in IMAGES}
    encoding = {"file": {"contentType": ", ".join(IMAGES)}}
    content["multipart/form-data"] = {"schema": form, "encoding": encoding}
    return {"requestBody": {"required": True, "content": content}}


def document(app: FastAPI, *, token: bool) -> dict[str, Any]:
    """The document of an app. token: whether it needs one."""
    made = get_openapi(
        title="medimg-edge kiosk",
        version=__version__,
        description=_DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _without_fastapis_own(made)
    components = made.setdefault("components", {})
    _, schemas = msgspec.json.schema_components(_STRUCTS, ref_template=_REFERENCE)
    schemas["Prediction"]["properties"] |= {
        "record": {"anyOf": [reference(Answer), reference(Failure)]},
        "operating_points": {
            "type": "object",
            "additionalProperties": reference(OperatingPoint),
        },
    }
    components["schemas"] = schemas
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    if token:
        made["security"] = [{"token": []}]
    return made


def _without_fastapis_own(document: dict[str, Any]) -> None:
    """Of an invalid request, which it adds where a route says nothing of one."""
    for operations in document["paths"].values():
        for operation in operations.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]


def methods(document: dict[str, Any], path: str) -> list[str]:
    """What the document says that a path takes; nothing where it has no such path."""
    for described, operations in document["paths"].items():
        if compile_path(described)[0].match(path):
            return sorted(each.upper() for each in operations)
    return []


def _response(words: str, content: dict[str, Any] | None) -> dict[str, Any]:
    return {"description": words} | ({"content": content} if content else {})
