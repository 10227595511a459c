"""One synthetic chest radiograph: anatomy, exposure and, if positive, soft opacities in the lungs.

The picture is a sum of attenuations, as on a real radiograph, where overlaid structures add up in
the logarithm of the exposure; a random tone curve turns the sum into grey. An opacity takes air out
of the lung instead of being painted on: it hides vessels and borders as a consolidation does.

Chest, opacities and quantum noise draw from three streams of the seed, so nothing but the opacities
depends on the label: ``chest(s, True)`` and ``chest(s, False)`` are the same person in the same
exposure, and a seed shows the same chest at every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_export.phantom_anatomy import Anatomy, person
from medimg_export.phantom_exposure import collimated, exposed, mark
from medimg_export.phantom_stage import Layer, Stage, as_mask
from medimg_export.phantom_texture import GRID, noise, resized

_RIM = GRID // 10


@dataclass(frozen=True)
class Phantom:
    """A synthetic radiograph, bright where dense (MONOCHROME2).

    pixels  uint16 (H, W), the full range 0..65535 in the 4096 steps of a 12-bit detector
    mask    uint8 (H, W), 255 inside an opacity, all 0 in a negative
    lungs   uint8 (H, W), 255 in the air of the lungs, where heart and mediastinum leave it visible
    """

    pixels: NDArray[np.uint16]
    mask: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    positive: bool
    seed: int


def chest(seed: int, positive: bool, size: int = 512, *, severity: float = 1.0) -> Phantom:
    """Draw the chest of ``seed`` (>= 0), with 1 to 3 opacities in its lungs if ``positive``.

    ``size`` is the side in pixels, at least 32. ``severity`` scales how much air the opacities
    take: 1 is plainly visible, 0.5 is subtle, 0 leaves the mask and no trace in the picture.
    """
    rng = np.random.default_rng([seed, 0])
    anatomy = person(rng)
    stage = _stage(rng, size)
    lungs = _aerated(stage, anatomy)
    alpha = mask = np.zeros((size, size), np.float32)
    if positive:
        opacities = np.random.default_rng([seed, 1])
        alpha, mask = _opacities(opacities, _aerated(stage.at(GRID), anatomy), lungs)
    air = lungs * (1 - np.minimum(alpha * severity, 0.95))
    pixels = exposed(rng, _attenuation(rng, stage, anatomy, air), np.random.default_rng([seed, 2]))
    inside = collimated(rng, pixels)
    if rng.random() < 0.5:
        mark(rng, pixels, "R" if rng.random() < 0.5 else "L")
    return Phantom(
        pixels,
        as_mask(inside & (mask > 0)),
        as_mask(inside & (lungs > 0.5)),
        positive,
        seed,
    )


def _stage(rng: np.random.Generator, size: int) -> Stage:
    return Stage.drawn(
        rng,
        size,
        scale=(0.9, 1.12),
        aspect=(0.95, 1.05),
        shift=((-0.05, 0.05), (-0.04, 0.05)),
        turn=0.04,
    )


def _aerated(stage: Stage, anatomy: Anatomy) -> Layer:
    """(H, W) in [0, 1]: the lungs where neither heart nor mediastinum covers them."""
    layer = stage.blank()
    stage.fill(layer, anatomy.lungs)
    stage.fill(layer, anatomy.heart, 0)
    stage.fill(layer, anatomy.mediastinum, 0)
    return stage.soft(layer, 0.0025)


def _opacities(rng: np.random.Generator, visible: Layer, lungs: Layer) -> tuple[Layer, Layer]:
    """How much air each place has lost, and where that counts as an opacity (0 or 1).

    ``visible`` is the lung at GRID, ``lungs`` the same at the size of the picture; both results
    have the shape of ``lungs`` and are zero outside of it.
    """
    # Clear of the lung's border and of the picture's, where little of an opacity would be seen.
    roomy = cv2.erode(visible, np.ones((13, 13), np.uint8)) > 0.9
    candidates = np.argwhere(roomy[_RIM:-_RIM, _RIM:-_RIM]) + _RIM
    axis = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    kept = np.ones((GRID, GRID), np.float32)
    core = np.zeros_like(kept)
    for _ in range(rng.choice([1, 2, 3], p=[0.85, 0.12, 0.03])):
        row, column = candidates[rng.integers(len(candidates))]
        radius, stretch, turn = rng.uniform(0.085, 0.12), rng.uniform(0.75, 1.3), rng.uniform(0, 3)
        x, y = axis[None, :] - axis[column], axis[:, None] - axis[row]
        across = (np.cos(turn) * x + np.sin(turn) * y) / (radius * stretch)
        along = (np.cos(turn) * y - np.sin(turn) * x) / (radius / stretch)
        ragged = 1 - np.sqrt(across**2 + along**2) + 0.17 * noise(rng, 5, 0.75)
        blob = np.clip(ragged / 0.75, 0, 1)
        blob *= blob * (3 - 2 * blob)  # smoothstep: neither a step nor a cone
        core = np.maximum(core, blob)
        mottled = np.clip(1 + 0.15 * noise(rng, 6, 0.9), 0.6, 1.3)
        kept *= 1 - np.clip(rng.uniform(0.7, 0.9) * blob * mottled, 0, 1)
    inside = lungs > 0.5
    alpha = np.clip(resized(1 - kept, len(lungs)), 0, 1) * inside
    return alpha, ((resized(core, len(lungs)) > 0.25) & inside).astype(np.float32)


def _attenuation(rng: np.random.Generator, stage: Stage, anatomy: Anatomy, air: Layer) -> Layer:
    """(H, W), about 0 in free air and about 1 in the abdomen."""
    low = stage.at(GRID)
    # Towards its border a lung is thinner: less air, brighter.
    depth = cv2.GaussianBlur(low.filled(anatomy.lungs, 0), (0, 0), 0.05 * GRID)
    depth = np.clip(depth + 0.06 * noise(rng, 3, 0.6), 0, 1)
    # A turned patient has one lung darker than the other.
    depth *= np.linspace(1, 1 + rng.normal(0, 0.12), GRID, dtype=np.float32)[None, :]
    inflated = resized(rng.uniform(0.45, 0.62) * (0.45 + 0.55 * depth), stage.size) * air
    total = resized(_soft_tissue(rng, low, anatomy), stage.size)
    total += _bones(rng, stage, anatomy)
    total -= inflated * (1 - _vessels(rng, stage, anatomy))
    return total


def _soft_tissue(rng: np.random.Generator, low: Stage, anatomy: Anatomy) -> Layer:
    """(GRID, GRID): all that has no sharp edge of its own."""
    flesh = low.filled(anatomy.body, 0.035) * (1 + 0.03 * noise(rng, 3, 0.5))
    flesh += rng.uniform(-0.04, 0.12) * np.linspace(-1, 1, GRID, dtype=np.float32)[:, None]
    flesh += _sometimes(rng, 0, 0.1) * low.filled(anatomy.breasts, 0.012)
    flesh -= _sometimes(rng, 0.1, 0.25) * low.filled(anatomy.stomach, 0.02)
    flesh += rng.uniform(0.06, 0.16) * low.filled(anatomy.heart, 0.02)
    flesh += rng.uniform(0.04, 0.1) * low.filled(anatomy.mediastinum, 0.015)
    flesh += rng.uniform(0.03, 0.08) * low.filled(anatomy.hila, 0.03)
    flesh -= rng.uniform(0.07, 0.13) * low.filled(anatomy.trachea, 0.006)
    flesh *= rng.uniform(0.7, 0.86) * low.filled(anatomy.body, 0.004)
    return np.asarray(flesh + 0.025 * noise(rng, 6, 0.95), np.float32)


def _sometimes(rng: np.random.Generator, low: float, high: float) -> float:
    return rng.uniform(low, high) * float(rng.random() < 0.5)


def _bones(rng: np.random.Generator, stage: Stage, anatomy: Anatomy) -> Layer:
    """(H, W): bands with brighter rims, since a tube's wall is thickest to a tangential ray."""
    back, front = stage.blank(), stage.blank()
    stage.fill(back, anatomy.vertebrae, 0.45)
    stage.fill(back, anatomy.ribs, 0.5)
    stage.line(back, anatomy.ribs, 0.0025, 0.85, closed=True)
    stage.fill(front, anatomy.front_ribs, 0.35)
    stage.fill(front, anatomy.clavicles, 0.6)
    stage.line(front, anatomy.clavicles, 0.003, 0.95, closed=True)
    both = back // 2 + front // 2
    return stage.soft(both, 0.0025) * np.float32(rng.uniform(0.16, 0.32))


def _vessels(rng: np.random.Generator, stage: Stage, anatomy: Anatomy) -> Layer:
    """(H, W) in [0, 1]: the share of the air that vessels take."""
    layer = stage.blank()
    for paths, width, grey in zip(
        anatomy.vessels[::-1], (0.002, 0.0035, 0.006), (0.5, 0.7, 1), strict=True
    ):
        stage.line(layer, paths, width, grey)
    return stage.soft(layer, 0.003) * np.float32(rng.uniform(0.2, 0.4))
