"""Stored values -> modality values, and what a display would make of them. PS3.3 C.11."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom.elements import number, text
from medimg_edge.dicom.pixels import Layout
from medimg_edge.errors import DicomInvalid
from medimg_edge.image import Range, Table, Window

if TYPE_CHECKING:
    from pydicom import Dataset

Warnings = tuple[str, ...]
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class Values(NamedTuple):
    """Modality values, and the least and the greatest that the stored bits can make."""

    values: NDArray
    low: float
    high: float


def modality_values(stored: NDArray, dataset: Dataset, layout: Layout) -> Values:
    """A modality LUT, else slope and intercept: PS3.3 C.11.1. Such as stored -> Hounsfield units.

    float32 of the same shape; unsigned values that nothing rescales keep their dtype.
    """
    low, high = _stored_range(layout)
    if sequence := dataset.get("ModalityLUTSequence"):
        table = _table(sequence[0], low)
        index = np.clip(stored.astype(np.int32) - table.first, 0, len(table.entries) - 1)
        return Values(table.entries[index].astype(np.float32), 0, 2**table.bits - 1)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    slope = 1.0 if slope is None else slope
    intercept = 0.0 if intercept is None else intercept
    if slope == 0:
        raise DicomInvalid("RescaleSlope (0028,1053) is 0: it would erase the image.")
    if slope == 1 and intercept == 0:
        return Values(stored.astype(np.float32) if layout.signed else stored, low, high)
    values = stored.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    least, most = sorted((low * slope + intercept, high * slope + intercept))
    if max(abs(least), abs(most)) > np.finfo(np.float32).max:
        raise DicomInvalid(f"The rescale ({slope}, {intercept}) exceeds what numbers can hold.")
    return Values(values, least, most)


def value_of_interest(
    dataset: Dataset, low: float, high: float
) -> tuple[Table | Window | Range, Warnings]:
    """The first VOI LUT, else the first window, else all values: PS3.3 C.11.2.

    A window that the Standard does not allow is passed over, with a warning.
    """
    if sequence := dataset.get("VOILUTSequence"):
        return _table(sequence[0], low), ()
    everything = Range(low, high if high > low else low + 1)
    center, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if center is None or width is None:
        return everything, ()
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if function not in _FUNCTIONS:
        return everything, (
            "VOILUTFunction (0028,1056) is none of the Standard's: the window is not used.",
        )
    if width < 1 if function == "LINEAR" else width <= 0:  # C.11.2.1.2.1 and C.11.2.1.3
        return everything, (f"WindowWidth (0028,1051) is {width}: the window is not used.",)
    return Window(center, width, cast(Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"], function)), ()


def is_inverted(dataset: Dataset) -> tuple[bool, Warnings]:
    """Whether the smallest value is white: MONOCHROME1, or a Presentation LUT Shape of INVERSE.

    Where both say so they mean the same, once: the DX Image module asks for INVERSE together with
    MONOCHROME1 and for IDENTITY together with MONOCHROME2 (PS3.3 C.8.11.3, C.7.6.3.1.2).
    """
    photometric = text(dataset, "PhotometricInterpretation")
    shape = text(dataset, "PresentationLUTShape")
    inverted = photometric == "MONOCHROME1" or shape == "INVERSE"
    agree = shape is None or (photometric == "MONOCHROME1") == (shape == "INVERSE")
    warning = "Photometric Interpretation and Presentation LUT Shape disagree; taken as inverted."
    return inverted, () if agree else (warning,)


def _stored_range(layout: Layout) -> tuple[int, int]:
    if layout.signed:
        return -(2 ** (layout.bits_stored - 1)), 2 ** (layout.bits_stored - 1) - 1
    return 0, 2**layout.bits_stored - 1


def _table(item: Dataset, lowest_input: float) -> Table:
    """One LUT: PS3.3 C.11.1.1 and C.11.2.1.1. ``lowest_input``: of the values that it is for."""
    descriptor = item.get("LUTDescriptor")
    if descriptor is None or isinstance(descriptor, str | bytes | int) or len(descriptor) != 3:
        raise DicomInvalid("LUTDescriptor (0028,3002) is not three numbers.")
    count, start, bits = (int(value) for value in descriptor)
    count = count % 2**16 or 2**16  # 0 stands for 65536, and 16 bits may have been read as signed
    if start > 32767 and lowest_input < 0:  # signed, as the input is
        start -= 2**16
    entries = _entries(item, count)
    if not 1 <= bits <= 16 or entries.max() >= 2**bits:
        raise DicomInvalid(
            f"LUTDescriptor (0028,3002) says {bits} bits; the table's values reach {entries.max()}."
        )
    return Table(start, entries, bits)


def _entries(item: Dataset, count: int) -> NDArray[np.uint16]:
    """LUTData as numbers, or as bytes: words, or one byte for each entry."""
    data = item.get("LUTData")
    if isinstance(data, bytes):
        wide = len(data) >= 2 * count
        word = ">u2" if item.original_encoding[1] is False else "<u2"
        entries = np.frombuffer(data[: 2 * count if wide else count], word if wide else np.uint8)
    else:
        entries = np.atleast_1d(np.asarray([] if data is None else data, np.int64) % 2**16)[:count]
    if len(entries) != count:
        raise DicomInvalid(
            f"LUTData (0028,3006) has {len(entries)} entries; its descriptor says {count}."
        )
    return entries.astype(np.uint16)
