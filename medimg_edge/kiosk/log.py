"""Log lines, for a person or as JSON. Nothing that says whose an image is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import msgspec

Value = str | int | float | None


class Log:
    """Writes one line for each event; a stream that fails must not end what it tells of.

    as_json: each line is an object with ``time`` (UTC, RFC 3339), ``event`` and its fields;
    otherwise words, and the fields behind them.
    """

    def __init__(self, *, as_json: bool = False, stream: TextIO | None = None) -> None:
        self._as_json, self._stream = as_json, stream or sys.stderr

    def __call__(self, event: str, **values: Value) -> None:
        """Write a line. Values that are None are left out."""
        known = {name: value for name, value in values.items() if value is not None}
        line = _json(event, known) if self._as_json else _words(event, known)
        with suppress(OSError, ValueError):  # ValueError: it was closed
            self._stream.write(line + "\n")
            self._stream.flush()


def _json(event: str, values: Mapping[str, Value]) -> str:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return msgspec.json.encode({"time": time, "event": event, **values}).decode()


def _words(event: str, values: Mapping[str, Value]) -> str:
    return " ".join((event, *(f"{name}={value}" for name, value in values.items())))
