"""One synthetic MR slice of a head, axial, T1-weighted with contrast medium; perhaps with a tumour.

Signal has no unit; its order is that of T1-weighted spin echo: fat brightest, then white matter,
grey matter, muscle, cerebrospinal fluid, and next to nothing from compact bone and air. What takes
up contrast medium is bright: vessels, the rim of a high-grade glioma, the whole of a meningioma.

    glioma      within the brain: ragged, a bright rim about a dark core, dark oedema around it
    meningioma  at the surface, broadly attached to the dura: round, smooth and evenly bright

Noise is that of a magnitude image, Rician (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995).
Head, tumour and noise draw from three streams of the seed, so nothing but the tumour depends on the
label, and a seed shows the same head at every size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge.image import Window
from medimg_export.phantom_stage import (
    Field,
    Layer,
    Points,
    Stage,
    as_mask,
    ellipse,
    paint,
    shrunk,
    smooth,
)
from medimg_export.phantom_texture import noise, resized

Finding = Literal["normal", "glioma", "meningioma"]

FIELD = 230.0
"""Millimetres that the picture shows, in both directions."""
FULL = 4095
"""The largest signal: scanners store 12 bits."""

# Relative signal.
FAT, WHITE, GREY, MUSCLE, FLUID, BONE = 0.95, 0.62, 0.47, 0.42, 0.16, 0.05
VESSEL, ENHANCED, NECROSIS, OEDEMA = 0.95, 0.9, 0.2, 0.36

_MATRIX = 256  # drawn as a scanner acquires it, then brought to the size asked for
_MIDLINE = np.array([0.5, 0.0])
# (u, y) of the left half of the head, u from the midline; the face is up.
_HEAD = [(0.0, 0.07), (0.13, 0.09), (0.245, 0.17), (0.315, 0.3), (0.345, 0.46), (0.34, 0.62)]
_HEAD += [(0.285, 0.78), (0.17, 0.895), (0.0, 0.93)]
# One lateral ventricle: the front horn, the body, the back horn.
_VENTRICLE = [(0.014, 0.395), (0.035, 0.345), (0.075, 0.33), (0.075, 0.365), (0.04, 0.43)]
_VENTRICLE += [(0.035, 0.5), (0.06, 0.56), (0.11, 0.63), (0.1, 0.66), (0.06, 0.63), (0.022, 0.54)]


@dataclass(frozen=True)
class Head:
    """An axial slice, seen from the feet: left of the picture is the patient's right.

    signal  uint16 (H, W), 0 to FULL, without a unit
    window  of the header: center and width that show it well
    mask    uint8 (H, W), 255 in a tumour (without its oedema), all 0 where there is none
    brain   uint8 (H, W), 255 inside the skull
    """

    signal: NDArray[np.uint16]
    window: Window
    mask: NDArray[np.uint8]
    brain: NDArray[np.uint8]
    finding: Finding
    seed: int

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """uint16 (H, W), the full range 0..65535: the slice in its window."""
        return np.rint(self.window.grey(self.signal) * 257).astype(np.uint16)


def mri(seed: int, finding: Finding, size: int = 512) -> Head:
    """Draw the head of ``seed`` (>= 0), with a tumour if ``finding`` is one.

    ``size`` is the side in pixels, at least 32.
    """
    rng = np.random.default_rng([seed, 0])
    stage = _stage(rng)
    outline = _outline(rng)
    brain = stage.filled(shrunk(outline, 0.045)[None], 0.002)
    signal, white = _head(rng, stage, outline, brain)
    tumour = np.zeros_like(signal)
    if finding != "normal":
        draw = _glioma if finding == "glioma" else _meningioma
        tumour = draw(np.random.default_rng([seed, 1]), signal, brain, white)
    gain = rng.uniform(1400, 2600)  # a scanner's own, and different every time
    field = np.clip(resized(signal * _sensitivity(rng), size), 0, None) * gain
    deviation = gain * rng.uniform(0.015, 0.04) * size / 512  # larger pixels, less noise
    stored = _magnitude(np.random.default_rng([seed, 2]), field, deviation)
    return Head(
        np.clip(np.rint(stored), 0, FULL).astype(np.uint16),
        Window(round(0.45 * gain), round(0.9 * gain)),
        as_mask(resized(tumour, size) > 0.4),
        as_mask(resized(brain, size) > 0.5),
        finding,
        seed,
    )


def _stage(rng: np.random.Generator) -> Stage:
    return Stage.drawn(
        rng,
        _MATRIX,
        scale=(0.92, 1.04),
        aspect=(0.96, 1.04),
        shift=((-0.02, 0.02), (-0.02, 0.02)),
        turn=0.06,
    )


def _outline(rng: np.random.Generator) -> Points:
    half = np.array(_HEAD) + rng.normal(0, 0.005, (len(_HEAD), 2)) * (1, 0)
    half[[0, -1], 0] = 0
    return smooth(np.concatenate([half, half[-2:0:-1] * (-1, 1)]) + _MIDLINE)


def _head(
    rng: np.random.Generator, stage: Stage, outline: Points, brain: Layer
) -> tuple[Layer, Layer]:
    """(_MATRIX, _MATRIX): the relative signal, and how much of each place is white matter."""
    signal = np.zeros((_MATRIX, _MATRIX), np.float32)
    mottle = _texture(rng, 5, 0.7)
    paint(signal, 0.55, stage.filled(outline[None], 0.001))  # skin
    paint(signal, FAT + 0.06 * mottle, stage.filled(shrunk(outline, 0.007)[None], 0.0015))
    scalp, skull = rng.uniform(0.018, 0.024), rng.uniform(0.031, 0.035)
    paint(signal, MUSCLE, _temples(stage, outline) * (signal > 0.7))
    paint(signal, BONE, stage.filled(shrunk(outline, scalp)[None], 0.0015))
    marrow = 0.5 * (scalp + skull) + 0.005
    diploe = stage.blank()
    stage.line(diploe, shrunk(outline, marrow)[None], 0.006, closed=True)
    paint(signal, 0.45 + 0.2 * mottle, 0.8 * stage.soft(diploe, 0.002))
    paint(signal, FLUID, stage.filled(shrunk(outline, skull + 0.006)[None], 0.0015))
    white, grey = _brain(rng, stage, outline, brain)
    paint(signal, GREY + 0.02 * mottle, grey)
    paint(signal, WHITE + 0.02 * mottle, white)
    _deep(rng, stage, signal)
    return signal, white


def _texture(rng: np.random.Generator, octaves: int, persistence: float) -> Layer:
    return resized(noise(rng, octaves, persistence), _MATRIX)


def _temples(stage: Stage, outline: Points) -> Layer:
    layer = stage.blank()
    middle = outline[:, 1].mean() - 0.06
    for side in (-1, 1):
        edge = 0.5 + side * (np.ptp(outline[:, 0]) / 2 - 0.02)
        stage.fill(layer, ellipse((edge, middle), (0.014, 0.15), side * 0.12)[None])
    return stage.soft(layer, 0.003)


def _brain(
    rng: np.random.Generator, stage: Stage, outline: Points, brain: Layer
) -> tuple[Layer, Layer]:
    """White and grey matter: folds are the lines along which band-passed noise changes its sign."""
    depth = _depth(brain)
    grain = rng.standard_normal((_MATRIX, _MATRIX), np.float32)
    field = _blurred(grain, 4.5) - _blurred(grain, 9)
    field = field / field.std() + 0.55  # off zero: banks broader than folds
    slope = np.hypot(*np.gradient(field)) + 0.05
    sulcus = np.abs(field) / slope / _MATRIX  # about the distance to the next fold
    sulcus += np.clip(depth - rng.uniform(0.075, 0.1), 0, None)
    midline = np.abs(_across(stage)) + 0.002
    front = stage.filled(shrunk(outline, 0.062)[None], 0.01) * (np.abs(_down(stage)) > 0.13)
    sulcus = np.minimum(sulcus, np.where(front > 0.5, midline, 1))
    surface = np.minimum(depth, sulcus)
    cleft = rng.uniform(0.001, 0.003)
    grey = _ramp(surface, cleft) * brain
    white = _ramp(surface, cleft + rng.uniform(0.01, 0.013)) * brain
    return _blurred(white, 0.8), _blurred(grey, 0.7)


def _blurred(field: Field, pixels: float) -> Layer:
    return np.asarray(cv2.GaussianBlur(field, (0, 0), pixels), np.float32)


def _ramp(distance: Field, start: float) -> Layer:
    return np.clip((distance - start) * _MATRIX / 1.5, 0, 1).astype(np.float32)


def _across(stage: Stage) -> Layer:
    """(_MATRIX, _MATRIX): the distance from the head's midline, negative on the left."""
    return _frame(stage)[..., 0]


