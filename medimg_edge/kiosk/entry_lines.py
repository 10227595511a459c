"""Entries of a record as lines: JSON, with all of it, or CSV, to look at."""

from __future__ import annotations

import csv
import io

import msgspec

from medimg_edge.errors import LedgerDamaged
from medimg_edge.kiosk.chain import Entry
from medimg_edge.kiosk.kept import Answered, Comment
from medimg_edge.record import Finding, Model

CSV_COLUMNS = (
    *("sequence", "time", "kind", "id", "source", "input_sha256", "frame", "frames", "status"),
    *("label", "probability", "decision", "artifact", "runtime", "model", "model_hash", "profile"),
    *("risk", "warnings", "code", "message", "waited_ms", "answer_ms", "comment", "body", "hash"),
)
CSV_HEADER = ",".join(CSV_COLUMNS) + "\n"

_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes for a formula where a cell begins with it, also after white space."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What rows tell of a ``record.Answer`` or a ``record.Failure``."""

    status: str
    frame: int | None = None
    frames: int | None = None
    findings: tuple[Finding, ...] = ()
    artifact: str = ""
    runtime: str = ""
    model: Model | None = None
    profile: str | None = None
    risk: float | None = None
    warnings: tuple[str, ...] = ()
    code: str = ""
    message: str = ""


def json_line(entry: Entry) -> str:
    """The entry and a newline. ``body`` is text, as it was hashed: see ``chain``."""
    return msgspec.json.encode(entry).decode() + "\n"


def csv_lines(entry: Entry) -> str:
    """A row for each finding of an answer, and one for any other entry; no header.

    Text that begins as a formula does has an apostrophe before it. ``body`` is that of entries that
    are neither an answer nor an acknowledgement. Raises LedgerDamaged.
    """
    try:
        return "".join(map(_line, _rows(entry)))
    except msgspec.DecodeError as error:
        raise LedgerDamaged(
            f"Entry {entry.sequence} cannot be read: {error}. `audit verify` says more."
        ) from error


def _line(row: dict[str, object]) -> str:
    text = io.StringIO()
    # A cell is quoted where it holds a character of the line terminator, and comments hold both.
    rows = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\r\n")
    rows.writerow({column: _cell(value) for column, value in row.items()})
    return text.getvalue().removesuffix("\r\n") + "\n"


def _rows(entry: Entry) -> list[dict[str, object]]:
    common: dict[str, object] = {
        "sequence": entry.sequence,
        "time": entry.time,
        "kind": entry.kind,
        "id": entry.id,
        "hash": entry.hash,
    }
    if entry.kind == "acknowledgement":
        return [common | {"comment": msgspec.json.decode(entry.body, type=Comment).comment}]
    if entry.kind != "answer":
        return [common | {"body": entry.body}]
    answered = msgspec.json.decode(entry.body, type=Answered)
    record = msgspec.json.decode(answered.record, type=_Record)
    common |= {
        "source": answered.source,
        "input_sha256": answered.input_sha256,
        "waited_ms": answered.timings.waited_ms,
        "answer_ms": answered.timings.answer_ms,
        **_facts(record),
    }
    findings = [
        {"label": each.label, "probability": each.probability, "decision": each.decision}
        for each in record.findings
    ]
    return [common | each for each in findings or [{}]]


def _facts(record: _Record) -> dict[str, object]:
    return {
        "frame": record.frame,
        "frames": record.frames,
        "status": record.status,
        "artifact": record.artifact,
        "runtime": record.runtime,
        "model": f"{record.model.name} {record.model.version}" if record.model else "",
        "model_hash": record.model.hash if record.model else "",
        "profile": record.profile,
        "risk": record.risk,
        "warnings": "; ".join(record.warnings),
        "code": record.code,
        "message": record.message,
    }


def _cell(value: object) -> object:
    is_formula = isinstance(value, str) and value.lstrip().startswith(_FORMULA)
    return f"'{value}" if is_formula else value
