"""A phantom as a DICOM file, uncompressed: DX image (PS3.3 A.26), CT image (A.3), MR image (A.4).

The stored values of a radiograph do not fill their range and its window is off its centre, so a
reader that ignores the window, or inverts MONOCHROME1 about the wrong value, shows another picture
than the PNG. A CT slice is stored signed, in Hounsfield units or 1024 above them: without sign or
rescale it is another one.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

from medimg_export.phantom_bone import Leg
from medimg_export.phantom_ct import FIELD as CT_FIELD
from medimg_export.phantom_ct import LUNG_WINDOW, Slice
from medimg_export.phantom_mri import FIELD as MR_FIELD
from medimg_export.phantom_mri import Head

# Stored values of black and of white, by BitsStored.
_RANGES = {12: (400, 3400), 16: (3000, 60000)}


@dataclass(frozen=True)
class _Region:
    """What was examined: PS3.3 C.8.11.5 (DX Positioning), PS3.16 annex L, SNOMED CT codes."""

    what: str
    body_part: str
    code: tuple[str, str]
    view: str
    view_code: tuple[str, str]
    laterality: str


_CHEST = _Region(
    what="chest",
    body_part="CHEST",
    code=("816094009", "Chest"),
    view="PA",
    view_code=("272479007", "postero-anterior"),
    laterality="U",
)


def encode(pixels: NDArray[np.uint16], name: str, *, bits: int, inverted: bool) -> bytes:
    """The bytes of a chest radiograph's file; equal arguments give equal bytes.

    ``name`` becomes PatientID; ``bits`` is BitsStored, 12 or 16; ``inverted`` stores MONOCHROME1.
    The window (LINEAR, PS3.3 C.11.2.1.2.1) shows what a display of ``pixels`` over 0..65535 shows,
    to within one of 256 grey levels.
    """
    return _radiograph(pixels, name, bits, inverted, _CHEST)


def encode_leg(leg: Leg, name: str, *, bits: int, inverted: bool) -> bytes:
    """As ``encode``, for a leg seen from the front."""
    region = _Region(
        what="bone",
        body_part="LEG",
        code=("30021000", "Lower leg"),
        view="AP",
        view_code=("399348003", "antero-posterior"),
        laterality=leg.side,
    )
    return _radiograph(leg.pixels, name, bits, inverted, region)


def encode_ct(found: Slice, name: str, *, intercept: int) -> bytes:
    """A CT slice, int16: stored value + ``intercept`` = Hounsfield units; the window is the lung's.

    A second window, for the mediastinum, follows it, as scanners write them.
    """
    stored = (found.hu - intercept).astype("<i2")
    identity = _identity(f"{name} ct {intercept}", stored)
    dataset = _dataset(CTImageStorage, name, identity, "ct")
    dataset.update(_plane(identity, CT_FIELD, stored.shape))
    dataset.update(_integers(stored, 16))
    dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.KVP, dataset.AcquisitionNumber = 120, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = intercept, 1, "HU"
    dataset.WindowCenter = [LUNG_WINDOW.center, 40]
    dataset.WindowWidth = [LUNG_WINDOW.width, 400]
    dataset.WindowCenterWidthExplanation = ["LUNG", "MEDIASTINUM"]
    return _bytes(dataset)


def encode_mr(head: Head, name: str) -> bytes:
    """An MR slice, 12 bits without a unit; the window is the head's own."""
    stored = head.signal.astype("<u2")
    identity = _identity(f"{name} mr", stored)
    dataset = _dataset(MRImageStorage, name, identity, "head")
    dataset.update(_plane(identity, MR_FIELD, stored.shape))
    dataset.update(_integers(stored, 12))
    dataset.Modality, dataset.BodyPartExamined = "MR", "HEAD"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "NONE", ""
    dataset.MRAcquisitionType, dataset.MagneticFieldStrength = "2D", 1.5
    dataset.RepetitionTime, dataset.EchoTime, dataset.EchoTrainLength = 500, 12, 1
    dataset.ContrastBolusAgent = "GADOLINIUM"
    dataset.WindowCenter, dataset.WindowWidth = head.window.center, head.window.width
    return _bytes(dataset)


