"""Where in its series an image lies, by its header alone. PS3.3 C.7.6.2.1.1."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from medimg_edge.dicom.elements import numbers, text
from medimg_edge.dicom.excerpt import excerpt_of
from medimg_edge.dicom.quiet import quiet

_KEYWORDS = (
    *("SeriesInstanceUID", "InstanceNumber"),
    *("ImagePositionPatient", "ImageOrientationPatient"),
)


class Place(NamedTuple):
    """series: its UID, None where the file tells none.

    along: millimetres along the normal of the slices; number: InstanceNumber. Infinite where the
    header does not tell.
    """

    series: str | None = None
    along: float = np.inf
    number: float = np.inf


def place(path: os.PathLike[str]) -> Place:
    """A file that is not DICOM, or cannot be read, lies nowhere: answering it will say why."""
    with quiet():
        try:
            header = excerpt_of(path, _KEYWORDS)
            if header is None:
                return Place()
            position = numbers(header, "ImagePositionPatient")
            orientation = numbers(header, "ImageOrientationPatient")
            number = numbers(header, "InstanceNumber")
            return Place(
                text(header, "SeriesInstanceUID"),
                _along(position, orientation),
                number[0] if number else np.inf,
            )
        except Exception:  # whatever a damaged header makes pydicom raise
            return Place()


def _along(position: tuple[float, ...], orientation: tuple[float, ...]) -> float:
    """The position, projected onto the normal of rows and columns."""
    if len(position) != 3 or len(orientation) != 6:
        return np.inf
    normal = np.cross(orientation[:3], orientation[3:])
    found = float(np.dot(normal, position))
    return found if np.isfinite(found) and normal.any() else np.inf
