"""Resize, to the bit the same on every processor.

OpenCV's wheels do not: that for aarch64 has libraries of its own for it, and a tensor that differs
by one level is another tensor. Here each product and each sum is one numpy operation, rounded once,
in an order that is written down. The arithmetic is that of OpenCV on x86-64, with which the first
models were trained: modules/imgproc/src/resize.cpp, computeResizeAreaTab, ResizeAreaFast, and the
fixed point of 8 bits in HResizeLinear and VResizeLinear.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-3
"""Of a pixel: a smaller part of it is not counted."""

_ONE = np.float32(2048)
"""What a weight of 1 is where 8-bit values are interpolated: 11 bits."""


class Tap(NamedTuple):
    """For every place of an axis: a row that it is made of, and by which weight."""

    row: NDArray[np.intp]
    weight: NDArray[np.float32]


def resize(values: NDArray, height: int, width: int) -> NDArray:
    """Resize (H, W) or (H, W, C), uint8 or float32, keeping the dtype.

    Each axis by its own direction: where it shrinks, a place is the mean of what it covers (no
    aliasing); where it grows, its neighbours are interpolated. The shrinking axis goes first.
    """
    rows, columns = values.shape[:2]
    low, narrow = min(rows, height), min(columns, width)
    if (low, narrow) != (rows, columns):
        values = _shrink(values, low, narrow)
    if (low, narrow) != (height, width):
        grow = _grow_levels if values.dtype == np.uint8 else _grow
        values = grow(values, height, width)
    return values


# Where it shrinks


def _shrink(values: NDArray, height: int, width: int) -> NDArray:
    rows, columns = values.shape[:2]
    if rows % height == 0 and columns % width == 0:
        return _means(values, rows // height, columns // width)
    across = _weighted(cv2.transpose(values), _areas(columns, width))
    return _as(_weighted(cv2.transpose(across), _areas(rows, height)), values.dtype)


def _weighted(values: NDArray, taps: tuple[Tap, ...]) -> NDArray[np.float32]:
    """(N, M[, C]) -> a weighted sum of its rows for each place, one tap after the other."""
    first, *others = taps
    total = values[first.row] * _along(first.weight, values)
    for tap in others:
        total += values[tap.row] * _along(tap.weight, values)
    return total


def _along(weight: NDArray, values: NDArray) -> NDArray:
    return weight.reshape(-1, *(1,) * (values.ndim - 1))


@lru_cache(maxsize=64)
def _areas(size: int, places: int) -> tuple[Tap, ...]:
    """The rows that each place covers, whole or in part; a tap too many has the weight 0."""
    scale = size / places
    of = []
    for place in range(places):
        start = place * scale
        end = start + scale
        covered = min(scale, size - start)
        last = min(math.floor(end), size - 1)
        first = min(math.ceil(start), last)
        parts = [(row, 1 / covered) for row in range(first, last)]
        if first - start > _NOTHING:
            parts.insert(0, (first - 1, (first - start) / covered))
        if end - last > _NOTHING:
            parts.append((last, min(end - last, 1, covered) / covered))
        of.append(parts)
    most = max(map(len, of))
    rows = np.zeros((most, places), np.intp)
    weights = np.zeros((most, places), np.float32)
    for place, parts in enumerate(of):
        for at, (row, weight) in enumerate(parts):
            rows[at, place], weights[at, place] = row, weight
    return tuple(map(Tap, rows, weights))


def _means(values: NDArray, down: int, across: int) -> NDArray:
    """Of whole blocks, ``down`` times ``across``."""
    parts = [values[top::down, left::across] for top, left in product(range(down), range(across))]
    if values.dtype == np.uint8:
        total = np.add.reduce([each.astype(np.uint32) for each in parts])
        if (down, across) == (2, 2):
            return ((total + 2) >> 2).astype(np.uint8)
        return _as(total.astype(np.float32) * np.float32(1 / len(parts)), values.dtype)
    if (down, across) == (2, 2):
        return ((parts[0] + parts[1]) + (parts[2] + parts[3])) * np.float32(0.25)
    total = np.zeros_like(parts[0])
    for at in range(0, len(parts), 4):
        four = parts[at : at + 4]
        if len(four) == 4:
            total += ((four[0] + four[1]) + four[2]) + four[3]
        else:
            for each in four:
                total += each
    return total * np.float32(1 / len(parts))


def _as(values: NDArray[np.float32], dtype: np.dtype) -> NDArray:
    """Levels are rounded, halves to even."""
    if dtype != np.uint8:
        return values
    return np.rint(values, out=values).clip(0, 255, out=values).astype(np.uint8)


# Where it grows


def _grow(values: NDArray, height: int, width: int) -> NDArray:
    """float32: a + (b - a) * weight, rounded once."""
    across = _between(cv2.transpose(values), _neighbours(values.shape[1], width))
    return _between(cv2.transpose(across), _neighbours(values.shape[0], height))


class Neighbours(NamedTuple):
    """For every place of an axis: the row before it, the one behind, and the weight of that."""

    before: NDArray[np.intp]
    behind: NDArray[np.intp]
    weight: NDArray[np.float32]


@lru_cache(maxsize=64)
def _neighbours(size: int, places: int) -> Neighbours:
    middle = (np.arange(places) + 0.5) * (size / places) - 0.5
    before = np.floor(middle).astype(np.intp)
    weight = (middle - before).astype(np.float32)
    weight[(before < 0) | (before >= size - 1)] = 0
    before = before.clip(0, size - 1)
    return Neighbours(before, np.minimum(before + 1, size - 1), weight)


def _between(values: NDArray, rows: Neighbours) -> NDArray[np.float32]:
    before, behind = values[rows.before], values[rows.behind]
    step = (behind - before).astype(np.float64) * _along(rows.weight, values)
    return (step + before).astype(np.float32)


def _grow_levels(values: NDArray, height: int, width: int) -> NDArray:
    """uint8: in whole numbers, of which the lowest bits are dropped on the way."""
    rows, columns = values.shape[:2]
    before, behind, near, far = _fixed(columns, width, True)
    turned = cv2.transpose(values)
    summed = turned[before] * _along(near, values) + turned[behind] * _along(far, values)
    across = np.asarray(cv2.transpose(summed), np.int32) >> 4
    before, behind, near, far = _fixed(rows, height, False)
    upper = across[before] * _along(near, values) >> 16
    lower = across[behind] * _along(far, values) >> 16
    return ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=64)
def _fixed(size: int, places: int, ends: bool) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Neighbours before and behind, and their weights; ``ends``: beyond an end there is the end."""
    middle = ((np.arange(places) + 0.5) * (1 / (places / size)) - 0.5).astype(np.float32)
    before = np.floor(middle).astype(np.intp)
    weight = (middle - before).astype(np.float32)
    if ends:
        weight[(before < 0) | (before >= size - 1)] = 0
    near, far = (np.rint(each * _ONE).astype(np.int32) for each in (1 - weight, weight))
    return before.clip(0, size - 1), (before + 1).clip(0, size - 1), near, far
