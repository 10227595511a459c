"""Frames in their fragments, and the sign and bits of what decoders give."""

import struct
from io import BytesIO

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from medimg_edge.dicom.read import DicomFile, read_dicom
from medimg_edge.errors import DicomInvalid, TooLarge

pytest.importorskip("openjpeg", reason="needs the extra dicom")


def dicom(pixel_data: bytes, syntax: UID, **elements) -> bytes:
    dataset = Dataset()
    usual = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": "1.2.3",
        "Modality": "DX",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 64,
        "Columns": 64,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "PixelRepresentation": 0,
        "PixelData": pixel_data,
    }
    for keyword, value in (usual | elements).items():
        setattr(dataset, keyword, value)
    dataset.HighBit = dataset.BitsStored - 1
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


# Sign and bits


def jpeg_2000(values: np.ndarray, bits: int, **elements) -> bytes:
    from openjpeg.utils import encode_array

    cells = values.astype(f"{values.dtype.kind}{1 if bits <= 8 else 2}")
    frame = encode_array(cells, bits_stored=bits, codec_format=0)
    usual = {"BitsStored": bits, "BitsAllocated": 8 * cells.itemsize}
    return dicom(encapsulate([bytes(frame)]), JPEG2000Lossless, **usual | elements)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("header", [0, 1])
@pytest.mark.parametrize("kind", ["i", "u"])
def test_signed_and_unsigned_jpeg_2000(bits, header, kind):
    """The values, and with a contradicting header a warning."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if kind == "i" else (0, 2**bits)
    values = np.random.default_rng(0).integers(low, high, (64, 64)).astype(f"{kind}4")
    values[0, :2] = low, high - 1
    image = read_dicom(jpeg_2000(values, bits, PixelRepresentation=header))
    disagree = (kind == "i") != bool(header)
    assert [("disagree" in warning) for warning in image.warnings] == [True] * disagree
    expected = values.astype(np.int64)
    if kind == "u" and header:  # the header's sign, in the bits that are there
        expected = np.where(expected < 2 ** (bits - 1), expected, expected - 2**bits)
    assert np.array_equal(image.frames[0, ..., 0].astype(np.int64), expected)


def test_more_bits_than_the_header_says_are_told():
    values = np.full((64, 64), 3000)
    values[0, 0] = 4095
    assert read_dicom(jpeg_2000(values.astype("u4"), 16, BitsStored=12)).warnings == ()
    values[0, 0] = 4096
    (warning,) = read_dicom(jpeg_2000(values.astype("u4"), 16, BitsStored=12)).warnings
    assert "more bits" in warning


def test_colours_that_contradict_the_header_are_told():
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    frame = cv2.imencode(".jpg", picture)[1].tobytes()  # JFIF: YCbCr
    colour = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "PlanarConfiguration": 0}
    for photometric, told in (("YBR_FULL_422", 0), ("RGB", 1)):
        elements = {**colour, "PhotometricInterpretation": photometric}
        image = read_dicom(dicom(encapsulate([frame]), JPEGBaseline8Bit, **elements))
        assert [("JPEG data say YBR" in each) for each in image.warnings] == [True] * told


def test_a_mosaic_of_tiles_is_refused():
    """A thousand bytes of which a decoder makes a gigabyte."""
    data = jpeg_2000(np.zeros((128, 128), "u4"), 8, Rows=128, Columns=128)
    tile = data.index(b"\xff\x4f\xff\x51") + 24  # XTsiz, YTsiz
    assert data[tile : tile + 8] == struct.pack(">II", 128, 128)
    with pytest.raises(TooLarge, match="16,384 tiles"):
        read_dicom(data[:tile] + struct.pack(">II", 1, 1) + data[tile + 8 :])


# Fragments

SHADES = (10, 20, 30)


def item(content: bytes) -> bytes:
    content += b"\0" * (len(content) % 2)
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(content)) + content


FRAMES = [
    cv2.imencode(".jpg", np.pad(np.full((64, 63), shade, np.uint8), ((0, 0), (1, 0))))[1].tobytes()
    for shade in SHADES
]
SIZES = [len(item(frame)) for frame in FRAMES]


def shades(table: list[int], fragments: list[bytes], frames: int = 3) -> list[int]:
    """Of the middle of each frame."""
    offsets = struct.pack(f"<{len(table)}I", *table)
    data = b"".join(map(item, [offsets, *fragments]))
    bits = {"BitsAllocated": 8, "BitsStored": 8}
    file = DicomFile(dicom(data, JPEGBaseline8Bit, NumberOfFrames=str(frames), **bits))
    return [int(file.image(at).frames[0, 32, 32, 0]) for at in range(1, frames + 1)]


@pytest.mark.parametrize(
    "table",
    [
        [],
        [0, SIZES[0], SIZES[0] + SIZES[1]],
        [0, SIZES[0] + SIZES[1], SIZES[0]],
        [0, SIZES[0] + SIZES[1]],
        [0, 0, 0],
    ],
)
def test_a_fragment_for_each_frame_needs_no_table(table):
    assert shades(table, FRAMES) == pytest.approx(SHADES, abs=1)


PARTS = [FRAMES[0][:200], FRAMES[0][200:], *FRAMES[1:]]
FIRST = len(item(PARTS[0])) + len(item(PARTS[1]))


@pytest.mark.parametrize("table", [[], [0, FIRST, FIRST + SIZES[1]]])
def test_frames_in_parts(table):
    assert shades(table, PARTS) == pytest.approx(SHADES, abs=1)


@pytest.mark.parametrize(
    ("table", "fragments"),
    [
        ([0, FIRST + SIZES[1], FIRST], PARTS),
        ([0, FIRST], PARTS),
        ([0, FIRST + 2, FIRST + SIZES[1]], PARTS),
        ([8, FIRST, FIRST + SIZES[1]], PARTS),
        ([], [FRAMES[2], *FRAMES]),
        ([], [b"\0\0", *FRAMES]),
    ],
)
def test_frames_that_nothing_tells_apart_are_not_mixed_up(table, fragments):
    with pytest.raises(DicomInvalid, match="nothing says reliably"):
        shades(table, fragments)


def test_too_many_frames():
    with pytest.raises(TooLarge, match=r"10,001 frames"):
        shades([], FRAMES, 10_001)
