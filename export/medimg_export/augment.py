"""Augmentation suited to radiographs: small movements, exposure and contrast, and the mirror image.

What happens to an image is decided by (seed, epoch, index) alone, so that an interrupted training
goes on exactly as it would have.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_export.recipe import Augmentation

FRAMING, TEXTURE = 7, 4
DETAIL = 0.007
"""What is finer than this share of the side, as a standard deviation, is detail."""


def draw(count: int, *, seed: int, epoch: int) -> NDArray[np.float32]:
    """Draw one row for each image of the data set: float32 (count, 11), even in [-1, 1)."""
    columns = [
        np.random.default_rng([seed, epoch, purpose]).uniform(-1, 1, size=(count, width))
        for purpose, width in ((0xA06, FRAMING), (0xA07, TEXTURE))
    ]
    return np.concatenate(columns, axis=1).astype(np.float32)


def augment(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    """Change one image: uint8 (H, W, C) and its row of ``draw`` -> uint8 (H, W, C)."""
    return _exposed(
        _sharper(_coarser(_moved(pixels, drawn, spec), drawn, spec), drawn, spec), drawn, spec
    )


def _moved(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    angle, across, down, zoom, _, _, mirror, aspect = (float(each) for each in drawn[:8])
    centre = (width - 1) / 2, (height - 1) / 2
    movement = cv2.getRotationMatrix2D(centre, angle * spec.rotation, 1 + zoom * spec.zoom)
    if spec.aspect:
        wider = (1 + spec.aspect) ** (aspect / 2)
        stretch = np.array(
            [
                [wider, 0, centre[0] * (1 - wider)],
                [0, 1 / wider, centre[1] * (1 - 1 / wider)],
                [0, 0, 1],
            ]
        )
        movement = movement @ stretch
    movement[:, 2] += across * spec.shift * width, down * spec.shift * height
    if spec.flip and mirror < 0:
        movement = movement @ np.array([[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]], float)
    moved = cv2.warpAffine(
        pixels, movement, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return moved.reshape(pixels.shape).astype(np.uint8, copy=False)


def _coarser(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    share = max(0.0, float(drawn[8])) * spec.coarse
    if share == 0:
        return pixels
    height, width = pixels.shape[:2]
    factor = 1 - share
    small = cv2.resize(
        pixels,
        (max(1, round(width * factor)), max(1, round(height * factor))),
        interpolation=cv2.INTER_AREA,
    )
    return (
        cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        .reshape(pixels.shape)
        .astype(np.uint8, copy=False)
    )


def _sharper(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    gain = (1 + spec.sharpness) ** float(drawn[10])
    if gain == 1:
        return pixels
    blurred = cv2.GaussianBlur(pixels, (0, 0), DETAIL * min(pixels.shape[:2]))
    return (
        cv2.addWeighted(pixels, gain, blurred, 1 - gain, 0)
        .reshape(pixels.shape)
        .astype(np.uint8, copy=False)
    )


def _exposed(
    pixels: NDArray[np.uint8], drawn: NDArray[np.float32], spec: Augmentation
) -> NDArray[np.uint8]:
    contrast, brightness, gamma = (float(drawn[at]) for at in (4, 5, 9))
    mean = float(pixels.mean())
    levels = (np.arange(256) - mean) * (1 + contrast * spec.contrast) + mean
    levels = np.clip(levels + brightness * spec.brightness * 255, 0, 255)
    if spec.gamma:
        levels = 255 * (levels / 255) ** ((1 + spec.gamma) ** gamma)
    return np.rint(levels).astype(np.uint8)[pixels]
