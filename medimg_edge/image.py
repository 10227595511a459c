"""What was read: pixel values, how a display would show them, and what the header said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Source = Literal["png", "jpeg", "tiff", "dicom", "array"]


@dataclass(frozen=True)
class Range:
    """Grey by the line through (low, 0) and (high, 255); values outside are clipped."""

    low: float
    high: float

    def grey(self, values: NDArray) -> NDArray[np.float32]:
        """Any shape, stored or rescaled units -> float32 of the same shape, in [0, 255]."""
        grey = values.astype(np.float32)
        grey -= np.float32(self.low)
        grey *= np.float32(255.0 / (self.high - self.low))
        np.maximum(grey, 0, out=grey)
        return np.minimum(grey, 255, out=grey)


@dataclass(frozen=True)
class Window:
    """Grey by a window in rescaled units: DICOM PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3."""

    center: float
    width: float
    function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"

    def grey(self, values: NDArray) -> NDArray[np.float32]:
        """Any shape, rescaled units -> float32 of the same shape, in [0, 255]."""
        if self.function == "SIGMOID":
            exponent = (values.astype(np.float32) - np.float32(self.center)) / np.float32(
                self.width
            )
            # In float64: float32's exp is another one on each processor.
            with np.errstate(over="ignore"):  # far below the center: 255 / infinity is black
                grey = 255 / (1 + np.exp(-4 * exponent.astype(np.float64)))
            return grey.astype(np.float32)
        low, high = self.ends
        if low >= high:
            return np.where(values > (low + high) / 2, 255, 0).astype(np.float32)
        return Range(low, high).grey(values)

    @property
    def ends(self) -> tuple[float, float]:
        """The values shown black and white, unless it is a sigmoid.

        The first is not the lower for a threshold: a width of 1, or one lost in a huge center.
        """
        exact = self.function == "LINEAR_EXACT"
        center = self.center if exact else self.center - 0.5
        half = (self.width if exact else self.width - 1) / 2
        return center - half, center + half


@dataclass(frozen=True)
class Table:
    """Grey by a lookup table: DICOM PS3.3 C.11.2.1.1. Values before or after it take its ends."""

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def grey(self, values: NDArray) -> NDArray[np.float32]:
        """Any shape, rescaled units -> float32 of the same shape, in [0, 255]."""
        index = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index].astype(np.float32) * np.float32(255 / (2**self.bits - 1))


Voi = Range | Window | Table
"""How a display turns values into grey."""


@dataclass(frozen=True)
class Header:
    """What a DICOM header says of one image, in DICOM's own words, such as "DX", "CHEST", "PA".

    modality, body_part, view: as ``terms.term`` writes a word; codes of anatomy and view as words.
    instance, series: SOP and Series Instance UID, which identify a patient's image.
    frame: which of the ``frames`` in the file, from 1; both None where it holds one.
    spacing: millimetres between rows and between columns.
    orientation: the directions of a row and of a column in the patient, six cosines; position:
        of the first pixel, millimetres. PS3.3 C.7.6.2.1.1.
    burned_in: that the pixels hold text which may name the patient, where it is said.
    lossy: the image once went through a lossy compression.
    relationship: how pixels relate to the X-ray beam's intensity: LIN, LOG, DISP.
    ours: it is a picture that medimg-edge made of an answer.
    """

    modality: str | None = None
    body_part: str | None = None
    view: str | None = None
    instance: str | None = None
    series: str | None = None
    frame: int | None = None
    frames: int | None = None
    spacing: tuple[float, float] | None = None
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    burned_in: bool | None = None
    lossy: bool = False
    relationship: str | None = None
    ours: bool = False


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded image, before any of the model's preprocessing.

    frames: uint8, uint16 or float32, shape (F, H, W, C) with C 1 (grey) or 3 (RGB). The values
        are stored values, for DICOM after the modality LUT or rescale (Hounsfield units for CT).
    voi: how a display turns those values into grey.
    inverted: the smallest value is white (DICOM MONOCHROME1).
    needed: what a JPEG was reduced to while it was decoded; see ``raster.jpeg``.
    header: of a DICOM file.
    """

    frames: NDArray
    voi: Voi
    source: Source
    inverted: bool = False
    needed: tuple[int, int, int] | None = None
    header: Header | None = None
    warnings: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.frames.shape[1], self.frames.shape[2]
