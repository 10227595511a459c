"""Random fields of phantoms: what no outline describes."""

from __future__ import annotations

import cv2
import numpy as np

from medimg_export.phantom_stage import Layer

GRID = 128
"""Soft fields are made at this size and enlarged: fast, and the same in every picture."""


def noise(rng: np.random.Generator, octaves: int, persistence: float) -> Layer:
    """(GRID, GRID), mean 0, deviation 1; each octave ``persistence`` times the one before."""
    field = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        side = 4 << octave
        field = _enlarged(field, side)
        field += persistence**octave * rng.standard_normal((side, side), dtype=np.float32)
    field = _enlarged(field, GRID)
    return (field - field.mean()) / field.std()


def _enlarged(field: Layer, size: int) -> Layer:
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def resized(field: Layer, size: int) -> Layer:
    """(size, size): a square field enlarged or reduced."""
    way = cv2.INTER_CUBIC if size > field.shape[0] else cv2.INTER_AREA
    return np.asarray(cv2.resize(field, (size, size), interpolation=way), np.float32)


def quanta(rng: np.random.Generator, shape: tuple[int, int]) -> Layer:
    """Of that shape, mean 0, deviation 1: counted random bits, far cheaper than normal deviates."""
    bits = rng.integers(0, 2**64, shape, np.uint64)
    return np.bitwise_count(bits).astype(np.float32) * np.float32(1 / 4) - np.float32(32 / 4)
