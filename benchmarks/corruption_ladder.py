"""What goes wrong with a radiograph on its way, each in five severities from mild to strong.

The corruptions and, where it has them, the severities are those that MedMNIST-C (Di Salvo,
Doerrich and Ledig 2024) gives PneumoniaMNIST. Defocus and movement, which it gives other sets, are
within what those have. Rotation, crop, burnt-in text, grid, dose, saturation and polarity are this
project's own. Lengths are of images of 224 pixels and grow with the shorter side; noise is of the
single pixel.

    pixels = corrupted(pixels, "gaussian noise", severity=3, seed=7)

What is drawn follows from the seed alone, so that a ladder is one picture that gets worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
"""(H, W, C), 0 black, 1 white."""

SEVERITIES = (1, 2, 3, 4, 5)
SIDE = 224
"""The shorter side of the images that lengths in pixels are of."""

BLACK_TO_WHITE = 4.6
"""Natural logarithm of how many times more photons reach the detector in black than in white."""

WORDS = (
    "R",
    "AP SUPINE",
    "PORTABLE",
    "L",
    "65 kV 2.5 mAs",
    "ERECT",
    "SID 110 CM",
    "ROOM 3",
    "NOT FOR DIAGNOSIS",
)
"""What stations burn into images, as often as not; nobody's name."""


@dataclass(frozen=True)
class Corruption:
    """A change and what it takes for each severity, the mildest first.

    change: (values, level, generator) -> values of the same shape, which may leave 0..1.
    """

    change: Callable[[Values, Any, np.random.Generator], Values]
    levels: tuple[Any, Any, Any, Any, Any]


def corrupted(
    pixels: NDArray[np.uint8], name: str, severity: int, seed: int | Sequence[int] = 0
) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, C), one severity of ``LADDER[name]`` -> the same shape, uint8."""
    corruption = LADDER[name]
    values = pixels.reshape(*pixels.shape[:2], -1).astype(np.float32) / np.float32(255)
    level = corruption.levels[SEVERITIES.index(severity)]
    changed = corruption.change(values, level, np.random.default_rng(seed))
    return as_pixels(changed).reshape(pixels.shape)


def as_pixels(values: Values) -> NDArray[np.uint8]:
    """0..1 -> 0..255; what lies outside becomes black or white."""
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


# --- noise: the same in every channel, as a radiograph has one ---


def _gaussian_noise(values: Values, deviation: float, generator: np.random.Generator) -> Values:
    return values + _normal(values, deviation, generator)


def _speckle_noise(values: Values, deviation: float, generator: np.random.Generator) -> Values:
    return values * (1 + _normal(values, deviation, generator))


def _shot_noise(values: Values, photons: float, generator: np.random.Generator) -> Values:
    """photons: of a white pixel, of which a black one has none, as in a photograph."""
    grey = values.mean(axis=2, keepdims=True)
    counted = generator.poisson(grey * photons).astype(np.float32) / photons
    return values + counted - grey


def _impulse_noise(values: Values, share: float, generator: np.random.Generator) -> Values:
    """share: of the pixels, half of them black and half white."""
    drawn = generator.random((*values.shape[:2], 1), np.float32)
    salt = np.where(drawn > 1 - share / 2, np.float32(1), values)
    return np.where(drawn < share / 2, np.float32(0), salt)


def _normal(values: Values, deviation: float, generator: np.random.Generator) -> Values:
    drawn = generator.standard_normal((*values.shape[:2], 1), np.float32)
    return (deviation * drawn).astype(np.float32)


# --- blur ---


def _gaussian_blur(values: Values, deviation: float, generator: np.random.Generator) -> Values:
    return _channels(cv2.GaussianBlur(values, (0, 0), deviation * _scale(values)))


def _defocus(values: Values, radius: float, generator: np.random.Generator) -> Values:
    radius = radius * _scale(values)
    reach = int(np.ceil(radius))
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    edge = radius + 0.5 - np.hypot(down, across)  # a disk whose edge lies within pixels
    kernel = np.clip(edge, 0, 1).astype(np.float32)
    return _channels(cv2.filter2D(values, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))


def _movement(values: Values, length: float, generator: np.random.Generator) -> Values:
    """length: of the way, at one speed, in a direction within 45 degrees of the horizontal."""
    length, angle = length * _scale(values), np.deg2rad(generator.uniform(-45, 45))
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for along in np.linspace(-length / 2, length / 2, 8 * reach):
        _add_point(kernel, reach + along * np.sin(angle), reach + along * np.cos(angle))
    return _channels(cv2.filter2D(values, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT))


def _add_point(kernel: NDArray[np.float32], row: float, column: float) -> None:
    """To the four cells about it, by how near they are."""
    top, left = int(row), int(column)
    down, across = row - top, column - left
    kernel[top : top + 2, left : left + 2] += np.outer((1 - down, down), (1 - across, across))


# --- display ---


def _contrast(values: Values, factor: float, generator: np.random.Generator) -> Values:
    mean = values.mean()
    return mean + factor * (values - mean)


def _brightness(values: Values, factor: float, generator: np.random.Generator) -> Values:
    return factor * values


def _gamma(values: Values, exponent: float, generator: np.random.Generator) -> Values:
    return values**exponent


def _inverted(values: Values, factor: float, generator: np.random.Generator) -> Values:
    """factor: of the negative's contrast; 1 is that of the image."""
    return _contrast(1 - values, factor, generator)


