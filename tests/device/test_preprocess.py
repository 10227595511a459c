"""Pixels by hand, step by step, and the pixels of revision 1 by their hashes."""

import hashlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as extra

from medimg_edge.errors import Blank, Rejected, TooSmall, UnitUnknown, Unsupported
from medimg_edge.image import Image, Range, Table, Window
from medimg_edge.manifest import (
    PREPROCESSING_REVISION,
    Display,
    Percentile,
    Preprocessing,
    Windows,
    WindowSetting,
)
from medimg_edge.preprocess import MIN_SIDE, percentiles, preprocess
from medimg_edge.reader import read_image
from medimg_edge.resize import resize

SIDE = 16
SAME = Preprocessing(SIDE, SIDE)


def filled(values, dtype) -> np.ndarray:
    """A 16 x 16 image that begins with some values; its last is another, so it is not blank."""
    image = np.zeros(SIDE * SIDE, dtype)
    image[: len(values)] = values
    image[-1] = 1
    return image.reshape(SIDE, SIDE)


def first(image, count: int, spec: Preprocessing = SAME) -> list[int]:
    """The first values of a tensor's first channel."""
    image = image if isinstance(image, Image) else read_image(image)
    return preprocess(image, spec)[..., 0].reshape(-1)[:count].tolist()


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def pattern(rows: int, columns: int, channels: int = 1, dtype="uint8") -> np.ndarray:
    """No noise generator: the same values with every version of NumPy."""
    y, x, c = np.mgrid[:rows, :columns, :channels].astype(np.int64)
    values = (y * y * 7 + x * 31 + x * y * 3 + c * 101 + (x // 5) * (y // 3) * 11) % 1021
    scaled = values * (65535 if dtype == "uint16" else 255) // 1020
    found = (values - 400).astype(dtype) if dtype == "int16" else scaled.astype(dtype)
    return found[..., 0] if channels == 1 else found


# Intensity


def test_eight_bits_are_shown_as_they_are():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for source in (image, png(image)):
        found = preprocess(read_image(source), SAME)
        assert found.shape == (16, 16, 1)
        assert np.array_equal(found[..., 0], image)


STORED = [0, 65535, 32768, 257, 128, 129]


@pytest.mark.parametrize(
    ("intensity", "expected"),
    [
        (Display(), [0, 255, 128, 1, 0, 1]),  # 65535 / 255 = 257 stored values a step
        (Display(1000, 3040), [0, 255, 255, 0, 0, 0]),
        (Display(0, 512), [0, 255, 255, 128, 64, 64]),
    ],
)
def test_sixteen_bits_by_the_stated_range(intensity, expected):
    spec = Preprocessing(SIDE, SIDE, intensity=intensity)
    assert first(png(filled(STORED, np.uint16)), 6, spec) == expected


def test_the_middle_of_the_stated_range():
    spec = Preprocessing(SIDE, SIDE, intensity=Display(1000, 3040))  # 8 stored values a step
    assert first(png(filled([1000, 1008, 1011, 1013, 2024], np.uint16)), 5, spec) == [
        *(0, 1, 1, 2, 128)
    ]


def test_an_array_says_its_own_range():
    stated = Preprocessing(SIDE, SIDE, intensity=Display(1000, 3040))
    image = read_image(filled([0, 2047.5, 4095], np.float32), value_range=(0, 4095))
    assert first(image, 3, stated) == [0, 128, 255]  # 127.5: halves go to the even number
    image = read_image(filled([0, 50, 100, 200], np.uint8), value_range=(0, 100))
    assert first(image, 4) == [0, 128, 255, 255]


def linear(x: float, center: float, width: float) -> int:
    """PS3.3 C.11.2.1.2.1, as it is written there, with 0 and 255 for ymin and ymax."""
    if x <= center - 0.5 - (width - 1) / 2:
        return 0
    if x > center - 0.5 + (width - 1) / 2:
        return 255
    return round(((x - (center - 0.5)) / (width - 1) + 0.5) * 255)


@pytest.mark.parametrize("setting", [(40, 400), (-600, 1500), (300, 2000), (0, 2), (40, 1)])
def test_a_window_is_the_standards(setting):
    center, width = setting
    edges = [center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2, center]
    wanted = sorted({int(edge) + step for edge in edges for step in range(-3, 4)})
    image = read_image(filled([*wanted, 9999], np.int16), value_range=(0, 1))
    spec = Preprocessing(SIDE, SIDE, intensity=Windows((WindowSetting(center, width),)))
    assert first(image, len(wanted), spec) == [linear(x, center, width) for x in wanted]


def test_the_edges_of_a_window_by_hand():
    image = read_image(
        filled([-161, -160, -159, 0, 40, 238, 239, 240], np.int16), value_range=(0, 1)
    )
    spec = Preprocessing(SIDE, SIDE, intensity=Windows((WindowSetting(40, 400),)))
    assert first(image, 8, spec) == [0, 0, 1, 102, 128, 254, 255, 255]


@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_several_windows_are_channels(color):
    settings = ((-600, 1500), (40, 400), (300, 2000))  # lung, mediastinum, bone
    windows = Windows(tuple(WindowSetting(*each) for each in settings))
    values = [-1000, -600, 0, 40, 300, 1200]
    image = read_image(filled(values, np.int16), value_range=(0, 1))
    found = preprocess(image, Preprocessing(SIDE, SIDE, color, windows))
    assert found.shape == (SIDE, SIDE, 3)
    for at, (center, width) in enumerate(settings):
        expected = [linear(x, center, width) for x in values]
        assert found[..., at].reshape(-1)[:6].tolist() == expected


GREY = filled([10, 200], np.uint8)


@pytest.mark.parametrize(
    "source",
    [GREY, filled([10, 200], np.uint16), png(GREY), png(np.repeat(GREY[..., None], 3, axis=2))],
    ids=["8-bit array", "16-bit array", "gray PNG", "RGB PNG"],
)
def test_grey_levels_without_a_unit_have_no_window(source):
    """128 of a PNG is not 128 HU; the same picture is read where nothing is guessed."""
    image = read_image(source)
    assert preprocess(image, SAME).any()
    spec = Preprocessing(SIDE, SIDE, intensity=Windows((WindowSetting(40, 400),)))
    with pytest.raises(UnitUnknown, match=r"Hounsfield.*DICOM.*'display'"):
        preprocess(image, spec)


def test_percentiles_are_the_images_own():
    image = np.arange(256, dtype=np.uint16).reshape(16, 16) * 10 + 500
    spec = Preprocessing(SIDE, SIDE, intensity=Percentile(0, 100))
    assert np.array_equal(preprocess(read_image(image), spec)[..., 0].ravel(), np.arange(256))
    spec = Preprocessing(SIDE, SIDE, intensity=Percentile(20, 80))  # 51 steps, 204 steps
    found = preprocess(read_image(image), spec).ravel()
    assert found[51] == 0
    assert found[204] == 255
    assert found[[52, 203]].tolist() == [round(255 / 153), round(255 * 152 / 153)]


@given(
    extra.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        extra.array_shapes(min_dims=2, max_dims=3, max_side=40),
    ),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_percentiles_by_counting_are_numpys(values, low, high):
    assert percentiles(values, low, high) == tuple(np.percentile(values, [low, high]))


def test_percentiles_of_more_values_than_float32_counts():
    values = np.zeros((2**13, 2**12 + 1), np.uint8)
    values[-1, 2:] = 7
    share = 100 * (values.size - 2**12) / (values.size - 1)  # between the last 0 and the first 7
    assert percentiles(values, 50, share) == tuple(np.percentile(values, [50, share]))


def test_percentiles_that_are_equal():
    """One unit is shown then, rather than a division by zero."""
    image = np.full((16, 16), 100, np.float32)
    image[0, :3] = [99, 100.5, 101]
    spec = Preprocessing(SIDE, SIDE, intensity=Percentile(5, 95))
    assert first(read_image(image, value_range=(0, 1)), 4, spec) == [0, 128, 255, 0]


def test_halves_go_to_the_even_number():
    image = read_image(filled([0.5, 1.5, 2.5, 254.5], np.float32), value_range=(0, 255))
    assert first(image, 4) == [0, 2, 2, 254]


# Polarity and color


def test_monochrome1_is_inverted_within_the_display_range():
    image = filled([0, 10, 200], np.uint8)
    assert first(read_image(image, photometric="MONOCHROME1"), 4) == [255, 245, 55, 255]
    image = filled([0, 257, 65535], np.uint16)
    assert first(read_image(image, photometric="MONOCHROME1"), 4) == [255, 254, 0, 255]


def test_monochrome1_is_inverted_after_the_window():
    values = read_image(
        filled([-160, 0, 239], np.int16), value_range=(0, 1), photometric="MONOCHROME1"
    )
    spec = Preprocessing(SIDE, SIDE, intensity=Windows((WindowSetting(40, 400),)))
    assert first(values, 3, spec) == [255, 153, 0]


def test_the_border_of_a_letterbox_is_black_for_both_polarities():
    image = np.zeros((16, 32), np.uint8)
    image[0, 0] = 9
    spec = Preprocessing(32, 32, geometry="letterbox")
    found = preprocess(read_image(image, photometric="MONOCHROME1"), spec)
    assert (found[:8] == 0).all()
    assert (found[24:] == 0).all()
    assert found[20, 20, 0] == 255


def test_rgb_becomes_luma():
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, :4] = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert first(image, 4) == [76, 150, 29, 255]  # ITU-R BT.601
    assert first(png(np.ascontiguousarray(image[..., ::-1])), 4) == [76, 150, 29, 255]


def test_rgb_stays_in_order_and_grey_becomes_three_equal_channels():
    spec = Preprocessing(SIDE, SIDE, "rgb")
    image = pattern(16, 16, 3)
    assert np.array_equal(preprocess(read_image(image), spec), image)
    grey = pattern(16, 16)
    assert np.array_equal(preprocess(read_image(grey), spec), np.stack([grey] * 3, axis=-1))


# Geometry


def test_halving_is_the_mean_of_four():
    image = pattern(32, 48).astype(int) // 4 * 4  # means without halves
    expected = image.reshape(16, 2, 24, 2).mean(axis=(1, 3))
    found = preprocess(read_image(image.astype(np.uint8)), Preprocessing(16, 24))
    assert np.array_equal(found[..., 0], expected)


def test_each_axis_goes_its_own_way():
    """64 columns of pairs shrink to 32 by area; 16 rows, 4 apart, grow to 32 by interpolation."""
    rows = np.arange(16)[:, None] * 4
    pairs = np.arange(64)[None] // 2 * 2
    image = (rows + pairs).astype(np.uint8)
    image[:, ::2] += 1
    image[:, 1::2] -= 1  # the mean of a pair is unchanged; every second column is not
    image[:, 0], image[:, 1] = rows[:, 0], rows[:, 0]
    found = preprocess(read_image(image), Preprocessing(32, 32))[..., 0]
    grown = [0, *(4 * k + step for k in range(15) for step in (1, 3)), 60]
    assert found.tolist() == [[value + 2 * column for column in range(32)] for value in grown]


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 160))
    found = preprocess(read_image(stripes), Preprocessing(64, 64))
    assert set(found.ravel()) == {102, 153}  # five columns a pixel: two of them white, or three


