"""What a source (class folders, a CSV, an .npz) says about its images, before any rule is applied.

``class_folders``, ``label_csv`` and ``npz`` make a ``Listing``; ``dataset`` turns it into a
``Dataset``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medimg_edge.errors import DataInvalid
from medimg_edge.label_csv import first_few
from medimg_export.npz import ArrayRow, Split

__all__ = ["SPLIT_NAMES", "Listing", "Problem", "Row", "Split", "compiled", "first_few"]

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Names of splits in folders and CSV files, in any case."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was left out, or that the owner of the data should look at.

    name: the sample or file; where there are many, the folder that holds them.
    code: of the reading error (``input-truncated``, ``blank``, ...), ``wrong-modality``, or one of
        data-contradictory    the same content has different labels; all of it is left out
        data-duplicate-row    a CSV row that says again what another one said
        data-no-row           images beside the CSV that it does not name
        data-outside-class    images that lie in no class folder
        data-not-an-image     files in class folders that are not images by their names
        data-label-unused     a label without an image
    """

    name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Row:
    """One image as its source lists it."""

    name: str
    source: Path | ArrayRow
    labels: tuple[str, ...]
    split: Split | None
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """All images of a source.

    labels: the labels in the order that the source gives them, where it gives one.
    positive: the positive one of two, where the source's publisher says so.
    several: an image may have any number of the labels.
    """

    rows: list[Row]
    labels: tuple[str, ...] | None = None
    positive: str | None = None
    several: bool = False
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def compiled(pattern: str, what: str) -> re.Pattern[str]:
    """A person's regular expression for ``what``. Raises DataInvalid."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise DataInvalid(
            f"The {what} pattern {pattern!r} is not a regular expression: {error}."
        ) from error
