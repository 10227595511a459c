"""A CSV of path,label[,split][,group]: what a clinic or a publisher says of its images."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from medimg_edge.errors import DataInvalid, DataMissing, TooFewImages

COLUMNS = ("path", "label", "split", "group")


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One row.

    name: the path as it is written, with forward slashes; ``path``: the file.
    labels: none, one or several, sorted. split: the cell as it is, empty where there is none.
    group: the patient; None where nothing says.
    """

    name: str
    path: Path
    labels: tuple[str, ...]
    split: str = ""
    group: str | None = None


@dataclass(frozen=True)
class LabelSheet:
    """All rows, one for each file.

    repeated: names that have more than one row, all of them saying the same.
    unused: columns that mean nothing here.
    """

    rows: list[LabelledImage]
    repeated: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def read_labels(path: Path) -> LabelSheet:
    """Read the sheet; paths in it are relative to its folder.

    ``label`` may hold several labels between ``;`` or ``|``, or none where the data set has several
    per image. Raises DataMissing, DataInvalid (header, missing files, rows that contradict each
    other), TooFewImages (no rows).
    """
    header, lines = _lines(path)
    rows = [_row(path, number, line) for number, line in lines]
    if not rows:
        raise TooFewImages(f"{path} has a header and no rows: add one row per image.")
    _refuse_missing(path, rows)
    by_file, repeated = _by_file(path, rows)
    unused = tuple(name for name in header if name not in COLUMNS)
    return LabelSheet(list(by_file.values()), tuple(repeated), unused)


def has_columns(path: Path) -> bool:
    """Whether it is a CSV whose first line names the columns path and label."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {"path", "label"} <= set(_header(csv.reader(file)))
    except (csv.Error, UnicodeDecodeError, OSError):
        return False


def first_few(names: Iterable[object], limit: int = 5) -> str:
    """Names as a message can hold them: the first ones, "and 12 more"."""
    listed = [str(name) for name in names]
    shown = ", ".join(listed[:limit])
    return shown if len(listed) <= limit else f"{shown} and {len(listed) - limit} more"


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [cell.strip().lower() for cell in next(reader, [])]


def _lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The columns; (line number, cells by lower-case column) of each row."""
    if not path.is_file():
        raise DataMissing(f"There is no file {path}. Give a CSV with the columns path and label.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            header = _header(reader)
            _check_header(path, header)
            lines = []
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(header):
                    raise DataInvalid(
                        f"{path}, line {reader.line_num}: {len(cells)} cells under "
                        f"{len(header)} columns. Put cells that hold a comma in quotes."
                    )
                stripped = (cell.strip() for cell in cells)
                lines.append((reader.line_num, dict(zip(header, stripped, strict=True))))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataInvalid(
            f"{path} cannot be read as a CSV ({error}). Accepted is UTF-8 text with commas."
        ) from error
    return header, lines


def _check_header(path: Path, header: list[str]) -> None:
    repeated = {name for name in COLUMNS if header.count(name) > 1}
    if repeated or not {"path", "label"} <= set(header):
        raise DataInvalid(
            f"{path} begins with {', '.join(header) or 'nothing'}; the first line has to name the "
            f"columns path and label, and may name split and group, each once."
        )


def _row(path: Path, number: int, line: dict[str, str]) -> LabelledImage:
    if not line["path"]:
        raise DataInvalid(f"{path}, line {number}: the path is empty.")
    name = os.path.normpath(line["path"])
    labels = (label.strip() for label in re.split(r"[;|]", line["label"]))
    return LabelledImage(
        Path(name).as_posix(),
        path.parent / name,
        tuple(sorted({label for label in labels if label})),
        line.get("split", ""),
        line.get("group") or None,
    )


def _refuse_missing(path: Path, rows: list[LabelledImage]) -> None:
    missing = [row.name for row in rows if not row.path.is_file()]
    if missing:
        raise DataInvalid(
            f"{path} names {len(missing)} files that do not exist: {first_few(missing)}. Paths are "
            f"relative to {path.parent}; correct them or remove the rows."
        )


def _by_file(
    path: Path, rows: list[LabelledImage]
) -> tuple[dict[str, LabelledImage], dict[str, str]]:
    """One row per file, and the names of which several rows say the same.

    A file may have several names: relative and absolute, or a link.
    """
    by_file: dict[str, LabelledImage] = {}
    repeats: dict[str, str] = {}
    contradictions: dict[str, str] = {}
    for row in rows:
        first = by_file.setdefault(os.path.realpath(row.path), row)
        if first is not row:
            same = replace(row, name=first.name, path=first.path) == first
            (repeats if same else contradictions)[row.name] = first.name
    if contradictions:
        raise DataInvalid(
            f"{path} says different things about {len(contradictions)} files: "
            f"{first_few(map(_named_twice, contradictions.items()))}. Give each file one row; "
            "several labels of one image go into one cell, between semicolons."
        )
    return by_file, repeats


def _named_twice(names: tuple[str, str]) -> str:
    """One file by the name of a row, and by that of the first where it is another."""
    name, first = names
    return name if name == first else f"{name} (also {first})"
