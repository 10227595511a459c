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

from medimg_export.phantom_anatomy import Anatomy, Layer, Stage, person

_GRID = 128  # soft fields are made here and enlarged: fast, and the same at every size
_RIM = _GRID // 10
_FULL = 65535
_STEPS = 4096
# Strokes of the side markers, (x, y) in units of their height.
_L = np.array([(0, 0), (0, 1), (0.6, 1)])
_R = np.array(
    [(0, 1), (0, 0), (0.45, 0), (0.6, 0.25), (0.45, 0.5), (0, 0.5), (0.25, 0.5), (0.6, 1)]
)


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
        alpha, mask = _opacities(opacities, _aerated(stage.at(_GRID), anatomy), lungs)
    air = lungs * (1 - np.minimum(alpha * severity, 0.95))
    pixels = _exposed(rng, _attenuation(rng, stage, anatomy, air), np.random.default_rng([seed, 2]))
    exposed = _collimated(rng, pixels)
    _mark(rng, pixels)
    return Phantom(
        pixels,
        np.where(exposed & (mask > 0), 255, 0).astype(np.uint8),
        np.where(exposed & (lungs > 0.5), 255, 0).astype(np.uint8),
        positive,
        seed,
    )


def _stage(rng: np.random.Generator, size: int) -> Stage:
    scale, aspect = rng.uniform(0.9, 1.12), rng.uniform(0.95, 1.05)
    shift = (rng.uniform(-0.05, 0.05), rng.uniform(-0.04, 0.05))
    return Stage(size, (scale * aspect, scale / aspect), rng.normal(0, 0.04), shift)


def _aerated(stage: Stage, anatomy: Anatomy) -> Layer:
    """(H, W) in [0, 1]: the lungs where neither heart nor mediastinum covers them."""
    layer = stage.blank()
    stage.fill(layer, anatomy.lungs)
    stage.fill(layer, anatomy.heart, 0)
    stage.fill(layer, anatomy.mediastinum, 0)
    return stage.soft(layer, 0.0025)


def _noise(rng: np.random.Generator, octaves: int, persistence: float) -> Layer:
    """(_GRID, _GRID), mean 0, deviation 1; each octave ``persistence`` times the one before."""
    field = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        side = 4 << octave
        field = _enlarged(field, side)
        field += persistence**octave * rng.standard_normal((side, side), dtype=np.float32)
    field = _enlarged(field, _GRID)
    return (field - field.mean()) / field.std()


def _enlarged(field: Layer, size: int) -> Layer:
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _resized(field: Layer, size: int) -> Layer:
    way = cv2.INTER_CUBIC if size > field.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(field, (size, size), interpolation=way), np.float32)


