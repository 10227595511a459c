"""Augmentation suited to radiographs: movements, the mirror image, exposure, and their files.

What happens to an image is decided by (seed, epoch, index) alone, so that an interrupted training
goes on exactly as it would have.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_export.recipe import Augmentation

QUALITIES = (20, 95)
"""Of JPEG files: from where blocks are plain to see to where nobody sees them."""

GRAIN = 0.8
"""Pixels: the softest noise is blurred by so much."""

STEEPEST = 45.0
"""Degrees from the horizontal: patients who sway move so at most."""

PERIODS = (3.0, 6.0)
"""Pixels from line to line of a grid, as a film's reduction leaves them."""


def draw(count: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """Draw one row for each image of the data set: float32 (count, 14), even in [-1, 1)."""
    columns = [
        np.random.default_rng([seed, epoch, purpose]).uniform(-1, 1, size=(count, width))
        for purpose, width in ((0xA06, 7), (0xA07, 1), (0xA08, 3), (0xA09, 3))
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def augment(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """Change one image: uint8 (H, W, C) and its row of ``draw`` -> uint8 (H, W, C)."""
    height, width = pixels.shape[:2]
    angle, across, down, zoom, contrast, brightness, mirror, aspect = map(float, drawn[:8])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    movement = cv2.getRotationMatrix2D(centre.tolist(), angle * spec.rotation, 1 + zoom * spec.zoom)
    if spec.aspect:
        wider = (1 + spec.aspect) ** (aspect / 2)
        stretch = np.array([wider, 1 / wider])
        movement = movement @ _square(np.column_stack([np.diag(stretch), centre * (1 - stretch)]))
    movement[:, 2] += across * spec.shift * width, down * spec.shift * height
    if spec.flip and mirror < 0:
        movement = movement @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
    swayed, askew, cropped = map(float, drawn[11:])
    if (lost := _of_few(cropped) * spec.crop) > 0:
        movement = _part(lost, (height, width), _generator(cropped)) @ _square(movement)
    moved = _as(
        pixels,
        cv2.warpAffine(
            pixels,
            movement,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
    )
    if (length := _of_few(swayed) * spec.movement) > 0:
        moved = _swayed(moved, length, _generator(swayed))
    if (depth := _of_few(askew) * spec.grid) > 0:
        moved = _under_grid(moved, depth, _generator(askew))
    gain = 1 + contrast * spec.contrast
    mean = float(moved.mean())
    levels = (np.arange(256) - mean) * gain + mean + brightness * spec.brightness * 255
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return _as_filed(table[moved], drawn[8:11], spec)


def _of_few(drawn: float) -> float:
    """A draw as the strength of what happens to a quarter of the images: 0 for the others, to 1."""
    return max(0.0, 2 * drawn - 1)


def _generator(drawn: float) -> np.random.Generator:
    """What else a change draws follows from its own draw, above zero."""
    return np.random.default_rng(int(drawn * 2**24))


def _as(pixels: NDArray[np.uint8], changed: NDArray[Any]) -> NDArray[np.uint8]:
    """What OpenCV returns, (H, W) for one channel, in the shape of what it was given."""
    return changed.reshape(pixels.shape).astype(np.uint8, copy=False)


def _square(movement: NDArray) -> NDArray[np.float64]:
    """(2, 3) -> (3, 3), which can be multiplied."""
    return np.vstack([movement, [0, 0, 1]])


def _part(
    lost: float, size: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """The movement (2, 3) that leaves a part of an image, placed at random, and fills it again.

    lost: share of the height and of the width.
    """
    grown = 1 / (1 - lost)
    beyond = np.array(size[::-1]) * (1 - grown)  # 0 shows the top left, this the bottom right
    return np.column_stack([np.eye(2) * grown, beyond * generator.random(2)])


def _swayed(
    pixels: NDArray[np.uint8], length: float, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """As a patient looks who moved while the beam was on. length: of the way, pixels."""
    angle = np.deg2rad(generator.uniform(-STEEPEST, STEEPEST))
    side = 2 * int(np.ceil(length / 2)) + 3
    way = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    first, last = (np.rint((side // 2 + each) * 256).astype(int).tolist() for each in (-way, way))
    kernel = np.zeros((side, side), np.uint8)
    cv2.line(kernel, first, last, 255, 1, cv2.LINE_AA, 8)
    weights = kernel.astype(np.float32) / kernel.sum(dtype=np.float32)
    return _as(pixels, cv2.filter2D(pixels, -1, weights, borderType=cv2.BORDER_REPLICATE))


def _under_grid(
    pixels: NDArray[np.uint8], depth: float, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """As behind an anti-scatter grid that stands askew: whiter in lines, and to one side.

    depth: of the lines, share of the full scale; the side is up to three times as much whiter.
    """
    width = pixels.shape[1]
    along = np.linspace(0, 1, width, dtype=np.float32)
    lines = 0.5 + 0.5 * np.sin(
        2 * np.pi * (width / generator.uniform(*PERIODS) * along + generator.random())
    )
    cut_off = 3 * generator.random() * (along if generator.random() < 0.5 else 1 - along)
    whiter = np.broadcast_to((255 * depth * (lines + cut_off))[None, :, None], pixels.shape)
    return np.clip(np.rint(pixels + whiter), 0, 255).astype(np.uint8)


def _as_filed(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """What lies between a film and its file, each where its draw is above zero."""
    blur, noise, jpeg = map(float, drawn)
    changed: NDArray[Any] = pixels
    if (deviation := blur * spec.blur) > 0:
        changed = cv2.GaussianBlur(changed, (0, 0), deviation)
    if (deviation := noise * spec.noise) > 0:
        generator = _generator(noise)
        grain = generator.normal(0, deviation * 255, changed.shape).astype(np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), generator.uniform(0.01, GRAIN))
        changed = np.clip(np.rint(changed + grain.reshape(changed.shape)), 0, 255).astype(np.uint8)
    if spec.jpeg and jpeg > 0:
        changed = as_jpeg(changed, round(np.interp(jpeg, (0, 1), QUALITIES)))
    return _as(pixels, changed)


def as_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Write an image as a JPEG file of a quality in [0, 100], and read it: uint8, its own shape."""
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), np.uint8)
    return decoded.reshape(pixels.shape)
