"""Exif orientation: found in the file, applied to the pixels. Exif 2.32, 4.6.4 (tag 274)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import Truncated
from medimg_edge.raster.directory import directories

TAG = 274


def exif_orientation(exif: bytes) -> int:
    """An Exif block, from its byte order mark -> 1 to 8; 1 where it is damaged or says nothing.

    A damaged Exif block says nothing of the pixels, and every viewer shows such a file as stored.
    """
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        first = next(directories(exif, frozenset({TAG})), None)
    except Truncated:
        return 1
    return valid_orientation(first.one(TAG, 1)) if first else 1


def valid_orientation(value: int) -> int:
    """Values that the standard does not define count as 1."""
    return value if 1 <= value <= 8 else 1


def turn(pixels: NDArray, orientation: int) -> NDArray:
    """Pixels as stored, shape (H, W, C) -> as they are to be seen; 5 to 8 swap H and W.

    The value names the corner at which the first stored row and column begin.
    """
    if orientation in (5, 6, 7, 8):  # stored by columns
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):  # from the right
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):  # from the bottom
        pixels = pixels[::-1]
    return np.asarray(pixels)
