"""What a header says of an image beside its pixels: its kind, its place, its history."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

from medimg_edge.dicom.elements import numbers, text
from medimg_edge.dicom.implementation import MANUFACTURER, SECONDARY_CAPTURE
from medimg_edge.image import Header

if TYPE_CHECKING:
    from pydicom import Dataset

_LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{each}" for each in ("50", "51", "81", "91", "203")
)
_BURNED_IN = {"YES": True, "NO": False}


def describe(dataset: Dataset, syntax: str | None, frame: int, frames: int) -> Header:
    """The header of a frame, from 1, as ``functional_groups.of_frame`` returned it."""
    return Header(
        modality=text(dataset, "Modality"),
        body_part=text(dataset, "BodyPartExamined"),
        view=text(dataset, "ViewPosition"),
        instance=text(dataset, "SOPInstanceUID"),
        series=text(dataset, "SeriesInstanceUID"),
        frame=frame if frames > 1 else None,
        frames=frames if frames > 1 else None,
        spacing=_spacing(dataset),
        orientation=_finite(dataset, "ImageOrientationPatient", 6),
        position=_finite(dataset, "ImagePositionPatient", 3),
        burned_in=_BURNED_IN.get(text(dataset, "BurnedInAnnotation") or ""),
        lossy=text(dataset, "LossyImageCompression") == "01" or syntax in _LOSSY_SYNTAXES,
        relationship=text(dataset, "PixelIntensityRelationship"),
        ours=text(dataset, "SOPClassUID") == SECONDARY_CAPTURE
        and text(dataset, "Manufacturer") == MANUFACTURER,
    )


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Rows, columns in mm. PS3.3 10.7.1.1 in the patient, else C.8.7.10 at the detector."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        found = _finite(dataset, keyword, 2)
        if found and min(found) > 0:
            return found[0], found[1]
    return None


def _finite(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    found = numbers(dataset, keyword)
    return found if len(found) == count and all(map(isfinite, found)) else None