def _opacities(rng: np.random.Generator, visible: Layer, lungs: Layer) -> tuple[Layer, Layer]:
    """How much air each place has lost, and where that counts as an opacity (0 or 1).

    ``visible`` is the lung at _GRID, ``lungs`` the same at the size of the picture; both results
    have the shape of ``lungs`` and are zero outside of it.
    """
    # Clear of the lung's border and of the picture's, where little of an opacity would be seen.
    roomy = cv2.erode(visible, np.ones((13, 13), np.uint8)) > 0.9
    candidates = np.argwhere(roomy[_RIM:-_RIM, _RIM:-_RIM]) + _RIM
    axis = (np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID
    kept = np.ones((_GRID, _GRID), np.float32)
    core = np.zeros_like(kept)
    for _ in range(rng.choice([1, 2, 3], p=[0.85, 0.12, 0.03])):
        row, column = candidates[rng.integers(len(candidates))]
        radius, stretch, turn = rng.uniform(0.085, 0.12), rng.uniform(0.75, 1.3), rng.uniform(0, 3)
        x, y = axis[None, :] - axis[column], axis[:, None] - axis[row]
        across = (np.cos(turn) * x + np.sin(turn) * y) / (radius * stretch)
        along = (np.cos(turn) * y - np.sin(turn) * x) / (radius / stretch)
        ragged = 1 - np.sqrt(across**2 + along**2) + 0.17 * _noise(rng, 5, 0.75)
        blob = np.clip(ragged / 0.75, 0, 1)
        blob *= blob * (3 - 2 * blob)  # smoothstep: neither a step nor a cone
        core = np.maximum(core, blob)
        mottled = np.clip(1 + 0.15 * _noise(rng, 6, 0.9), 0.6, 1.3)
        kept *= 1 - np.clip(rng.uniform(0.7, 0.9) * blob * mottled, 0, 1)
    inside = lungs > 0.5
    alpha = np.clip(_resized(1 - kept, len(lungs)), 0, 1) * inside
    return alpha, ((_resized(core, len(lungs)) > 0.25) & inside).astype(np.float32)


def _attenuation(rng: np.random.Generator, stage: Stage, anatomy: Anatomy, air: Layer) -> Layer:
    """(H, W), about 0 in free air and about 1 in the abdomen."""
    low = stage.at(_GRID)
    # Towards its border a lung is thinner: less air, brighter.
    depth = cv2.GaussianBlur(low.filled(anatomy.lungs, 0), (0, 0), 0.05 * _GRID)
    depth = np.clip(depth + 0.06 * _noise(rng, 3, 0.6), 0, 1)
    # A turned patient has one lung darker than the other.
    depth *= np.linspace(1, 1 + rng.normal(0, 0.12), _GRID, dtype=np.float32)[None, :]
    inflated = _resized(rng.uniform(0.45, 0.62) * (0.45 + 0.55 * depth), stage.size) * air
    total = _resized(_soft_tissue(rng, low, anatomy), stage.size)
    total += _bones(rng, stage, anatomy)
    total -= inflated * (1 - _vessels(rng, stage, anatomy))
    return total


def _soft_tissue(rng: np.random.Generator, low: Stage, anatomy: Anatomy) -> Layer:
    """(_GRID, _GRID): all that has no sharp edge of its own."""
    flesh = low.filled(anatomy.body, 0.035) * (1 + 0.03 * _noise(rng, 3, 0.5))
    flesh += rng.uniform(-0.04, 0.12) * np.linspace(-1, 1, _GRID, dtype=np.float32)[:, None]
    flesh += _sometimes(rng, 0, 0.1) * low.filled(anatomy.breasts, 0.012)
    flesh -= _sometimes(rng, 0.1, 0.25) * low.filled(anatomy.stomach, 0.02)
    flesh += rng.uniform(0.06, 0.16) * low.filled(anatomy.heart, 0.02)
    flesh += rng.uniform(0.04, 0.1) * low.filled(anatomy.mediastinum, 0.015)
    flesh += rng.uniform(0.03, 0.08) * low.filled(anatomy.hila, 0.03)
    flesh -= rng.uniform(0.07, 0.13) * low.filled(anatomy.trachea, 0.006)
    flesh *= rng.uniform(0.7, 0.86) * low.filled(anatomy.body, 0.004)
    return np.asarray(flesh + 0.025 * _noise(rng, 6, 0.95), np.float32)


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


def _exposed(
    rng: np.random.Generator, attenuation: Layer, quanta: np.random.Generator
) -> NDArray[np.uint16]:
    """Attenuation -> grey: exposure gradient, quantum noise, window and tone curve."""
    size = len(attenuation)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    tilt_x, tilt_y = rng.normal(0, 0.07, 2).astype(np.float32)
    field = attenuation + (tilt_x * ramp[None, :] + tilt_y * ramp[:, None])
    # Fewer quanta behind more tissue, and per pixel when pixels are smaller.
    grain = np.float32(rng.uniform(0.012, 0.03) * size / 512)
    field += (field + np.float32(0.3)) * (_quanta(quanta, size) * grain)
    low, high = rng.uniform(-0.12, 0.06), rng.uniform(1.0, 1.3)
    gamma, knee = rng.uniform(0.75, 1.4), rng.uniform(0.0, 0.6)
    tone = np.linspace(0, 1, _STEPS) ** gamma
    tone = (1 - knee) * tone + knee * tone * tone * (3 - 2 * tone)
    field -= np.float32(low)
    field *= np.float32((_STEPS - 1) / (high - low))
    steps = np.clip(field, 0, _STEPS - 1, out=field).astype(np.uint16)
    return np.rint(tone * _FULL).astype(np.uint16)[steps]


def _quanta(rng: np.random.Generator, size: int) -> Layer:
    """(size, size), mean 0, deviation 1: counted random bits, far cheaper than normal deviates."""
    bits = rng.integers(0, 2**64, (size, size), np.uint64)
    return np.bitwise_count(bits).astype(np.float32) * np.float32(1 / 4) - np.float32(32 / 4)


def _collimated(rng: np.random.Generator, pixels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Sometimes darken borders of ``pixels``, in place; returns (H, W), what is still exposed."""
    size = len(pixels)
    edges = rng.uniform(0.01, 0.07, 4) * (rng.random(4) < 0.3) * float(rng.random() < 0.5)
    top, left, bottom, right = np.rint(edges * size).astype(int)
    exposed = np.zeros(pixels.shape, np.bool_)
    exposed[top : size - bottom, left : size - right] = True
    pixels[~exposed] = int(rng.choice([0, 0.02, 0.05]) * _FULL)
    return exposed


def _mark(rng: np.random.Generator, pixels: NDArray[np.uint16]) -> None:
    """Sometimes burn in a side marker, in place."""
    size = len(pixels)
    if rng.random() < 0.5:
        letter, x = (_R, 0.07) if rng.random() < 0.5 else (_L, 0.9)
        strokes = letter * rng.uniform(0.03, 0.045) + (x, rng.uniform(0.04, 0.12))
        upright = Stage(size, (1.0, 1.0), 0.0, (0.0, 0.0))
        ink = upright.blank()
        upright.line(ink, strokes[None], rng.uniform(0.005, 0.008), rng.uniform(0.85, 1))
        np.maximum(pixels, ink.astype(np.uint16) * 257, out=pixels)
