"""The page that is touched: its files, and the routes that give them."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

_FOLDER = Path(__file__).parent
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


def router() -> APIRouter:
    """``/`` and ``/page/NAME`` for each file; no other path reaches the disk."""
    router = APIRouter(include_in_schema=False)
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            at = "/" if path.name == "index.html" else f"/page/{path.name}"
            router.add_api_route(at, _giving(path.read_bytes(), _TYPES[path.suffix]))
    return router


def _giving(data: bytes, media_type: str):
    async def give() -> Response:
        return Response(data, media_type=media_type)

    return give