def _down(stage: Stage) -> Layer:
    return _frame(stage)[..., 1]


def _frame(stage: Stage) -> NDArray[np.float32]:
    """(_MATRIX, _MATRIX, 2): where each pixel lies from the frame's centre, turned back."""
    axis = (np.arange(_MATRIX, dtype=np.float32) + 0.5) / _MATRIX - 0.5
    x, y = np.meshgrid(axis - stage.shift[0], axis - stage.shift[1])
    cos, sin = np.cos(stage.angle), np.sin(stage.angle)
    turned = np.stack([cos * x + sin * y, cos * y - sin * x], axis=-1)
    return (turned / stage.scale).astype(np.float32)


def _deep(rng: np.random.Generator, stage: Stage, signal: Layer) -> None:
    """What lies in the middle: nuclei, ventricles, the falx with its sinuses."""
    nuclei, fluid, vessels = stage.blank(), stage.blank(), stage.blank()
    wide = rng.uniform(0.75, 1.35)
    for side in (-1, 1):
        stage.fill(nuclei, ellipse((0.5 + side * 0.045, 0.505), (0.032, 0.05), side * 0.35)[None])
        stage.fill(nuclei, ellipse((0.5 + side * 0.1, 0.45), (0.025, 0.065), -side * 0.3)[None])
        stage.fill(nuclei, ellipse((0.5 + side * 0.062, 0.375), (0.014, 0.035), side * 0.4)[None])
        horn = np.array(_VENTRICLE) * (wide, 1) + rng.normal(0, 0.002, (len(_VENTRICLE), 2))
        stage.fill(fluid, smooth(horn * (side, 1) + _MIDLINE)[None])
        plexus = 0.5 + side * 0.075 * wide, 0.625
        stage.fill(vessels, ellipse(plexus, (0.008, 0.017), -side * 0.5)[None], 0.8)
    stage.fill(fluid, ellipse((0.5, 0.52), (0.005 * wide, 0.03))[None])  # the third ventricle
    paint(signal, GREY + 0.03, 0.9 * stage.soft(nuclei, 0.006))
    paint(signal, FLUID, stage.soft(fluid, 0.003))
    for y, reach in ((0.845, 0.02), (0.145, 0.009)):  # the sagittal sinus, back and front
        stage.fill(vessels, ellipse((0.5, y), (reach * 0.6, reach))[None])
    falx = np.array([[(0.5, 0.15), (0.5, 0.3)], [(0.5, 0.67), (0.5, 0.84)]])
    stage.line(vessels, falx, 0.004, 0.55)
    paint(signal, VESSEL, stage.soft(vessels, 0.002))