# --- files ---


def _jpeg(values: Values, quality: int, generator: np.random.Generator) -> Values:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    written = cv2.imencode(".jpg", as_pixels(values)[..., ::-1], options)[1]
    read = np.asarray(cv2.imdecode(written, cv2.IMREAD_UNCHANGED)).reshape(values.shape)
    return read[..., ::-1].astype(np.float32) / np.float32(255)


def _pixelated(values: Values, share: float, generator: np.random.Generator) -> Values:
    """share: of the rows and columns that are left."""
    height, width = values.shape[:2]
    size = max(1, round(width * share)), max(1, round(height * share))
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    return _channels(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


# --- where and what is in the picture ---


def _rotated(values: Values, degrees: float, generator: np.random.Generator) -> Values:
    """About the centre, to a side that is drawn; the corners are black."""
    height, width = values.shape[:2]
    side = 1 if generator.random() < 0.5 else -1
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), side * degrees, 1)
    return _channels(cv2.warpAffine(values, turn, (width, height), flags=cv2.INTER_LINEAR))


def _cropped(values: Values, share: float, generator: np.random.Generator) -> Values:
    """share: of the height and of the width that is lost; where the rest lies is drawn."""
    height, width = values.shape[:2]
    rows, columns = round(height * (1 - share)), round(width * (1 - share))
    down, across = generator.random(2)
    top, left = round((height - rows) * down), round((width - columns) * across)
    part = np.ascontiguousarray(values[top : top + rows, left : left + columns])
    return _channels(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR))


def _text(values: Values, level: tuple[int, float], generator: np.random.Generator) -> Values:
    """level: how many words, and their height as a share of the image's; white, anywhere."""
    count, share = level
    pixels = np.ascontiguousarray(as_pixels(values))
    height, width = pixels.shape[:2]
    font, weight = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(share * height / 10))
    scale = cv2.getFontScaleFromHeight(font, max(6, round(share * height)), weight)
    for word, (down, across) in zip(WORDS[:count], generator.random((count, 2)), strict=True):
        (wide, high), below = cv2.getTextSize(word, font, scale, weight)
        place = round(across * max(0, width - wide)), round(high + down * (height - high - below))
        white = (255,) * pixels.shape[2]
        cv2.putText(pixels, word, place, font, scale, white, weight, cv2.LINE_AA)
    return pixels.astype(np.float32) / np.float32(255)


# --- the beam: what absorbs more of it is whiter ---