def test_letterbox_puts_an_odd_rest_below_and_right():
    wide = np.full((20, 40), 200, np.uint8)
    wide[0, 0] = 199
    found = preprocess(read_image(wide), Preprocessing(33, 33, geometry="letterbox"))[..., 0]
    assert (found[8:24] >= 199).all()  # 20 * 33 / 40 = 16.5: 16 rows, 8 above, 9 below
    assert not found[:8].any()
    assert not found[24:].any()
    found = preprocess(read_image(wide.T), Preprocessing(33, 33, geometry="letterbox"))[..., 0]
    assert (found[:, 8:24] >= 199).all()
    assert not found[:, :8].any()
    assert not found[:, 24:].any()


def test_center_crop_takes_the_middle():
    wide = pattern(16, 21)
    spec = Preprocessing(16, 16, geometry="center-crop")
    assert np.array_equal(preprocess(read_image(wide), spec)[..., 0], wide[:, 2:18])
    tall = pattern(21, 16)
    assert np.array_equal(preprocess(read_image(tall), spec)[..., 0], tall[2:18])
    square = pattern(40, 40)
    spec = Preprocessing(20, 40, geometry="center-crop")
    assert np.array_equal(preprocess(read_image(square), spec)[..., 0], square[10:30])


@pytest.mark.parametrize("geometry", ["stretch", "letterbox", "center-crop"])
@pytest.mark.parametrize("size", [(16, 40_000), (40_000, 16), (17, 16)])
def test_extreme_sizes(geometry, size):
    found = preprocess(read_image(pattern(*size)), Preprocessing(24, 40, geometry=geometry))
    assert found.shape == (24, 40, 1)


