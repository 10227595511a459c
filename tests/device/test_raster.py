"""PNG and JPEG, and what holds for every format; TIFF's own kinds are in test_raster_tiff.py."""

import io
import re
import struct
import subprocess
import sys
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from medimg_edge.errors import (
    InputEmpty,
    InputError,
    NotAnImage,
    TooLarge,
    Truncated,
    Unsupported,
)
from medimg_edge.image import Image, Range
from medimg_edge.raster import read_raster

RNG = np.random.default_rng(0)


def smooth(*shape: int) -> np.ndarray:
    noise = cv2.GaussianBlur(RNG.integers(0, 256, shape, np.uint8), (0, 0), 2)
    return cv2.normalize(noise, np.empty_like(noise), 0, 255, cv2.NORM_MINMAX)


GREY = smooth(40, 56)
RGB = smooth(40, 56, 3)
GREY16 = RNG.integers(0, 65536, (40, 56), np.uint16)
RGB16 = RNG.integers(0, 65536, (40, 56, 3), np.uint16)


def encode(suffix: str, pixels: np.ndarray, *parameters: int) -> bytes:
    pixels = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    return cv2.imencode(suffix, pixels, parameters)[1].tobytes()


def jpeg(pixels: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, depth, color, rows, *extra, stream=None) -> bytes:
    """A PNG from its filtered rows, or from a compressed stream as it is."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    stream = zlib.compress(rows) if stream is None else stream
    body = b"".join(extra) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def exif(orientation: int, order: str = "<") -> bytes:
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", 1) + entry + bytes(4)


def insert_jpeg_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body + data[2:]


PROGRESSIVE = jpeg(RGB, progressive=True)
WHOLE = {
    "png grey": encode(".png", GREY),
    "png rgb 16": encode(".png", RGB16),
    "jpeg grey": simplejpeg.encode_jpeg(GREY[..., np.newaxis], 90, "GRAY"),
    "jpeg rgb": jpeg(RGB, quality=90),
    "jpeg restarts": jpeg(RGB, restart_marker_blocks=2),
    "jpeg progressive": PROGRESSIVE,
    "tiff lzw": encode(".tiff", RGB),
    "tiff lzw 16": encode(".tiff", GREY16),
    "tiff deflate": encode(".tiff", GREY16, cv2.IMWRITE_TIFF_COMPRESSION, 8),
    "tiff plain": encode(".tiff", RGB16, cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "tiff packbits": encode(".tiff", GREY, cv2.IMWRITE_TIFF_COMPRESSION, 32773),
}
END = {"png": chunk(b"IEND", b""), "jpeg": b"\xff\xd9", "tiff": b"\xff" * 64}


@pytest.mark.parametrize("pixels", [GREY, RGB, GREY16, RGB16], ids=lambda p: f"{p.dtype}{p.shape}")
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_lossless_formats_return_what_was_written(suffix, pixels):
    image = read_raster(encode(suffix, pixels))
    assert image.frames.dtype == pixels.dtype
    assert np.array_equal(image.frames, pixels.reshape(1, 40, 56, -1))
    assert image.voi == Range(0, 255 if pixels.dtype == np.uint8 else 65535)
    assert image.source == suffix[1:]
    assert not image.inverted


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith("jpeg")])
def test_jpeg_equals_opencv(name):
    expected = cv2.imdecode(np.frombuffer(WHOLE[name], np.uint8), cv2.IMREAD_UNCHANGED)
    image = read_raster(WHOLE[name])
    assert expected is not None
    channels = 1 if expected.ndim == 2 else 3
    assert np.array_equal(image.frames[0], expected.reshape(40, 56, channels)[..., ::-1])
    assert (image.source, image.voi) == ("jpeg", Range(0, 255))


def test_jpeg_stored_as_rgb_keeps_its_colors():
    image = read_raster(jpeg(RGB, keep_rgb=True, quality=98))
    assert np.abs(image.frames[0].astype(int) - RGB).max() <= 4


LARGE = smooth(233, 310)
LARGE_RGB = smooth(233, 310, 3)
REDUCED = {
    1: (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR_RGB),
    2: (cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_COLOR_2),
    4: (cv2.IMREAD_REDUCED_GRAYSCALE_4, cv2.IMREAD_REDUCED_COLOR_4),
    8: (cv2.IMREAD_REDUCED_GRAYSCALE_8, cv2.IMREAD_REDUCED_COLOR_8),
}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("pixels", [LARGE, LARGE_RGB], ids=["grey", "colour"])
@pytest.mark.parametrize(
    ("needed", "parts"),
    [((117, 155), 1), ((116, 155), 2), ((116, 30), 2), ((59, 77), 2), ((58, 77), 4), ((29, 38), 8)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_jpeg_is_decoded_no_larger_than_needed(needed, parts, channels, pixels, options):
    data = jpeg(pixels, quality=90, **options)
    grey, color = REDUCED[parts]
    is_grey = channels == 1 or pixels.ndim == 2
    expected: Any = cv2.imdecode(np.frombuffer(data, np.uint8), grey if is_grey else color)
    found = read_raster(data, (*needed, channels)).frames[0]
    assert found.shape[:2] == (-(-233 // parts), -(-310 // parts))
    if is_grey:
        assert np.array_equal(found[..., 0], expected)
    else:
        assert np.array_equal(found, expected[..., ::-1] if parts > 1 else expected)


def test_what_is_needed_is_of_the_picture_as_it_is_shown():
    turned = insert_jpeg_segment(jpeg(LARGE), 0xE1, b"Exif\0\0" + exif(6))
    assert read_raster(turned, (155, 116, 1)).size == (155, 117)
    assert read_raster(turned, (116, 155, 1)).size == (310, 233)


def test_a_jpeg_stored_as_rgb_gives_its_luma():
    data = jpeg(LARGE_RGB, keep_rgb=True, quality=98)
    luma = cv2.cvtColor(read_raster(data).frames[0], cv2.COLOR_RGB2GRAY)
    found = read_raster(data, (233, 310, 1)).frames[0, ..., 0]
    assert np.abs(found.astype(int) - luma).max() <= 1


@pytest.mark.parametrize("cut", [200, -40, -3])
def test_a_cut_jpeg_is_refused_however_little_is_needed(cut):
    data = jpeg(LARGE, quality=90)
    with pytest.raises(Truncated):
        read_raster(data[:cut] + END["jpeg"], (16, 16, 1))


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 8, 9]))
HALF_SEEN = chunk(b"tRNS", b"\x80\x00")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(8, 1, 1, 0, b"\0\x1b"), [0, 0, 0, 255, 255, 0, 255, 255]),
        (png(4, 1, 2, 0, b"\0\x1b"), [0, 85, 170, 255]),
        (png(2, 1, 4, 0, b"\0\x1b"), [17, 187]),
        (png(4, 1, 2, 3, b"\0\x1b", PALETTE), [255, 0, 0, 0, 255, 0, 0, 0, 255, 7, 8, 9]),
        (png(2, 1, 8, 3, b"\0\0\3", PALETTE, HALF_SEEN), [255, 0, 0, 7, 8, 9]),
        (png(2, 1, 8, 4, b"\0\1\0\3\xff"), [1, 3]),
        (png(2, 1, 16, 4, b"\0\1\2\0\0\3\4\1\1"), [0x0102, 0x0304]),
        (png(2, 1, 8, 6, b"\0\1\2\3\0\5\6\7\xff"), [1, 2, 3, 5, 6, 7]),
        (png(2, 1, 16, 0, b"\0\1\2\3\4", chunk(b"tRNS", b"\1\2")), [0x0102, 0x0304]),
        (png(2, 1, 8, 0, b"\0\1\2", chunk(b"gAMA", struct.pack(">I", 100000))), [1, 2]),
        (png(2, 1, 8, 0, b"\0\1\2") + b"what follows the end", [1, 2]),
    ],
)
def test_png_kinds(data, expected):
    assert read_raster(data).frames.ravel().tolist() == expected


TURNED = {  # of [[0, 1, 2], [3, 4, 5]]
    1: [[0, 1, 2], [3, 4, 5]],
    2: [[2, 1, 0], [5, 4, 3]],
    3: [[5, 4, 3], [2, 1, 0]],
    4: [[3, 4, 5], [0, 1, 2]],
    5: [[0, 3], [1, 4], [2, 5]],
    6: [[3, 0], [4, 1], [5, 2]],
    7: [[5, 2], [4, 1], [3, 0]],
    8: [[2, 5], [1, 4], [0, 3]],
    9: [[0, 1, 2], [3, 4, 5]],  # not defined
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("orientation", "expected"), TURNED.items())
def test_orientation_is_applied_once(orientation, expected, order):
    block = exif(orientation, order)
    upright = png(3, 2, 8, 0, b"\0\0\1\2\0\3\4\5", chunk(b"eXIf", block))
    assert read_raster(upright).frames[0, ..., 0].tolist() == expected
    blocks = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((8, 8), np.uint8))
    plain = simplejpeg.encode_jpeg(blocks[..., np.newaxis], 100, "GRAY")
    photo = read_raster(insert_jpeg_segment(plain, 0xE1, b"Exif\0\0" + block))
    assert np.rint(photo.frames[0, 4::8, 4::8, 0] / 40).tolist() == expected


@pytest.mark.parametrize("length", range(8, 26))
def test_damaged_exif_leaves_the_picture_as_stored(length):
    data = insert_jpeg_segment(WHOLE["jpeg grey"], 0xE1, b"Exif\0\0" + exif(6)[:length])
    assert read_raster(data).size in ((40, 56), (56, 40))


# -- Nothing comes from a part of a file -----------------------------------------------------


@pytest.mark.parametrize("name", WHOLE)
def test_no_answer_from_a_truncated_file(name):
    data = WHOLE[name]
    assert isinstance(read_raster(data), Image)
    cuts = {*np.linspace(1, len(data) - 1, 60).astype(int), *range(len(data) - 8, len(data))}
    for cut in sorted(cuts):
        for end in (b"", END[name.split()[0]]):
            if name.startswith("jpeg") and end and cut >= len(data) - 2:
                continue  # all of the image, and its end marker
            with pytest.raises(InputError) as caught:
                read_raster(data[:cut] + end)
            if cut > 16 and end != END["tiff"]:
                assert isinstance(caught.value, Truncated), (cut, caught.value)


@pytest.mark.parametrize("data", [PROGRESSIVE, jpeg(GREY, progressive=True)], ids=["rgb", "grey"])
def test_progressive_jpeg_cut_between_scans(data):
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 3
    for start in scans[1:]:
        assert simplejpeg.decode_jpeg(data[:start] + b"\xff\xd9", strict=True).any()  # the trap
        with pytest.raises(Truncated, match="not all of them"):
            read_raster(data[:start] + b"\xff\xd9")


@pytest.mark.parametrize("kept", [0, 1, 2, 20, 0.5, 0.99, -5, -4, -1])
def test_png_whose_stream_is_cut_and_wrapped_anew(kept):
    stream = zlib.compress(b"".join(b"\0" + row.tobytes() for row in GREY))
    stop = int(kept * len(stream)) if isinstance(kept, float) else kept
    with pytest.raises(Truncated):
        read_raster(png(56, 40, 8, 0, b"", stream=stream[:stop]))


def test_png_with_too_few_rows():
    with pytest.raises(Truncated):
        read_raster(png(56, 40, 8, 0, b"".join(b"\0" + row.tobytes() for row in GREY[:20])))


def test_png_with_a_wrong_checksum():
    data = bytearray(WHOLE["png grey"])
    data[len(data) // 2] ^= 1
    with pytest.raises(Truncated, match="checksum"):
        read_raster(bytes(data))


# -- Peculiar, but whole ---------------------------------------------------------------------


def peculiar_jpegs():
    plain = WHOLE["jpeg grey"]
    tables, scan = plain.index(b"\xff\xdb"), plain.index(b"\xff\xda")
    version = plain.index(b"JFIF\0") + 5
    yield "bytes after the end", plain + b"more" * 100
    yield "bytes between segments", plain[:tables] + b"\0\0ab" + plain[tables:]
    yield "fill before a marker", plain[:tables] + b"\xff\xff" + plain[tables:]
    yield "JFIF 2.01", plain[:version] + b"\2" + plain[version + 1 :]
    yield "scan without its end", plain[: scan + 8] + b"\0" + plain[scan + 9 :]
    yield "comment", insert_jpeg_segment(plain, 0xFE, b"\xff\xd9 looks like an end")
    yield "thumbnail", insert_jpeg_segment(plain, 0xE1, b"Exif\0\0" + jpeg(GREY)[:500])
    for padding in (b"\0" * 9, b"\r\n\r\n", b"\xff"):
        yield f"padding {padding!r}", plain[:-2] + padding + b"\xff\xd9"


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in peculiar_jpegs()])
def test_harmless_peculiarities_of_jpeg(data):
    assert np.array_equal(read_raster(data).frames, read_raster(WHOLE["jpeg grey"]).frames)


def test_jpeg_with_more_data_than_pixels():
    data = WHOLE["jpeg grey"]
    with pytest.raises(Truncated, match="extraneous"):
        read_raster(data[:-2] + b"\x12\x34\x56\x78" * 8 + b"\xff\xd9")


# -- Refused ---------------------------------------------------------------------------------

FRAME = WHOLE["jpeg grey"].index(b"\xff\xc0")


def jpeg_frame(marker: int, precision: int = 8) -> bytes:
    data = bytearray(WHOLE["jpeg grey"])
    data[FRAME + 1], data[FRAME + 4] = marker, precision
    return bytes(data)


ANIMATION = chunk(b"acTL", struct.pack(">II", 2, 0))


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", InputEmpty, "0 bytes"),
        (b"not a picture at all", NotAnImage, "PNG, JPEG, TIFF or DICOM"),
        (b"GIF89a" + bytes(50), NotAnImage, "is a GIF"),
        (b"\x89PNG\r\n\x1a\n", Truncated, "end chunk"),
        (png(2, 1, 8, 0, b"\0\1\2", ANIMATION), Unsupported, "animation"),
        (png(2, 1, 8, 0, b"\0\1\2", chunk(b"CgBI", b"")), Unsupported, "unknown kind"),
        (png(2, 1, 7, 0, b"\0\1\2"), Truncated, "damaged"),
        (png(0, 1, 8, 0, b"\0"), Truncated, "damaged"),
        (jpeg_frame(0xC3), Unsupported, "SOF3"),
        (jpeg_frame(0xC9), Unsupported, "SOF9"),
        (jpeg_frame(0xC1, 12), Unsupported, "12 bits"),
        (b"\xff\xd8\xff\xd9", Truncated, "no frame header"),
    ],
)
def test_refused(data, error, says):
    with pytest.raises(error, match=re.escape(says)):
        read_raster(data)


def test_cmyk_jpeg():
    file = io.BytesIO()
    Pillow.fromarray(np.zeros((16, 16, 4), np.uint8), "CMYK").save(file, "JPEG")
    with pytest.raises(Unsupported, match="4 channels"):
        read_raster(file.getvalue())


def test_jpeg_of_thousands_of_scans():
    scan = PROGRESSIVE.rindex(b"\xff\xda")
    with pytest.raises(Unsupported, match="scans"):
        read_raster(PROGRESSIVE[:-2] + PROGRESSIVE[scan:-2] * 1000 + b"\xff\xd9")


HUGE = """
import resource, sys, struct, zlib
from medimg_edge.errors import TooLarge
from medimg_edge.raster import read_raster

