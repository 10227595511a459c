"""What is kept of an image to draw it and its answer. The process that answers makes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from medimg_edge import heatmap
from medimg_edge.classifier import Prediction
from medimg_edge.image import Image, Range, Table, Voi, Window
from medimg_edge.kiosk.layout import Layout, opened, packed
from medimg_edge.manifest import Manifest, Preprocessing
from medimg_edge.preprocess import filled_area, one_channel, read_area, vois

SIDE = 1024
"""The longer side, in pixels: what a screen shows."""

LEVELS = 65535

_WHOLE_UNITS = 1000
"""A range of so many units is kept in whole ones, such as Hounsfield units; a smaller one finer."""

_HARDLY = 1e-6
"""Between black and white of a threshold, in samples."""


class Samples(NamedTuple):
    """uint8 or uint16 (H, W[, 3]); value = sample * slope + intercept."""

    array: NDArray
    slope: float = 1.0
    intercept: float = 0.0


@dataclass(frozen=True, eq=False)
class View:
    """samples: uint8 or uint16 (H, W[, 3]); heat: float32 (h, w, C), logits, where there is one."""

    layout: Layout
    samples: NDArray
    heat: NDArray[np.float32] | None

    @classmethod
    def of(
        cls, image: Image, manifest: Manifest, found: Prediction | None, seen: Image | None = None
    ) -> View:
        """How the network saw an image of one frame; without an answer, how a display shows it.

        seen: what the network was given, where ``image`` shows the same in another size.
        """
        spec = manifest.preprocessing
        values = _values(image, spec)
        voi = image.voi
        if found is not None:
            voi = vois(values if seen is None else _values(seen, spec), image, spec)[0]
        samples, low, high = _shown(_small(values), voi)
        heat = found.heatmap if found is not None else None
        rows, columns = samples.array.shape[:2]
        layout = Layout(
            rows=rows,
            columns=columns,
            channels=3 if samples.array.ndim == 3 else 1,
            bits=16 if samples.array.itemsize == 2 else 8,
            low=low,
            high=high,
            inverted=1 if image.inverted else 0,
            slope=samples.slope,
            intercept=samples.intercept,
            labels=manifest.findings if heat is not None else (),
            label=_answer(found) if heat is not None else None,
            heat=None if heat is None else (heat.shape[0], heat.shape[1], heat.shape[2]),
            covers=_covers((seen or image).size, spec),
        )
        return cls(layout, samples.array, heat)

    @classmethod
    def decode(cls, view: bytes) -> View:
        """What ``parts`` made. Raises PictureGone where it is not whole."""
        layout, start = opened(view)
        shape = (layout.rows, layout.columns, 3)[: 3 if layout.channels == 3 else 2]
        count = layout.rows * layout.columns * layout.channels
        samples = np.frombuffer(view, f"<u{layout.bits // 8}", count, start).reshape(shape)
        heat = None
        if layout.heat:
            heat = np.frombuffer(view, "<f4", offset=start + layout.sample_bytes)
            heat = heat.reshape(layout.heat)
        return cls(layout, samples, heat)

    def parts(self) -> tuple[bytes | memoryview, ...]:
        """The bytes that are kept, one behind the other."""
        arrays = (self.samples,) if self.heat is None else (self.samples, self.heat)
        return packed(self.layout), *map(_little, arrays)

    def image(self) -> NDArray[np.uint8]:
        """As it is displayed, uint8 (H, W) or RGB (H, W, 3)."""
        low, high = self.layout.low, self.layout.high
        shown = Range(low, high).grey(np.arange(2**self.layout.bits))
        grey = np.rint(255 - shown if self.layout.inverted else shown).astype(np.uint8)
        return np.asarray(cv2.LUT(self.samples, grey), np.uint8)

    def heat_layer(self, label: str | None) -> NDArray[np.uint8]:
        """RGBA (H, W, 4) to lie over ``image``: at an opacity of x it is ``overlay`` at that.

        Raises NotFound.
        """
        colors, opaque = heatmap.coloured(self._strength(label))
        return np.dstack((colors, np.rint(opaque * 255).astype(np.uint8)))

    def overlay(self, label: str | None) -> NDArray[np.uint8]:
        """The image, with the places that speak for a label in colour, RGB (H, W, 3).

        Raises NotFound.
        """
        image = self.image()
        base = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        return heatmap.blend(base, self._strength(label))

    def _strength(self, label: str | None) -> NDArray[np.float32]:
        """float32 (H, W) in [0, 1]; 0 where the network did not look."""
        column = self.layout.labels.index(self.layout.drawn(label))
        assert self.heat is not None
        cells = heatmap.strengths(np.ascontiguousarray(self.heat[..., column]))
        top, left, bottom, right = self.layout.covers
        down = _interpolation(self.layout.rows, top, bottom, cells.shape[0])
        across = _interpolation(self.layout.columns, left, right, cells.shape[1])
        return np.clip(down @ cells @ across.T, 0, 1, dtype=np.float32)


def _values(image: Image, spec: Preprocessing) -> NDArray:
    """(H, W), or (H, W, 3) where the network sees colour."""
    values = image.frames[0]
    if values.shape[2] == 1:
        return values[..., 0]
    return values if spec.color == "rgb" else one_channel(values)


def _small(values: NDArray) -> NDArray:
    rows, columns = values.shape[:2]
    scale = SIDE / max(rows, columns)
    if scale >= 1:
        return values
    size = max(1, round(columns * scale)), max(1, round(rows * scale))
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA)


def _shown(values: NDArray, voi: Voi) -> tuple[Samples, float, float]:
    """The samples, and which of them are black and white. What is no line is drawn beforehand."""
    if isinstance(voi, Table) or (isinstance(voi, Window) and voi.function == "SIGMOID"):
        grey = voi.grey(values)
        levels = np.rint(grey * np.float32(LEVELS / 255)).astype(np.uint16)
        return Samples(levels, 255 / LEVELS), 0.0, float(LEVELS)
    samples = _sampled(values)
    ends = voi.ends if isinstance(voi, Window) else (voi.low, voi.high)
    low, high = ((each - samples.intercept) / samples.slope for each in ends)
    if low >= high:
        low = (low + high) / 2
        high = low + _HARDLY * max(1.0, abs(low))
    return samples, float(low), float(high)


def _sampled(values: NDArray) -> Samples:
    """float32 to 16 bits, from its smallest value to its largest; integers as they are."""
    if values.dtype.kind != "f":
        return Samples(values)
    low, high = float(values.min()), float(values.max())
    slope = 1.0 if _WHOLE_UNITS <= high - low <= LEVELS else (high - low) / LEVELS or 1.0
    return Samples(np.rint((values - low) / slope).astype(np.uint16), slope, low)


def _answer(found: Prediction | None) -> str | None:
    """The label that is answered; of several findings the most probable of what is likely."""
    if found is None:
        return None
    ranks = {"positive": 2, "refer": 1}
    main = max(found.findings, key=lambda each: (ranks.get(each.decision, 0), each.probability))
    return found.label or main.label


def _covers(size: tuple[int, int], spec: Preprocessing) -> tuple[float, float, float, float]:
    """Where the edges of the network's input lie in an image of so many rows and columns."""
    read, filled = read_area(size, spec), filled_area(size, spec)
    down, across = read.rows / filled.rows, read.columns / filled.columns
    top, left = read.top - filled.top * down, read.left - filled.left * across
    bottom, right = top + spec.height * down, left + spec.width * across
    rows, columns = size
    return top / rows, left / columns, bottom / rows, right / columns


def _interpolation(places: int, start: float, end: float, cells: int) -> NDArray[np.float32]:
    """(places, cells): of which cells each place of an axis is made, by OpenCV's cubic.

    start, end: where the cells begin and end, in lengths of the axis; beyond them all is 0.
    """
    part = ((np.arange(places) + 0.5) / places - start) / (end - start)
    at = part * cells - 0.5
    before = np.floor(at)
    weights = np.zeros((places, cells), np.float32)
    for step in (-1, 0, 1, 2):
        cell = np.clip(before + step, 0, cells - 1).astype(np.intp)
        np.add.at(weights, (np.arange(places), cell), _cubic(np.abs(at - before - step)))
    weights[(part < 0) | (part > 1)] = 0
    return weights


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, a = -0.75."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


def _little(values: NDArray) -> memoryview:
    """The bytes of an array, little endian."""
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view("u1").data
