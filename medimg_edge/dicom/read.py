"""A DICOM file -> Image, frame by frame.

The stages are those of the Standard, in its order, one function each: the file (here), stored
pixel values (``pixels.py``, of encoded frames ``encoded.py``), the frame's own attributes
(``functional_groups.py``), modality values, value of interest, polarity (``grey.py``), and what
the header says beside (``header.py``). Overlays are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from medimg_edge.dicom import encoded, file_meta, fragments, functional_groups, header, is_dicom
from medimg_edge.dicom.elements import text
from medimg_edge.dicom.encoded import Decoded
from medimg_edge.dicom.file_meta import FileMeta
from medimg_edge.dicom.grey import is_inverted, modality_values, value_of_interest
from medimg_edge.dicom.pixels import GREY, color_values, describe, native_frame
from medimg_edge.errors import (
    DicomInvalid,
    DicomNoPixels,
    DicomTransferSyntax,
    InputError,
    MachineFault,
    NotAnImage,
    TooLarge,
    Truncated,
    Unsupported,
)
from medimg_edge.image import Image, Range
from medimg_edge.limits import MAX_PIXELS
from medimg_edge.terms import MODALITIES, OBJECTS

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_NATIVE = frozenset(
    {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", file_meta.DEFLATED}
)
MAX_INFLATED = 2 * MAX_PIXELS
"""Bytes of a deflated data set: the largest image that is read, in 16 bits."""

MAX_READS = 300_000
"""Of a data set: two or three for each element. An ordinary file has some hundred of these."""


class DicomFile:
    """A file of which the header is read; frames are decoded when they are asked for.

    frames: how many it holds.

    Raises NotAnImage, DicomInvalid, DicomNoPixels, DicomTransferSyntax, Truncated, TooLarge (before
    pixels are touched or data inflated), Unsupported (32 bits, floating point, video).
    """

    def __init__(self, data: bytes) -> None:
        if not is_dicom(data):
            raise NotAnImage("The content is not DICOM: it has no DICM prefix at byte 128.")
        with _reading():
            meta = file_meta.read(data)
            self._syntax = meta.syntax
            self._dataset = _dataset(data, meta)
            _check_kind(self._dataset, self._syntax)
            self._layout = describe(self._dataset)
            self.frames = self._layout.frames
            self._encoded = None
            if self._syntax in encoded.SYNTAXES:
                self._encoded = fragments.Frames(self._dataset, self.frames)

    def image(self, number: int | None = None) -> Image:
        """Frame ``number``, from 1; it may be left out where there is one.

        Returns frames of shape (1, H, W, 1): modality values (PS3.3 C.11.1), uint8 or uint16 where
        the file rescales nothing and stores no negative values, else float32; for colour
        (1, H, W, 3), RGB. ``voi`` is the VOI LUT, else the first window, else the range of all
        values that the stored bits can hold, after the rescale.

        Raises what reading the file does, and MachineFault where a compressed frame cannot be
        decoded now. May be called from several threads at once.
        """
        if number is None and self.frames > 1:
            raise Unsupported(
                f"The DICOM file has {self.frames} frames, and one is read at a time. Say which "
                "(infer --frame, in Python frame=), or export one frame."
            )
        at = 1 if number is None else number
        if not 1 <= at <= self.frames:
            raise Unsupported(f"The DICOM file has no frame {at}; there are 1 to {self.frames}.")
        decoded = self._decoded(at - 1)
        with _reading():
            return self._image(at - 1, decoded)

    def _decoded(self, at: int) -> Decoded:
        if self._encoded is not None and self._syntax is not None:
            return encoded.decode(self._encoded.encoded(at), self._syntax, self._layout)
        with _reading():
            stored = native_frame(self._dataset, self._layout, at)
        return Decoded(stored, self._layout.photometric)

    def _image(self, at: int, decoded: Decoded) -> Image:
        stored, photometric, warned = decoded
        layout = self._layout._replace(signed=stored.dtype.kind == "i")
        dataset = functional_groups.of_frame(self._dataset, at, self.frames)
        warned += _padding_warning(dataset)
        if layout.photometric in GREY:
            values, low, high = modality_values(stored, dataset, layout)
            voi, problem = value_of_interest(dataset, low, high)
            inverted, contradiction = is_inverted(dataset)
            warned += problem + contradiction
        else:
            values = color_values(stored, photometric, dataset, layout.bits_stored)
            palette = photometric == "PALETTE COLOR"
            bits = 8 * values.itemsize if palette else layout.bits_stored
            voi, inverted = Range(0, 2**bits - 1), False
        return Image(
            frames=np.ascontiguousarray(values)[np.newaxis],
            voi=voi,
            source="dicom",
            inverted=inverted,
            header=header.describe(dataset, self._syntax, at + 1, self.frames),
            warnings=warned,
        )


def read_dicom(data: bytes, frame: int | None = None) -> Image:
    """The bytes of a DICOM file -> its image, of several frames the one that is asked for."""
    return DicomFile(data).image(frame)


@contextmanager
def _reading() -> Iterator[None]:
    """The one edge to pydicom, which converts an element when it is asked for."""
    from medimg_edge.dicom.quiet import quiet

    with quiet():
        try:
            yield
        except InputError:
            raise
        except MemoryError:
            raise MachineFault(
                "There is too little memory to read the DICOM file. Try again when there is more."
            ) from None
        except Exception as error:
            # Without what it says, which may be what the header says of a patient.
            raise DicomInvalid(
                f"The DICOM file cannot be read ({type(error).__name__}). It is damaged or breaks "
                "the Standard: export it again from its source."
            ) from None


def _dataset(data: bytes, meta: FileMeta) -> FileDataset:
    """The whole data set, once its transfer syntax is known to be read: PS3.5 section 10."""
    from pydicom import dcmread

    if meta.syntax is not None and meta.syntax not in _NATIVE | encoded.SYNTAXES:
        from pydicom.uid import UID

        uid = UID(meta.syntax)
        found = f"{uid.name} ({uid})" if uid.is_valid else "no UID"
        raise DicomTransferSyntax(
            f"The transfer syntax is {found}; read are plain pixels, RLE, JPEG, JPEG-LS, JPEG 2000 "
            "and HTJ2K. Export the image uncompressed."
        )
    deflated = meta.syntax == file_meta.DEFLATED
    return dcmread(_Counted(_inflated(data[meta.end :]) if deflated else data), force=True)


class _Counted(BytesIO):
    """A file that ends the reading of a data set that is nothing but elements."""

    _reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """As of a file. Raises TooLarge."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise TooLarge(
                "The DICOM file has far more elements than an image is described by. Export the "
                "image again from its source."
            )
        return super().read(size)