# Refused


@pytest.mark.parametrize("size", [(1, 1), (MIN_SIDE - 1, 500), (500, MIN_SIDE - 1)])
def test_too_small(size):
    with pytest.raises(TooSmall, match=f"{size[1]} x {size[0]} pixels"):
        preprocess(read_image(pattern(*size)), SAME)


@pytest.mark.parametrize("value", [0, 7, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_blank(value, channels):
    image = np.full((20, 20, channels), value, np.uint16)
    with pytest.raises(Blank):
        preprocess(read_image(image), SAME)
    image[3, 4, -1] ^= 1  # of 65,536 levels: nobody sees it
    with pytest.raises(Blank, match="window"):
        preprocess(read_image(image), SAME)
    image[3, 4, -1] ^= 0x8000
    assert preprocess(read_image(image), SAME).shape == SAME.shape


def test_one_color_is_blank_and_two_colors_are_not():
    image = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    with pytest.raises(Blank):
        preprocess(read_image(image), SAME)


def test_several_frames():
    frames = np.zeros((2, 20, 20, 1), np.uint8)
    with pytest.raises(Unsupported, match="2 frames"):
        preprocess(Image(frames, Range(0, 255), "dicom"), SAME)


# Everything


INTENSITIES = st.one_of(
    st.builds(lambda low, width: Display(low, low + width), st.floats(0, 6e4), st.floats(1, 6e4)),
    st.builds(
        Windows,
        st.lists(
            st.builds(WindowSetting, st.floats(-2000, 4000), st.floats(1, 4000)),
            min_size=1,
            max_size=4,
        ).map(tuple),
    ),
    st.builds(lambda low, high: Percentile(low, high), st.floats(0, 40), st.floats(60, 100)),
)
SPECS = st.builds(
    Preprocessing,
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(["gray", "rgb"]),
    INTENSITIES,
    st.sampled_from(["stretch", "letterbox", "center-crop"]),
)


@st.composite
def arrays(draw) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 3])))
    dtype = np.dtype(draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (random.normal(500, draw(st.floats(0, 3000)), shape)).astype(dtype)


@settings(max_examples=200, deadline=None)
@given(arrays(), SPECS, st.booleans())
def test_the_tensor_is_always_what_the_manifest_says(array, spec, inverted):
    photometric = "MONOCHROME1" if inverted and array.shape[2] == 1 else None
    image = read_image(array, value_range=(-1000, 3000), photometric=photometric)
    before = image.frames.copy()
    try:
        found = preprocess(image, spec)
    except Rejected:
        return
    assert found.shape == spec.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.array_equal(image.frames, before)
    assert np.array_equal(preprocess(image, spec), found)


LUNG_AND_BONE = Windows((WindowSetting(-600, 1500), WindowSetting(300, 2000)))
REVISION_1 = {
    "as it is": (pattern(32, 32), Preprocessing(32, 32)),
    "shrunk": (pattern(97, 83), Preprocessing(32, 32)),
    "grown": (pattern(17, 19), Preprocessing(48, 48)),
    "shrunk and grown": (pattern(20, 131), Preprocessing(64, 48)),
    "letterbox": (pattern(61, 45), Preprocessing(33, 40, geometry="letterbox")),
    "center-crop": (pattern(45, 61), Preprocessing(33, 40, geometry="center-crop")),
    "luma": (pattern(50, 40, 3), Preprocessing(32, 32)),
    "color": (pattern(50, 40, 3), Preprocessing(32, 32, "rgb")),
    "16 bits": (png(pattern(70, 50, dtype="uint16")), Preprocessing(32, 32)),
    "16 bits, a range": (
        png(pattern(70, 50, dtype="uint16")),
        Preprocessing(32, 32, "rgb", Display(9000, 50000), "letterbox"),
    ),
    "16 bits, luma": (png(pattern(70, 50, 3, "uint16")), Preprocessing(32, 32)),
    "windows": (pattern(70, 50, dtype="int16"), Preprocessing(32, 32, intensity=LUNG_AND_BONE)),
    "percentile": (
        pattern(70, 50, dtype="int16"),
        Preprocessing(32, 32, intensity=Percentile(), geometry="center-crop"),
    ),
}
HASHES: dict[str, str] = {
    "as it is": "ce4664051fd1e4c9",
    "shrunk": "6da6a84cd6ea0107",
    "grown": "b874da07cedfcc39",
    "shrunk and grown": "e0282bee17d3d415",
    "letterbox": "adcadab3f4483d30",
    "center-crop": "923d71cb77f27a09",
    "luma": "ee63810544031386",
    "color": "14064b1ee21694ef",
    "16 bits": "73424898fcee880e",
    "16 bits, a range": "af740fa734499aed",
    "16 bits, luma": "d84b336f26664161",
    "windows": "95bdc65bedb12e00",
    "percentile": "39fed012407bf3c5",
}


def digest(name: str) -> str:
    source, spec = REVISION_1[name]
    signed = isinstance(source, np.ndarray) and source.dtype == np.int16
    image = read_image(source, value_range=(-1000, 1000)) if signed else read_image(source)
    return hashlib.sha256(preprocess(image, spec).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", REVISION_1)
def test_the_pixels_of_revision_1(name):
    """A change here is another pixel for a trained model: PREPROCESSING_REVISION must rise."""
    assert PREPROCESSING_REVISION == 1
    assert digest(name) == HASHES[name]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "voi",
    [
        Range(3, 200.5),
        Window(100, 50),
        Window(100, 1),
        Window(100, 50.5, "LINEAR_EXACT"),
        Window(100, 50, "SIGMOID"),
        Table(5, np.arange(0, 4096, 13, dtype=np.uint16), 12),
    ],
    ids=lambda voi: f"{type(voi).__name__} {getattr(voi, 'function', '')}",
)
def test_a_level_that_is_looked_up_is_that_of_each_pixel(voi, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 50), dtype)
    shown = np.clip(np.rint(voi.grey(values)), 0, 255).astype(np.uint8)
    image = Image(values[None, ..., None], voi, "dicom")
    assert np.array_equal(preprocess(image, Preprocessing(40, 50))[..., 0], shown)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT"])
