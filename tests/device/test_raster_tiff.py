"""TIFF, written by hand, kind by kind."""

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_edge.errors import InputError, TooLarge, Truncated, Unsupported
from medimg_edge.raster import read_raster

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (37, 50), np.uint8)
GREY16 = RNG.integers(0, 65536, (37, 50), np.uint16)
RGB = RNG.integers(0, 256, (37, 50, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (37, 50, 3), np.uint16)


def tiff(
    pixels: np.ndarray,
    order: Literal["<", ">"] = "<",
    blocks: Sequence[np.ndarray] | None = None,
    squeeze: Callable[[bytes], bytes] = bytes,
    pages: int = 1,
    **tags: list[int] | None,
) -> bytes:
    """One IFD (or several alike); ``tags`` overrides by t<number>, None leaves one out."""
    values = pixels.reshape(*pixels.shape[:2], -1)
    height, width, samples = values.shape
    if blocks is None:
        blocks = [values]
    stored = [squeeze(block.astype(block.dtype.newbyteorder(order)).tobytes()) for block in blocks]
    sizes = [len(block) for block in stored]
    offsets = [8 + sum(sizes[:i]) for i in range(len(sizes))]
    fields = {
        256: [width],
        257: [height],
        258: [8 * values.itemsize] * samples,
        259: [1],
        262: [2 if samples >= 3 else 1],
        273: offsets,
        277: [samples],
        278: [height],
        279: sizes,
    } | {int(name[1:]): value for name, value in tags.items()}
    if 324 in fields:
        fields |= {273: None, 278: None, 279: None, 324: offsets, 325: sizes}
    fields = {tag: value for tag, value in sorted(fields.items()) if value is not None}
    body = b"".join(stored)
    body += b"\0" * (len(body) % 2)
    start = 8 + len(body)
    long_values = b""
    for page in range(pages):
        table = start + (2 + 12 * len(fields) + 4) * pages
        entries, long_values = b"", b""
        for tag, value in fields.items():
            packed = struct.pack(f"{order}{len(value)}I", *value)
            if len(value) > 1:
                entries += struct.pack(order + "HHII", tag, 4, len(value), table + len(long_values))
                long_values += packed
            else:
                entries += struct.pack(order + "HHI", tag, 4, 1) + packed
        following = 0 if page == pages - 1 else start + (2 + len(entries) + 4) * (page + 1)
        body += (
            struct.pack(order + "H", len(fields)) + entries + struct.pack(order + "I", following)
        )
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HI", 42, start) + body + long_values


def strips(pixels, rows):
    return [pixels[top : top + rows] for top in range(0, len(pixels), rows)]


def tiles(pixels, side):
    height, width = (-(-size // side) * side for size in pixels.shape[:2])
    padded = np.full((height, width, *pixels.shape[2:]), 77, pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return [
        padded[top : top + side, left : left + side]
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def planes(pixels):
    return [pixels[..., channel] for channel in range(pixels.shape[2])]


def steps(pixels):
    return np.diff(pixels, axis=1, prepend=np.zeros_like(pixels[:, :1]))


def with_alpha(pixels):
    values = pixels.reshape(*pixels.shape[:2], -1)
    return np.concatenate([values, np.full_like(values[..., :1], 3)], axis=-1)


TILED = {"t322": [16], "t323": [16], "t324": []}

ORDERS: tuple[Literal["<"], Literal[">"]] = ("<", ">")


def kinds():
    for name, pixels in {"grey": GREY, "grey16": GREY16, "rgb": RGB, "rgb16": RGB16}.items():
        for order in ORDERS:
            yield f"{name} {order}", pixels, tiff(pixels, order)
            differences = tiff(steps(pixels), order, squeeze=zlib.compress, t259=[8], t317=[2])
            yield f"{name} {order} differences", pixels, differences
            yield f"{name} {order} tiles", pixels, tiff(pixels, order, tiles(pixels, 16), **TILED)
        yield f"{name} strips", pixels, tiff(pixels, blocks=strips(pixels, 8), t278=[8])
        yield f"{name} alpha", pixels, tiff(with_alpha(pixels), t338=[2])
        whole_last = [*strips(pixels, 8)[:-1], np.vstack([pixels[-5:], pixels[:3]])]
        yield f"{name} whole last strip", pixels, tiff(pixels, blocks=whole_last, t278=[8])
        yield f"{name} endless rows", pixels, tiff(pixels, t278=[2**32 - 1])
        yield f"{name} thumbnail", pixels, tiff(pixels, t254=[0])
    for pixels in (RGB, RGB16):
        for order in ORDERS:
            yield f"planes {order}", pixels, tiff(pixels, order, planes(pixels), t284=[2])
        blocks = [block for plane in planes(pixels) for block in tiles(plane, 16)]
        yield "planes of tiles", pixels, tiff(pixels, blocks=blocks, t284=[2], **TILED)


@pytest.mark.parametrize(
    ("pixels", "data"), [pytest.param(pixels, data, id=name) for name, pixels, data in kinds()]
)
def test_kinds(pixels, data):
    image = read_raster(data)
    assert image.frames.dtype == pixels.dtype
    assert np.array_equal(image.frames[0], pixels.reshape(37, 50, -1))
    assert not image.inverted


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 32946])
@pytest.mark.parametrize("rows", [1, 7, 300])
@pytest.mark.parametrize("content", ["noise", "constant", "ramp", "blocks"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_compressions_as_libtiff_writes_them(compression, rows, content, dtype):
    high = np.iinfo(dtype).max
    pixels = {
        "noise": RNG.integers(0, high, (300, 200), dtype),
        "constant": np.full((300, 200), 9, dtype),
        "ramp": np.linspace(0, high, 60000).astype(dtype).reshape(300, 200),
        "blocks": np.kron(RNG.integers(0, high, (3, 2), dtype), np.ones((100, 100), dtype)),
    }[content]
    parameters = [cv2.IMWRITE_TIFF_COMPRESSION, compression, cv2.IMWRITE_TIFF_ROWSPERSTRIP, rows]
    data = cv2.imencode(".tiff", pixels, parameters)[1].tobytes()
    assert np.array_equal(read_raster(data).frames[0, ..., 0], pixels)


@pytest.mark.parametrize("pixels", [GREY, GREY16])
def test_white_is_zero_keeps_its_values_and_says_so(pixels):
    image = read_raster(tiff(pixels, t262=[0]))
    assert image.inverted
    assert np.array_equal(image.frames[0, ..., 0], pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_libtiff_applies_it(orientation):
    data = tiff(RGB, t274=[orientation])
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert expected is not None
    assert np.array_equal(read_raster(data).frames[0], expected[..., ::-1])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (tiff(GREY, pages=2), "2 pages"),
        (tiff(GREY.astype(np.float32), t339=[3]), "32 bits"),
        (tiff(GREY16, t339=[3]), "floating point"),
        (tiff(GREY16, t339=[2]), "signed"),
        (tiff(GREY, t258=[4]), "4 bits"),
        (tiff(GREY16, t258=[12]), "12 bits"),
        (tiff(GREY, t258=None), "1 bits"),
        (tiff(RGB, t258=[8, 8, 16]), "8, 16 bits"),
        (tiff(GREY, t262=[3]), "photometric interpretation 3"),
        (tiff(with_alpha(RGB), t262=[5]), "photometric interpretation 5"),
        (tiff(RGB, t262=[6]), "photometric interpretation 6"),
        (tiff(RGB, t262=[1]), "3 samples"),
        (tiff(with_alpha(GREY), t262=[2]), "2 samples"),
        (tiff(GREY, t259=[7]), "compression 7"),
        (tiff(GREY, t259=[4]), "compression 4"),
        (tiff(GREY, t317=[3]), "predictor 3"),
        (tiff(GREY, t266=[2]), "reversed bits"),
        (b"II+\0\x08\0\0\0" + bytes(100), "BigTIFF"),
    ],
)
def test_refused(data, says):
    with pytest.raises(Unsupported, match=says):
        read_raster(data)


@pytest.mark.parametrize(
    "data",
    [
        tiff(GREY, t256=[0]),
        tiff(GREY, t256=None),
        tiff(GREY, t262=None),
        tiff(GREY, t273=[10**9]),
        tiff(GREY, t278=[0]),
        tiff(GREY, t278=[8]),
        tiff(GREY, t279=[37 * 50 - 1]),
        tiff(GREY, t279=None),
        tiff(GREY, t257=[38]),
        tiff(GREY, squeeze=lambda raw: zlib.compress(raw)[:-1], t259=[8]),
        tiff(GREY, squeeze=lambda raw: zlib.compress(raw)[: len(raw) // 2], t259=[8]),
        tiff(GREY, squeeze=lambda raw: zlib.compress(raw[:-1]), t259=[8]),
        tiff(GREY, squeeze=lambda raw: zlib.compress(raw)[:-1] + b"\0", t259=[8]),
        tiff(GREY, t259=[5]),
        tiff(GREY, blocks=tiles(GREY, 16), t322=[16], t323=[0], t324=[]),
    ],
)
def test_damaged(data):
    with pytest.raises(Truncated):
        read_raster(data)


def test_strips_that_are_cut_and_sized_anew():
    """Half of a deflated or LZW strip, with a byte count that fits: OpenCV answers it."""
    for compression in (5, 8, 32773):
        whole = cv2.imencode(".tiff", GREY, [cv2.IMWRITE_TIFF_COMPRESSION, compression])[1]
        whole = bytearray(whole.tobytes())
        table = struct.unpack_from("<I", whole, 4)[0]
        entry = whole.index(struct.pack("<HH", 279, 4), table) + 8
        size = struct.unpack_from("<I", whole, entry)[0]
        for cut in (0, 1, size // 2, size - 5):
            struct.pack_into("<I", whole, entry, cut)
            with pytest.raises(Truncated):
                read_raster(bytes(whole))


def test_tiles_far_larger_than_the_image():
    with pytest.raises(TooLarge):
        read_raster(tiff(GREY, blocks=[GREY], t322=[2**16], t323=[2**16], t324=[]))


def test_a_chain_of_pages_that_loops():
    data = bytearray(tiff(GREY, t254=[1]))
    start = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, start)[0]
    struct.pack_into("<I", data, start + 2 + 12 * count, start)
    with pytest.raises(Truncated, match="loop"):
        read_raster(bytes(data))


HEAVY = [data for name, _, data in kinds() if "16" not in name]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(HEAVY),
    st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_mutated_directories_give_an_image_or_our_error(data, edits):
    changed = bytearray(data)
    start = struct.unpack_from("<I" if data[:2] == b"II" else ">I", data, 4)[0]
    for offset, replacement in edits:
        place = (start + offset) % len(changed)
        changed[place : place + len(replacement)] = replacement
    try:
        image = read_raster(bytes(changed))
    except InputError:
        return
    assert image.frames.dtype in (np.uint8, np.uint16)
