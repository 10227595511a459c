"""Resizing: the same bits everywhere, which on x86-64 are those of OpenCV."""

import hashlib
import platform
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from medimg_edge.resize import resize

SIDE = st.integers(16, 90)  # fewer rows or columns are refused


def noise(rows: int, columns: int, channels: int, dtype: str) -> NDArray:
    """Whole numbers, so that they are the same wherever this runs."""
    shape = (rows, columns, channels) if channels > 1 else (rows, columns)
    levels = np.random.default_rng(rows * columns).integers(0, 65536, shape)
    return (levels >> 8).astype(np.uint8) if dtype == "uint8" else levels.astype(np.float32) / 257


def by_opencv(values: NDArray, height: int, width: int) -> NDArray:
    rows, columns = values.shape[:2]
    shrunk = min(columns, width), min(rows, height)
    values = cv2.resize(values, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="OpenCV differs here")
@settings(max_examples=300, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(1, 4), st.sampled_from(["uint8", "float32"]))
def test_opencv_on_x86_gives_the_same(rows, columns, height, width, channels, dtype):
    values = noise(rows, columns, channels, dtype)
    found, expected = resize(values, height, width), by_opencv(values, height, width)
    assert found.dtype == values.dtype
    assert np.abs(found.astype(np.float64) - expected).max() < 1e-3
    assert np.array_equal(np.rint(found), np.rint(expected))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="OpenCV differs here")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("factors", [(2, 2), (3, 3), (4, 4), (2, 3), (8, 1), (1, 2), (1, 4)])
def test_whole_blocks(factors, channels, dtype):
    """To the last bit, but for two channels of levels, which no preprocessing makes."""
    down, across = factors
    values = noise(21 * down, 34 * across, channels, dtype)
    if (channels, dtype) != (2, "uint8"):
        assert np.array_equal(resize(values, 21, 34), by_opencv(values, 21, 34))


SIZES = [(500, 401, 64, 80), (30, 37, 64, 80), (200, 33, 64, 80), (128, 160, 64, 80)]
DIGESTS = {
    "uint8": "8039e0e7e9c186ac",
    "float32": "ef24662ee633f8bb",
}


@pytest.mark.parametrize("dtype", DIGESTS)
def test_every_processor_gives_the_same(dtype):
    digest = hashlib.sha256()
    for rows, columns, height, width in SIZES:
        for channels in (1, 2, 3, 4):
            digest.update(resize(noise(rows, columns, channels, dtype), height, width).tobytes())
    assert digest.hexdigest()[:16] == DIGESTS[dtype]


def test_what_fits_is_returned_as_it_is():
    for dtype in ("uint8", "float32"):
        image = noise(30, 20, 1, dtype)
        assert resize(image, 30, 20) is image


def test_a_part_of_a_larger_array():
    whole = noise(90, 120, 1, "float32")
    part = whole[10:70, 20:100]
    assert np.array_equal(resize(part, 32, 32), resize(part.copy(), 32, 32))


def test_a_large_image_is_not_copied():
    """A small device answers images of 64 megapixels: a few strips more, no second one."""
    program = (
        "import resource, sys, numpy as np\n"
        "from medimg_edge.resize import resize\n"
        "image = np.full((8192, 8192), 7, np.uint8)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "resize(image, 512, 512), resize(image, 500, 501)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) * 1024 < 40e6


def test_a_constant_stays_what_it_is():
    for size in [(200, 130), (20, 13), (200, 13)]:
        assert (resize(np.full(size, 200, np.uint8), 64, 64) == 200).all()