def test_a_width_that_is_lost_in_its_center_is_a_threshold(function):
    values = np.array([[0.0, 1e18]], np.float32)
    assert Window(1e17, 4, function).grey(values).tolist() == [[0, 255]]


def test_levels_that_fill_the_whole_range_are_resized_as_grey():
    """By ``percentile`` they are float32 until the rounding, by ``display`` they stay levels."""
    levels = pattern(150, 180)
    levels[:6], levels[-6:] = 0, 255
    image = read_image(levels)
    spec = Preprocessing(224, 224, intensity=Percentile(1, 99))
    expected = np.rint(resize(levels.astype(np.float32), 224, 224))
    assert np.array_equal(preprocess(image, spec)[..., 0], expected)
    assert not np.array_equal(preprocess(image, Preprocessing(224, 224))[..., 0], expected)


def test_a_jpeg_that_was_decoded_for_another_model():
    data = cv2.imencode(".jpg", pattern(160, 160))[1].tobytes()
    scaled = Preprocessing(40, 40, decode="scaled")
    for spec, other in ((scaled, Preprocessing(40, 40)), (Preprocessing(40, 40), scaled)):
        preprocess(read_image(data, needed=spec.needed), spec)
        with pytest.raises(Unsupported, match="gives other pixels"):
            preprocess(read_image(data, needed=other.needed), spec)


def test_a_steep_sigmoid_is_quiet(recwarn):
    values = np.array([[-30000.0, 0.0, 30000.0]], np.float32)
    assert Window(0, 2, "SIGMOID").grey(values).tolist() == [[0, 127.5, 255]]
    assert not recwarn
