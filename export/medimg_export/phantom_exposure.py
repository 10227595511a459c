"""From attenuation to the grey of a radiograph: exposure, noise, tone, collimation, side marker."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medimg_export.phantom_stage import Layer, Stage
from medimg_export.phantom_texture import quanta

Side = Literal["L", "R"]

_FULL = 65535
_STEPS = 4096
# Strokes of the side markers, (x, y) in units of their height.
_L = np.array([(0, 0), (0, 1), (0.6, 1)])
_R = np.array(
    [(0, 1), (0, 0), (0.45, 0), (0.6, 0.25), (0.45, 0.5), (0, 0.5), (0.25, 0.5), (0.6, 1)]
)


def exposed(
    rng: np.random.Generator, attenuation: Layer, photons: np.random.Generator
) -> NDArray[np.uint16]:
    """Attenuation (H, W) -> grey, 0..65535: exposure gradient, quantum noise, window, tone curve.

    ``photons`` draws the noise, which is the only thing that depends on the size.
    """
    rows, columns = attenuation.shape
    down, across = (np.linspace(-0.5, 0.5, n, dtype=np.float32) for n in (rows, columns))
    tilt_x, tilt_y = rng.normal(0, 0.07, 2).astype(np.float32)
    field = attenuation + (tilt_x * across[None, :] + tilt_y * down[:, None])
    # Fewer quanta behind more tissue, and per pixel when pixels are smaller.
    grain = np.float32(rng.uniform(0.012, 0.03) * rows / 512)
    field += (field + np.float32(0.3)) * (quanta(photons, (rows, columns)) * grain)
    low, high = rng.uniform(-0.12, 0.06), rng.uniform(1.0, 1.3)
    gamma, knee = rng.uniform(0.75, 1.4), rng.uniform(0.0, 0.6)
    tone = np.linspace(0, 1, _STEPS) ** gamma
    tone = (1 - knee) * tone + knee * tone * tone * (3 - 2 * tone)
    field -= np.float32(low)
    field *= np.float32((_STEPS - 1) / (high - low))
    steps = np.clip(field, 0, _STEPS - 1, out=field).astype(np.uint16)
    return np.rint(tone * _FULL).astype(np.uint16)[steps]


def collimated(rng: np.random.Generator, pixels: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Sometimes darken borders of ``pixels``, in place; returns (H, W), what is still exposed."""
    rows, columns = pixels.shape
    edges = rng.uniform(0.01, 0.07, 4) * (rng.random(4) < 0.3) * float(rng.random() < 0.5)
    top, left, bottom, right = np.rint(edges * (rows, columns, rows, columns)).astype(int)
    inside = np.zeros(pixels.shape, np.bool_)
    inside[top : rows - bottom, left : columns - right] = True
    pixels[~inside] = int(rng.choice([0, 0.02, 0.05]) * _FULL)
    return inside


def mark(rng: np.random.Generator, pixels: NDArray[np.uint16], side: Side) -> None:
    """Burn in the marker of a side, in place, near the upper corner that faces it."""
    size = min(pixels.shape)
    letter, x = (_R, 0.07) if side == "R" else (_L, 0.9)
    strokes = letter * rng.uniform(0.03, 0.045) + (x, rng.uniform(0.04, 0.12))
    upright = Stage(size, (1.0, 1.0), 0.0, (0.0, 0.0))
    ink = upright.blank()
    upright.line(ink, strokes[None], rng.uniform(0.005, 0.008), rng.uniform(0.85, 1))
    corner = pixels[:size, :size]
    np.maximum(corner, ink.astype(np.uint16) * 257, out=corner)
