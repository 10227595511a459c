"""What a codestream says of its picture, once it is known to be whole.

JPEG (ITU-T T.81), JPEG-LS (T.87) and JPEG 2000 (T.800, T.814). Decoders fill with grey what is
missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from medimg_edge.dicom.damage import damaged
from medimg_edge.errors import DicomInvalid

SEQUENTIAL, LOSSLESS, LS = frozenset({0xC0, 0xC1}), frozenset({0xC3}), frozenset({0xF7})
"""Frame headers, SOFn: T.81 table B.1, T.87 table C.1."""

_EVERY_SOF = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_SOS, _SIZ, _SOT, _APP0, _APP14 = 0xDA, 0x51, 0x90, 0xE0, 0xEE
_SCAN = bytes((0xFF, _SOS))
_SCANS = 64
_END = b"\xff\xd9"


class Declared(NamedTuple):
    """What is compared with the header.

    signed: of JPEG 2000; None where the data do not say it. predictor: of lossless JPEG, else 0.
    colors: YBR or RGB, where a JPEG says it: by Adobe's segment, or as JFIF does. tiles: of JPEG
    2000.
    """

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool | None = None
    predictor: int = 0
    colors: str | None = None
    tiles: int = 1


def jpeg(encoded: bytes, accepted: frozenset[int]) -> Declared:
    """The frame header, of an accepted kind: T.81 B.2.2, T.87 C.2.2.

    Raises DicomInvalid, Truncated.
    """
    _check_end(encoded, b"\xff\xd8")
    declared, colors = None, None
    for marker, body in _segments(encoded):
        if marker == _APP14 and body.startswith(b"Adobe") and len(body) >= 12:
            colors = "YBR" if body[11] else "RGB"
        elif marker == _APP0 and body.startswith(b"JFIF\0"):
            colors = colors or "YBR"
        elif marker in _EVERY_SOF and len(body) >= 6:
            if marker not in accepted:
                raise DicomInvalid(
                    f"The compressed pixels are of another kind of JPEG (SOF{marker - 0xC0}) than "
                    "the transfer syntax says. Export the image again."
                )
            rows, columns = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            declared = Declared(rows, columns, body[5], body[0])
        elif marker == _SOS and declared is not None:
            if encoded.count(_SCAN) > _SCANS:
                raise damaged("have too many scans")
            predictor = body[-3] if accepted == LOSSLESS and len(body) >= 3 else 0
            return declared._replace(predictor=predictor, colors=colors)
    raise damaged("have no frame header")


def _segments(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers and their parameters, up to the first scan's."""
    position = 2
    while position + 4 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        end = position + 2 + int.from_bytes(encoded[position + 2 : position + 4])
        yield marker, encoded[position + 4 : end]
        position = end


def without_boxes(encoded: bytes) -> bytes:
    """The codestream in a JP2 file, which PS3.5 A.4.4 forbids and some write."""
    if encoded[4:8] != b"jP  ":
        return encoded
    return encoded[max(0, encoded.find(b"\xff\x4f\xff\x51")) :]


def jpeg_2000(encoded: bytes) -> Declared:
    """The SIZ segment, and that every tile-part has its length: ITU-T T.800, A.5.1 and A.4.2."""
    _check_end(encoded, b"\xff\x4f")
    position, declared = 2, None
    while encoded[position : position + 2] != _END:
        marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2 : position + 4])
        if encoded[position] != 0xFF or length < 2:
            raise damaged("lack a marker")
        if marker == _SIZ:
            declared = _size(encoded[position + 4 : position + 2 + length])
        if marker == _SOT:
            part = int.from_bytes(encoded[position + 6 : position + 10])
            if part == 0:  # up to the end
                break
            position += part
        else:
            position += 2 + length
        if position > len(encoded) - 2:
            raise damaged("end within a tile")
    if declared is None:
        raise damaged("have no SIZ segment")
    return declared


def _size(segment: bytes) -> Declared:
    """The SIZ segment: T.800 A.5.1."""
    if len(segment) < 37:
        raise damaged("have a short SIZ segment")
    width, height, left, top, tile_width, tile_height = (
        int.from_bytes(segment[at : at + 4]) for at in range(2, 26, 4)
    )
    if not (tile_width and tile_height):
        raise damaged("have tiles without a size")
    components, depth = int.from_bytes(segment[34:36]), segment[36]
    return Declared(
        rows=height - top,
        columns=width - left,
        components=components,
        bits=(depth & 127) + 1,
        signed=depth > 127,
        tiles=-(-width // tile_width) * -(-height // tile_height),
    )


def _check_end(encoded: bytes, start: bytes) -> None:
    """It begins and ends as a codestream does; padding may follow."""
    if not encoded.startswith(start):
        raise DicomInvalid(
            "The compressed pixels do not begin as the transfer syntax says. Export the image "
            "again."
        )
    if not encoded[-8:].rstrip(b"\0\xff").endswith(_END[1:]) or _END not in encoded[-8:]:
        raise damaged("end without their end marker")
