"""Resize, to the bit the same on every processor.

OpenCV's wheels do not: that for aarch64 has libraries of its own for it, and a tensor that differs
by one level is another tensor. Here each product and each sum is one numpy operation, rounded once,
in an order that is written down. The arithmetic is that of OpenCV on x86-64, with which the first
models were trained: modules/imgproc/src/resize.cpp, computeResizeAreaTab, ResizeAreaFast, and the
fixed point of 8 bits in HResizeLinear and VResizeLinear.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-3
"""Of a pixel: a smaller part of it is not counted."""

_ONE = np.float32(2048)
"""What a weight of 1 is where 8-bit values are interpolated: 11 bits."""

_STRIP = 256
"""Rows that are turned at a time: a copy of a whole radiograph is more than a small device has."""


class Tap(NamedTuple):
    """For every place of an axis: a row that it is made of, and by which weight."""

    row: NDArray[np.intp]
    weight: NDArray[np.float32]


class Neighbours(NamedTuple):
    """For every place of an axis: the row before it and the one behind, and their weights."""

    before: NDArray[np.intp]
    behind: NDArray[np.intp]
    near: NDArray[np.float32]
    far: NDArray[np.float32]


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


def to_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32 in [0, 255] -> uint8, halves to even (IEEE 754); in place."""
    return np.rint(values, out=values).astype(np.uint8)


def _along(weight: NDArray, values: NDArray) -> NDArray:
    return weight.reshape(-1, *(1,) * (values.ndim - 1))


# Where it shrinks


