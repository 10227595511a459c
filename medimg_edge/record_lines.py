"""Records as lines of text, JSON or CSV, and read again from them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from medimg_edge.record import Model, Told, encode

CSV_COLUMNS = (
    *("input", "status", "label", "probability", "decision", "artifact", "elapsed_ms"),
    *("model", "model_hash", "code", "message", "warnings", "profile", "risk", "frame", "frames"),
)
CSV_HEADER = ",".join(CSV_COLUMNS) + "\n"

MAX_HALF = 2**16
"""Bytes that may stand after the last whole record: more is damage, not the end of a run."""

_JSON_START = b'{"schema":1,"input":"'


class Origin(NamedTuple):
    """What an answer comes from; ``model`` is the hash of the bundle."""

    model: str
    artifact: str
    profile: str | None
    risk: float | None = None


class Recorded(NamedTuple):
    """A record that was read again: the printed name, and the byte at which the record ends.

    origin: None where there is no answer. frame, frames: as in the record.
    """

    input: str
    origin: Origin | None
    end: int
    frame: int | None = None
    frames: int | None = None


def json_line(record: Told) -> str:
    """The record and a newline."""
    return encode(record).decode() + "\n"


def csv_lines(record: Told) -> str:
    """One row for each finding, so that a multilabel answer loses nothing; no header."""
    text = io.StringIO()
    # A cell is quoted where it holds a character of the line terminator, and names may hold both.
    rows = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\r\n")
    lines = []
    for row in _rows(record):
        rows.writerow(row)
        lines.append(text.getvalue().removesuffix("\r\n") + "\n")
        text.seek(0)
        text.truncate()
    return "".join(lines)


def read_json(lines: Iterable[bytes]) -> Iterator[Recorded]:
    """The whole records in a file of ``json_line``, whose last line may be half of one.

    Raises ValueError where anything else is in it.
    """
    whole = _WholeLines(lines)
    for line in whole:
        try:
            found = msgspec.json.decode(line, type=_Known)
        except msgspec.DecodeError as error:
            raise ValueError(f"no record: {error}") from error
        yield Recorded(found.input, found.origin, whole.end, found.frame, found.frames)
    _check_half(whole.half, _JSON_START)


def read_csv(lines: Iterable[bytes], findings: int) -> Iterator[Recorded]:
    """The same for a file of ``CSV_HEADER`` and ``csv_lines``; ``findings`` of each answer."""
    whole = _WholeLines(lines)
    rows = csv.reader(whole, strict=True)
    end = 0
    try:
        if (header := next(rows, None)) is None:
            _check_half(whole.half, CSV_HEADER.encode())
            return
        if header != list(CSV_COLUMNS):
            raise ValueError("another header")
        end = whole.end
        for row in rows:
            count = findings if row[1:2] == ["ok"] else 1
            record = [row, *islice(rows, count - 1)]
            if {(each[0], len(each)) for each in record} != {(row[0], len(CSV_COLUMNS))}:
                raise ValueError("no record: another number of cells")
            if len(record) < count:
                break
            end = whole.end
            frame, frames = (int(cell) if cell else None for cell in row[-2:])
            yield Recorded(row[0], _origin(row), end, frame, frames)
    except csv.Error as error:
        if not whole.ended:  # else the lines end within quotes
            raise ValueError(f"no record: {error}") from error
    if whole.end - end + len(whole.half) > MAX_HALF:
        raise ValueError("too much for half a record")


class _WholeLines:
    """The text of the lines that end in a newline; ``half`` is what comes after the last."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.end, self.half, self.ended = 0, b"", False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, b"")
        if not line.endswith(b"\n"):
            self.half, self.ended = line, True
            raise StopIteration
        self.end += len(line)
        return line.decode()


def _check_half(half: bytes, start: bytes) -> None:
    """A file that is not ours must not be cut; zeros are what a power cut leaves of a block."""
    begun = half.rstrip(b"\0")[: len(start)]
    if len(half) > MAX_HALF or not start.startswith(begun):
        raise ValueError("no record")


class _Known(msgspec.Struct):
    """What a record has to say to be gone on with."""

    input: str
    status: Literal["ok", "error", "rejected"]
    artifact: str | None = None
    model: Model | None = None
    profile: str | None = None
    risk: float | None = None
    frame: int | None = None
    frames: int | None = None

    @property
    def origin(self) -> Origin | None:
        if self.status != "ok":
            return None
        if self.model is None or self.artifact is None:
            raise ValueError("an answer that does not say by what model")
        return Origin(self.model.hash, self.artifact, self.profile, self.risk)


def _origin(row: list[str]) -> Origin | None:
    cells = dict(zip(CSV_COLUMNS, row, strict=True))
    if cells["status"] != "ok":
        return None
    risk = float(cells["risk"]) if cells["risk"] else None
    return Origin(cells["model_hash"], cells["artifact"], cells["profile"] or None, risk)


def _rows(record: Told) -> list[dict[str, object]]:
    common: dict[str, object] = {"input": record.input, "status": record.status}
    if record.status == "series":
        return [
            {
                **common,
                "label": each.label,
                "probability": each.maximum,
                "message": f"{record.answered} of {record.images} answered; maximum at "
                f"{each.input}{f' frame {each.frame}' if each.frame else ''}; mean {each.mean}",
            }
            for each in record.findings
        ]
    if record.frame is not None:
        common |= {"frame": record.frame, "frames": record.frames}
    if record.status != "ok":
        return [{**common, "code": record.code, "message": record.message}]
    common |= {
        "artifact": record.artifact,
        "elapsed_ms": record.elapsed_ms,
        "model": f"{record.model.name} {record.model.version}",
        "model_hash": record.model.hash,
        "warnings": "; ".join(record.warnings),
        "profile": record.profile or "",
        "risk": "" if record.risk is None else record.risk,
    }
    return [
        {
            **common,
            "label": finding.label,
            "probability": finding.probability,
            "decision": finding.decision,
        }
        for finding in record.findings
    ]
