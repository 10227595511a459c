"""Native pixel data -> stored values. PS3.5 section 8.1, PS3.3 C.7.6.3."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom.elements import integer, text
from medimg_edge.errors import DicomInvalid, Truncated, Unsupported
from medimg_edge.limits import check_pixels

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_CHANNELS = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, "YBR_FULL": 3}


class Layout(NamedTuple):
    """The Image Pixel module, checked: PS3.3 C.7.6.3."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: bool

    @property
    def row_bytes(self) -> int:
        """Of all samples of one row."""
        return self.columns * self.samples * self.bits_allocated // 8


def describe(dataset: Dataset) -> Layout:
    """The Image Pixel module; refuses what is not read and what contradicts itself."""
    photometric = text(dataset, "PhotometricInterpretation") or "absent"
    samples = integer(dataset, "SamplesPerPixel", 1)
    bits_allocated = integer(dataset, "BitsAllocated")
    bits_stored = integer(dataset, "BitsStored", bits_allocated)
    layout = Layout(
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        samples=samples,
        photometric=photometric,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=integer(dataset, "HighBit", bits_stored - 1),
        signed=integer(dataset, "PixelRepresentation", 0) == 1,
        planar=samples > 1 and integer(dataset, "PlanarConfiguration", 0) == 1,
    )
    _check(layout)
    check_pixels(layout.rows, layout.columns)
    return layout


def _check(layout: Layout) -> None:
    if layout.photometric not in _CHANNELS:
        raise Unsupported(
            f"PhotometricInterpretation (0028,0004) is {layout.photometric}; read are "
            f"{', '.join(_CHANNELS)}. Export the image as grey or RGB."
        )
    if layout.bits_allocated not in (8, 16):
        raise Unsupported(
            f"BitsAllocated (0028,0100) is {layout.bits_allocated}; 8 and 16 are read."
        )
    rules = (
        (
            layout.rows > 0 and layout.columns > 0,
            f"declares {layout.columns} x {layout.rows} pixels",
        ),
        (
            layout.samples == _CHANNELS[layout.photometric],
            f"has {layout.samples} samples for each pixel of {layout.photometric}",
        ),
        (
            0 < layout.bits_stored <= layout.high_bit + 1 <= layout.bits_allocated,
            f"stores {layout.bits_stored} bits up to bit {layout.high_bit} of "
            f"{layout.bits_allocated}",
        ),
        (layout.samples == 1 or not layout.signed, f"has signed {layout.photometric} values"),
    )
    for holds, found in rules:
        if not holds:
            raise DicomInvalid(f"The DICOM header contradicts itself: it {found}.")


def stored_values(dataset: FileDataset, layout: Layout) -> NDArray:
    """PixelData -> uint8, uint16, int8 or int16, shape (H, W, samples). PS3.5 section 8.1.1."""
    data = _checked_bytes(dataset, layout)
    little = dataset.original_encoding[1] is not False
    if layout.bits_allocated == 16:
        cells = np.frombuffer(data, "<u2" if little else ">u2")
    elif little or dataset["PixelData"].VR == "OB":
        cells = np.frombuffer(data, np.uint8)
    else:  # bytes in words, and the words were turned around: PS3.5 section 8.1.2 and annex D
        cells = np.frombuffer(data + b"\0" * (len(data) % 2), "<u2").byteswap().view(np.uint8)
    cells = cells[: layout.rows * layout.columns * layout.samples]
    shape = (layout.rows, layout.columns)
    if layout.planar:  # PS3.3 C.7.6.3.1.3
        values = cells.reshape(layout.samples, *shape).transpose(1, 2, 0)
    else:
        values = cells.reshape(*shape, layout.samples)
    return _used_bits(values.astype(values.dtype.newbyteorder("="), copy=False), layout)


def _checked_bytes(dataset: Dataset, layout: Layout) -> bytes:
    element = dataset["PixelData"]
    data = element.value
    if element.is_undefined_length or not isinstance(data, bytes):
        raise DicomInvalid(
            "The transfer syntax says that the pixels are plain, but they are encapsulated."
        )
    expected = layout.rows * layout.row_bytes
    if len(data) < expected:
        raise Truncated(
            f"PixelData (7FE0,0010) has {len(data):,} bytes; {layout.columns} x {layout.rows} "
            f"pixels need {expected:,}: part of the image is missing. Copy it again."
        )
    # Less than a row behind the pixels, or zeros, is padding.
    if len(data) >= expected + max(layout.row_bytes, 2) and data[expected:].strip(b"\0"):
        raise DicomInvalid(
            f"PixelData (7FE0,0010) has {len(data):,} bytes; {layout.columns} x {layout.rows} "
            f"pixels need {expected:,}: rows and columns do not fit the pixels."
        )
    return data


def _used_bits(values: NDArray, layout: Layout) -> NDArray:
    """Without what else lies in a cell (old overlays), the sign extended. PS3.5 section 8.1.1."""
    unused = layout.bits_allocated - layout.bits_stored
    above = layout.bits_allocated - 1 - layout.high_bit
    if not layout.signed:
        below = layout.high_bit + 1 - layout.bits_stored
        shifted = values >> below if below else values
        return shifted & 2**layout.bits_stored - 1 if unused else shifted
    values = values.view(np.int8 if layout.bits_allocated == 8 else np.int16)
    return (values << above) >> unused if unused else values


def color_values(stored: NDArray, layout: Layout) -> NDArray:
    """RGB or YBR_FULL -> RGB, same shape and dtype. PS3.3 C.7.6.3.1.2."""
    if layout.photometric == "RGB":
        return stored
    if layout.bits_stored != 8:
        raise Unsupported(f"YBR_FULL with {layout.bits_stored} bits; 8 are read.")
    from pydicom.pixels.processing import convert_color_space

    return convert_color_space(stored, "YBR_FULL", "RGB")