def _glioma(rng: np.random.Generator, signal: Layer, brain: Layer, white: Layer) -> Layer:
    """Draw into ``signal``; returns (_MATRIX, _MATRIX) in [0, 1], where the tumour is."""
    deep = cv2.erode(white, np.ones((5, 5), np.uint8)) * (_depth(brain) > 0.1)
    away = np.abs(np.arange(_MATRIX) - _MATRIX / 2)[None, :] > 0.08 * _MATRIX
    centers = np.argwhere((deep > 0.9) & away)
    row, column = centers[rng.integers(len(centers))]
    radius, stretch, turn = rng.uniform(0.045, 0.085), rng.uniform(0.8, 1.25), rng.uniform(0, 3)
    distance = _distance(row, column, (radius * stretch, radius / stretch), turn)
    ragged = distance + 0.16 * _texture(rng, 4, 0.8)
    mass = _soft(1 - ragged, 0.12) * brain
    core = _soft(rng.uniform(0.6, 0.78) - ragged, 0.12)
    swelling = _soft(rng.uniform(1.5, 1.9) - distance - 0.25 * _texture(rng, 4, 0.7), 0.35)
    paint(signal, np.minimum(signal, OEDEMA), swelling * np.maximum(white, mass) * brain)
    rim = ENHANCED * rng.uniform(0.85, 1.05) + 0.08 * _texture(rng, 5, 0.9)
    paint(signal, rim, mass)
    paint(signal, NECROSIS + 0.04 * _texture(rng, 5, 0.8), core * mass)
    return mass


