"""The file meta information of a DICOM file, which says how its data set is encoded."""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import NamedTuple

from medimg_edge.dicom.elements import text

DEFLATED = "1.2.840.10008.1.2.1.99"
"""The transfer syntax whose data set is compressed as a whole, PS3.5 annex A.5."""

_PREFIX = slice(128, 132)
_STEP = 2**20


class FileMeta(NamedTuple):
    """syntax: the transfer syntax, None where none is told. end: the byte behind it all."""

    syntax: str | None
    end: int


class Inflated(NamedTuple):
    """The beginning of a data set, and whether that is all of it."""

    data: bytearray
    whole: bool


def read(data: bytes) -> FileMeta:
    """What a file begins with, PS3.10 section 7.1; of a bare data set nothing, which ends at 0.

    pydicom itself inflates a deflated file, of any size, while it reads this. Raises what pydicom
    does where it is damaged.
    """
    from pydicom.filereader import read_dataset

    file = BytesIO(data)
    file.seek(_PREFIX.stop if data[_PREFIX] == b"DICM" else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return FileMeta(text(meta, "TransferSyntaxUID"), file.tell())


def inflate(data: bytes, most: int) -> Inflated:
    """What follows the meta information of a deflated file -> at most so many bytes.

    Raises zlib.error where it is damaged.
    """
    inflating, found = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    while data and not inflating.eof and len(found) < most:  # in steps: zlib would hold it twice
        found += inflating.decompress(data, min(_STEP, most - len(found)))
        data = inflating.unconsumed_tail
    return Inflated(found, inflating.eof)