def _inflated(data: bytes) -> bytearray:
    """A deflated data set alone, PS3.5 annex A.5: pydicom inflates any amount at once."""
    found = file_meta.inflate(data, MAX_INFLATED + 1)
    if len(found.data) > MAX_INFLATED:
        raise TooLarge(
            f"The deflated DICOM file becomes more than {MAX_INFLATED:,} bytes; no image that is "
            "read has as many. Export the image uncompressed."
        )
    if not found.whole:
        raise Truncated(
            "The deflated DICOM file ends before its data do: part of it is missing. Copy it "
            "again from its source."
        )
    return found.data


def _check_kind(dataset: Dataset, syntax: str | None) -> None:
    """There are pixels, as integers, of an image."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise Unsupported("The DICOM pixels are floating point; integers are read.")
    if "PixelData" not in dataset:
        if "Rows" in dataset or syntax in encoded.SYNTAXES:
            raise Truncated(
                "The DICOM file describes an image and holds no pixel data: it was cut, or its "
                "pixels were removed. Copy it again from its source."
            )
        modality = text(dataset, "Modality")
        kind = modality if modality in MODALITIES | OBJECTS else "unknown"
        raise DicomNoPixels(
            f"The DICOM object (modality {kind}) has no pixel data, as reports and plans. "
            "Give the image itself."
        )
    if (kind := header.no_image(dataset)) is not None:
        raise Unsupported(
            f"The DICOM object ({kind}) has pixels and is no image, as segmentations, maps, doses "
            "and documents. Give the image that it belongs to."
        )


def _padding_warning(dataset: Dataset) -> tuple[str, ...]:
    """PS3.3 C.7.5.1.1.2: values that are no part of the image, such as outside of a CT's circle."""
    if "PixelPaddingValue" not in dataset:
        return ()
    return ("Pixel padding is declared and was left as it is.",)
