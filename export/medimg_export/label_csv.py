"""A CSV of path,label[,split][,group] -> Listing."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from medimg_edge.errors import DataInvalid, NoImages, TooFewImages
from medimg_edge.reader import find_images
from medimg_export.listing import SPLIT_NAMES, Listing, Problem, Row, Split, first_few

COLUMNS = ("path", "label", "split", "group")


def list_csv(path: Path) -> Listing:
    """One row per image; paths are relative to the CSV's folder.

    ``label`` may hold several labels between ``;`` or ``|``, or none where the data set has several
    per image. ``split`` is train, val or test (any case), or empty; ``group`` is the patient.
    Raises DataInvalid (header, missing files, unknown splits, rows that contradict each other),
    TooFewImages (no rows).
    """
    lines, notes = _lines(path)
    rows = [_row(path, number, line) for number, line in lines]
    if not rows:
        raise TooFewImages(f"{path} has a header and no rows: add one row per image.")
    _refuse_missing(path, rows)
    rows, problems = _without_repeats(path, rows)
    several = any(len(row.labels) > 1 for row in rows)
    problems += _without_row(path, rows)
    return Listing(rows, several=several, notes=tuple(notes), problems=tuple(problems))


def has_columns(path: Path) -> bool:
    """Whether it is a CSV whose first line names the columns path and label."""
    if path.suffix.lower() != ".csv":
        return False
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {"path", "label"} <= set(_header(csv.reader(file)))
    except (csv.Error, UnicodeDecodeError, OSError):
        return False


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [cell.strip().lower() for cell in next(reader, [])]


def _lines(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """(line number, cells by lower-case column) of each row; notes on columns not used."""
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
    unused = [name for name in header if name not in COLUMNS]
    notes = [f"Columns of {path.name} that were not used: {', '.join(unused)}."] if unused else []
    return lines, notes


def _check_header(path: Path, header: list[str]) -> None:
    repeated = {name for name in COLUMNS if header.count(name) > 1}
    if repeated or not {"path", "label"} <= set(header):
        raise DataInvalid(
            f"{path} begins with {', '.join(header) or 'nothing'}; the first line has to name the "
            f"columns path and label, and may name split and group, each once."
        )


def _row(path: Path, number: int, line: dict[str, str]) -> Row:
    if not line["path"]:
        raise DataInvalid(f"{path}, line {number}: the path is empty.")
    name = os.path.normpath(line["path"])
    labels = (label.strip() for label in re.split(r"[;|]", line["label"]))
    return Row(
        Path(name).as_posix(),
        path.parent / name,
        tuple(sorted({label for label in labels if label})),
        _split(path, number, line.get("split", "")),
        line.get("group") or None,
    )


def _split(path: Path, number: int, cell: str) -> Split | None:
    if cell and cell.lower() not in SPLIT_NAMES:
        raise DataInvalid(
            f"{path}, line {number}: the split is {cell!r}; accepted are train, val and test, or "
            "nothing, which leaves the choice to medimg-edge."
        )
    return SPLIT_NAMES[cell.lower()] if cell else None


def _refuse_missing(path: Path, rows: list[Row]) -> None:
    missing = [row.name for row in rows if not (path.parent / row.name).is_file()]
    if missing:
        raise DataInvalid(
            f"{path} names {len(missing)} files that do not exist: {first_few(missing)}. Paths are "
            f"relative to {path.parent}; correct them or remove the rows."
        )


def _without_repeats(path: Path, rows: list[Row]) -> tuple[list[Row], list[Problem]]:
    """One row per file. Rows that say the same again are a problem, a contradiction an error."""
    by_name: dict[str, Row] = {}
    repeats, contradictions = [], []
    for row in rows:
        first = by_name.setdefault(row.name, row)
        if first is not row:
            (repeats if first == row else contradictions).append(row.name)
    if contradictions:
        raise DataInvalid(
            f"{path} says different things about {len(set(contradictions))} files: "
            f"{first_few(dict.fromkeys(contradictions))}. Give each file one row; several labels "
            "of one image go into one cell, between semicolons."
        )
    problems = [
        Problem(name, "data-duplicate-row", f"{name} has more than one row; they say the same.")
        for name in dict.fromkeys(repeats)
    ]
    return list(by_name.values()), problems


def _without_row(path: Path, rows: list[Row]) -> list[Problem]:
    try:
        images = find_images(path.parent)
    except NoImages:
        return []
    named = {os.path.realpath(path.parent / row.name) for row in rows}
    unnamed = [image for image in images if os.path.realpath(image) not in named]
    if not unnamed:
        return []
    listed = first_few(image.relative_to(path.parent).as_posix() for image in unnamed)
    message = f"{len(unnamed)} images beside {path.name} have no row and are not used: {listed}."
    return [Problem(str(path.parent), "data-no-row", message)]
