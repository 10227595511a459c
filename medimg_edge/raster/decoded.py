"""What the decoder of each format returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pixels as stored, not yet turned.

    pixels: uint8 or uint16, shape (H, W, C) with C 1 (grey) or 3 (RGB).
    orientation: Exif's 1 to 8.
    inverted: the smallest value is white.
    needed: what a JPEG was reduced to; see ``jpeg.decode``.
    """

    pixels: NDArray
    orientation: int = 1
    inverted: bool = False
    needed: tuple[int, int, int] | None = None


Decoder = Callable[[bytes], Decoded]
