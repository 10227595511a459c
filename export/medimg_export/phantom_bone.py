"""One synthetic radiograph of a lower leg, taller than wide, with a fracture if positive.

Tibia and fibula are tubes: what a ray meets of a wall follows from its two radii, which is why
shafts have bright edges. Towards their ends walls become thin and spongy bone fills the tube. A
fracture is a thin gap across one of the bones: little of the picture, and the only thing that a
label changes.

Leg, fracture and quantum noise draw from three streams of the seed, and a seed shows the same leg
at every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medimg_export.phantom_exposure import Side, collimated, exposed, mark
from medimg_export.phantom_stage import Field, Layer, as_mask
from medimg_export.phantom_texture import noise, resized

FIELD = 430.0
"""Millimetres that the picture shows from top to bottom: the long side of a 35 x 43 cm detector."""


@dataclass(frozen=True)
class Leg:
    """A synthetic radiograph, bright where dense (MONOCHROME2).

    pixels  uint16 (H, W), the full range 0..65535 in the 4096 steps of a 12-bit detector
    mask    uint8 (H, W), 255 along a fracture, all 0 in a negative
    bones   uint8 (H, W), 255 in tibia and fibula
    side    the leg's, as the header and, if there is one, the burnt-in marker say it
    """

    pixels: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    bones: NDArray[np.uint8]
    side: Side
    positive: bool
    seed: int


@dataclass(frozen=True)
class _Bone:
    """A tube about the curve ``center(y)``; all lengths are shares of the picture's height."""

    place: float  # across, from the middle of the leg
    bow: float
    radius: float  # of the shaft
    wall: float  # share of the radius
    heads: tuple[float, float]  # radii at the knee and at the ankle
    ends: tuple[float, float]  # of the bone, along the leg

    def center(self, y: Field) -> Field:
        return self.place + self.bow * (1 - (2 * y - 1) ** 2)

    def outer(self, y: Field) -> Field:
        """The radius along the leg: slender in the middle, flared at both ends."""
        top, bottom = self.ends
        knee = np.exp(-(((y - top) / 0.13) ** 2)) * (self.heads[0] - self.radius)
        ankle = np.exp(-(((y - bottom) / 0.1) ** 2)) * (self.heads[1] - self.radius)
        cap = np.clip(np.minimum(y - top, bottom - y) / 0.02, 0, 1)
        return (self.radius + knee + ankle) * np.sqrt(cap * (2 - cap))

    def spongy(self, y: Field) -> Field:
        """0 in the shaft, 1 at the ends."""
        return np.clip(1 - np.minimum(y - self.ends[0], self.ends[1] - y) / 0.17, 0, 1)


def bone(seed: int, positive: bool, size: int = 512) -> Leg:
    """Draw the leg of ``seed`` (>= 0), with a fracture if ``positive``.

    ``size`` is the height in pixels, at least 32; the width is .42 to .6 of it.
    """
    rng = np.random.default_rng([seed, 0])
    columns = round(size * rng.uniform(0.42, 0.6))
    side: Side = "R" if rng.random() < 0.5 else "L"
    x, y = _frame(rng, size, columns)
    if side == "L":
        x = -x  # drawn as a right leg, whose fibula is on the left of the picture
    bones = _bones(rng)
    total = _flesh(rng, x, y)
    broken = np.zeros_like(total)
    fracture = np.random.default_rng([seed, 1])
    which = int(fracture.random() < 0.3)  # the tibia breaks more often
    outline = np.zeros(total.shape, np.bool_)
    grain = _cropped(noise(rng, 6, 1.0), size, columns)
    for number, each in enumerate(bones):
        density = _density(each, x, y, grain)
        if positive and number == which:
            gap, broken = _fracture(fracture, each, x, y, size)
            density *= gap
        outline |= np.abs(x - each.center(y)) < each.outer(y)
        total += rng.uniform(0.85, 1.0) * density
    pixels = exposed(rng, total, np.random.default_rng([seed, 2]))
    inside = collimated(rng, pixels)
    if rng.random() < 0.6:
        mark(rng, pixels, side)
    return Leg(
        pixels,
        as_mask(inside & (broken > 0.5)),
        as_mask(inside & outline),
        side,
        positive,
        seed,
    )


def _frame(rng: np.random.Generator, rows: int, columns: int) -> tuple[Field, Field]:
    """(rows, columns) each: x across from the leg's middle, y along it, 0 to 1 top to bottom."""
    angle, scale = rng.normal(0, 0.05), rng.uniform(0.92, 1.12)
    shift = rng.uniform(-0.02, 0.02)
    across = (np.arange(columns, dtype=np.float32) + 0.5 - columns / 2) / rows - np.float32(shift)
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows - np.float32(0.5)
    x, y = np.meshgrid(across, down)
    cos, sin = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    return cos * x + sin * y, cos * y - sin * x + np.float32(0.5)


