"""The shapes of a synthetic chest, in the frame of ``phantom_stage``.

Left of the picture is the patient's right. Outlines are written as (u, y) with u the distance from
the midline, so that one half serves both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medimg_export.phantom_stage import Points, band, smooth

_MIDLINE = np.array([0.5, 0.0])

# (u, y) from the neck down; beyond the picture on purpose.
_BODY = [(0.1, -0.3), (0.1, -0.06), (0.14, 0.02), (0.3, 0.075), (0.5, 0.13), (0.62, 0.24)]
_BODY += [(0.6, 0.4), (0.485, 0.43), (0.455, 0.55), (0.45, 0.7), (0.465, 0.9), (0.48, 1.3)]
# A lung from its apex down the chest wall, round the costophrenic angle (two points: a corner),
# over the dome and up the mediastinum.
_LUNG = [(0.15, 0.085), (0.235, 0.13), (0.31, 0.25), (0.355, 0.4), (0.38, 0.56), (0.392, 0.72)]
_LUNG += [(0.385, 0.845), (0.383, 0.85), (0.31, 0.765), (0.215, 0.725), (0.12, 0.745)]
_LUNG += [(0.05, 0.79), (0.055, 0.62), (0.06, 0.45), (0.065, 0.3), (0.085, 0.16)]
# The heart, x from the midline towards the patient's left, which is the right of the picture.
_HEART = [(-0.06, 0.44), (-0.105, 0.56), (-0.1, 0.7), (-0.03, 0.79), (0.1, 0.8), (0.2, 0.765)]
_HEART += [(0.215, 0.7), (0.165, 0.59), (0.1, 0.5), (0.075, 0.44)]
_MEDIASTINUM = [(-0.05, -0.1), (-0.055, 0.15), (-0.062, 0.3), (-0.06, 0.45), (-0.08, 0.85)]
_MEDIASTINUM += [(0.08, 0.85), (0.075, 0.45), (0.075, 0.37), (0.098, 0.31), (0.085, 0.255)]
_MEDIASTINUM += [(0.055, 0.2), (0.05, -0.1)]


@dataclass(frozen=True)
class Anatomy:
    """One person: closed outlines (K, N, 2), and the vessels as open paths."""

    body: Points
    lungs: Points  # left, then right of the picture
    heart: Points
    mediastinum: Points
    ribs: Points  # from the spine over the back to the chest wall
    front_ribs: Points  # from the chest wall towards the breastbone
    clavicles: Points
    vertebrae: Points
    trachea: Points
    hila: Points
    vessels: list[Points]  # paths (branches, 7, 2) for each generation, the widest first
    stomach: Points
    breasts: Points


def person(rng: np.random.Generator) -> Anatomy:
    """Draw one chest; every call with an equal generator draws the same one."""
    width, inspiration = rng.uniform(0.9, 1.06), rng.uniform(-0.07, 0.05)
    back, front = _ribs(rng, width, inspiration)
    return Anatomy(
        body=_body(rng, width)[None],
        lungs=np.stack([_lung(rng, side, width, inspiration) for side in (-1, 1)]),
        heart=_heart(rng, inspiration)[None],
        mediastinum=_mediastinum(rng)[None],
        ribs=back,
        front_ribs=front,
        clavicles=np.stack([_clavicle(rng, side) for side in (-1, 1)]),
        vertebrae=_vertebrae(rng),
        trachea=_trachea(rng)[None],
        hila=_pair((0.085, 0.44), (0.035, 0.075)),
        vessels=_vessels(rng),
        stomach=_pair((rng.uniform(0.12, 0.24), 0.86 + inspiration), (0.08, 0.045))[1:],
        breasts=_breasts(rng),
    )


def _jittered(rng: np.random.Generator, points: list[tuple[float, float]], by: float) -> Points:
    return np.array(points) + rng.normal(0, by, (len(points), 2))


def _body(rng: np.random.Generator, width: float) -> Points:
    half = np.array(_BODY)
    half[6:, 0] *= width * rng.uniform(0.98, 1.12)
    half[1:5, 1] += rng.uniform(-0.03, 0.04)
    left = half[::-1] * (-1, 1)
    return smooth(np.concatenate([half, left]) + _MIDLINE)


def _lung(rng: np.random.Generator, side: int, width: float, inspiration: float) -> Points:
    lung = _jittered(rng, _LUNG, 0.006)
    lung[7] = lung[6] + (-0.003, 0.004)
    lung[:, 0] *= width
    lung[:6, 1] += rng.normal(0, 0.012)
    # The liver lifts the dome on the patient's right, the left of the picture.
    lung[6:12, 1] += inspiration + rng.normal(0, 0.012) + (0.012 if side > 0 else -0.012)
    lung[8:11, 1] += rng.uniform(-0.02, 0.03)
    lung[5:8, 1] += rng.uniform(-0.03, 0.02)
    return smooth(lung * (side, 1) + _MIDLINE)


def _heart(rng: np.random.Generator, inspiration: float) -> Points:
    heart = _jittered(rng, _HEART, 0.006)
    heart[:, 0] *= rng.uniform(0.78, 1.2)
    heart[3:7, 1] += inspiration
    return smooth(heart + _MIDLINE)


def _mediastinum(rng: np.random.Generator) -> Points:
    outline = _jittered(rng, _MEDIASTINUM, 0.004)
    outline[:, 0] *= rng.uniform(0.8, 1.25)
    return smooth(outline + _MIDLINE)


def _ribs(rng: np.random.Generator, width: float, inspiration: float) -> tuple[Points, Points]:
    """Nine pairs: from the spine over the back to the chest wall, and some way back in front."""
    first, step = rng.uniform(0.085, 0.115), rng.uniform(0.078, 0.09) + inspiration / 12
    slope, half = rng.uniform(0.06, 0.12), rng.uniform(0.0095, 0.013)
    number, side = (a.reshape(-1, 1) for a in np.meshgrid(np.arange(9), (-1, 1)))  # (18, 1)
    reach = width * np.interp(number, [0, 1, 2, 4, 6, 8], [0.24, 0.29, 0.33, 0.38, 0.4, 0.4])
    t = np.linspace(0, 1, 24)
    u = 0.045 + (reach - 0.045) * np.sin(t * np.pi / 2) ** 0.9
    y = first + step * number + rng.normal(0, 0.002, (18, 1)) - 0.03 * np.sin(np.pi * t * 0.75)
    y += slope * (0.5 + number / 10) * t**3.2
    back = np.stack([0.5 + side * u, y], axis=-1)
    u = reach * (1 - 0.5 * t**1.6)
    y = y[:, -1:] + 0.028 * np.sin(t * np.pi / 2) + (0.05 + 0.012 * number) * t
    front = np.stack([0.5 + side * u, y], axis=-1)
    return band(back, half * (0.85 + 0.25 * t)), band(front, half * (1.05 + 0.3 * t))


def _clavicle(rng: np.random.Generator, side: int) -> Points:
    t = np.linspace(0, 1, 20)
    rise = rng.uniform(0.02, 0.075)
    u = 0.045 + 0.4 * t
    y = 0.185 + rng.normal(0, 0.01) - rise * t + 0.018 * np.sin(t * 2 * np.pi)
    path = np.stack([0.5 + side * u, y], axis=1)
    ends = np.minimum(1, 6 * np.minimum(t, 1 - t) + 0.25) ** 0.5
    return band(path, (0.012 + 0.007 * (1 - t) ** 4 + 0.003 * t) * ends)


def _vertebrae(rng: np.random.Generator) -> Points:
    """Bodies with the discs left out; the column bends a little."""
    bend, step = rng.normal(0, 0.008), rng.uniform(0.056, 0.066)
    top = np.arange(-0.05, 1.15, step)
    x, half, bottom = 0.5 + bend * np.sin(top * 3), 0.03 + 0.012 * top, top + 0.78 * step
    corners = [(x - half, top), (x + half, top), (x + half, bottom), (x - half, bottom)]
    return np.array(corners).transpose(2, 0, 1)


def _trachea(rng: np.random.Generator) -> Points:
    y = np.linspace(-0.1, rng.uniform(0.33, 0.37), 20)
    lean = rng.uniform(-0.014, 0.004)
    path = np.stack([0.5 + lean * np.clip(y * 3, 0, 1), y], axis=1)
    return band(path, rng.uniform(0.016, 0.022))


def _vessels(rng: np.random.Generator) -> list[Points]:
    """Three generations of branches out of each hilum, thinner and shorter with each."""
    side = np.repeat([-1.0, 1.0], 9)
    hilum = np.stack([0.5 + side * 0.08, 0.43 - 0.015 * side], axis=1)
    hilum[:, 1] += rng.uniform(-0.04, 0.05, 18)
    angle = np.tile(np.linspace(-1.2, 1.35, 9), 2) + rng.normal(0, 0.15, 18)
    trunks = _branches(rng, hilum, angle, side, rng.uniform(0.1, 0.18, 18))
    side = np.repeat(side, 3)
    angle = np.repeat(angle, 3) + np.tile([-1, 1, -1], 18) * rng.uniform(0.25, 0.7, 54)
    twigs = _branches(rng, trunks[:, (3, 5, 6)], angle, side, rng.uniform(0.06, 0.13, 54))
    side = np.repeat(side, 2)
    angle = np.repeat(angle, 2) + rng.uniform(-0.7, 0.7, 108)
    fine = _branches(rng, twigs[:, (3, 6)], angle, side, rng.uniform(0.05, 0.09, 108))
    return [trunks, twigs, fine]


def _branches(
    rng: np.random.Generator, starts: Points, angle: Points, side: Points, length: Points
) -> Points:
    """(N, 7, 2) paths; angle 0 is away from the midline (``side`` -1 or 1), positive is down."""
    angles = angle[:, None] + np.cumsum(rng.normal(0, 0.13, (len(angle), 6)), axis=1)
    steps = np.stack([side[:, None] * np.cos(angles), np.sin(angles)], axis=-1)
    path = np.cumsum(steps * length[:, None, None] / 6, axis=1)
    starts = starts.reshape(-1, 1, 2)
    return np.concatenate([starts, starts + path], axis=1)


def _breasts(rng: np.random.Generator) -> Points:
    size, low = rng.uniform(0.12, 0.17), rng.uniform(0.62, 0.7)
    return _pair((0.25, low), (size, size * 0.95))


def _pair(center: tuple[float, float], radii: tuple[float, float]) -> Points:
    """(2, 48, 2): ellipses on the left and the right of the picture, ``center`` as (u, y)."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    u, y = center[0] + radii[0] * np.cos(t), center[1] + radii[1] * np.sin(t)
    return np.stack([np.stack([0.5 + side * u, y], axis=1) for side in (-1, 1)])
