"""JPEG: its segments are walked here, the picture is decoded by libjpeg-turbo (simplejpeg).

libjpeg fills what is missing with grey and only warns; simplejpeg's strict mode makes an error of
every warning. Most warnings are about bytes that are no part of the picture (a JFIF version,
padding between segments), so the decoder is given a file that holds the picture alone.
ITU-T T.81, annex B.

Where less is needed than the file holds, less is made of it: of each block of 8 x 8 coefficients
only the low ones become pixels (1/2, 1/4 or 1/8 of the rows and columns), and of YCbCr only Y.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import simplejpeg
from numpy.typing import NDArray

from medimg_edge.errors import Truncated, Unsupported
from medimg_edge.limits import check_pixels
from medimg_edge.raster.decoded import Decoded
from medimg_edge.raster.orientation import exif_orientation

SIGNATURES = (b"\xff\xd8\xff",)
_EOI, _SOS, _DQT, _DHT, _DRI = 0xD9, 0xDA, 0xDB, 0xC4, 0xDD
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {_DHT, 0xC8, 0xCC}
_PICTURE = frozenset({_DQT, _DHT, _DRI, _APP14})
_NEXT_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not stuffing, fill, TEM or restart
_MAX_SCANS = 500  # a progressive file of thousands keeps a decoder busy for minutes
_SEQUENTIAL = b"\x00\x3f\x00"
_PADDING = b"\x00\r\n"


class Segment(NamedTuple):
    """A marker and its parameters; as it stands in a file, behind a scan with the coded data."""

    marker: int
    body: bytes
    encoded: bytes

    @classmethod
    def of(cls, marker: int, body: bytes, coded: bytes = b"") -> Segment:
        """One that stands in no file."""
        size = struct.pack(">H", len(body) + 2)
        return cls(marker, body, bytes((0xFF, marker)) + size + body + coded)

    @property
    def coded(self) -> bytes:
        """Of a scan."""
        return self.encoded[4 + len(self.body) :]


_JFIF = Segment.of(_APP0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0")


class Frame(NamedTuple):
    """What SOFn declares: B.2.2."""

    progressive: bool
    size: tuple[int, int]
    components: tuple[int, ...]


class Form(NamedTuple):
    """What is made of a picture: its rows and columns, and RGB or GRAY."""

    rows: int
    columns: int
    color: str


def decode(data: bytes, needed: tuple[int, int, int] | None = None) -> Decoded:
    """8-bit grey -> (H, W, 1); YCbCr or RGB -> RGB, (H, W, 3). CMYK and 12 bits are refused.

    needed: (rows, columns, channels) as a viewer shows them. The picture is then decoded at the
        smallest of 1/1, 1/2, 1/4 and 1/8 that has as many rows and columns, and for one channel to
        grey, which of YCbCr is Y.
    """
    kept: list[Segment] = []
    scans: list[Segment] = []
    frame: Frame | None = None
    orientation = 1
    for segment in _segments(data):
        marker, body, _ = segment
        if marker in _FRAMES:
            if frame:
                raise Unsupported("The JPEG holds several frames (hierarchical); one is read.")
            frame = _frame(marker, body)
            kept.append(segment)
        elif marker == _SOS:
            if not frame:
                raise _damaged("has a scan before its frame header")
            scans.append(_scan(segment, frame))
            kept.append(scans[-1])
        elif marker in _PICTURE:
            kept.append(segment)
        elif marker == _APP0 and body.startswith(b"JFIF\0"):
            kept.append(_JFIF)  # it decides the colour space
        elif marker == _APP1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(body[6:])
    if not frame:
        raise _damaged("has no frame header")
    _check_complete(frame, scans)
    form = _form(frame, orientation, needed)
    return Decoded(_pixels(kept, form), orientation, needed=needed)


def _form(frame: Frame, orientation: int, needed: tuple[int, int, int] | None) -> Form:
    rows, columns = frame.size
    color = "RGB" if len(frame.components) == 3 else "GRAY"
    if needed is None:
        return Form(rows, columns, color)
    height, width, channels = needed
    if orientation >= 5:  # it will be turned by a quarter
        height, width = width, height
    parts = next(n for n in (8, 4, 2, 1) if n == 1 or (rows >= n * height and columns >= n * width))
    return Form(-(-rows // parts), -(-columns // parts), "GRAY" if channels == 1 else color)


def _segments(data: bytes) -> Iterator[Segment]:
    """Every segment up to the end marker; what follows that is no part of the image."""
    position = 2
    while match := _NEXT_MARKER.search(data, position):
        marker, start = data[match.start() + 1], match.end()
        if marker == _EOI:
            return
        length = int.from_bytes(data[start : start + 2])
        end = start + length
        if length < 2 or end > len(data):
            break
        position = end
        if marker == _SOS:
            following = _NEXT_MARKER.search(data, end)
            if not following:
                break
            position = following.start()
        yield Segment(marker, data[start + 2 : end], data[match.start() : position])
    raise Truncated(
        f"The JPEG ends at byte {len(data):,} without its end marker: part of it is missing. "
        "Copy it again from its source."
    )


def _frame(marker: int, body: bytes) -> Frame:
    if marker not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        raise Unsupported(
            f"The JPEG is of the kind SOF{marker - 0xC0} (lossless, hierarchical or arithmetic); "
            "baseline, extended and progressive are read. Save it as one of these, or as PNG."
        )
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise _damaged("has a frame header that is too short")
    precision, height, width, count = struct.unpack_from(">BHHB", body)
    check_pixels(height, width)
    if precision != 8:
        raise Unsupported(f"The JPEG has {precision} bits; 8 are read. Save it as 16-bit PNG.")
    if count not in (1, 3):
        raise Unsupported(
            f"The JPEG has {count} channels (CMYK or YCCK has 4); grey and RGB are read. "
            "Convert it to RGB."
        )
    if height == 0:
        raise Unsupported("The JPEG does not say its height (DNL). Save it again.")
    components = tuple(body[6 : 6 + 3 * count : 3])
    return Frame(marker == _PROGRESSIVE, (height, width), components)


def _scan(segment: Segment, frame: Frame) -> Segment:
    """Check a scan's header; in a sequential file its last three bytes mean nothing: B.2.3."""
    body = segment.body
    if not body or not 1 <= body[0] <= len(frame.components) or len(body) != 4 + 2 * body[0]:
        raise _damaged("has a scan header of the wrong length")
    if not set(_scanned(segment)) <= set(frame.components):
        raise _damaged("has a scan of a channel that its frame header does not name")
    if frame.progressive or body.endswith(_SEQUENTIAL):
        return segment
    return Segment.of(_SOS, body[:-3] + _SEQUENTIAL, segment.coded)


