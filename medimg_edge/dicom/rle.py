"""RLE frames: PS3.5 annex G. pydicom unpacks a segment of any length, whatever the image's is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom.damage import damaged
from medimg_edge.dicom.pixels import Layout
from medimg_edge.errors import DicomInvalid

_HEADER = 64


def decode(encoded: bytes, layout: Layout) -> NDArray:
    """A frame -> (H, W, samples), uint8 or uint16, the cells as they were.

    Each segment holds one byte of a sample, the most significant first: G.2. Raises DicomInvalid,
    Truncated.
    """
    size, pixels = layout.bits_allocated // 8, layout.rows * layout.columns
    count = layout.samples * size
    header = np.frombuffer(encoded[:_HEADER].ljust(_HEADER, b"\0"), "<u4").tolist()
    if header[0] != count:
        raise DicomInvalid(
            f"The RLE data have {header[0]} segments; {count} are in a pixel of this image."
        )
    bounds = [*header[1 : count + 1], len(encoded)]
    cells = np.empty((layout.samples, size, pixels), np.uint8)
    for at in range(count):
        sample, byte = divmod(at, size)
        segment = encoded[bounds[at] : bounds[at + 1]]
        cells[sample, size - 1 - byte] = _unpacked(segment, pixels)
    values = np.ascontiguousarray(cells.transpose(2, 0, 1)).view(f"<u{size}")
    return values.reshape(layout.rows, layout.columns, layout.samples)


def _unpacked(segment: bytes, size: int) -> NDArray[np.uint8]:
    """PackBits, G.3.2, and no more of it than ``size`` bytes."""
    if len(segment) > 2 * size + _HEADER:  # the worst that an encoder can do, and padding
        raise damaged("have an RLE segment that is too long")
    unpacked, position = bytearray(), 0
    while len(unpacked) < size and position < len(segment):
        length = segment[position]
        if length < 128:
            unpacked += segment[position + 1 : position + 2 + length]
            position += 2 + length
        elif length > 128:
            unpacked += segment[position + 1 : position + 2] * (257 - length)
            position += 2
        else:
            position += 1
    if len(unpacked) < size:
        raise damaged("end within an RLE segment")
    return np.frombuffer(unpacked, np.uint8, size)
