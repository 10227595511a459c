"""Files made to harm: bombs, cut files, and mutations of real files of every transfer syntax."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO

import cv2
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate, generate_fragments
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medimg_edge.dicom.read import DicomFile
from medimg_edge.errors import InputError
from tests.device.dicom_collection import marks, path

SECONDS, MEGABYTES = 2, 300
READ = """
import resource, sys
from medimg_edge.dicom.read import read_dicom
from medimg_edge.errors import InputError
data = sys.stdin.buffer.read()
before = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
try:
    found = read_dicom(data, frame=1).frames.shape
except InputError as error:
    found = type(error).__name__
print(found, sum(resource.getrusage(resource.RUSAGE_SELF)[:2]) - before)
with open("/proc/self/status") as status:  # ru_maxrss keeps that of the process before exec
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""


def file(syntax: str, pixels: bytes, **elements) -> bytes:
    """An image of 100 x 100 and eight bits; ``elements`` adds or replaces."""
    dataset = Dataset()
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows = dataset.Columns = 100
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelRepresentation = 0
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = UID(syntax).is_compressed and "99" not in syntax
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    written = BytesIO()
    dataset.save_as(written, enforce_file_format=True)
    return written.getvalue()


# -- Bombs -----------------------------------------------------------------------------------


def deflated(block: bytes, times: int, head: bytes = b"") -> bytes:
    """A deflated data set of ``head`` and so many blocks."""
    whole = file(DeflatedExplicitVRLittleEndian, bytes(10000))
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    first = squeeze.compress(head or block) + squeeze.flush(zlib.Z_FULL_FLUSH)
    again = squeeze.compress(block) + squeeze.flush(zlib.Z_FULL_FLUSH)
    return whole[:start] + first + again * times + squeeze.flush()


def jpeg_2000(width: int, height: int, tile: int | None = None) -> bytes:
    """The codestream of a grey picture with its size changed: SIZ, ITU-T T.800 A.5.1."""
    written, encoded = cv2.imencode(".jp2", np.zeros((100, 100), np.uint8))
    assert written
    data = encoded.tobytes()
    data = bytearray(data[data.find(b"\xff\x4f\xff\x51") :])
    data[8:16] = struct.pack(">II", width, height)
    data[24:32] = struct.pack(">II", tile or width, tile or height)
    return bytes(data)


