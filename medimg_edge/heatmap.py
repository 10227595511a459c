"""The heatmap over the image: where the network found evidence for a label."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import WriteError

SIDE = 512
"""The longer side of an overlay, in pixels."""

STRONG = 4.0
"""Logits that are drawn in full colour even where nothing on the image is stronger: without a floor
a healthy image would show its largest noise in red."""

OPACITY = 0.55
"""Of the full colour, by default."""


def overlay(
    pixels: NDArray[np.uint8], heatmap: NDArray[np.float32], *, opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """Colour the places that speak for a label.

    pixels: uint8 (H, W, C), as the network saw them; the first channel, or RGB, is drawn.
    heatmap: float32 (h, w), logits; only positive ones are drawn, the strongest in yellow.
    Returns uint8 (h', w', 3), RGB, the longer side ``SIDE`` pixels.
    """
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = pixels if pixels.shape[2] == 3 else np.repeat(pixels[..., :1], 3, axis=2)
    base = cv2.resize(shown, size, interpolation=cv2.INTER_CUBIC).astype(np.float32)
    strength = cv2.resize(strengths(heatmap), size, interpolation=cv2.INTER_CUBIC)
    return blend(base, np.asarray(np.clip(strength, 0, 1), np.float32), opacity=opacity)


def strengths(heatmap: NDArray[np.float32]) -> NDArray:
    """Logits of any shape -> how much of the full colour, in [0, 1]."""
    return np.maximum(heatmap, 0) / max(float(heatmap.max()), STRONG)


def coloured(strength: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """float32 (H, W) in [0, 1] -> RGB, uint8 (H, W, 3), and how opaque it is, (H, W) in [0, 1]."""
    colors = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(colors[..., ::-1], np.uint8), np.sqrt(strength)


def blend(
    base: NDArray, strength: NDArray[np.float32], *, opacity: float = OPACITY
) -> NDArray[np.uint8]:
    """Colour ``base``, RGB (H, W, 3) in [0, 255], by ``strength``, float32 (H, W) in [0, 1]."""
    colors, opaque = coloured(strength)
    alpha = (opacity * opaque)[..., None]
    mixed = base * (1 - alpha) + colors * alpha
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W), grey, (H, W, 3), RGB, or (H, W, 4), RGBA, as PNG."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    if picture.ndim == 3:
        picture = np.asarray(cv2.cvtColor(picture, order[picture.shape[2]]), np.uint8)
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise WriteError(f"A picture of shape {picture.shape} could not be encoded as PNG.")
    return data.tobytes()
