"""A phantom as a DICOM file: DX image for presentation, PS3.3 A.26, uncompressed.

The stored values do not fill their range and the window is off its centre, so a reader that ignores
the window, or inverts MONOCHROME1 about the wrong value, shows another picture than the PNG.
"""

from __future__ import annotations

import hashlib
import io
import uuid

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

# Stored values of black and of white, by BitsStored.
_RANGES = {12: (400, 3400), 16: (3000, 60000)}


def encode(pixels: NDArray[np.uint16], name: str, *, bits: int, inverted: bool) -> bytes:
    """The bytes of a DICOM file; equal arguments give equal bytes.

    ``name`` becomes PatientID; ``bits`` is BitsStored, 12 or 16; ``inverted`` stores MONOCHROME1.
    The window (LINEAR, PS3.3 C.11.2.1.2.1) shows what a display of ``pixels`` over 0..65535 shows,
    to within one of 256 grey levels.
    """
    stored, center, width = _stored(pixels, bits, inverted)
    identity = hashlib.sha256(f"{name} {bits} {inverted}".encode() + stored.tobytes()).hexdigest()
    dataset = FileDataset("", {}, file_meta=_meta(_uid(identity, "image")), preamble=b"\0" * 128)
    dataset.update(_person_and_study(name, identity))
    dataset.update(_acquisition())
    dataset.update(_pixels(stored, bits, inverted))
    dataset.WindowCenter, dataset.WindowWidth = center, width
    dataset.WindowCenterWidthExplanation = "NORMAL"
    dataset.VOILUTFunction = "LINEAR"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _stored(
    pixels: NDArray[np.uint16], bits: int, inverted: bool
) -> tuple[NDArray[np.uint16], float, int]:
    """Stored values (H, W), window center and width."""
    black, white = _RANGES[bits]
    stored = black + np.rint(pixels * ((white - black) / 65535))
    if inverted:
        full = (1 << bits) - 1
        stored, black = full - stored, full - white
    width = _RANGES[bits][1] - _RANGES[bits][0] + 1
    # PS3.3 C.11.2.1.2.1: the ramp runs from center - 0.5 - (width - 1) / 2, and width - 1 far.
    return stored.astype("<u2"), black + width / 2, width


def _uid(identity: str, what: str) -> UID:
    """A UID made of a name-based UUID: PS3.5 B.2."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{identity} {what}').int}")


def _meta(instance: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Set here, lest files differ with the release of pydicom.
    meta.ImplementationClassUID = _uid("medimg-edge", "phantoms")
    meta.ImplementationVersionName = "MEDIMG-EDGE"
    return meta


def _person_and_study(name: str, identity: str) -> Dataset:
    """Patient, study, series, equipment: what the Standard wants present, and nobody's."""
    part = Dataset()
    part.SOPClassUID = DigitalXRayImageStorageForPresentation
    part.SOPInstanceUID = _uid(identity, "image")
    part.StudyInstanceUID = _uid(identity, "study")
    part.SeriesInstanceUID = _uid(identity, "series")
    part.PatientName, part.PatientID = "PHANTOM", name
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(part, keyword, "")
    part.AccessionNumber = part.ReferringPhysicianName = ""
    part.PatientOrientation = ["L", "F"]
    part.SeriesNumber = part.InstanceNumber = 1
    part.Manufacturer = "medimg-edge"
    part.ManufacturerModelName = "synthetic chest phantom"
    part.ImageComments = "Synthetic. Not a patient."
    return part


def _acquisition() -> Dataset:
    part = Dataset()
    part.Modality, part.PresentationIntentType = "DX", "FOR PRESENTATION"
    part.ImageType = ["ORIGINAL", "PRIMARY", ""]
    part.BodyPartExamined, part.ViewPosition, part.ImageLaterality = "CHEST", "PA", "U"
    part.AnatomicRegionSequence = [_code("816094009", "Chest")]
    part.ViewCodeSequence = [_code("272479007", "postero-anterior")]
    part.AcquisitionContextSequence = []
    part.DetectorType = ""
    part.BurnedInAnnotation, part.LossyImageCompression = "NO", "00"
    return part


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _pixels(stored: NDArray[np.uint16], bits: int, inverted: bool) -> Dataset:
    """Image Pixel module, and the DX Image module's words on polarity: PS3.3 C.8.11.3."""
    part = Dataset()
    part.SamplesPerPixel, part.PixelRepresentation = 1, 0
    part.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    part.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    part.PixelIntensityRelationship = "LOG"
    part.PixelIntensityRelationshipSign = 1 if inverted else -1
    part.RescaleIntercept, part.RescaleSlope, part.RescaleType = 0, 1, "US"
    part.Rows, part.Columns = stored.shape
    part.BitsAllocated, part.BitsStored, part.HighBit = 16, bits, bits - 1
    part.PixelData = stored.tobytes()
    return part