def jpeg(width: int, height: int) -> bytes:
    written, encoded = cv2.imencode(".jpg", np.zeros((100, 100), np.uint8))
    assert written
    data = bytearray(encoded.tobytes())
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg_of_many_scans() -> bytes:
    """Progressive, and its last scan once more and once more: each goes over the whole picture."""
    noise = np.random.default_rng(0).integers(0, 255, (25, 25), np.uint8)
    picture = cv2.resize(noise, (4000, 4000), interpolation=cv2.INTER_NEAREST)
    written, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert written
    data = encoded.tobytes()
    scan = data[data.rfind(b"\xff\xc4") : -2]  # with the table that it needs
    return data[:-2] + scan * (20_000_000 // len(scan)) + data[-2:]


def jpeg_ls(width: int, height: int) -> bytes:
    frame = b"\xff\xf7" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    scan = b"\xff\xda\0\x08\x01\x01\0\0\0\0"
    return b"\xff\xd8" + frame + scan + bytes(64) + b"\xff\xd9"


def rle(segments: int, size: int) -> bytes:
    """Runs of 128 zeros."""
    header = struct.pack("<16I", segments, *(64 + size * at for at in range(15)))
    return header + b"\x81\0" * (segments * size // 2)


def rle_of_two(size: int) -> bytes:
    """The first of two segments is right."""
    first = b"\x81\0" * 79
    header = struct.pack("<16I", 2, 64, 64 + len(first), *[0] * 13)
    return header + first + b"\x81\0" * (size // 2)


def before_pixels(elements: bytes) -> bytes:
    whole = file(ExplicitVRLittleEndian, bytes(10000))
    at = pixels_at(whole)
    return whole[:at] + elements + whole[at:]


def nested(depth: int) -> bytes:
    """Sequences of undefined length, one in another."""
    sequence = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    return before_pixels(sequence * depth)


def table(count: int, data: bytes, vr: str = "OW") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [count, 0, 16])
    item.add_new("LUTData", vr, data)
    return item


def palette(**data: bytes) -> bytes:
    elements: dict[str, object] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [65535, 0, 16]
        for keyword, value in data.items():
            elements[keyword.format(color)] = value
    return file(ExplicitVRLittleEndian, bytes(10000), **elements)


def segments(count: int) -> bytes:
    """A segmented palette of so many lines of 65,535 entries: PS3.3 C.7.9.2.2."""
    keyword = "Segmented{}PaletteColorLookupTableData"
    return palette(**{keyword: struct.pack("<HHH", 0, 1, 0) + b"\x01\0\xff\xff\xff\xff" * count})


def indirect(depth: int) -> bytes:
    """Each segment repeats the two before it: as many entries as two to the power of that."""
    data = struct.pack("<HHH", 0, 1, 0) * 2
    for at in range(depth):
        offset = 6 + 8 * max(0, at - 1)
        data += struct.pack("<HHI", 2, 2, offset)
    return palette(**{"Segmented{}PaletteColorLookupTableData": data})


BIG = {"Rows": 40000, "Columns": 40000}
ELEMENT = b"\x09\0\x01\x10LO\0\0"  # empty, eight bytes


BOMBS: dict[str, Callable[[], bytes]] = {
    "deflated 4 GB of zeros": lambda: deflated(bytes(10**7), 400),
    "deflated 4 GB in one element": lambda: deflated(
        bytes(10**7), 400, b"\x09\0\x01\x10OB\0\0\0\0\0\xf0"
    ),
    "deflated small elements": lambda: deflated(ELEMENT * 10**6, 12),
    "deflated sequences": lambda: deflated(
        (b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0") * 10**5, 30
    ),
    "RLE of 40,000 x 40,000": lambda: file(
        RLELossless, encapsulate([rle(1, 25_000_000)], has_bot=False), **BIG
    ),
    "plain small elements": lambda: before_pixels(ELEMENT * 2 * 10**6),
    "RLE whose second segment becomes more": lambda: file(
        RLELossless,
        encapsulate([rle_of_two(25_000_000)], has_bot=False),
        BitsAllocated=16,
        BitsStored=16,
        HighBit=15,
    ),
    "RLE that becomes more than it says": lambda: file(
        RLELossless, encapsulate([rle(1, 25_000_000)], has_bot=False)
    ),
    "two thousand million plain frames": lambda: file(
        ExplicitVRLittleEndian, bytes(10000), NumberOfFrames=2 * 10**9
    ),
    "two thousand million RLE frames": lambda: file(
        RLELossless, encapsulate([rle(1, 158)], has_bot=False), NumberOfFrames=2 * 10**9
    ),
    "a million fragments": lambda: file(
        JPEGBaseline8Bit, bytes.fromhex("feff00e000000000") * 10**6
    ),
    "plain 40,000 x 40,000": lambda: file(ExplicitVRLittleEndian, bytes(10000), **BIG),
    "a length of 4 GB": lambda: file(ExplicitVRLittleEndian, bytes(9998)).replace(
        struct.pack("<I", 9998), b"\xfe\xff\xff\xff"
    ),
    "JPEG 2000 of 40,000 x 40,000": lambda: file(
        JPEG2000Lossless, encapsulate([jpeg_2000(40000, 40000)])
    ),
    "JPEG 2000 of 40,000 x 40,000, header too": lambda: file(
        JPEG2000, encapsulate([jpeg_2000(40000, 40000)]), **BIG
    ),
    "HTJ2K of 40,000 x 40,000": lambda: file(HTJ2K, encapsulate([jpeg_2000(40000, 40000)])),
    "JPEG 2000 with a second SIZ": lambda: file(JPEG2000, encapsulate([two_sizes()])),
    "JPEG 2000 in tiles of one pixel": lambda: file(
        JPEG2000, encapsulate([jpeg_2000(8000, 8000, 1)]), Rows=8000, Columns=8000
    ),
    "JPEG of 40,000 x 40,000": lambda: file(JPEGBaseline8Bit, encapsulate([jpeg(40000, 40000)])),
    "JPEG of 12 bits of 40,000 x 40,000": lambda: file(
        JPEGExtended12Bit, encapsulate([jpeg(40000, 40000)])
    ),
    "JPEG lossless of 40,000 x 40,000": lambda: file(
        JPEGLosslessSV1, encapsulate([jpeg(40000, 40000)])
    ),
    "JPEG of a hundred thousand scans": lambda: file(
        JPEGBaseline8Bit, encapsulate([jpeg_of_many_scans()]), Rows=4000, Columns=4000
    ),
    "JPEG-LS of 40,000 x 40,000": lambda: file(
        JPEGLSLossless, encapsulate([jpeg_ls(40000, 40000)])
    ),
    "a VOI LUT of 65,536 entries without them": lambda: file(
        ExplicitVRLittleEndian, bytes(10000), VOILUTSequence=[table(0, bytes(2))]
    ),
    "a modality LUT of 65,536 entries without them": lambda: file(
        ExplicitVRLittleEndian, bytes(10000), ModalityLUTSequence=[table(0, bytes(2))]
    ),
    "a palette without entries": palette,
    "a palette of a few entries": partial(palette, **{"{}PaletteColorLookupTableData": bytes(2)}),
    "a palette of a million long segments": lambda: segments(10**6),
    "a palette of segments that repeat each other": lambda: indirect(40),
    "sequences nested 100,000 deep": lambda: nested(100_000),
}


def two_sizes() -> bytes:
    """The picture's own SIZ says 40,000 x 40,000; another behind it what the header says."""
    large, small = jpeg_2000(40000, 40000), jpeg_2000(100, 100)
    length = 2 + int.from_bytes(large[4:6])
    return large[: 2 + length] + small[2 : 2 + length] + large[2 + length :]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name):
    done = subprocess.run(
        [sys.executable, "-c", READ], input=BOMBS[name](), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (found, seconds), (peak,) = (line.split() for line in done.stdout.decode().splitlines())
    assert found in ("TooLarge", "DicomInvalid", "Truncated", "Unsupported"), found
    assert float(seconds) < SECONDS
    assert int(peak) < MEGABYTES


# -- Truncated -------------------------------------------------------------------------------

SEEDS = {
    "implicit": "MR_small_implicit.dcm",
    "explicit": "MR_small.dcm",
    "big endian": "MR_small_bigendian.dcm",
    "deflated": "image_dfl.dcm",
    "RLE": "MR_small_RLE.dcm",
    "RLE, colour, frames": "SC_rgb_rle_16bit_2frame.dcm",
    "JPEG": "SC_rgb_jpeg_lossy_gdcm.dcm",
    "JPEG, colour": "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "JPEG, frames": "examples_ybr_color.dcm",
    "JPEG of 12 bits": "JPGExtended.dcm",
    "JPEG lossless": "SC_rgb_jpeg_gdcm.dcm",
    "JPEG lossless of 16 bits": "NM/pydicom-data__JPEG-LL.dcm",
    "JPEG-LS": "MR_small_jpeg_ls_lossless.dcm",
    "JPEG-LS near-lossless": "JPEGLSNearLossless_16.dcm",
    "JPEG-LS, colour": "SC_rgb_jls_lossy_sample.dcm",
    "JPEG 2000 lossless": "MR_small_jp2klossless.dcm",
    "JPEG 2000": "693_J2KI.dcm",
    "JPEG 2000 in boxes": "GDCMJ2K_TextGBR.dcm",
    "HTJ2K": "other/pydicom-data__HTJ2K_08_RGB.dcm",
}
ITEM, DELIMITER = b"\xfe\xff\0\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
each_seed = pytest.mark.parametrize(
    "name", [pytest.param(each, marks=marks(SEEDS[each])) for each in SEEDS]
)


def seed(name: str) -> bytes:
    return path(SEEDS[name]).read_bytes()


def pixels_at(data: bytes) -> int:
    """Where the element of the pixels begins."""
    return max(data.rfind(b"\xe0\x7f\x10\0"), data.rfind(b"\x7f\xe0\0\x10"))


def last_item(data: bytes) -> tuple[bytes, bytes]:
    """Of encapsulated pixels: what is before the last item's length, and its codestream."""
    *_, last = generate_fragments(dcmread(BytesIO(data))["PixelData"].value)
    start = data.rfind(last)
    assert data[start - 8 : start - 4] == ITEM
    marker = last.rfind(b"\xff\xd9", len(last) - 8)  # none in RLE
    return data[: start - 4], last[: marker + 2] if marker > 0 else last.rstrip(b"\0")


def pixels_end(data: bytes) -> int:
    """Behind the last byte that is not padding."""
    element = dcmread(BytesIO(data))["PixelData"]
    if not element.is_undefined_length:
        return data.rfind(element.value) + len(element.value)
    before, codestream = last_item(data)
    return len(before) + 4 + len(codestream)


def refused(data: bytes) -> bool:
    """With an error of ours, at the latest for one of its frames."""
    try:
        file = DicomFile(data)
        for number in range(1, file.frames + 1):
            file.image(number)
    except InputError:
        return True
    return False


def places(first: int, last: int) -> list[int]:
    """Ten between the two."""
    return [int(each) for each in np.linspace(first, last, 12)[1:-1]]


@each_seed
def test_nothing_is_answered_from_a_cut_file(name):
    """At every byte around the head of the pixels, within them, and just before their end."""
    data = seed(name)
    assert not refused(data)
    if name == "deflated":
        cuts = [*places(400, len(data)), *range(len(data) - 40, len(data) - 8)]  # 8 of padding
    else:
        at, end = pixels_at(data), pixels_end(data)
        cuts = [*range(at - 40, at + 40), *places(at, end), end - 3, end - 2, end - 1]
    for cut in cuts:
        assert refused(data[:cut]), cut


@each_seed
def test_only_what_is_behind_the_pixels_may_be_missing(name):
    """Their padding, the length of the delimiter (always 0), later elements: the same image."""
    data = seed(name)
    if name == "deflated":
        return
    whole = DicomFile(data).image(1).frames
    answered = 0
    for cut in range(pixels_end(data), len(data)):
        try:
            image = DicomFile(data[:cut]).image(1)
        except InputError:  # cut within the delimiter, or within a later element
            continue
        answered += 1
        assert np.array_equal(image.frames, whole), cut
    assert answered or pixels_end(data) == len(data)


ENCAPSULATED = [each for each in SEEDS if each[0] in "RJH"]
each_encapsulated = pytest.mark.parametrize(
    "name", [pytest.param(each, marks=marks(SEEDS[each])) for each in ENCAPSULATED]
)


@each_encapsulated
def test_nothing_is_answered_from_a_cut_frame(name):
    """Where what encloses the frame is whole: delimited, of its length, with an end marker."""
    before, frame = last_item(seed(name))
    for cut in [*places(0, len(frame) - 3), len(frame) - 5, len(frame) - 4, len(frame) - 3]:
        rest = frame[:cut]
        assert refused(before + len(frame).to_bytes(4, "little") + rest + DELIMITER), cut
        assert refused(before + item(rest) + DELIMITER), cut
        if not name.startswith("RLE"):
            assert refused(before + item(rest + b"\xff\xd9") + DELIMITER), cut


def item(value: bytes) -> bytes:
    """Its length and its value, padded to even."""
    value += b"\0" * (len(value) % 2)
    return len(value).to_bytes(4, "little") + value


# -- Mutations -------------------------------------------------------------------------------

# One or a few bytes of a real file; each of these ended or hung the process at one time.
FATAL = [
    ("JPGExtended.dcm", {3022: 0x01}),  # no table of quantization: GDCM aborts
    ("JPGExtended.dcm", {3022: 0xD3}),
    ("SC_rgb_dcmtk_+eb+cr.dcm", {1703: 0x01}),
    ("SC_rgb_jpeg_gdcm.dcm", {1349: 64, 1353: 2}),
    ("SC_rgb_jpeg_gdcm.dcm", {1352: 255, 1353: 255}),
    ("GDCMJ2K_TextGBR.dcm", {801: 0x0C}),  # a box of JP2 of no length: pydicom walks for ever
]


@pytest.mark.parametrize(("name", "changes"), FATAL)
def test_no_file_ends_or_holds_the_process(name, changes):
    data = bytearray(path(name).read_bytes())
    for at, byte in changes.items():
        data[at] = byte
    done = subprocess.run([sys.executable, "-c", READ], input=data, capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", [pytest.param(each, marks=marks(SEEDS[each])) for each in SEEDS])
def test_mutations_give_an_image_or_our_error(name, tmp_path):
    """In a process of their own, which a decoder may end; the input then lies in ``tmp_path``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.device.dicom_mutations", path(SEEDS[name]), tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-2000:], done.stderr[-4000:])
    tried, answered = map(int, done.stdout.split())
    assert tried > answered
