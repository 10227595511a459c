"""A CSV of path,label[,split][,group] -> Listing."""

from __future__ import annotations

import os
from pathlib import Path

from medimg_edge.errors import DataInvalid, NoImages
from medimg_edge.label_csv import LabelledImage, has_columns, read_labels
from medimg_edge.reader import find_images
from medimg_export.listing import SPLIT_NAMES, Listing, Problem, Row, Split, first_few

__all__ = ["has_columns", "list_csv"]


def list_csv(path: Path) -> Listing:
    """One row per image; ``split`` is train, val or test (any case), or empty.

    Raises what ``read_labels`` does, and DataInvalid for an unknown split.
    """
    sheet = read_labels(path)
    rows = [
        Row(each.name, each.path, each.labels, _split(path, each), each.group)
        for each in sheet.rows
    ]
    unused = f"Columns of {path.name} that were not used: {', '.join(sheet.unused)}."
    repeats = [
        Problem(name, "data-duplicate-row", f"{name} has more than one row; they say the same.")
        for name in sheet.repeated
    ]
    return Listing(
        rows,
        several=any(len(row.labels) > 1 for row in rows),
        notes=(unused,) if sheet.unused else (),
        problems=(*repeats, *_without_row(path, rows)),
    )


def _split(path: Path, row: LabelledImage) -> Split | None:
    if row.split and row.split.lower() not in SPLIT_NAMES:
        raise DataInvalid(
            f"{path}, {row.name}: the split is {row.split!r}; accepted are train, val and test, or "
            "nothing, which leaves the choice to medimg-edge."
        )
    return SPLIT_NAMES[row.split.lower()] if row.split else None


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
