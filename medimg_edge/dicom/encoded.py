"""Encoded frames -> stored values: RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K. PS3.5 section 8.2.

What a codestream declares is compared with the header before anything is decoded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.dicom import codestream, isolated, rle
from medimg_edge.dicom.codestream import LOSSLESS, LS, SEQUENTIAL, Declared
from medimg_edge.dicom.damage import damaged
from medimg_edge.dicom.isolated import Family
from medimg_edge.dicom.pixels import Layout, used_bits
from medimg_edge.errors import DicomInvalid, DicomTransferSyntax, TooLarge

_RLE = "1.2.840.10008.1.2.5"
_SOF = {
    **{f"1.2.840.10008.1.2.4.{each}": SEQUENTIAL for each in (50, 51)},
    **{f"1.2.840.10008.1.2.4.{each}": LOSSLESS for each in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{each}": LS for each in (80, 81)},
}
"""The frame headers of JPEG and JPEG-LS: PS3.5 annex A.4. Progressive ones are of none."""

_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{each}" for each in (90, 91, 201, 202, 203))
SYNTAXES = _JPEG_2000 | _SOF.keys() | {_RLE}
"""The transfer syntaxes whose frames are encoded."""


_TILES = 2**13
"""Tiles times components: a decoder keeps each of them."""


class Decoded(NamedTuple):
    """(H, W, samples), uint8, uint16, int8 or int16, and of what photometric interpretation."""

    values: NDArray
    photometric: str
    warnings: tuple[str, ...] = ()


def decodable() -> list[str]:
    """The compressions for which this machine has a decoder."""
    return ["RLE", *filter(isolated.available, isolated.LIBRARIES)]


def decode(encoded: bytes, syntax: str, layout: Layout) -> Decoded:
    """One frame. Raises DicomInvalid, Truncated, DicomTransferSyntax (no decoder), MachineFault."""
    if syntax == _RLE:
        return Decoded(used_bits(rle.decode(encoded, layout), layout), layout.photometric)
    family = _family(syntax)
    if family == "JPEG 2000":
        encoded = codestream.without_boxes(encoded)
        declared = codestream.jpeg_2000(encoded)
    else:
        declared = codestream.jpeg(encoded, _SOF[syntax])
    _check(declared, layout)
    cells = _cells(encoded, family, syntax, declared, layout)
    _check_predictor(declared, cells)
    values, warned = _stored(cells, declared, layout)
    photometric = layout.photometric
    if photometric in ("YBR_ICT", "YBR_RCT"):  # which the decoder undoes
        photometric = "RGB"
    return Decoded(values, photometric, warned + _contradiction(declared, layout))


def _family(syntax: str) -> Family:
    if syntax in _JPEG_2000:
        return "JPEG 2000"
    return "JPEG-LS" if _SOF[syntax] == LS else "JPEG"


def _check(declared: Declared, layout: Layout) -> None:
    if (declared.rows, declared.columns) != (layout.rows, layout.columns):
        raise DicomInvalid(
            f"The compressed pixels are {declared.columns} x {declared.rows}; the header says "
            f"{layout.columns} x {layout.rows}."
        )
    if declared.components != layout.samples:
        raise DicomInvalid(
            f"The compressed pixels have {declared.components} components; the header says "
            f"{layout.samples}."
        )
    if declared.tiles * declared.components > _TILES:
        raise TooLarge(
            f"The JPEG 2000 data have {declared.tiles:,} tiles of {declared.components} "
            f"components; {_TILES:,} in all are decoded. Export the image again, in larger tiles."
        )
    if declared.bits > layout.bits_allocated:
        raise DicomInvalid(
            f"The compressed pixels have {declared.bits} bits; the header allocates "
            f"{layout.bits_allocated}."
        )


def _cells(
    encoded: bytes, family: Family, syntax: str, declared: Declared, layout: Layout
) -> NDArray:
    """As the decoder gives them: unsigned, of 8 bits where no sample has more, else of 16."""
    if not isolated.available(family):
        raise DicomTransferSyntax(
            f"The pixels are stored as {family} ({syntax}), and no decoder for that is installed: "
            "pip install 'medimg-edge[dicom]', or export the image uncompressed."
        )
    bits = 8 if declared.bits <= 8 else 16
    request = isolated.Request(
        family=family,
        syntax=syntax,
        rows=layout.rows,
        columns=layout.columns,
        samples=layout.samples,
        photometric=layout.photometric,
        planar=int(layout.planar),
        bits=bits,
        bytes=len(encoded),
    )
    cells = np.frombuffer(isolated.decode(encoded, request), f"<u{bits // 8}")
    shape = layout.rows, layout.columns, layout.samples
    if cells.size != np.prod(shape):
        raise damaged(f"cannot be decoded as {family}")
    return cells.reshape(shape)


def _stored(cells: NDArray, declared: Declared, layout: Layout) -> tuple[NDArray, tuple[str, ...]]:
    """Cells -> values, signed where the header or the data say so.

    The sign is the topmost bit that both use: some encoders fill a cell with it, some do not.
    """
    disagree = declared.signed not in (None, layout.signed)
    warned = ("PixelRepresentation and the JPEG 2000 data disagree; taken as signed.",)
    if layout.signed or declared.signed:
        used = declared.bits if declared.signed else min(declared.bits, layout.bits_stored)
        unused = 8 * cells.itemsize - used
        values = (cells << unused).view(f"i{cells.itemsize}") >> unused
        return values, warned if disagree else ()
    if declared.bits > layout.bits_stored and int(cells.max()) >= 2**layout.bits_stored:
        return cells, ("Some values need more bits than BitsStored says.",)
    return cells, ()


def _contradiction(declared: Declared, layout: Layout) -> tuple[str, ...]:
    """PS3.5 8.2.1: the header's photometric interpretation is that of the data."""
    if layout.samples == 1 or declared.colors is None:
        return ()
    if declared.colors == ("RGB" if layout.photometric == "RGB" else "YBR"):
        return ()
    return (f"The JPEG data say {declared.colors} and the header does not; taken as it says.",)


def _check_predictor(declared: Declared, values: NDArray) -> None:
    """In 16 bits old encoders overflow in predictor 6, new ones do not, and no file says which.

    Both wrote the same where the values that it subtracts, one above the other, are less than 2**15
    apart: T.81 table H.1, Ra - Rc.
    """
    if declared.predictor != 6 or declared.bits < 16:
        return
    cells = values.view(np.uint16).astype(np.int32)
    if np.abs(np.diff(cells, axis=0)).max(initial=0) >= 2**15:
        raise DicomTransferSyntax(
            "The pixels are JPEG lossless of 16 bits with predictor 6, and so far apart that "
            "encoders have written them in two ways, which cannot be told from each other. Export "
            "the image uncompressed."
        )
