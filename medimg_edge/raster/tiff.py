"""TIFF 6.0: the plain kinds, 8 and 16 bits, grey and RGB, decoded here.

Not by OpenCV, because it answers where it must not (measured with 5.0): a deflated strip cut in
half gives a picture, 16-bit planes give other memory's content, 10 to 14 bits give shifted
values, and white-is-zero is inverted in 8 bits but not in 16. Here every strip has to decode to
exactly the bytes that its rows need.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import Truncated, Unsupported
from medimg_edge.limits import check_pixels
from medimg_edge.raster.compression import DECODERS
from medimg_edge.raster.decoded import Decoded
from medimg_edge.raster.directory import Directory, directories
from medimg_edge.raster.orientation import TAG as ORIENTATION
from medimg_edge.raster.orientation import valid_orientation

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 266, 273, 277, 278, 279
PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 284, 317, 322, 323, 324, 325
SAMPLE_FORMAT = 339
_WANTED = frozenset(
    {SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER, STRIP_OFFSETS, SAMPLES}
    | {ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS}
    | {TILE_BYTES, SAMPLE_FORMAT, ORIENTATION}
)
_WHITE_IS_ZERO, _RGB = 0, 2
_COLORS = {0: 1, 1: 1, 2: 3}  # photometric interpretation: channels without alpha
_SAVE_AS = "Save it as an 8 or 16-bit grey or RGB TIFF, or as PNG."


class Layout(NamedTuple):
    """How the pixels lie in the file, checked to be of a kind that is read.

    A block is a tile, or a strip, which is as wide as the image. With planes, each channel has
    blocks of its own, and a block holds one channel.
    """

    height: int
    width: int
    samples: int
    planes: int
    dtype: np.dtype
    tiled: bool
    block_height: int
    block_width: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    compression: int
    differences: bool


def decode(data: bytes) -> Decoded:
    """Uncompressed, PackBits, LZW or deflate; strips or tiles; alpha is dropped."""
    if data[2:4] in (b"+\0", b"\0+"):
        raise Unsupported(f"The file is a BigTIFF; classic TIFF is read. {_SAVE_AS}")
    page = _page(data)
    layout = _layout(page)
    pixels = _pixels(data, layout)
    photometric = page.one(PHOTOMETRIC)
    return Decoded(
        pixels[..., : _COLORS[photometric]],
        valid_orientation(page.one(ORIENTATION, 1)),
        inverted=photometric == _WHITE_IS_ZERO,
    )


def _page(data: bytes) -> Directory:
    """The one page; reduced copies of it, such as thumbnails, are passed over."""
    pages = [page for page in directories(data, _WANTED) if not page.one(SUBFILE, 0) & 1]
    if len(pages) != 1:
        raise Unsupported(f"The TIFF has {len(pages)} pages; one is read. Save each as a file.")
    return pages[0]


def _layout(page: Directory) -> Layout:
    height, width = page.one(HEIGHT), page.one(WIDTH)
    if not height or not width:
        raise Truncated(f"The TIFF declares {width} x {height} pixels: it is damaged.")
    check_pixels(height, width)
    samples, bits = _check_kind(page)
    planar = page.one(PLANAR, 1) == 2 and samples > 1
    tiled = TILE_WIDTH in page.tags
    if tiled:
        block_height, block_width = page.one(TILE_HEIGHT), page.one(TILE_WIDTH)
        offsets, sizes = page.tags.get(TILE_OFFSETS, ()), page.tags.get(TILE_BYTES, ())
    else:
        block_height, block_width = min(page.one(ROWS_PER_STRIP, height), height), width
        offsets, sizes = page.tags.get(STRIP_OFFSETS, ()), page.tags.get(STRIP_BYTES, ())
    if not block_height or not block_width:
        raise Truncated("The TIFF declares strips or tiles without a size: it is damaged.")
    down, across = math.ceil(height / block_height), math.ceil(width / block_width)
    if tiled:  # tiles are decoded whole, also where they reach far beyond the image
        check_pixels(down * block_height, across * block_width)
    planes = samples if planar else 1
    blocks = down * across * planes
    if not len(offsets) == len(sizes) == blocks:
        raise Truncated(
            f"The TIFF needs {blocks} strips or tiles and lists {len(offsets)} with {len(sizes)} "
            "sizes: it is damaged."
        )
    return Layout(
        height,
        width,
        samples,
        planes,
        np.dtype(np.uint8) if bits == 8 else np.dtype(np.uint16).newbyteorder(page.order),
        tiled,
        block_height,
        block_width,
        offsets,
        sizes,
        page.one(COMPRESSION, 1),
        page.one(PREDICTOR, 1) == 2,
    )


def _check_kind(page: Directory) -> tuple[int, int]:
    """Samples of a pixel and bits of a sample, where all that describes them is read."""
    photometric = page.one(PHOTOMETRIC)
    samples = page.one(SAMPLES, 1)
    bits = set(page.tags.get(BITS, (1,)))
    colors = _COLORS.get(photometric, 0)
    rules = (
        (
            photometric in _COLORS,
            f"photometric interpretation {photometric} (palette, CMYK, YCbCr or Lab)",
        ),
        (samples in (colors, colors + 1), f"{samples} samples for each pixel"),
        (bits in ({8}, {16}), f"{', '.join(map(str, sorted(bits)))} bits for each sample"),
        (
            set(page.tags.get(SAMPLE_FORMAT, (1,))) == {1},
            "signed, complex or floating point samples",
        ),
        (page.one(COMPRESSION, 1) in DECODERS, f"compression {page.one(COMPRESSION, 1)}"),
        (page.one(PREDICTOR, 1) in (1, 2), f"predictor {page.one(PREDICTOR, 1)}"),
        (page.one(FILL_ORDER, 1) == 1, "reversed bits in its bytes"),
        (page.one(PLANAR, 1) in (1, 2), f"planar configuration {page.one(PLANAR, 1)}"),
    )
    for holds, found in rules:
        if not holds:
            raise Unsupported(f"The TIFF has {found}, which is not read. {_SAVE_AS}")
    return samples, bits.pop()


def _pixels(data: bytes, layout: Layout) -> NDArray:
    """Shape (H, W, samples), in the byte order of this machine."""
    rows = range(0, layout.height, layout.block_height)
    columns = range(0, layout.width, layout.block_width)
    pixels = np.empty((layout.height, layout.width, layout.samples), layout.dtype.newbyteorder("="))
    blocks = zip(layout.offsets, layout.sizes, strict=True)
    for plane in range(layout.planes):
        channels = slice(None) if layout.planes == 1 else slice(plane, plane + 1)
        for top in rows:
            for left in columns:
                target = pixels[
                    top : top + layout.block_height, left : left + layout.block_width, channels
                ]
                target[:] = _block(data, layout, *next(blocks), target.shape)
    return pixels


def _block(data: bytes, layout: Layout, offset: int, size: int, shape: tuple[int, ...]) -> NDArray:
    """One strip or tile, cut to the (rows, columns, channels) that lie in the image."""
    if offset + size > len(data):
        raise Truncated(
            f"A strip or tile of the TIFF lies at bytes {offset:,} to {offset + size:,}, but the "
            f"file ends at {len(data):,}: part of it is missing. Copy it again from its source."
        )
    rows, columns, channels = shape
    # A tile is always whole; the last strip holds only the rows that are left: section 15, 3.
    stored_rows = layout.block_height if layout.tiled else rows
    expected = stored_rows * layout.block_width * channels * layout.dtype.itemsize
    block = DECODERS[layout.compression](data[offset : offset + size], expected)
    if len(block) < expected:
        raise Truncated(
            f"A strip or tile of the TIFF holds {len(block):,} of {expected:,} bytes: it is "
            "incomplete or damaged. Copy the file again from its source."
        )
    values = np.frombuffer(block, layout.dtype, expected // layout.dtype.itemsize)
    values = values.reshape(stored_rows, layout.block_width, channels)
    if layout.differences:  # section 14: each row holds the steps from pixel to pixel
        values = np.cumsum(values, axis=1, dtype=layout.dtype.newbyteorder("="))
    return values[:rows, :columns]
