"""Augmentation suited to radiographs: small movements, exposure and contrast, and the mirror image.

What happens to an image is decided by (seed, epoch, index) alone, so that an interrupted training
goes on exactly as it would have.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_export.recipe import Augmentation

GEOMETRY_AND_EXPOSURE, TEXTURE, HIDDEN = 7, 5, 10


def draw(count: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """Draw one row for each image of the data set: float32 (count, 22), even in [-1, 1)."""
    columns = [
        np.random.default_rng([seed, epoch, purpose]).uniform(-1, 1, size=(count, width))
        for purpose, width in (
            (0xA06, GEOMETRY_AND_EXPOSURE),
            (0xA07, TEXTURE),
            (0xA08, HIDDEN),
        )
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def augment(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """Change one image: uint8 (H, W, C) and its row of ``draw`` -> uint8 (H, W, C)."""
    moved = _moved(pixels, drawn, spec)
    return _hidden(_textured(_exposed(moved, drawn, spec), drawn, spec), drawn[12:], spec)


def _moved(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    angle, across, down, zoom, _, _, mirror, aspect = (float(each) for each in drawn[:8])
    centre = (width - 1) / 2, (height - 1) / 2
    movement = cv2.getRotationMatrix2D(centre, angle * spec.rotation, 1 + zoom * spec.zoom)
    if spec.aspect:
        stretch = (1 + abs(aspect) * spec.aspect) ** np.sign(aspect)
        movement = movement @ np.array(
            [[stretch, 0, centre[0] * (1 - stretch)], [0, 1, 0], [0, 0, 1]]
        )
    movement[:, 2] += across * spec.shift * width, down * spec.shift * height
    if spec.flip and mirror < 0:
        movement = movement @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
    moved = cv2.warpAffine(
        pixels, movement, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved.reshape(pixels.shape).astype(np.uint8, copy=False)


def _exposed(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    contrast, brightness, gamma = (float(drawn[at]) for at in (4, 5, 8))
    mean = float(pixels.mean())
    levels = (np.arange(256) - mean) * (1 + contrast * spec.contrast) + mean
    levels = np.clip(levels + brightness * spec.brightness * 255, 0, 255)
    if spec.gamma:
        exponent = (1 - abs(gamma) * spec.gamma) ** np.sign(gamma)
        levels = 255 * (levels / 255) ** exponent
    return np.rint(levels).astype(np.uint8)[pixels]


def _textured(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    blur, noise, jpeg = (max(0.0, float(each)) for each in drawn[9:12])
    found = pixels
    if spec.blur * blur > 0.1:
        found = cv2.GaussianBlur(found, (0, 0), spec.blur * blur)
    if spec.noise * noise > 0:
        generator = np.random.default_rng(drawn.view(np.uint32))
        grain = generator.standard_normal(found.shape, np.float32) * (255 * spec.noise * noise)
        found = np.clip(np.rint(found + grain), 0, 255).astype(np.uint8)
    if spec.jpeg * jpeg > 0:
        quality = round(100 - spec.jpeg * jpeg)
        encoded = cv2.imencode(".jpg", found, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        found = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED))
    return found.reshape(pixels.shape).astype(np.uint8, copy=False)


def _hidden(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    found = pixels.copy()
    side = np.array(pixels.shape[:2])
    if spec.erase and drawn[0] > 0:
        size = np.rint(side * spec.erase * (0.5 + 0.5 * np.abs(drawn[1:3]))).astype(int)
        top, left = np.rint((side - size) * (drawn[3:5] + 1) / 2).astype(int)
        found[top : top + size[0], left : left + size[1]] = round(127.5 * (drawn[5] + 1))
    if spec.border and drawn[6] > 0:
        top, bottom, left, right = np.rint(
            np.repeat(side, 2) * spec.border * np.abs([*drawn[6:10]])
        ).astype(int)
        for hidden in (
            found[:top],
            found[len(found) - bottom :],
            found[:, :left],
            found[:, found.shape[1] - right :],
        ):
            hidden[...] = 0
    return found
