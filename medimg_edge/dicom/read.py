"""A DICOM file -> Image: uncompressed, one frame, grey or RGB.

The stages are those of the Standard, in its order, one function each: the file (here), stored
pixel values (``pixels.py``), modality values, value of interest, polarity (``grey.py``).
"""

from __future__ import annotations

import threading
import warnings
from io import BytesIO
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from medimg_edge.dicom.elements import integer, text
from medimg_edge.dicom.grey import is_inverted, modality_values, value_of_interest
from medimg_edge.dicom.pixels import color_values, describe, stored_values
from medimg_edge.errors import (
    DicomInvalid,
    DicomNoPixels,
    DicomTransferSyntax,
    InputError,
    NotAnImage,
    Truncated,
    Unsupported,
)
from medimg_edge.image import Image, Range

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_PREFIX = slice(128, 132)
_IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_READ = {
    _IMPLICIT: "Implicit VR Little Endian",
    _EXPLICIT: "Explicit VR Little Endian",
    _BIG: "Explicit VR Big Endian",
}
# Python's warning filters belong to the process; only one thread at a time may swap them.
_WARNINGS = threading.Lock()


def is_dicom(data: bytes) -> bool:
    """Whether the bytes begin as a DICOM file does: PS3.10 section 7.1, or without its preamble.

    Without one, the first element has to be of group 0002 or 0008 and its length plausible: old
    archives store bare data sets.
    """
    if data[_PREFIX] == b"DICM":
        return True
    head = data[:8]
    if len(head) < 8 or head[0] not in (2, 8) or head[1] or head[3] or head[2] > 0x18:
        return False
    if head[4:6] in (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO"):
        return True
    length = int.from_bytes(head[4:8], "little")
    return 0 < length <= 64 and length % 2 == 0


def read_dicom(data: bytes) -> Image:
    """The bytes of a DICOM file -> Image.

    Returns frames of shape (1, H, W, 1): modality values (PS3.3 C.11.1), uint8 or uint16 where the
    file rescales nothing and stores no negative values, else float32; for color (1, H, W, 3), RGB.
    ``voi`` is the VOI LUT, else the first window, else the range of all values that the stored
    bits can hold, after the rescale.

    Raises NotAnImage, DicomInvalid, DicomNoPixels, DicomTransferSyntax (compressed), Truncated,
    TooLarge (both before the pixels are touched), Unsupported (several frames, palettes, 32 bits).
    """
    if not is_dicom(data):
        raise NotAnImage("The content is not DICOM: it has no DICM prefix at byte 128.")
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of what is checked here
        try:
            return _image(_dataset(data))
        except InputError:
            raise
        except Exception as error:  # the one edge: pydicom converts an element when it is asked
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DicomInvalid(
                f"The DICOM file cannot be read ({reason}). It is damaged or breaks the Standard: "
                "export it again from its source."
            ) from error


def _dataset(data: bytes) -> FileDataset:
    """The whole data set, once its transfer syntax is known to be plain: PS3.5 section 10."""
    from pydicom import dcmread

    syntax = _transfer_syntax(data)
    if syntax is not None and syntax not in _READ:
        from pydicom.uid import UID

        readable = ", ".join(f"{name} ({uid})" for uid, name in _READ.items())
        raise DicomTransferSyntax(
            f"The pixels are stored as {UID(syntax).name} ({syntax}); read are {readable}. "
            "Export the image uncompressed."
        )
    return dcmread(BytesIO(data), force=True)


def _transfer_syntax(data: bytes) -> str | None:
    """From the file meta information alone: pydicom inflates a deflated file while reading it."""
    from pydicom.filereader import read_dataset

    file = BytesIO(data)
    file.seek(132 if data[_PREFIX] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return text(meta, "TransferSyntaxUID")


def _image(dataset: FileDataset) -> Image:
    _check_kind(dataset)
    layout = describe(dataset)
    stored = stored_values(dataset, layout)
    warned = _padding_warning(dataset)
    if layout.samples == 3:
        values = color_values(stored, layout)
        voi, inverted = Range(0, 2**layout.bits_stored - 1), False
    else:
        values, low, high = modality_values(stored, dataset, layout)
        voi, problem = value_of_interest(dataset, low, high)
        inverted, contradiction = is_inverted(dataset)
        warned += problem + contradiction
    return Image(
        frames=np.ascontiguousarray(values)[np.newaxis],
        voi=voi,
        source="dicom",
        inverted=inverted,
        spacing=_spacing(dataset),
        modality=text(dataset, "Modality"),
        body_part=text(dataset, "BodyPartExamined"),
        view=text(dataset, "ViewPosition"),
        warnings=warned,
    )


def _check_kind(dataset: Dataset) -> None:
    """There are pixels, as integers, of one frame."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise Unsupported("The DICOM pixels are floating point; integers are read.")
    if "PixelData" not in dataset:
        if "Rows" in dataset:
            raise Truncated(
                "The DICOM file describes an image and holds no pixel data: it was cut, or its "
                "pixels were removed. Copy it again from its source."
            )
        kind = text(dataset, "Modality") or "unknown"
        raise DicomNoPixels(
            f"The DICOM object (modality {kind}) has no pixel data, as reports and plans. "
            "Give the image itself."
        )
    frames = integer(dataset, "NumberOfFrames", 1)
    if frames != 1:
        raise Unsupported(f"The DICOM file has {frames} frames; one is read. Export one frame.")
    if "SharedFunctionalGroupsSequence" in dataset or "PerFrameFunctionalGroupsSequence" in dataset:
        raise Unsupported(
            "The DICOM object is an enhanced multi-frame one, whose rescale and window are kept "
            "for each frame. Export the frame as a classic single-frame object."
        )


def _padding_warning(dataset: Dataset) -> tuple[str, ...]:
    """PS3.3 C.7.5.1.1.2: values that are no part of the image, such as outside of a CT's circle."""
    if "PixelPaddingValue" not in dataset:
        return ()
    return ("Pixel padding is declared and was left as it is.",)


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Rows, columns in mm. PS3.3 10.7.1.1 in the patient, else C.8.7.10 at the detector."""
    value = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if not value or isinstance(value, str | float) or len(value) != 2:
        return None
    rows, columns = float(value[0]), float(value[1])
    if not (isfinite(rows) and isfinite(columns) and rows > 0 and columns > 0):
        return None
    return rows, columns