def _meningioma(rng: np.random.Generator, signal: Layer, brain: Layer, white: Layer) -> Layer:
    """Draw into ``signal``; returns (_MATRIX, _MATRIX) in [0, 1], where the tumour is."""
    inside = _inside(brain)
    outline = max(cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    column, row = outline[rng.integers(len(outline)), 0]
    middle = np.argwhere(inside).mean(axis=0)
    radius = rng.uniform(0.05, 0.09)
    inwards = middle - (row, column)
    row, column = (row, column) + inwards / np.linalg.norm(inwards) * radius * 0.6 * _MATRIX
    turn, stretch = float(np.arctan2(*inwards)), rng.uniform(0.85, 1.1)
    distance = _distance(row, column, (radius * stretch, radius / stretch), turn)
    mass = _soft(1 - distance + 0.03 * _texture(rng, 3, 0.5), 0.1) * brain
    pushed = _soft(1.14 - distance, 0.1) * brain  # a cleft of fluid between it and the brain
    paint(signal, FLUID + 0.08, 0.7 * pushed)
    paint(signal, ENHANCED * rng.uniform(0.88, 1.0) + 0.025 * _texture(rng, 5, 0.8), mass)
    return mass


def _inside(brain: Layer) -> NDArray[np.uint8]:
    return as_mask(brain > 0.5)


def _depth(brain: Layer) -> Layer:
    """(_MATRIX, _MATRIX): how far the brain's surface is, as a share of the picture."""
    distance = cv2.distanceTransform(_inside(brain), cv2.DIST_L2, 5)
    return np.asarray(distance / _MATRIX, np.float32)


def _distance(row: float, column: float, radii: tuple[float, float], turn: float) -> Layer:
    """(_MATRIX, _MATRIX): 0 at a place, 1 on an ellipse about it; ``radii`` of the picture."""
    axis = np.arange(_MATRIX, dtype=np.float32) / _MATRIX
    x, y = axis[None, :] - np.float32(column / _MATRIX), axis[:, None] - np.float32(row / _MATRIX)
    along = (np.cos(turn) * x + np.sin(turn) * y) / radii[0]
    across = (np.cos(turn) * y - np.sin(turn) * x) / radii[1]
    return np.hypot(along, across).astype(np.float32)


def _soft(height: Field, edge: float) -> Layer:
    """0 below, 1 above, a slope about 0 that is ``edge`` wide."""
    return np.clip(height / edge + 0.5, 0, 1).astype(np.float32)


def _sensitivity(rng: np.random.Generator) -> Layer:
    """(_MATRIX, _MATRIX) about 1: coils hear what is near them better."""
    field = np.clip(resized(noise(rng, 1, 0.5), _MATRIX), -2, 2)
    return (1 + rng.uniform(0.02, 0.07) * field).astype(np.float32)


def _magnitude(rng: np.random.Generator, field: Layer, deviation: float) -> Layer:
    """Noise in both channels of a complex signal, of which the magnitude is kept."""
    real, imaginary = rng.normal(0, deviation, (2, *field.shape)).astype(np.float32)
    return np.hypot(field + real, imaginary)
