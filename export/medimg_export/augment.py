"""Augmentation suited to radiographs: small movements, exposure and contrast, and the mirror image.

What happens to an image is decided by (seed, epoch, index) alone, so that an interrupted training
goes on exactly as it would have.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_export.recipe import Augmentation


def draw(count: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """Draw one row for each image of the data set: float32 (count, 8), even in [-1, 1)."""
    columns = [
        np.random.default_rng([seed, epoch, purpose]).uniform(-1, 1, size=(count, width))
        for purpose, width in ((0xA06, 7), (0xA07, 1))
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def augment(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """Change one image: uint8 (H, W, C) and its row of ``draw`` -> uint8 (H, W, C)."""
    height, width = pixels.shape[:2]
    angle, across, down, zoom, contrast, brightness, mirror, aspect = map(float, drawn)
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
    return table[moved.astype(np.uint8, copy=False)]
