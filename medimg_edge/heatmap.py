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


def overlay(
    pixels: NDArray[np.uint8], heatmap: NDArray[np.float32], *, opacity: float = 0.55
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
    strength = np.maximum(heatmap, 0) / max(float(heatmap.max()), STRONG)
    strength = np.clip(cv2.resize(strength, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    colored = cv2.applyColorMap((strength * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    alpha = (opacity * np.sqrt(strength))[..., None]
    mixed = base * (1 - alpha) + colored[..., ::-1] * alpha
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def encode_png(rgb: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) RGB as PNG."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(rgb[..., ::-1]))
    if not done:
        raise WriteError(f"A picture of shape {rgb.shape} could not be encoded as PNG.")
    return data.tobytes()
