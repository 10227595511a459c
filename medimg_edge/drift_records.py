"""Records that lie in files -> what drift is seen by: no image, and nothing of a patient."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from medimg_edge.errors import DataInvalid, InputMissing
from medimg_edge.record import Finding, Model

ACCEPTED = (
    "Accepted are the answers of `infer` (jsonl, json, csv), an export of `audit export`, and the "
    "folder that `serve` was given."
)


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a record, whether it was answered or not.

    time: RFC 3339, None where the file has none. model, artifact: what answered; where nothing did,
    what answered the images around it; None where nobody knows. adapted: the probabilities are not
    the bundle's own (a site profile). at_risk: decided under --risk, not by the bundle's points.
    """

    status: str
    code: str | None = None
    time: str | None = None
    model: Model | None = None
    artifact: str | None = None
    adapted: bool = False
    at_risk: bool = False
    findings: tuple[Finding, ...] = ()
    measured: dict[str, float | None] = {}


class _Record(msgspec.Struct, frozen=True):
    """What is read of a record. Others are ``series``, which repeat what is known."""

    status: Literal["ok", "error", "rejected", "series"]
    code: str | None = None
    model: Model | None = None
    artifact: str | None = None
    profile: str | None = None
    risk: float | None = None
    findings: tuple[msgspec.Raw, ...] = ()
    measured: dict[str, float | None] | None = None
    time: str | None = None


class _Line(msgspec.Struct, frozen=True):
    """A line of a file: an entry of an export, an answer as the kiosk tells it, or a record."""

    kind: str | None = None
    time: str | None = None
    body: str | None = None
    record: msgspec.Raw = msgspec.Raw(b"")


class _Body(msgspec.Struct, frozen=True):
    """Of an "answer" entry."""

    record: msgspec.Raw


class _Started(msgspec.Struct, frozen=True):
    """Of a "started" entry: what answers from then on."""

    model: Model | None = None
    artifact: str | None = None


def read(path: Path) -> list[Seen]:
    """The images of a file of answers, in its order.

    The last line may be half of one: somebody may be writing it. Raises InputMissing, DataInvalid.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.read(1)
            file.seek(0)
            if first == "[":
                found = _array(path, file.read())
            elif first in ("{", ""):
                found = list(_lines(path, file))
            else:
                found = list(_rows(path, file))
    except OSError as error:
        raise InputMissing(f"{path} cannot be read: {error.strerror}. {ACCEPTED}") from error
    except UnicodeDecodeError as error:
        raise DataInvalid(f"{path} is no text in UTF-8. {ACCEPTED}") from error
    return attributed(each for each in found if each is not None)


def seen(data: bytes | str, time: str | None = None) -> Seen | None:
    """A record in JSON; None for the summary of a series. Raises msgspec.DecodeError."""
    record = msgspec.json.decode(data, type=_Record)
    if record.status == "series":
        return None
    is_answer = record.status == "ok"
    return Seen(
        status=record.status,
        code=record.code,
        time=time or record.time,
        model=record.model,
        artifact=record.artifact,
        adapted=record.profile is not None,
        at_risk=record.risk is not None,
        findings=tuple(msgspec.json.decode(each, type=Finding) for each in record.findings)
        if is_answer
        else (),
        measured=record.measured or {},
    )


def of_entry(kind: str, time: str, body: str) -> Seen | None:
    """An entry of a kiosk's record. One with the status "" says what answers from then on.

    None for any other. Raises msgspec.DecodeError.
    """
    if kind == "answer":
        return seen(bytes(msgspec.json.decode(body, type=_Body).record), time)
    if kind == "started":
        started = msgspec.json.decode(body, type=_Started)
        return Seen(status="", time=time, model=started.model, artifact=started.artifact)
    return None


def attributed(images: Iterable[Seen]) -> list[Seen]:
    """With what answered the image before, where nothing answered; of the first ones the next."""
    found: list[Seen] = []
    known: Seen | None = None
    early = 0
    for each in images:
        if each.model is not None:
            known = each
        if each.status:
            early += known is None
            found.append(_as(each, known))
    first = next((each for each in found if each.model is not None), None)
    return [_as(each, first) for each in found[:early]] + found[early:]


def _as(image: Seen, known: Seen | None) -> Seen:
    if image.model is not None or known is None:
        return image
    return msgspec.structs.replace(image, model=known.model, artifact=known.artifact)


def moment(time: str) -> datetime:
    """Raises ValueError."""
    return datetime.fromisoformat(time)


def _array(path: Path, text: str) -> list[Seen | None]:
    try:
        return [seen(bytes(each)) for each in msgspec.json.decode(text, type=list[msgspec.Raw])]
    except msgspec.DecodeError as error:
        raise DataInvalid(f"{path} is no JSON of answers: {error}. {ACCEPTED}") from error


def _lines(path: Path, lines: Iterable[str]) -> Iterator[Seen | None]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _of_line(line)
        except (msgspec.DecodeError, ValueError) as error:
            if not line.endswith("\n"):
                return
            raise DataInvalid(f"{path}, line {number}: no record ({error}). {ACCEPTED}") from error


def _of_line(text: str) -> Seen | None:
    line = msgspec.json.decode(text, type=_Line)
    if line.time is not None:
        moment(line.time)
    if line.kind is not None and line.body is not None and line.time is not None:
        return of_entry(line.kind, line.time, line.body)
    if record := bytes(line.record):
        return seen(record, line.time)
    return seen(text)


def _rows(path: Path, lines: Iterable[str]) -> Iterator[Seen | None]:
    """CSV of `infer`, or of `audit export`: a row for each finding, and no numbers of the image."""
    rows = csv.DictReader(lines, strict=True)
    try:
        if not {"status", "label", "probability", "model_hash"} <= set(rows.fieldnames or ()):
            raise DataInvalid(f"{path} does not begin as answers do. {ACCEPTED}")
        group: list[dict[str, Any]] = []
        for row in rows:
            if group and not _is_same_image(group, row):
                yield _of_rows(group)
                group = []
            group.append(row)
        if group:
            yield _of_rows(group)
    except (csv.Error, ValueError, TypeError) as error:
        line = rows.reader.line_num
        raise DataInvalid(
            f"{path}, line {line}: no row of answers ({error}). {ACCEPTED}"
        ) from error


def _is_same_image(rows: list[dict[str, Any]], row: dict[str, Any]) -> bool:
    """Whether a row is of the image of those before; a label comes once for each image."""
    same = ("id", "input", "frame", "status")
    return (
        row["status"] == "ok"
        and all(row.get(each) == rows[0].get(each) for each in same)
        and all(row["label"] != each["label"] for each in rows)
    )


def _of_rows(rows: list[dict[str, Any]]) -> Seen | None:
    first = rows[0]
    if first["status"] not in ("ok", "error", "rejected"):
        return None
    if (time := first.get("time") or None) is not None:
        moment(time)
    name, _, version = (first["model"] or "").rpartition(" ")
    is_answer = first["status"] == "ok"
    return Seen(
        status=first["status"],
        code=first["code"] or None,
        time=time,
        model=Model(name, version, first["model_hash"]) if first["model_hash"] else None,
        artifact=first["artifact"] or None,
        adapted=bool(first["profile"]),
        at_risk=bool(first.get("risk")),
        findings=tuple(
            Finding(row["label"].removeprefix("'"), float(row["probability"]), row["decision"])
            for row in rows
        )
        if is_answer
        else (),
    )
