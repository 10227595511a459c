"""PNG: every chunk is checked here, what makes the picture is decoded by libpng (OpenCV)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import Truncated, Unsupported
from medimg_edge.limits import check_pixels
from medimg_edge.raster.decoded import Decoded
from medimg_edge.raster.orientation import exif_orientation

SIGNATURES = (b"\x89PNG\r\n\x1a\n",)
_GREY_ALPHA = 4
_PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def decode(data: bytes) -> Decoded:
    """Grey of 1 to 8 bits -> uint8, 16 bits -> uint16; palette -> RGB; alpha is dropped."""
    kept = [memoryview(data)[:8]]
    orientation = 1
    grey_alpha = False
    for kind, whole in _chunks(data):
        body = whole[8:-4]
        if kind == b"IHDR":
            grey_alpha = _check_header(body)
        elif kind == b"acTL" and struct.unpack_from(">I", body)[0] > 1:
            raise Unsupported("The PNG is an animation; one still image is read. Save one frame.")
        elif kind == b"eXIf":
            orientation = exif_orientation(bytes(body))
        elif kind[0:1].isupper() and kind not in _PICTURE:
            raise Unsupported("The PNG needs a chunk of an unknown kind. Save it as a plain PNG.")
        if kind in _PICTURE:
            kept.append(whole)
    # Without the rest: profiles that inflate, transparency, warnings that libpng prints.
    pixels = cv2.imdecode(np.frombuffer(b"".join(kept), np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Truncated(
            "The pixel data of the PNG is incomplete or damaged. Copy the file again from its "
            "source."
        )
    return Decoded(_channels(pixels, grey_alpha), orientation)


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Type and whole chunk (length, type, body, CRC), IHDR to IEND."""
    view = memoryview(data)
    position = 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        if position == 8 and (kind != b"IHDR" or length != 13):
            raise Truncated("The PNG does not begin with its header chunk: it is damaged.")
        if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise Truncated(
                f"The checksum of the PNG chunk at byte {position:,} is wrong: the file is "
                "damaged. Copy it again from its source."
            )
        yield kind, view[position:end]
        if kind == b"IEND":
            return
        position = end
    raise Truncated(
        f"The PNG ends at byte {len(data):,} without its end chunk: part of it is missing. "
        "Copy it again from its source."
    )


def _check_header(body: memoryview) -> bool:
    """Width, height, bit depth, colour type, ... -> whether it is grey with alpha."""
    width, height, _, color = struct.unpack_from(">IIBB", body)
    check_pixels(height, width)
    return color == _GREY_ALPHA


def _channels(pixels: NDArray, grey_alpha: bool) -> NDArray:
    """OpenCV's (H, W), BGR or BGRA -> (H, W, 1) or RGB; grey with alpha arrives as BGRA."""
    if pixels.ndim == 2:
        return pixels[..., np.newaxis]
    return pixels[..., :1] if grey_alpha else pixels[..., 2::-1]