def _scanned(scan: Segment) -> tuple[int, ...]:
    return tuple(scan.body[1 : 1 + 2 * scan.body[0] : 2])


def _check_complete(frame: Frame, scans: list[Segment]) -> None:
    """Every coefficient of every channel was sent down to its last bit: G.1.1.1.

    A file cut between two scans, with an end marker appended, decodes without a warning.
    """
    if len(scans) > _MAX_SCANS:
        raise Unsupported(f"The JPEG has {len(scans)} scans; at most {_MAX_SCANS} are decoded.")
    missing = dict.fromkeys(frame.components, 2**64 - 1)  # one bit for each coefficient
    for scan in scans:
        first, last, bits = scan.body[-3:]
        if bits & 15 == 0:
            sent = 2 ** (last + 1) - 2**first if first <= last else 0
            for component in _scanned(scan):
                missing[component] &= ~sent
    if any(missing.values()):
        raise Truncated(
            f"The JPEG has {len(scans)} scans, which is not all of them: it was cut. "
            "Copy it again from its source."
        )


def _pixels(segments: list[Segment], form: Form) -> NDArray:
    try:
        return _strict(segments, form)
    except ValueError as error:
        if "extraneous bytes before marker 0xd9" not in str(error):
            raise _damaged(f"cannot be decoded whole ({error})") from error
    # Some encoders pad the last scan. Without the padding it must be whole, and nothing over.
    last = segments[-1]
    coded = last.coded.rstrip(_PADDING)
    coded += b"\0" if coded.endswith(b"\xff") else b""  # that zero was the byte stuffing
    try:
        return _strict([*segments[:-1], Segment.of(_SOS, last.body, coded)], form)
    except ValueError as error:
        raise _damaged(f"cannot be decoded whole ({error})") from error


def _strict(segments: list[Segment], form: Form) -> NDArray:
    parts = (b"\xff\xd8", *[segment.encoded for segment in segments], b"\xff\xd9")
    return simplejpeg.decode_jpeg(
        b"".join(parts), form.color, min_height=form.rows, min_width=form.columns, strict=True
    )


def _damaged(problem: str) -> Truncated:
    return Truncated(f"The JPEG {problem}: it is damaged. Copy it again from its source.")
