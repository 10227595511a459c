"""What a header says of an image beside its pixels: its kind, its place, its history."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING

from medimg_edge.dicom.codes import word_of
from medimg_edge.dicom.elements import numbers, text
from medimg_edge.dicom.implementation import MANUFACTURER, SECONDARY_CAPTURE
from medimg_edge.image import Header
from medimg_edge.terms import OBJECTS, VIEWS, regions, term

if TYPE_CHECKING:
    from pydicom import Dataset

_LOSSY_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2.4.{each}" for each in ("50", "51", "81", "91", "203")
)
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_IMAGES = frozenset({"30", "66", "67", "481.2"})
_KINDS_OF_NO_IMAGES = ("11.", "66.", "88.", "104.")
"""Of PS3.4 table B.5-1: parametric maps, raw data, real world values, RT doses; and presentation
states, segmentations and registrations, reports, documents."""

_BURNED_IN = {"YES": True, "NO": False}


def describe(dataset: Dataset, syntax: str | None, frame: int, frames: int) -> Header:
    """The header of a frame, from 1, as ``functional_groups.of_frame`` returned it."""
    return Header(
        modality=term(text(dataset, "Modality") or "") or None,
        body_part=_said(dataset, "BodyPartExamined", "AnatomicRegionSequence", regions),
        view=_said(dataset, "ViewPosition", "ViewCodeSequence", VIEWS.__contains__),
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


def no_image(dataset: Dataset) -> str | None:
    """What an object is that has pixels and is no image, by its class or its modality."""
    sop_class, modality = text(dataset, "SOPClassUID") or "", text(dataset, "Modality") or ""
    kind = sop_class.removeprefix(_STORAGE) if sop_class.startswith(_STORAGE) else ""
    if kind in _NO_IMAGES or kind.startswith(_KINDS_OF_NO_IMAGES):
        from pydicom.uid import UID

        return UID(sop_class).name
    return f"modality {term(modality)}" if term(modality) in OBJECTS else None


def _said(
    dataset: Dataset, keyword: str, sequence: str, known: Callable[[str], object]
) -> str | None:
    """A word, as it is compared; where none is known, that of the code beside it."""
    word = term(text(dataset, keyword) or "")
    return word if known(word) else word_of(dataset, sequence) or word or None


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