def _bones(rng: np.random.Generator) -> tuple[_Bone, ...]:
    """Tibia, fibula, and what the picture shows of femur and talus.

    The fibula begins below the knee and ends below the tibia.
    """
    top, bottom = rng.uniform(0.03, 0.08), rng.uniform(0.93, 0.97)
    shaft = rng.uniform(0.03, 0.036)
    tibia = _Bone(
        place=0.022,
        bow=rng.normal(0, 0.006),
        radius=shaft,
        wall=rng.uniform(0.24, 0.36),
        heads=(rng.uniform(0.08, 0.09), rng.uniform(0.052, 0.06)),
        ends=(top, bottom),
    )
    fibula = _Bone(
        place=-rng.uniform(0.05, 0.058),
        bow=-rng.uniform(0.004, 0.014),
        radius=shaft * rng.uniform(0.36, 0.42),
        wall=rng.uniform(0.3, 0.45),
        heads=(rng.uniform(0.021, 0.025), rng.uniform(0.021, 0.026)),
        ends=(top + rng.uniform(0.035, 0.055), bottom + 0.03),
    )
    wide, joint = tibia.heads[0] * 0.97, rng.uniform(0.009, 0.014)
    femur = _Bone(0.022, 0.0, 0.04, 0.3, (0.04, wide), (-0.6, top - joint))
    talus = _Bone(0.01, 0.0, 0.05, 0.1, (0.055, 0.05), (bottom + joint, 1.6))
    return tibia, fibula, femur, talus


def _flesh(rng: np.random.Generator, x: Field, y: Field) -> Layer:
    """(H, W): skin and fat about muscle, which is thickest at the calf."""
    calf = np.exp(-(((y - rng.uniform(0.26, 0.34)) / 0.26) ** 2))
    half = rng.uniform(0.085, 0.1) + rng.uniform(0.03, 0.05) * calf
    fat = rng.uniform(0.008, 0.018)
    lean = x + 0.012 * calf  # more of it on the outer side
    texture = _cropped(noise(rng, 4, 0.6), *x.shape)
    shadow = 0.13 * _chord(lean, half + fat) + 0.22 * _chord(lean, half) * (1 + 0.04 * texture)
    return shadow.astype(np.float32)


def _chord(x: Field, radius: Field) -> Field:
    """What a ray at ``x`` meets of a rod, 1 in its middle."""
    return np.sqrt(np.clip(1 - (x / np.maximum(radius, 1e-6)) ** 2, 0, None))


def _density(each: _Bone, x: Field, y: Field, grain: Layer) -> Layer:
    """(H, W): what a ray meets of a bone, about 1 at the edge of the tibia's shaft."""
    offset, outer = x - each.center(y), each.outer(y)
    spongy = each.spongy(y)
    inner = outer * (1 - each.wall * (1 - 0.75 * spongy))
    whole, marrow = _chord(offset, outer) * outer, _chord(offset, inner) * inner
    wall = (whole - marrow) * (1 - 0.35 * spongy)
    filling = marrow * (0.12 + 0.3 * spongy * (1 + 0.16 * grain))
    return ((wall + filling) * 17).astype(np.float32)


def _fracture(
    rng: np.random.Generator, each: _Bone, x: Field, y: Field, size: int
) -> tuple[Layer, Layer]:
    """What is left of the bone (1 without a gap), and where the fracture is (0 or 1), (H, W).

    1 to 2.2 mm wide, across or oblique, jagged; anywhere in the shaft.
    """
    place = rng.uniform(0.22, 0.8)
    offset = x - each.center(y)
    across = offset / each.radius
    knots = rng.normal(0, 0.006, 9)
    jagged = np.interp(across, np.linspace(-1.3, 1.3, 9), knots).astype(np.float32)
    line = place + rng.normal(0, 0.55) * offset + jagged * min(1.0, each.radius / 0.03)
    width = rng.uniform(1.0, 2.2) / FIELD
    drawn = max(width, 1 / size)  # thinner than a pixel: fainter instead
    share = rng.uniform(0.55, 0.8) * width / drawn
    gap = 1 - share * np.exp(-(((y - line) / (0.6 * drawn)) ** 2))
    near = np.abs(y - line) < max(2.5 / FIELD, 1 / size)
    return gap.astype(np.float32), (near & (np.abs(offset) < each.outer(y))).astype(np.float32)


def _cropped(field: Layer, rows: int, columns: int) -> Layer:
    return resized(field, rows)[:, :columns]
