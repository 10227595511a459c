"""The picture of one finding: PS3.3 A.8.1 (Secondary Capture), the heatmap over what was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

from medimg_edge.dicom.answer.instance import NOT_FOR_DIAGNOSIS, Provenance
from medimg_edge.dicom.answer.source import IMAGE
from medimg_edge.heatmap import SIDE, overlay
from medimg_edge.manifest import OperatingPoint
from medimg_edge.record import Finding

if TYPE_CHECKING:
    from medimg_edge.classifier import Prediction

BAND = 92
"""The height of the band below the picture, in pixels."""

_SERIES_NUMBER = 9902
_MARGIN = 14
_DARK, _WHITE, _GREY, _AMBER = (24, 26, 30), (245, 245, 245), (170, 175, 182), (255, 184, 77)


def capture(
    origin: Provenance, prediction: Prediction, column: int, point: OperatingPoint | None
) -> Dataset:
    """The heatmap of the finding at ``column``; the prediction has one."""
    assert prediction.heatmap is not None
    finding = prediction.findings[column]
    picture = captioned(
        overlay(prediction.pixels, prediction.heatmap[..., column]),
        _caption(origin, finding, point),
    )
    before = (origin.source.frame or 1) - 1
    dataset = origin.instance(
        SecondaryCaptureImageStorage,
        f"sc {finding.label}",
        series="sc",
        number=before * len(prediction.findings) + column + 1,
    )
    # General Series, C.7.3.1, and SC Equipment, C.8.6.1
    dataset.Modality = "OT"
    dataset.SeriesNumber = _SERIES_NUMBER
    dataset.ConversionType = "WSD"
    # General Image, C.7.6.1, General Reference, C.12.4, and SC Image, C.8.6.2
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = origin.source.words(_derivation(origin, finding))[:1024]
    dataset.SourceImageSequence = [_source_image(origin)]
    dataset.ImageComments = origin.source.words(f"{NOT_FOR_DIAGNOSIS}. {origin.intended_use}")
    dataset.DateOfSecondaryCapture = dataset.ContentDate
    dataset.TimeOfSecondaryCapture = dataset.ContentTime
    _add_orientation(dataset, origin)
    _add_pixels(dataset, picture)
    return dataset


def captioned(
    picture: NDArray[np.uint8], lines: tuple[tuple[str, str], str, str]
) -> NDArray[np.uint8]:
    """uint8 (h, w, 3), RGB, w up to ``SIDE`` -> (h + BAND, SIDE, 3) with three lines below it.

    The first line has a left and a right part.
    """
    height, width = picture.shape[:2]
    whole = np.zeros((height + BAND, SIDE, 3), np.uint8)
    left = (SIDE - width) // 2
    whole[:height, left : left + width] = picture
    whole[height:] = _DARK
    (label, answer), model, warning = lines
    bold, plain = cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_SIMPLEX
    room = SIDE - 2 * _MARGIN
    used = _width(answer, bold, 0.62)
    _write(whole, answer, (SIDE - _MARGIN - used, height + 31), bold, 0.62, _WHITE, room)
    _write(whole, label, (_MARGIN, height + 31), bold, 0.62, _WHITE, room - used - _MARGIN)
    _write(whole, model, (_MARGIN, height + 55), plain, 0.48, _GREY, room)
    _write(whole, warning, (_MARGIN, height + 78), plain, 0.48, _AMBER, room)
    return whole


def _write(
    picture: NDArray[np.uint8],
    text: str,
    at: tuple[int, int],
    font: int,
    scale: float,
    color: tuple[int, int, int],
    room: int,
) -> None:
    """Write from ``at``, the left end of the base line; what does not fit is cut off, and said."""
    shown = text
    while text and _width(shown, font, scale) > room:
        text = text[:-1]
        shown = f"{text.rstrip()}..."
    cv2.putText(picture, shown, at, font, scale, color, 1, cv2.LINE_AA)


def _width(text: str, font: int, scale: float) -> int:
    return cv2.getTextSize(text, font, scale, 1)[0][0]


def _caption(
    origin: Provenance, finding: Finding, point: OperatingPoint | None
) -> tuple[tuple[str, str], str, str]:
    model = origin.record.model
    threshold = "" if point is None else f", threshold {point.threshold:.3f}"
    return (
        (finding.label, f"{finding.probability:.3f}  {finding.decision}"),
        f"{model.name} {model.version} ({model.hash[:8]}){threshold}",
        f"{NOT_FOR_DIAGNOSIS}. Computed by a model, not verified.",
    )


def _derivation(origin: Provenance, finding: Finding) -> str:
    model = origin.record.model
    return (
        f"{NOT_FOR_DIAGNOSIS}. Where the model {model.name} {model.version} found evidence for "
        f"{finding.label}, coloured over the pixels that it saw; probability "
        f"{finding.probability:.4f}, decision {finding.decision}. Bundle SHA-256 {model.hash}."
    )


def _source_image(origin: Provenance) -> Dataset:
    item = origin.source.reference()
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    code = Dataset()
    code.CodeValue = purpose.value
    code.CodingSchemeDesignator = purpose.scheme_designator
    code.CodeMeaning = purpose.meaning
    item.PurposeOfReferenceCodeSequence = [code]
    return item


def _add_orientation(dataset: Dataset, origin: Provenance) -> None:
    """Which side is which, and whether the patient can be read from the pixels: as in the image.

    The picture is turned as the image is, and the band tells nothing of the patient, which is what
    Burned In Annotation is about (C.7.6.1). The type 2C elements are there, if only empty.
    """
    for keyword in IMAGE:
        if (element := origin.source.element(keyword)) is not None:
            dataset[element.tag] = element
    if "ImageLaterality" not in dataset:
        dataset.setdefault("Laterality", None)
    dataset.setdefault("PatientOrientation", None)


def _add_pixels(dataset: Dataset, picture: NDArray[np.uint8]) -> None:
    """Image Pixel, C.7.6.3: RGB, 8 bit, color by pixel."""
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    data = picture.tobytes()
    dataset.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
