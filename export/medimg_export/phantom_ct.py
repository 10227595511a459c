"""One synthetic CT slice through the lungs, in Hounsfield units, with a nodule if positive.

The slice is painted tissue over tissue, back to front; soft edges stand for partial volume. A
nodule replaces air by tissue, as a real one does. The values are those of textbooks (Prokop and
Galanski, Spiral and Multislice Computed Tomography of the Body, Thieme 2003; Buzug, Computed
Tomography, Springer 2008): air -1000, inflated lung -910 to -850, fat -100 to -50, water 0, muscle
and blood 40 to 65, bone 200 (spongy) to 1000 and more (cortical).

Anatomy, nodules and noise draw from three streams of the seed, so nothing but the nodule depends on
the label, and a seed shows the same slice at every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.image import Window
from medimg_export.phantom_stage import (
    Layer,
    Points,
    Stage,
    as_mask,
    band,
    ellipse,
    paint,
    shrunk,
    smooth,
)
from medimg_export.phantom_texture import noise, quanta, resized

LUNG_WINDOW = Window(-600, 1500)
"""Center and width in HU: what radiologists read lungs with."""
FIELD = 380.0
"""Millimetres that the picture shows, in both directions."""

AIR, FAT, BLOOD, MUSCLE, SPONGY, CORTICAL = -1000, -100, 45, 55, 220, 900
LOWEST, HIGHEST = -1024, 3071
"""What 12 bits hold, and scanners clip at."""

_MATRIX = 512  # drawn as a scanner reconstructs it, then brought to the size asked for
_REACH = 32  # pixels of the matrix that no nodule extends beyond
_MIDLINE = np.array([0.5, 0.0])
# (u, y) of the left half of the picture, u from the midline; front is up.
_BODY = [(0.0, 0.2), (0.13, 0.2), (0.27, 0.245), (0.385, 0.36), (0.42, 0.5), (0.39, 0.63)]
_BODY += [(0.29, 0.745), (0.15, 0.785), (0.04, 0.772)]
_LUNG = [(0.055, 0.3), (0.14, 0.285), (0.245, 0.33), (0.318, 0.43), (0.338, 0.53), (0.312, 0.63)]
_LUNG += [(0.235, 0.695), (0.135, 0.705), (0.075, 0.66), (0.07, 0.575), (0.105, 0.49)]
_LUNG += [(0.085, 0.4)]
_HEART = [(-0.065, 0.325), (0.03, 0.3), (0.13, 0.35), (0.195, 0.44), (0.17, 0.515), (0.08, 0.545)]
_HEART += [(-0.04, 0.535), (-0.105, 0.475), (-0.105, 0.39)]


@dataclass(frozen=True)
class Slice:
    """An axial slice, seen from the feet: left of the picture is the patient's right.

    hu     int16 (H, W), Hounsfield units, LOWEST to HIGHEST
    mask   uint8 (H, W), 255 inside a nodule, all 0 in a negative
    lungs  uint8 (H, W), 255 in the lungs, vessels and nodules included
    """

    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    positive: bool
    seed: int

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """uint16 (H, W), the full range 0..65535: the slice in the lung window."""
        return np.rint(LUNG_WINDOW.grey(self.hu) * 257).astype(np.uint16)


def ct(seed: int, positive: bool, size: int = 512) -> Slice:
    """Draw the slice of ``seed`` (>= 0), with 1 or 2 nodules in its lungs if ``positive``.

    ``size`` is the side in pixels, at least 32.
    """
    rng = np.random.default_rng([seed, 0])
    stage = _stage(rng)
    lungs = _lungs(rng, stage)
    hu = _slice(rng, stage, lungs)
    core = np.zeros_like(hu)
    if positive:
        core = _nodules(np.random.default_rng([seed, 1]), hu, lungs)
    hu = resized(hu, size) + _noise(rng, np.random.default_rng([seed, 2]), size)
    return Slice(
        np.clip(np.rint(hu), LOWEST, HIGHEST).astype(np.int16),
        as_mask(resized(core, size) > 0.4),
        as_mask(resized(lungs, size) > 0.5),
        positive,
        seed,
    )


def _stage(rng: np.random.Generator) -> Stage:
    return Stage.drawn(
        rng,
        _MATRIX,
        scale=(0.98, 1.14),
        aspect=(0.95, 1.05),
        shift=((-0.03, 0.03), (-0.03, 0.03)),
        turn=0.03,
    )


def _lungs(rng: np.random.Generator, stage: Stage) -> Layer:
    """(_MATRIX, _MATRIX) in [0, 1]: both lungs, where the heart leaves room for them."""
    layer = stage.blank()
    for side in (-1, 1):
        half = np.array(_LUNG) + rng.normal(0, 0.006, (len(_LUNG), 2))
        stage.fill(layer, smooth(half * (side, 1) + _MIDLINE)[None])
    heart = np.array(_HEART) * (rng.uniform(0.8, 1.1), 1) + rng.normal(0, 0.005, (len(_HEART), 2))
    stage.fill(layer, smooth(heart + _MIDLINE)[None], 0)
    return stage.soft(layer, 0.0015)


def _slice(rng: np.random.Generator, stage: Stage, lungs: Layer) -> Layer:
    """(_MATRIX, _MATRIX), HU without noise."""
    hu = np.full((_MATRIX, _MATRIX), AIR, np.float32)
    paint(hu, -200, _couch(stage))
    body = _body(rng)
    mottle = resized(noise(rng, 5, 0.7), _MATRIX)
    paint(hu, FAT + 10 * mottle, stage.filled(body[None], 0.0015))
    wall = shrunk(body, rng.uniform(0.015, 0.05))
    paint(hu, MUSCLE + 8 * mottle, stage.filled(wall[None], 0.002))
    chest = shrunk(body, 0.075)
    paint(hu, -40 + 45 * mottle, stage.filled(chest[None], 0.002))  # fat between the muscles
    _bones(rng, stage, hu, body)
    _mediastinum(rng, stage, hu)
    paint(hu, _parenchyma(rng), lungs)
    paint(hu, BLOOD - 15, lungs * _vessels(rng, stage))
    _airways(rng, stage, hu)
    return hu


def _body(rng: np.random.Generator) -> Points:
    half = np.array(_BODY)
    half[:, 0] *= rng.uniform(0.97, 1.06)
    left = half[:0:-1] * (-1, 1)
    return smooth(np.concatenate([half, left]) + _MIDLINE)


def _couch(stage: Stage) -> Layer:
    """The shell of the table, below the back; it does not turn with the patient."""
    x = np.linspace(0.1, 0.9, 40)
    y = 0.9 - 0.35 * (x - 0.5) ** 2
    upright = Stage(stage.size, (1.0, 1.0), 0.0, (0.0, stage.shift[1]))
    layer = upright.blank()
    upright.line(layer, np.stack([x, y], axis=1)[None], 0.006)
    return upright.soft(layer, 0.002)


def _bones(rng: np.random.Generator, stage: Stage, hu: Layer, body: Points) -> None:
    """Ribs where the slice cuts them, shoulder blades, breastbone, vertebra; spongy in a shell."""
    spongy = SPONGY + 60 * resized(noise(rng, 6, 0.9), _MATRIX)
    shapes = [*_ribs(rng, body), ellipse((0.5, 0.245), (0.055, 0.017), 0.0), _vertebra(rng)]
    for side in (-1, 1):
        t = np.linspace(0, 1, 12)
        x, y = 0.5 + side * (0.19 + 0.13 * t), 0.735 - 0.1 * t + 0.03 * np.sin(3 * t)
        shapes.append(band(np.stack([x, y], axis=1), 0.006 + 0.006 * (1 - t)))
    shell, marrow = stage.blank(), stage.blank()
    for shape in shapes:
        stage.fill(shell, shape[None])
        stage.line(marrow, shape[None], 0.007, closed=True)
    inside = stage.soft(shell, 0.0015)
    paint(hu, spongy, inside)
    paint(hu, rng.uniform(0.75, 1.1) * CORTICAL, inside * stage.soft(marrow, 0.0015))
    canal = ellipse((0.5, 0.672), (0.022, 0.019), 0.0)
    paint(hu, 30, stage.filled(canal[None], 0.0015))


def _ribs(rng: np.random.Generator, body: Points) -> list[Points]:
    """Each is an oblique cut: an ellipse along the chest wall."""
    wall = shrunk(body, rng.uniform(0.052, 0.06))
    starts = np.linspace(0, 1, 12, endpoint=False) + rng.uniform(0.02, 0.06)
    found = []
    for start in starts + rng.normal(0, 0.008, 12):
        at = int((start % 1) * len(wall))
        along = wall[(at + 2) % len(wall)] - wall[at - 2]
        if abs(wall[at, 0] - 0.5) > 0.09:  # the breastbone and the spine have their own
            angle = float(np.arctan2(along[1], along[0]))
            found.append(ellipse(tuple(wall[at]), (rng.uniform(0.022, 0.042), 0.0115), angle))
    return found


def _vertebra(rng: np.random.Generator) -> Points:
    """Body, pedicles, transverse and spinous processes, as one outline."""
    body = [(0.0, 0.575), (0.035, 0.58), (0.052, 0.61), (0.047, 0.64), (0.04, 0.665)]
    body += [(0.095, 0.69), (0.098, 0.702), (0.035, 0.7), (0.012, 0.72), (0.008, 0.752)]
    half = np.array(body)
    half[:, 1] += rng.normal(0, 0.004)
    return smooth(np.concatenate([half, half[:0:-1] * (-1, 1)]) + _MIDLINE, 4)


def _mediastinum(rng: np.random.Generator, stage: Stage, hu: Layer) -> None:
    heart = smooth(np.array(_HEART) * (0.95, 0.96) + _MIDLINE + [0, 0.012])
    paint(hu, -70, stage.filled(smooth(np.array(_HEART) + _MIDLINE)[None], 0.003))
    paint(hu, BLOOD + rng.normal(0, 4), stage.filled(heart[None], 0.004))
    aorta = ellipse((0.565 + rng.normal(0, 0.006), 0.59), (0.032, 0.034), 0.3)
    paint(hu, BLOOD + 4, stage.filled(aorta[None], 0.002))
    oesophagus = ellipse((0.515, 0.565), (0.018, 0.012), 0.2)
    paint(hu, 35, stage.filled(oesophagus[None], 0.002))


def _parenchyma(rng: np.random.Generator) -> Layer:
    """Darker in front, denser in the back where the blood settles."""
    base, gradient = rng.uniform(-890, -850), rng.uniform(20, 70)
    down = np.linspace(-0.5, 0.5, _MATRIX, dtype=np.float32)[:, None]
    texture = 12 * resized(noise(rng, 5, 0.6), _MATRIX) + 18 * resized(noise(rng, 6, 1.0), _MATRIX)
    return (base + gradient * 2 * down + texture).astype(np.float32)


def _vessels(rng: np.random.Generator, stage: Stage) -> Layer:
    """(_MATRIX, _MATRIX) in [0, 1]: branches in the plane of the slice, and cuts across it."""
    layer = stage.blank()
    for side in (-1, 1):
        hilum = np.array([0.5 + side * 0.1, 0.485])
        for angle in np.linspace(-1.5, 1.6, 7) + rng.normal(0, 0.15, 7):
            _branch(rng, stage, layer, hilum, (side, float(angle)), (0.12, 0.0075), 1)
    count = 70
    x, y = rng.uniform(0.12, 0.88, count), rng.uniform(0.27, 0.71, count)
    radius = 0.0018 + 0.005 * rng.random(count) ** 3 * (1 - np.abs(x - 0.5))
    for center, r in zip(np.stack([x, y], axis=1), radius, strict=True):
        dot = ellipse(tuple(center), (r, r * rng.uniform(0.7, 1)), rng.uniform(0, 3))
        stage.fill(layer, dot[None], rng.uniform(0.7, 1))
    return stage.soft(layer, 0.0012)


def _branch(
    rng: np.random.Generator,
    stage: Stage,
    layer: NDArray[np.uint8],
    start: Points,
    way: tuple[int, float],
    extent: tuple[float, float],
    generation: int,
) -> None:
    """A vessel from ``start`` and those that leave it; ``way``: side and angle, 0 outwards.

    The further out, the more of it lies above or below the slice, and the fainter it is.
    """
    (side, angle), (length, width) = way, extent
    turns = angle + np.cumsum(rng.normal(0, 0.12, 6))
    steps = np.stack([side * np.cos(turns), np.sin(turns)], axis=1) * length / 6
    path = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
    for piece in (0, 2, 4):  # tapering
        seen = rng.uniform(0.7, 1.0) / generation**0.6
        stage.line(layer, path[None, piece : piece + 3], width * (1 - 0.06 * piece), seen)
    if generation < 3:
        smaller = length * rng.uniform(0.55, 0.75), width * 0.58
        for at, turn in ((3, 0.6), (5, -0.5), (6, 0.25)):
            leaving = side, float(turns[at - 1] + turn * rng.uniform(0.6, 1.4))
            _branch(rng, stage, layer, path[at], leaving, smaller, generation + 1)


def _airways(rng: np.random.Generator, stage: Stage, hu: Layer) -> None:
    """The two main bronchi: air in a thin wall."""
    for side in (-1, 1):
        center = 0.5 + side * rng.uniform(0.05, 0.07), 0.49 + rng.normal(0, 0.006)
        radii, angle = np.array([0.021, 0.015]) * rng.uniform(0.85, 1.15), side * 0.5
        for grown, value in ((0.005, 30), (0.0, AIR + 5)):
            outline = ellipse(center, tuple(radii + grown), angle)
            paint(hu, value, stage.filled(outline[None], 0.0012))


def _nodules(rng: np.random.Generator, hu: Layer, lungs: Layer) -> Layer:
    """Put them into ``hu``; returns (_MATRIX, _MATRIX) in [0, 1], how much of it is nodule.

    7 to 30 mm across; beyond that it is called a mass. One in four is ground glass.
    """
    free = (lungs > 0.9) & (hu < -600)  # not on a vessel: that would be no nodule to see
    centers = np.argwhere(cv2.erode(free.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0)
    core = np.zeros_like(hu)
    for _ in range(rng.choice([1, 2], p=[0.85, 0.15])):
        row, column = centers[rng.integers(len(centers))]
        box = tuple(slice(max(0, at - _REACH), at + _REACH) for at in (row, column))
        y, x = (np.mgrid[box] - np.array([row, column])[:, None, None]).astype(np.float32)
        blob = _blob(rng, x, y) * np.clip(2 * lungs[box], 0, 1)
        glass = rng.random() < 0.25
        density = rng.uniform(-550, -350) if glass else rng.uniform(10, 60)
        grain = resized(noise(rng, 6, 1.0), _MATRIX)[box] * (40 if glass else 8)
        hu[box] += blob * np.maximum(density + grain - hu[box], 0)
        core[box] = np.maximum(core[box], blob)
    return core


def _blob(rng: np.random.Generator, x: Layer, y: Layer) -> Layer:
    """A lobed outline about (0, 0), pixels of the matrix; in [0, 1]."""
    radius = rng.uniform(7, 24) / 2 * _MATRIX / FIELD
    around = np.arctan2(y, x)
    edge = np.ones_like(around)
    for lobes in range(2, 7):
        edge += rng.normal(0, 0.16) / lobes * np.cos(lobes * around + rng.uniform(0, 6))
    depth = radius * edge - np.hypot(x * rng.uniform(0.85, 1.2), y)
    return np.clip(depth / rng.uniform(1.5, 4) + 0.5, 0, 1).astype(np.float32)


def _noise(rng: np.random.Generator, photons: np.random.Generator, size: int) -> Layer:
    """(size, size) in HU: smoother and weaker where pixels are larger."""
    deviation = rng.uniform(12, 32) * size / _MATRIX
    grain = cv2.GaussianBlur(quanta(photons, (size, size)), (0, 0), 0.6)
    return np.asarray(grain * np.float32(deviation / max(grain.std(), 1e-6)), np.float32)
