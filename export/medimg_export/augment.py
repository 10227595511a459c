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


def draw(count: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """Draw one row for each image of the data set: float32 (count, 11), even in [-1, 1)."""
    columns = [
        np.random.default_rng([seed, epoch, purpose]).uniform(-1, 1, size=(count, width))
        for purpose, width in ((0xA06, 7), (0xA07, 1), (0xA08, 3))
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
        movement = movement @ np.vstack(
            [np.column_stack([np.diag(stretch), centre * (1 - stretch)]), [0, 0, 1]]
        )
    movement[:, 2] += across * spec.shift * width, down * spec.shift * height
    if spec.flip and mirror < 0:
        movement = movement @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
    moved = cv2.warpAffine(
        pixels, movement, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).reshape(pixels.shape)
    gain = 1 + contrast * spec.contrast
    mean = float(moved.mean())
    levels = (np.arange(256) - mean) * gain + mean + brightness * spec.brightness * 255
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return _as_filed(table[moved.astype(np.uint8, copy=False)], drawn[8:], spec)


def _as_filed(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """What lies between a film and its file, each where its draw is above zero."""
    blur, noise, jpeg = map(float, drawn)
    changed: NDArray[Any] = pixels
    if (deviation := blur * spec.blur) > 0:
        changed = cv2.GaussianBlur(changed, (0, 0), deviation)
    if (deviation := noise * spec.noise) > 0:
        generator = np.random.default_rng(int(noise * 2**24))
        grain = generator.normal(0, deviation * 255, changed.shape).astype(np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), generator.uniform(0.01, GRAIN))
        changed = np.clip(np.rint(changed + grain.reshape(changed.shape)), 0, 255).astype(np.uint8)
    if spec.jpeg and jpeg > 0:
        changed = as_jpeg(changed, round(np.interp(jpeg, (0, 1), QUALITIES)))
    return changed.astype(np.uint8, copy=False).reshape(pixels.shape)


def as_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Write an image as a JPEG file of a quality in [0, 100], and read it: uint8, its own shape."""
    encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED), np.uint8)
    return decoded.reshape(pixels.shape)
