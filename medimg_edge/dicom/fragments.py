"""The frames in encapsulated PixelData: PS3.5 annex A.4."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from medimg_edge.dicom.damage import damaged
from medimg_edge.errors import DicomInvalid, Truncated

if TYPE_CHECKING:
    from pydicom import Dataset

EXTRA = 2**16
"""So many more fragments than frames: those of frames that were written in parts."""

_ITEM = b"\xfe\xff\x00\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f")  # SOI of JPEG and JPEG-LS, SOC of JPEG 2000


class Frames:
    """Where each frame lies in ``dataset``'s PixelData, once that is known to be whole.

    Construction raises DicomInvalid, Truncated.
    """

    def __init__(self, dataset: Dataset, frames: int) -> None:
        element = dataset["PixelData"]
        if not element.is_undefined_length:
            raise DicomInvalid(
                "The transfer syntax says that the pixels are compressed, but they are plain."
            )
        self._data: bytes = element.value
        items = _items(self._data, frames + EXTRA)
        if len(items) - 1 > frames + EXTRA:
            raise DicomInvalid(
                f"PixelData (7FE0,0010) has more than {frames + EXTRA:,} fragments for {frames} "
                "frames."
            )
        if len(items) - 1 < frames:
            raise Truncated(
                f"PixelData (7FE0,0010) has {max(0, len(items) - 1)} compressed frames of "
                f"{frames}: part of the image is missing. Copy it again."
            )
        table, *fragments = items
        offsets = _offsets(dataset, self._data[slice(*table)])
        self._parts = _grouped(self._data, fragments, frames, offsets)

    def encoded(self, number: int) -> bytes:
        """Frame ``number``, from 0."""
        return b"".join(self._data[start:end] for start, end in self._parts[number])


Bounds = tuple[int, int]


def _items(data: bytes, most: int) -> list[Bounds]:
    """The Basic Offset Table and the fragments, at most one more than ``most`` of these."""
    found, position = [], 0
    while position < len(data) and len(found) <= most + 1:
        if data[position : position + 4] != _ITEM:
            raise damaged("are interrupted")
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start], "little")
        found.append((start, position))
    if position > len(data):
        raise damaged("end within a fragment")
    return found


def _offsets(dataset: Dataset, table: bytes) -> list[int]:
    """Of the frames from the first fragment on; none where no table says them."""
    if "ExtendedOffsetTable" in dataset:
        extended = dataset.ExtendedOffsetTable
        return np.frombuffer(extended[: len(extended) // 8 * 8], "<u8").tolist()
    return np.frombuffer(table[: len(table) // 4 * 4], "<u4").tolist()


def _grouped(
    data: bytes, fragments: list[Bounds], frames: int, offsets: list[int]
) -> list[list[Bounds]]:
    """The fragments of each frame: one each, or as the table or their first bytes say."""
    if len(fragments) == frames:
        return [[each] for each in fragments]
    if frames == 1:
        return [fragments]
    if offsets:
        first = fragments[0][0]
        places = {start - first: at for at, (start, _) in enumerate(fragments)}
        starts = [places.get(offset, -1) for offset in offsets]
    else:
        starts = [
            at for at, (start, _) in enumerate(fragments) if data[start : start + 2] in _STARTS
        ]
    if len(starts) != frames or starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
        raise DicomInvalid(
            f"PixelData (7FE0,0010) has {len(fragments)} fragments for {frames} frames, and "
            "nothing says reliably which belong together. Export the image again."
        )
    return [fragments[a:b] for a, b in pairwise([*starts, len(fragments)])]
