"""Image -> the uint8 tensor that the graph takes. The only implementation anywhere.

Training caches what this returns, int8 calibration and evaluation read that cache, and the device
calls it on every input. The order of the steps:

    values -> one channel (for gray) -> grey (display, window, percentile) -> polarity
           -> geometry and resize -> round to uint8 -> three channels (for rgb)

Eight-bit images under ``display`` stay uint8 on the whole way; everything else is float32 until the
rounding. A change that alters one pixel raises ``manifest.PREPROCESSING_REVISION``.
"""

from __future__ import annotations

from functools import cache, reduce
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import Blank, TooSmall, UnitUnknown, Unsupported
from medimg_edge.image import Image, Range, Voi, Window
from medimg_edge.manifest import Display, Percentile, Preprocessing, Windows
from medimg_edge.resize import resize, to_levels

MIN_SIDE = 16
"""Rows or columns below this show nothing that a classifier could read."""


class Area(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    rows: int
    columns: int


def preprocess(image: Image, spec: Preprocessing) -> NDArray[np.uint8]:
    """Image -> uint8, shape (H, W, C) = ``spec.shape``, C-contiguous.

    Raises Unsupported (several frames; a JPEG that was decoded for another ``spec.needed``),
    TooSmall, Blank, UnitUnknown (windows, and an image that is not in their unit).
    """
    if image.source == "jpeg" and image.needed != spec.needed:
        raise Unsupported(
            f"The JPEG was decoded for needed={image.needed}, and this model was trained with "
            f"{spec.needed}, which gives other pixels. Give the file itself, or "
            "read_image(file, needed=classifier.manifest.preprocessing.needed)."
        )
    values = _single_frame(image)
    if isinstance(spec.intensity, Windows):
        _check_unit(image)
    if spec.color == "gray" or isinstance(spec.intensity, Windows):
        values = one_channel(values)
    pixels = _round(_frame(_grey(values, image, spec), spec))
    if pixels.ndim == 2:
        pixels = pixels[..., None]
        if spec.channels > 1:
            pixels = np.repeat(pixels, spec.channels, axis=2)
    if _is_flat(pixels):
        raise Blank(
            "The image's window shows all of it in one grey level: there is nothing to read. Check "
            "the window, or the export from the viewer."
        )
    return np.ascontiguousarray(pixels)


def _single_frame(image: Image) -> NDArray:
    """(F, H, W, C) -> (H, W) or (H, W, 3), once there is something to see in it."""
    if len(image.frames) != 1:
        raise Unsupported(
            f"The image has {len(image.frames)} frames; one is accepted. "
            "Save the frame to be read as an image of its own."
        )
    rows, columns = image.size
    if min(rows, columns) < MIN_SIDE:
        raise TooSmall(
            f"The image is {columns} x {rows} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed. "
            "Give the original image, not a thumbnail."
        )
    values = image.frames[0]
    if _is_flat(values):
        raise Blank(
            "Every pixel of the image has the same value: there is nothing to read. "
            "Check the exposure or the export from the viewer."
        )
    return values[..., 0] if values.shape[2] == 1 else values


def _is_flat(values: NDArray) -> bool:
    """Whether every pixel of (H, W, C) is the same."""
    first, middle = values[0, 0], values[len(values) // 2, values.shape[1] // 2]
    return first.tolist() == middle.tolist() and bool((values == first).all())


def _check_unit(image: Image) -> None:
    """A window in Hounsfield units says nothing about the grey levels of a PNG.

    Grey DICOM values are in the unit that their rescale makes; an array of int16 or float32 holds
    what its owner says; everything else holds what some display once showed.
    """
    values = image.frames
    in_unit = image.source == "dicom" or (image.source == "array" and values.dtype.kind == "f")
    if not in_unit or values.shape[3] != 1:
        raise UnitUnknown(
            f"The image ({image.source}, {values.shape[3]} channels of {values.dtype}) has grey "
            "levels without a unit, and this model's windows are in one, such as Hounsfield units. "
            "Give the grey DICOM file, or an array of int16 or float32 in that unit; for "
            "exported pictures train a model with intensity 'display'."
        )


def one_channel(values: NDArray) -> NDArray:
    """RGB -> luma by ITU-R BT.601 (.299, .587, .114), in the values' own dtype."""
    if values.ndim == 2:
        return values
    if values.dtype.kind == "f":  # OpenCV's differs from processor to processor
        red, green, blue = (values[..., channel] for channel in range(3))
        luma = green * np.float32(0.587)
        for channel, weight in ((red, 0.299), (blue, 0.114)):  # rounded once in each step
            luma = (channel * np.float64(np.float32(weight)) + luma).astype(np.float32)
        return luma
    return cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)


def _grey(values: NDArray, image: Image, spec: Preprocessing) -> NDArray:
    """Stored or rescaled values -> uint8, or float32 in [0, 255]; one channel per window."""
    whole = values.dtype == np.uint8 and image.voi == Range(0, 255)
    if whole and isinstance(spec.intensity, Display):
        return _polarity(values, image)
    shown = [_shown(values, each, image, spec) for each in vois(values, image, spec)]
    return shown[0] if len(shown) == 1 else np.stack(shown, axis=-1)


def vois(values: NDArray, image: Image, spec: Preprocessing) -> tuple[Voi, ...]:
    """How the network is shown an image's values: one for each window, else one for all channels.

    values: of the image, (H, W) or (H, W, 3), of one channel where ``spec`` reads one.
    """
    if isinstance(spec.intensity, Windows):
        return tuple(Window(each.center, each.width) for each in spec.intensity.windows)
    if isinstance(spec.intensity, Percentile):
        low, high = percentiles(values, spec.intensity.low, spec.intensity.high)
        return (Range(low, high if high > low else low + 1),)
    if values.dtype == np.uint16 and image.source != "dicom" and image.voi == Range(0, 65535):
        return (Range(spec.intensity.low, spec.intensity.high),)
    return (image.voi,)


def _shown(values: NDArray, voi: Voi, image: Image, spec: Preprocessing) -> NDArray:
    """Each grey level of integers is worked out once: to the bit what each pixel's would be.

    Where nothing is resized they are rounded here, which is then the same.
    """
    if values.dtype.kind == "f":
        return _polarity(voi.grey(values), image)
    levels = _polarity(voi.grey(_every(values.dtype)), image)
    if image.size == (spec.height, spec.width):
        levels = _round(levels)
    return cv2.LUT(values, levels)


@cache
def _every(dtype: np.dtype) -> NDArray[np.float32]:
    """All values of uint8 or uint16."""
    return np.arange(np.iinfo(dtype).max + 1, dtype=np.float32)


def _polarity(grey: NDArray, image: Image) -> NDArray:
    """MONOCHROME1 shows its smallest value white: invert within [0, 255], never by the maximum."""
    return 255 - grey if image.inverted else grey


def percentiles(values: NDArray, low: float, high: float) -> tuple[float, float]:
    """What ``np.percentile`` returns, to the last bit; of uint8 and uint16 by counting.

    Any shape, uint8, uint16 or float32; low and high in [0, 100].
    """
    if values.dtype.kind == "f":
        found = np.percentile(values, (low, high))
        return float(found[0]), float(found[1])
    last = values.size - 1
    places = [last * (share / 100) for share in (low, high)]
    around = [min(int(place) + step, last) for place in places for step in (0, 1)]
    a, b, c, d = _counted(values).searchsorted(around, "right").tolist()
    return _between(a, b, places[0] % 1), _between(c, d, places[1] % 1)


def _counted(values: NDArray) -> NDArray[np.float64]:
    """uint8 or uint16 -> how many of them are no larger than 0, 1, 2, ...

    OpenCV counts in float32, whose whole numbers have gaps from 2**24 on: so in strips.
    """
    levels = 2 ** (8 * values.itemsize)
    rows = values.reshape(len(values), -1)
    step = max(1, 2**24 // rows.shape[1])
    counts = [
        cv2.calcHist([rows[top : top + step]], [0], None, [levels], [0, levels])
        for top in range(0, len(rows), step)
    ]
    return reduce(np.add, [each.cumsum(dtype=np.float64) for each in counts])


def _between(low: int, high: int, part: float) -> float:
    """Rounded as numpy's method "linear" does."""
    return float(high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part)


def _frame(grey: NDArray, spec: Preprocessing) -> NDArray:
    """(H, W[, C]) of any size -> (spec.height, spec.width[, C]), the dtype kept.

    stretch: both axes to the target. center-crop: the largest centred rectangle of the target's
    aspect ratio. letterbox: all of the image, centred on black; an odd rest goes below and right.
    """
    size = grey.shape[0], grey.shape[1]
    top, left, rows, columns = read_area(size, spec)
    target = filled_area(size, spec)
    fitted = resize(grey[top : top + rows, left : left + columns], target.rows, target.columns)
    if fitted.shape[:2] == (spec.height, spec.width):
        return fitted
    framed = np.zeros((spec.height, spec.width, *grey.shape[2:]), grey.dtype)
    top, left, rows, columns = target
    framed[top : top + rows, left : left + columns] = fitted
    return framed


def read_area(size: tuple[int, int], spec: Preprocessing) -> Area:
    """What of an image of so many rows and columns the network sees."""
    rows, columns = size
    if spec.geometry != "center-crop":
        return Area(0, 0, rows, columns)
    kept_rows = min(rows, max(1, round(columns * spec.height / spec.width)))
    kept_columns = min(columns, max(1, round(rows * spec.width / spec.height)))
    return Area((rows - kept_rows) // 2, (columns - kept_columns) // 2, kept_rows, kept_columns)


def filled_area(size: tuple[int, int], spec: Preprocessing) -> Area:
    """What of the network's input that fills; around it there is black."""
    rows, columns = size
    height, width = spec.height, spec.width
    if spec.geometry != "letterbox":
        return Area(0, 0, height, width)
    scale = min(height / rows, width / columns)
    fitted_rows = min(height, max(1, round(rows * scale)))
    fitted_columns = min(width, max(1, round(columns * scale)))
    top, left = (height - fitted_rows) // 2, (width - fitted_columns) // 2
    return Area(top, left, fitted_rows, fitted_columns)


def _round(grey: NDArray) -> NDArray[np.uint8]:
    """float32 in [0, 255] -> uint8; uint8 as it is."""
    return grey if grey.dtype == np.uint8 else to_levels(grey)