def _shrink(values: NDArray, height: int, width: int) -> NDArray:
    rows, columns = values.shape[:2]
    if rows % height == 0 and columns % width == 0:
        means = _means_of_levels if values.dtype == np.uint8 else _means
        return means(values, rows // height, columns // width)
    taps = _areas(columns, width)
    across = np.empty((width, rows, *values.shape[2:]), np.float32)
    for top in range(0, rows, _STRIP):
        across[:, top : top + _STRIP] = _weighted(cv2.transpose(values[top : top + _STRIP]), taps)
    means = _weighted(cv2.transpose(across), _areas(rows, height))
    return to_levels(means) if values.dtype == np.uint8 else means


def _weighted(values: NDArray, taps: list[Tap]) -> NDArray[np.float32]:
    """(N, M[, C]) -> a weighted sum of its rows for each place, one tap after the other."""
    first, *others = taps
    total = values[first.row] * _along(first.weight, values)
    for tap in others:
        total += values[tap.row] * _along(tap.weight, values)
    return total


def _areas(size: int, places: int) -> list[Tap]:
    """The rows that each place covers, whole or in part; a tap too many has the weight 0."""
    scale = size / places
    start = np.arange(places) * scale
    end = start + scale
    covered = np.minimum(scale, size - start)
    last = np.minimum(np.floor(end), size - 1)
    first = np.minimum(np.ceil(start), last)
    whole = last - first
    head, tail = first - start > _NOTHING, end - last > _NOTHING
    at_head = (first - start) / covered
    at_tail = np.minimum(np.minimum(end - last, 1), covered) / covered
    taps = []
    for at in range(int((head + whole + tail).max())):
        row = first + at - head
        weight = np.where(row < last, 1 / covered, np.where((row == last) & tail, at_tail, 0))
        weight = np.where(row < first, at_head, weight)
        kept = np.minimum(row, last).astype(np.intp)
        taps.append(Tap(kept, weight.astype(np.float32)))
    return taps


def _means_of_levels(values: NDArray[np.uint8], down: int, across: int) -> NDArray[np.uint8]:
    """Of whole blocks, ``down`` times ``across``: sums of whole numbers, rounded once."""
    rows = values[::down].astype(np.uint32)
    for top in range(1, down):
        rows += values[top::down]
    total = rows[:, ::across].copy()
    for left in range(1, across):
        total += rows[:, left::across]
    if (down, across) == (2, 2):
        return ((total + 2) >> 2).astype(np.uint8)
    return to_levels(total.astype(np.float32) * np.float32(1 / (down * across)))


def _means(values: NDArray[np.float32], down: int, across: int) -> NDArray[np.float32]:
    """Of whole blocks: row by row, four values at a time."""
    parts = [values[top::down, left::across] for top, left in product(range(down), range(across))]
    share = np.float32(1 / len(parts))
    if (down, across) == (2, 2):
        return _means_of_four(parts) * share
    total = np.zeros(parts[0].shape, np.float32)
    for at in range(0, len(parts), 4):
        four = parts[at : at + 4]
        if len(four) == 4:
            total += ((four[0] + four[1]) + four[2]) + four[3]
        else:
            for each in four:
                total += each
    return total * share


def _means_of_four(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sums of 2 x 2: where OpenCV has vectors of four values, both rows for themselves."""
    a, b, c, d = parts
    total = ((a + b) + c) + d
    if total.ndim == 2:
        whole = total.shape[1] // 4 * 4
        total[:, :whole] = ((a + b) + (c + d))[:, :whole]
    elif total.shape[2] == 4:
        total = (a + b) + (c + d)
    return total


# Where it grows


def _grow(values: NDArray, height: int, width: int) -> NDArray[np.float32]:
    """float32: a + (b - a) * weight, rounded once; of two channels a * near + b * far."""
    rows, columns = values.shape[:2]
    if values.shape[2:] == (2,):
        across = _summed(cv2.transpose(values), _neighbours_float32(columns, width, True))
        return _summed(cv2.transpose(across), _neighbours_float32(rows, height, False))
    across = _between(cv2.transpose(values), _neighbours(columns, width))
    return _between(cv2.transpose(across), _neighbours(rows, height))


def _between(values: NDArray, rows: Neighbours) -> NDArray[np.float32]:
    before, behind = values[rows.before], values[rows.behind]
    step = (behind - before).astype(np.float64) * _along(rows.far, values)
    return (step + before).astype(np.float32)


def _summed(values: NDArray, rows: Neighbours) -> NDArray[np.float32]:
    near, far = (_along(each, values) for each in (rows.near, rows.far))
    return values[rows.before] * near + values[rows.behind] * far


def _grow_levels(values: NDArray, height: int, width: int) -> NDArray[np.uint8]:
    """uint8: in whole numbers, of which the lowest bits are dropped on the way."""
    rows, columns = values.shape[:2]
    before, behind, near, far = _in_bits(_neighbours_float32(columns, width, True), values)
    turned = cv2.transpose(values)
    across = np.asarray(cv2.transpose(turned[before] * near + turned[behind] * far), np.int32) >> 4
    before, behind, near, far = _in_bits(_neighbours_float32(rows, height, False), values)
    upper, lower = across[before] * near >> 16, across[behind] * far >> 16
    return ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)


def _in_bits(rows: Neighbours, values: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    near, far = (np.rint(each * _ONE).astype(np.int32) for each in (rows.near, rows.far))
    return rows.before, rows.behind, _along(near, values), _along(far, values)


def _neighbours(size: int, places: int) -> Neighbours:
    return _at((np.arange(places) + 0.5) * (size / places) - 0.5, size, True)


def _neighbours_float32(size: int, places: int, ends: bool) -> Neighbours:
    middle = (np.arange(places) + 0.5) * (1 / (places / size)) - 0.5
    return _at(middle.astype(np.float32), size, ends)


def _at(middle: NDArray, size: int, ends: bool) -> Neighbours:
    """``ends``: beyond the first and the last row there is nothing but that row."""
    before = np.floor(middle).astype(np.intp)
    far = (middle - before).astype(np.float32)
    if ends:
        far[(before < 0) | (before >= size - 1)] = 0
    behind = (before + 1).clip(0, size - 1)
    return Neighbours(before.clip(0, size - 1), behind, 1 - far, far)