def _grid(values: Values, depth: float, generator: np.random.Generator) -> Values:
    """Lines of an anti-scatter grid, and what it cuts off towards one side where it is askew.

    depth: how much whiter a line is; at the side everything is twice that.
    """
    height, width = values.shape[:2]
    period, phase = generator.uniform(3, 6) * _scale(values), generator.uniform(0, 2 * np.pi)
    slant = np.deg2rad(generator.uniform(-3, 3))
    down, across = np.mgrid[:height, :width].astype(np.float32)
    lines = np.sin(2 * np.pi * (across * np.cos(slant) + down * np.sin(slant)) / period + phase)
    towards = across / width if generator.random() < 0.5 else 1 - across / width
    absorbed = depth * ((1 + lines) / 2 + 3 * towards)
    return values + absorbed[..., None].astype(np.float32)


def _low_dose(values: Values, photons: float, generator: np.random.Generator) -> Values:
    """photons: of a black pixel. The detector counts, the station restores the brightness."""
    grey = values.mean(axis=2, keepdims=True).astype(np.float64)
    counted = generator.poisson(photons * np.exp(-BLACK_TO_WHITE * grey))
    seen = -np.log(np.maximum(counted, 0.5) / photons) / BLACK_TO_WHITE
    return values + (seen - grey).astype(np.float32)


def _saturated(values: Values, level: float, generator: np.random.Generator) -> Values:
    """level: what was darker than this was more than the detector counts, and is black."""
    return (values - level) / (1 - level)


def _scale(values: Values) -> float:
    return min(values.shape[:2]) / SIDE


def _channels(values: NDArray) -> Values:
    """(H, W) as OpenCV returns one channel -> (H, W, 1)."""
    return values.reshape(*values.shape[:2], -1)


LADDER = {
    "gaussian noise": Corruption(_gaussian_noise, (0.04, 0.05, 0.06, 0.07, 0.08)),
    "shot noise": Corruption(_shot_noise, (300, 200, 150, 100, 80)),
    "speckle noise": Corruption(_speckle_noise, (0.05, 0.07, 0.10, 0.15, 0.20)),
    "impulse noise": Corruption(_impulse_noise, (0.005, 0.010, 0.013, 0.017, 0.020)),
    "gaussian blur": Corruption(_gaussian_blur, (0.8, 1.1, 1.4, 1.7, 2.0)),
    "defocus": Corruption(_defocus, (1.0, 1.5, 2.0, 3.0, 4.0)),
    "movement": Corruption(_movement, (3.0, 5.0, 8.0, 12.0, 17.0)),
    "contrast down": Corruption(_contrast, (0.9, 0.8, 0.7, 0.6, 0.4)),
    "contrast up": Corruption(_contrast, (1.1, 1.2, 1.3, 1.4, 1.6)),
    "brightness down": Corruption(_brightness, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "brightness up": Corruption(_brightness, (1.1, 1.2, 1.3, 1.4, 1.5)),
    "gamma down": Corruption(_gamma, (0.9, 0.8, 0.7, 0.6, 0.4)),
    "gamma up": Corruption(_gamma, (1.1, 1.2, 1.3, 1.4, 1.6)),
    "JPEG": Corruption(_jpeg, (50, 30, 15, 10, 7)),
    "pixelate": Corruption(_pixelated, (0.8, 0.7, 0.6, 0.5, 0.4)),
    "rotation": Corruption(_rotated, (5.0, 10.0, 15.0, 22.0, 30.0)),
    "crop": Corruption(_cropped, (0.08, 0.16, 0.24, 0.32, 0.40)),
    "burnt-in text": Corruption(_text, ((1, 0.04), (3, 0.04), (5, 0.05), (7, 0.06), (9, 0.07))),
    "grid": Corruption(_grid, (0.02, 0.04, 0.06, 0.09, 0.13)),
    "low dose": Corruption(_low_dose, (20_000, 8_000, 3_000, 1_200, 500)),
    "saturation": Corruption(_saturated, (0.08, 0.16, 0.24, 0.32, 0.40)),
    "inverted": Corruption(_inverted, (0.4, 0.55, 0.7, 0.85, 1.0)),
}
"""By name; the last one is not a matter of degree: its severities are ever clearer negatives."""
