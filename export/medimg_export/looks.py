"""The list of looks at test splits: a CSV that only grows.

A test split that was looked at often has chosen the model too, whatever the code says. The list is
kept beside the code, so that everybody sees how often that was.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from medimg_edge.errors import WriteError


@dataclass(frozen=True)
class Look:
    """One line.

    manifest: SHA-256 of the bundle's manifest. data: the fingerprint of the data set where it is
    the training's own, else the name of its folder or file. split: ``test``, or ``all`` images.
    auc: None where it is undefined.
    """

    bundle: str
    version: str
    manifest: str
    artifact: str
    data: str
    split: str
    n: int
    auc: float | None


HEADER = ("time", *(field.name for field in fields(Look)))


def require_list(path: Path) -> None:
    """Before anything is looked at, refuse a file that is not a list of looks.

    Raises WriteError.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except FileNotFoundError:
        if path.parent.is_dir():
            return
        raise WriteError(f"{path} cannot be written: there is no folder {path.parent}.") from None
    except OSError as error:
        raise WriteError(f"{path} cannot be read: {error.strerror}.") from error
    if first and first.rstrip("\r\n") != ",".join(HEADER):
        raise WriteError(f"{path} is no list of looks: it does not begin with {','.join(HEADER)}.")


def append(path: Path, look: Look) -> None:
    """Add a line with the time in UTC; a new file gets its header. One write. Raises WriteError."""
    auc = "" if look.auc is None else f"{look.auc:.4f}"
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = _line(time, *astuple(look)[:-1], auc)
    try:
        with path.open("a+b", buffering=0) as file:
            data = f"{_open_end(file)}{line}".encode()
            if file.write(data) != len(data):
                raise WriteError(f"{path} was written in part only: the disk is full.")
            os.fsync(file.fileno())
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror}.") from error


def _open_end(file: io.FileIO) -> str:
    """What has to come before a new line: the header, or the end of a line that an editor left."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return _line(*HEADER)
    file.seek(size - 1)
    return "" if file.read(1) == b"\n" else "\n"


def _line(*cells: object) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([" ".join(str(cell).split()) for cell in cells])
    return text.getvalue()