def _radiograph(
    pixels: NDArray[np.uint16], name: str, bits: int, inverted: bool, region: _Region
) -> bytes:
    stored, center, width = _stored(pixels, bits, inverted)
    identity = _identity(f"{name} {bits} {inverted}", stored)
    dataset = _dataset(DigitalXRayImageStorageForPresentation, name, identity, region.what)
    dataset.update(_acquisition(region))
    dataset.update(_integers(stored, bits))
    dataset.update(_polarity(inverted))
    dataset.WindowCenter, dataset.WindowWidth = center, width
    dataset.WindowCenterWidthExplanation = "NORMAL"
    dataset.VOILUTFunction = "LINEAR"
    return _bytes(dataset)


def _identity(name: str, stored: NDArray) -> str:
    """What the file's UIDs are made of."""
    return hashlib.sha256(name.encode() + stored.tobytes()).hexdigest()


def _bytes(dataset: FileDataset) -> bytes:
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


def _meta(sop_class: UID, instance: UID) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Set here, lest files differ with the release of pydicom.
    meta.ImplementationClassUID = _uid("medimg-edge", "phantoms")
    meta.ImplementationVersionName = "MEDIMG-EDGE"
    return meta


def _dataset(sop_class: UID, name: str, identity: str, what: str) -> FileDataset:
    """Patient, study, series, equipment: what the Standard wants present, and nobody's."""
    image = _uid(identity, "image")
    part = FileDataset("", {}, file_meta=_meta(sop_class, image), preamble=b"\0" * 128)
    part.SOPClassUID, part.SOPInstanceUID = sop_class, image
    part.StudyInstanceUID = _uid(identity, "study")
    part.SeriesInstanceUID = _uid(identity, "series")
    part.PatientName, part.PatientID = "PHANTOM", name
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"):
        setattr(part, keyword, "")
    part.AccessionNumber = part.ReferringPhysicianName = ""
    part.SeriesNumber = part.InstanceNumber = 1
    part.Manufacturer = "medimg-edge"
    part.ManufacturerModelName = f"synthetic {what} phantom"
    part.ImageComments = "Synthetic. Not a patient."
    return part


def _acquisition(region: _Region) -> Dataset:
    """The DX modules on how the picture was taken: PS3.3 C.8.11."""
    part = Dataset()
    part.Modality, part.PresentationIntentType = "DX", "FOR PRESENTATION"
    part.ImageType = ["ORIGINAL", "PRIMARY", ""]
    part.PatientOrientation = ["L", "F"]
    part.BodyPartExamined, part.ViewPosition = region.body_part, region.view
    part.ImageLaterality = region.laterality
    part.AnatomicRegionSequence = [_code(*region.code)]
    part.ViewCodeSequence = [_code(*region.view_code)]
    part.AcquisitionContextSequence = []
    part.DetectorType = ""
    part.BurnedInAnnotation, part.LossyImageCompression = "NO", "00"
    return part


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


def _plane(identity: str, field: float, shape: tuple[int, ...]) -> Dataset:
    """An axial slice that is ``field`` mm wide: PS3.3 C.7.6.2, C.7.4.1."""
    part = Dataset()
    spacing = round(field / shape[0], 6)
    part.PixelSpacing = [spacing, spacing]
    part.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    part.ImagePositionPatient = [-field / 2, -field / 2, 0]
    part.SliceThickness, part.PatientPosition = 5, "HFS"
    part.PatientOrientation = ["L", "P"]
    part.FrameOfReferenceUID = _uid(identity, "frame")
    part.PositionReferenceIndicator = ""
    part.BurnedInAnnotation, part.LossyImageCompression = "NO", "00"
    return part


def _integers(stored: NDArray, bits: int) -> Dataset:
    """Image Pixel module, MONOCHROME2: PS3.3 C.7.6.3."""
    part = Dataset()
    part.SamplesPerPixel, part.PhotometricInterpretation = 1, "MONOCHROME2"
    part.PixelRepresentation = int(stored.dtype.kind == "i")
    part.Rows, part.Columns = stored.shape
    part.BitsAllocated, part.BitsStored, part.HighBit = 16, bits, bits - 1
    part.PixelData = stored.tobytes()
    return part


def _polarity(inverted: bool) -> Dataset:
    """The DX Image module's words on it: PS3.3 C.8.11.3."""
    part = Dataset()
    part.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    part.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    part.PixelIntensityRelationship = "LOG"
    part.PixelIntensityRelationshipSign = 1 if inverted else -1
    part.RescaleIntercept, part.RescaleSlope, part.RescaleType = 0, 1, "US"
    return part
