"""Encoded frames: found in PixelData, checked to be whole, and decoded. PS3.5 annex A.4.

What a codestream declares is compared with the header before anything is decoded, and one that was
cut is an error: decoders fill with grey what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge import native_stderr
from medimg_edge.dicom import isolated, rle
from medimg_edge.dicom.damage import damaged
from medimg_edge.dicom.pixels import Layout, used_bits
from medimg_edge.errors import DicomInvalid, DicomTransferSyntax, Truncated

if TYPE_CHECKING:
    from pydicom import FileDataset
    from pydicom.uid import UID

_RLE = "1.2.840.10008.1.2.5"
_JPEG = frozenset(f"1.2.840.10008.1.2.4.{each}" for each in (50, 51, 57, 70))
_JPEG_LS = frozenset(f"1.2.840.10008.1.2.4.{each}" for each in (80, 81))
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{each}" for each in (90, 91, 201, 202, 203))
SYNTAXES = _JPEG | _JPEG_LS | _JPEG_2000 | {_RLE}
"""The transfer syntaxes whose frames are encoded: RLE, JPEG, JPEG-LS, JPEG 2000 and HTJ2K."""

_FAMILIES = {
    "JPEG": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
}
_PLUGINS = ("gdcm", "pyjpegls", "pylibjpeg")
"""pydicom's, in the order in which they are tried. Pillow's gives JPEG 2000 other values."""
_FRAGMENTS = 2**16
"""So many more than there are frames: those of a frame that was written in parts."""
_SCANS = 64
_END = b"\xff\xd9"
_SEQUENTIAL, _LOSSLESS, _LS = frozenset({0xC0, 0xC1}), frozenset({0xC3}), frozenset({0xF7})
_SOF = {
    **{f"1.2.840.10008.1.2.4.{each}": _SEQUENTIAL for each in (50, 51)},
    **{f"1.2.840.10008.1.2.4.{each}": _LOSSLESS for each in (57, 70)},
    **{f"1.2.840.10008.1.2.4.{each}": _LS for each in (80, 81)},
}
"""The frame headers of each transfer syntax: PS3.5 annex A.4. Progressive ones are of none."""
_EVERY_SOF = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_SOS, _SIZ, _SOT = 0xDA, 0x51, 0x90
_SCAN = bytes((0xFF, _SOS))


class Declared(NamedTuple):
    """What a codestream says of its picture. signed: of JPEG 2000 alone.

    predictor: of lossless JPEG, else 0.
    """

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool = False
    predictor: int = 0


class Decoded(NamedTuple):
    """(H, W, samples) as the decoder returned it, and the photometric interpretation of that."""

    values: NDArray
    photometric: str
    warnings: tuple[str, ...] = ()


def decodable() -> list[str]:
    """The compressions for which this machine has a decoder."""
    return ["RLE", *[name for name, syntax in _FAMILIES.items() if _plugins(syntax)]]


def frame(dataset: FileDataset, layout: Layout, number: int) -> Decoded:
    """Decode frame ``number``, from 0: uint8, uint16, int8 or int16.

    Raises DicomInvalid, Truncated, DicomTransferSyntax (no decoder for it is installed).
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    encoded = _encoded(dataset, layout, number)
    if syntax == _RLE:
        return Decoded(used_bits(rle.decode(encoded, layout), layout), layout.photometric)
    if syntax in _JPEG_2000:
        encoded = _without_boxes(encoded)
    declared = _jpeg_2000(encoded) if syntax in _JPEG_2000 else _jpeg(encoded, _SOF[syntax])
    _check(declared, layout)
    if syntax in _JPEG:
        decoded = _by_gdcm(encoded, syntax, layout)
        _check_predictor(declared, decoded.values)
        return decoded
    with native_stderr.captured():
        decoded = _by_pydicom(encoded, syntax, layout)
    if declared.signed and not layout.signed:
        values = decoded.values.view(f"i{decoded.values.itemsize}")
        warning = "PixelRepresentation says unsigned, and the JPEG 2000 data are signed: signed."
        return Decoded(values, decoded.photometric, (warning,))
    return decoded


def check_fragments(dataset: FileDataset, layout: Layout) -> None:
    """There are at least as many as frames, and not absurdly many. PS3.5 annex A.4.

    Raises DicomInvalid, Truncated.
    """
    element = dataset["PixelData"]
    if not element.is_undefined_length:
        raise DicomInvalid(
            "The transfer syntax says that the pixels are compressed, but they are plain."
        )
    count, position, data = -1, 0, element.value  # the first item is the Basic Offset Table
    while position < len(data) and count <= layout.frames + _FRAGMENTS:
        if data[position : position + 4] != b"\xfe\xff\x00\xe0":
            raise damaged("are interrupted")
        position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        count += 1
    if position > len(data):
        raise damaged("end within a fragment")
    if count > layout.frames + _FRAGMENTS:
        raise DicomInvalid(
            f"PixelData (7FE0,0010) has more than {count - 1:,} fragments for {layout.frames} "
            "frames."
        )
    if count < layout.frames:
        raise Truncated(
            f"PixelData (7FE0,0010) has {count} compressed frames of {layout.frames}: part of the "
            "image is missing. Copy it again."
        )