def peak():  # of this program alone: ru_maxrss keeps that of the process before exec
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

squeeze = zlib.compressobj(9)
stream = b"".join(squeeze.compress(bytes(10**6)) for _ in range(100)) + squeeze.flush()
header = struct.pack(">IIBBBBB", 50000, 50000, 8, 0, 0, 0, 0)
chunks = chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
png = b"\\x89PNG\\r\\n\\x1a\\n" + chunks
assert len(png) < 120_000
try:
    read_raster(png)
except TooLarge as error:
    print(peak() // 1024, error)
"""


def test_50000_by_50000_is_refused_in_little_memory():
    run = subprocess.run([sys.executable, "-c", HUGE], capture_output=True, text=True, check=True)
    megabytes, message = run.stdout.split(maxsplit=1)
    assert int(megabytes) < 300
    assert "50000 x 50000" in message
    assert not run.stderr


def test_opencv_has_a_limit_of_its_own():
    program = (
        "import medimg_edge.raster, cv2, numpy as np\n"
        "data = cv2.imencode('.png', np.zeros((8193, 8193), np.uint8))[1]\n"
        "cv2.imdecode(data, cv2.IMREAD_UNCHANGED)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "CV_IO_MAX_IMAGE_PIXELS" in run.stderr


@pytest.mark.parametrize("suffix", [".jpg", ".tiff"])
def test_other_formats_are_refused_by_their_header(suffix):
    data = bytearray(encode(suffix, GREY))
    if suffix == ".jpg":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 50000, 50000)
    else:
        for tag in (256, 257):
            entry = data.index(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0])
            data[entry : entry + 12] = struct.pack("<HHII", tag, 4, 1, 50000)
    with pytest.raises(TooLarge, match="50000 x 50000"):
        read_raster(bytes(data))


# -- Whatever comes in -----------------------------------------------------------------------

EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=6)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), EDITS, st.booleans())
def test_mutations_give_an_image_or_our_error(name, edits, early):
    """Bytes overwritten anywhere, or (early) within the first 200, where the headers are."""
    data = bytearray(WHOLE[name])
    for place, replacement in edits:
        start = int(place * (200 if early else len(data)))
        data[start : start + len(replacement)] = replacement
    try:
        image = read_raster(bytes(data))
    except InputError:
        return
    assert image.frames.ndim == 4
    assert image.frames.dtype in (np.uint8, np.uint16)
