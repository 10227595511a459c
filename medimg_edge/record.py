"""The record of one answer, version 1: as printed, stored and served.

An input ends in one ``Answer`` or one ``Failure``; a Failure carries no probability.
"""

from typing import Any, Literal

import msgspec

from medimg_edge.errors import MedimgEdgeError, Rejected

SCHEMA = 1


class Finding(msgspec.Struct, frozen=True):
    """One label that was asked for. ``probability`` in [0, 1], calibrated on validation."""

    label: str
    probability: float
    decision: str


class Model(msgspec.Struct, frozen=True):
    """Which bundle answered; ``hash`` is the SHA-256 of its manifest."""

    name: str
    version: str
    hash: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An input that was read and answered.

    ``label``, ``probability`` and ``decision`` repeat the finding of a binary task, or the answered
    label of a multiclass one; they are null for multilabel. ``decision`` is ``positive``,
    ``negative`` or ``refer``; for multiclass the label.
    """

    schema: int = SCHEMA
    input: str
    frame: int | None = None
    status: Literal["ok"] = "ok"
    findings: tuple[Finding, ...]
    label: str | None
    probability: float | None
    decision: str | None
    warnings: tuple[str, ...] = ()
    artifact: str
    runtime: str
    model: Model
    profile: str | None = None
    elapsed_ms: float


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An input that was not answered: ``error`` (not a whole image) or ``rejected``."""

    schema: int = SCHEMA
    input: str
    status: Literal["error", "rejected"]
    code: str
    message: str


Record = Answer | Failure


def failure(name: str, error: MedimgEdgeError) -> Failure:
    """The record of an input that ended in one of our errors."""
    status = "rejected" if isinstance(error, Rejected) else "error"
    return Failure(
        input=printable(name), status=status, code=error.code, message=printable(error.message)
    )


def printable(text: str) -> str:
    """Text that JSON can hold: bytes of a path that are not UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()


def encode(record: Record) -> bytes:
    """One line of JSON, without the newline."""
    return msgspec.json.encode(record)


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    either, components = msgspec.json.schema_components(
        [Answer, Failure], ref_template="#/$defs/{name}"
    )
    return {"anyOf": list(either), "$defs": components}