def _encoded(dataset: FileDataset, layout: Layout, number: int) -> bytes:
    from pydicom.encaps import get_frame

    offsets = None
    if "ExtendedOffsetTable" in dataset:
        offsets = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    data = dataset.PixelData
    return get_frame(data, number, number_of_frames=layout.frames, extended_offsets=offsets)


def _jpeg(encoded: bytes, accepted: frozenset[int]) -> Declared:
    """The frame header of JPEG (ITU-T T.81, B.2.2) and JPEG-LS (T.87, C.2.2)."""
    _check_end(encoded, b"\xff\xd8")
    declared = None
    for marker, body in _segments(encoded):
        if marker in _EVERY_SOF and len(body) >= 6:
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
            return declared._replace(predictor=body[-3] if accepted == _LOSSLESS else 0)
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


def _without_boxes(encoded: bytes) -> bytes:
    """The codestream in a JP2 file, which PS3.5 A.4.4 forbids and some write."""
    if encoded[4:8] != b"jP  ":
        return encoded
    return encoded[max(0, encoded.find(b"\xff\x4f\xff\x51")) :]


def _jpeg_2000(encoded: bytes) -> Declared:
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
        raise Truncated(
            "The JPEG 2000 data have no SIZ segment: they are damaged. Copy them again."
        )
    return declared


def _size(segment: bytes) -> Declared:
    if len(segment) < 37:
        raise damaged("have a short SIZ segment")
    width, height, left, top = (int.from_bytes(segment[at : at + 4]) for at in (2, 6, 10, 14))
    depth = segment[36]
    return Declared(
        height - top, width - left, int.from_bytes(segment[34:36]), (depth & 127) + 1, depth > 127
    )


def _check_end(encoded: bytes, start: bytes) -> None:
    """It begins and ends as a codestream does; padding may follow."""
    if not encoded.startswith(start):
        raise DicomInvalid(
            f"The compressed pixels begin with {encoded[:4]!r}, which is not what the transfer "
            "syntax says. Export the image again."
        )
    if not encoded[-8:].rstrip(b"\0\xff").endswith(_END[1:]) or _END not in encoded[-8:]:
        raise damaged("end without their end marker")


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
    if declared.bits > layout.bits_allocated:
        raise DicomInvalid(
            f"The compressed pixels have {declared.bits} bits; the header allocates "
            f"{layout.bits_allocated}."
        )


def _by_pydicom(encoded: bytes, syntax: UID, layout: Layout) -> Decoded:
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    if not (plugins := _plugins(syntax)):
        raise _no_decoder(f"{syntax.name} ({syntax})")
    frames, decoder = encapsulate([encoded], has_bot=False), get_decoder(syntax)
    options: dict[str, Any] = {
        "pixel_keyword": "PixelData",
        "number_of_frames": 1,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        # PS3.5 8.2.4: JPEG 2000 says itself how its components lie.
        "planar_configuration": int(layout.planar and syntax not in _JPEG_2000),
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
    }
    for plugin in plugins:
        try:
            values, meta = decoder.as_array(
                frames, index=0, raw=True, decoding_plugin=plugin, **options
            )
        except Exception:  # one that does not read it; the next may
            continue
        shape = layout.rows, layout.columns, layout.samples
        return Decoded(values.reshape(shape), str(meta["photometric_interpretation"]))
    raise damaged(f"cannot be decoded as {syntax.name}")


def _plugins(syntax: str) -> list[str]:
    from pydicom.pixels.decoders.base import get_decoder

    available = get_decoder(syntax).available_plugins
    return [each for each in _PLUGINS if each in available]


def _no_decoder(syntax: str) -> DicomTransferSyntax:
    return DicomTransferSyntax(
        f"The pixels are stored as {syntax}, and no decoder for that is installed: "
        "pip install 'medimg-edge[dicom]', or export the image uncompressed."
    )


def _by_gdcm(encoded: bytes, syntax: UID, layout: Layout) -> Decoded:
    if not isolated.available():
        raise _no_decoder(f"{syntax.name} ({syntax})")
    request = isolated.Request(
        syntax=str(syntax),
        rows=layout.rows,
        columns=layout.columns,
        samples=layout.samples,
        photometric=layout.photometric,
        allocated=layout.bits_allocated,
        stored=layout.bits_stored,
        signed=int(layout.signed),
        planar=int(layout.planar),
        bytes=len(encoded),
    )
    data, said = isolated.decode(encoded, request)
    _check_said(said)
    kind = f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}"
    cells = np.frombuffer(data, kind)
    shape = layout.rows, layout.columns, layout.samples
    if cells.size != np.prod(shape):
        raise damaged(f"cannot be decoded as {syntax.name}")
    return Decoded(cells.reshape(shape), layout.photometric)


def _check_said(said: list[str]) -> None:
    """GDCM's JPEG decoder says there alone that data are missing, and returns a picture."""
    for line in said:
        if "Corrupt JPEG data" in line and "extraneous bytes before marker 0xd9" not in line:
            raise damaged("lack data in the middle")
