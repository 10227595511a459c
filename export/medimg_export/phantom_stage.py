"""Where the shapes of a phantom stand in its picture, and how they are drawn there.

Shapes are written in one frame whatever the size of the picture: (x, y), both in [0, 1] over a
square, y downwards. A ``Stage`` places them in a picture and draws them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (..., 2)
Layer = NDArray[np.float32]  # (H, W)
Field = NDArray[np.floating]  # (H, W), in passing

_SHIFT = 4  # OpenCV draws at 1/16 pixel: outlines must not snap to the grid of a small picture


@dataclass(frozen=True)
class Stage:
    """Where the frame stands in a picture of ``size`` x ``size`` pixels; angle in radians."""

    size: int
    scale: tuple[float, float]
    angle: float
    shift: tuple[float, float]

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        size: int,
        *,
        scale: tuple[float, float],
        aspect: tuple[float, float],
        shift: tuple[tuple[float, float], tuple[float, float]],
        turn: float,
    ) -> Stage:
        """How a patient happens to stand.

        scale, aspect: their ranges; shift: that of x, that of y; turn: a deviation in radians.
        """
        scaled, stretched = rng.uniform(*scale), rng.uniform(*aspect)
        moved = (rng.uniform(*shift[0]), rng.uniform(*shift[1]))
        return cls(size, (scaled * stretched, scaled / stretched), rng.normal(0, turn), moved)

    def at(self, size: int) -> Stage:
        """Return the same place in a picture of another size."""
        return replace(self, size=size)

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """(..., 2) in the frame -> (..., 2) in 1/16 pixels, for OpenCV's ``shift``."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = ((points - 0.5) * self.scale) @ np.array([[cos, sin], [-sin, cos]])
        placed = (turned + 0.5 + self.shift) * self.size - 0.5
        return np.rint(placed * (1 << _SHIFT)).astype(np.int32)

    def blank(self) -> NDArray[np.uint8]:
        """(size, size) of zeros to draw on."""
        return np.zeros((self.size, self.size), np.uint8)

    def fill(self, layer: NDArray[np.uint8], outlines: Points, grey: float = 1) -> None:
        """Fill closed outlines (K, N, 2), one after the other, in ``layer``; grey in [0, 1]."""
        for shape in self.pixels(outlines):
            cv2.fillPoly(layer, [shape], round(255 * grey), cv2.LINE_AA, _SHIFT)

    def line(
        self,
        layer: NDArray[np.uint8],
        paths: Points,
        width: float,
        grey: float = 1,
        *,
        closed: bool = False,
    ) -> None:
        """Draw paths (K, N, 2) ``width`` x size thick; thinner than a pixel, fainter instead."""
        lines = list(self.pixels(paths))
        thick = width * self.size
        value = round(255 * grey * min(1.0, thick))
        cv2.polylines(layer, lines, closed, value, max(1, round(thick)), cv2.LINE_AA, _SHIFT)

    def soft(self, layer: NDArray[np.uint8], blur: float) -> Layer:
        """(size, size) in [0, 1]: the layer behind a Gaussian of deviation ``blur`` x size."""
        sigma = blur * self.size
        if sigma > 0.3:
            layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma), np.uint8)
        return layer.astype(np.float32) * np.float32(1 / 255)

    def filled(self, outlines: Points, blur: float) -> Layer:
        """(size, size) in [0, 1]: 1 inside the closed outlines (K, N, 2), with soft edges."""
        layer = self.blank()
        self.fill(layer, outlines)
        return self.soft(layer, blur)


def smooth(points: Points, steps: int = 8) -> Points:
    """(N, 2) corners -> (N * steps, 2) points of the closed Catmull-Rom curve through them."""
    p1 = points
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (p0, p1, p2, p3))
    curve = 2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
    curve = 0.5 * (curve + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return curve.reshape(-1, 2)


def band(paths: Points, half_width: Points | float) -> Points:
    """(..., N, 2) paths -> (..., 2N, 2) outlines ``half_width`` (scalar or (N,)) to both sides."""
    along = np.gradient(paths, axis=-2)
    along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
    normal = along[..., ::-1] * (-1, 1) * np.reshape(half_width, (-1, 1))
    return np.concatenate([paths + normal, (paths - normal)[..., ::-1, :]], axis=-2)


def ellipse(center: tuple[float, ...], radii: tuple[float, ...], angle: float = 0.0) -> Points:
    """(48, 2): the outline of an ellipse turned by ``angle`` radians."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across, along = radii[0] * np.cos(t), radii[1] * np.sin(t)
    x = center[0] + across * np.cos(angle) - along * np.sin(angle)
    y = center[1] + across * np.sin(angle) + along * np.cos(angle)
    return np.stack([x, y], axis=1)


def shrunk(outline: Points, by: float) -> Points:
    """(N, 2): the outline moved inwards by ``by``, or nearly so where it is not an ellipse."""
    center = outline.mean(axis=0)
    return center + (outline - center) * (1 - 2 * by / np.ptp(outline, axis=0))


def paint(picture: Layer, value: float | Field, where: Field) -> None:
    """Cover ``picture`` with ``value``, in place; ``where`` in [0, 1] is how much of each place."""
    picture += where * (value - picture)


def as_mask(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """255 inside, 0 outside."""
    return np.where(inside, 255, 0).astype(np.uint8)
