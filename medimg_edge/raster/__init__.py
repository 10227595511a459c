"""PNG, JPEG and TIFF -> Image. What a file is, its bytes say; its name is never looked at.

Each format has a module that reads the header first, refuses what it declares too large or does
not read, and hands a decoder only what a picture needs: the file's own structure is walked to its
end, so that no answer comes from a part of an image.

**Exif orientation is applied**, for all eight values and all three formats (JPEG APP1, PNG eXIf,
TIFF tag 274), as every viewer does: what the model sees is what the radiologist saw.

Not looked at: colour profiles, gamma, resolution. Alpha is dropped.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from medimg_edge.errors import InputEmpty, InputError, NotAnImage, Truncated
from medimg_edge.image import Image, Range, Source
from medimg_edge.raster import jpeg, png, tiff
from medimg_edge.raster.decoded import Decoder
from medimg_edge.raster.orientation import turn

__all__ = ["read_raster"]

_HEAD = 64
_OTHERS = {
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive or an office document",
    b"\x1f\x8b": "compressed by gzip",
    b"GIF8": "a GIF",
    b"RIFF": "WebP, video or sound",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000 file",
    b"SIMPLE  =": "FITS",
}
"""What is given by mistake, by its first bytes."""


def read_raster(data: bytes, needed: tuple[int, int, int] | None = None) -> Image:
    """The bytes of a PNG, JPEG or TIFF file -> Image.

    needed: (H, W, C) that a JPEG may be reduced to; see ``jpeg.decode``.

    Returns frames of shape (1, H, W, C), C 1 (grey) or 3 (RGB): uint8 with Range(0, 255), or
    uint16 with Range(0, 65535). Grey PNGs of 1, 2 and 4 bits are expanded to 8, palettes to RGB.

    Raises InputEmpty, NotAnImage (the bytes are of another format), TooLarge (before anything is
    decoded), Truncated (incomplete or damaged), Unsupported (CMYK, 12-bit JPEG, floating point
    or several pages in a TIFF, animations).
    """
    if not data:
        raise InputEmpty("The file is empty (0 bytes). Copy it again from its source.")
    formats: tuple[tuple[tuple[bytes, ...], Source, Decoder], ...] = (
        (png.SIGNATURES, "png", png.decode),
        (jpeg.SIGNATURES, "jpeg", partial(jpeg.decode, needed=needed)),
        (tiff.SIGNATURES, "tiff", tiff.decode),
    )
    for signatures, source, decode in formats:
        if data.startswith(signatures):
            return _image(data, source, decode)
    raise NotAnImage(
        f"The content is {_kind(data)}, not PNG, JPEG, TIFF or DICOM, whatever its name says. "
        "Convert it to one of these."
    )


def _kind(data: bytes) -> str:
    """What bytes look like; none of them is told, for a letter may begin with a name."""
    for signature, kind in _OTHERS.items():
        if data.startswith(signature):
            return kind
    return "text" if data[:_HEAD].isascii() and b"\0" not in data[:_HEAD] else "something else"


def _image(data: bytes, source: Source, decode: Decoder) -> Image:
    try:
        decoded = decode(data)
    except InputError:
        raise
    except Exception as error:  # the one edge: whatever a decoder throws at damaged bytes
        raise Truncated(
            f"The {source.upper()} file cannot be decoded ({type(error).__name__}). It is "
            "incomplete or damaged: copy it again from its source."
        ) from error
    pixels = np.ascontiguousarray(turn(decoded.pixels, decoded.orientation))
    high = 255 if pixels.dtype == np.uint8 else 65535
    return Image(
        pixels[np.newaxis],
        Range(0, high),
        source,
        inverted=decoded.inverted,
        needed=decoded.needed,
    )
