"""The golden set: synthetic inputs that travel with a bundle, because no patient may.

Every kind of file and geometry that the device reads, and pictures on which the model is unsure:
where p is .5 a small change of the graph moves it most.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

from medimg_edge.errors import GateError
from medimg_edge.manifest import Preprocessing, Windows
from medimg_edge.preprocess import MIN_SIDE, preprocess
from medimg_edge.reader import read_image
from medimg_export import phantom_dicom
from medimg_export.phantom_chest import chest

Scene = NDArray[np.floating]
"""A square picture, shape (S, S), 0 (black) to 1."""
Pixels = NDArray[np.uint8]
Answer = Callable[[Pixels], NDArray[np.float32]]
"""Tensors, uint8 (N, H, W, C) -> probabilities, float32 (N, findings)."""

CASES = 12
UNSURE = (0.05, 0.95)
MIN_UNSURE = 6
QUALITY = 80
"""Of a JPEG: of more, most bytes hold the grain."""
_AIM = (0.15, 0.85)  # inside of UNSURE, so that an int8 artifact's answer is unsure too


@dataclass(frozen=True)
class Form:
    """How a scene becomes a file: its size as a multiple of the input's, and its encoding."""

    name: str
    rows: float
    columns: float
    suffix: str = "png"
    bits: int = 8
    rgb: bool = False
    inverted: bool = False


# Small: they travel with every bundle, and grain does not compress.
FORMS = (
    Form("gray8", 1, 1),
    Form("gray16", 0.8, 0.8, bits=16),
    Form("rgb", 0.75, 0.75, rgb=True),
    Form("wide", 1.1, 1.7),
    Form("tall-16", 1.2, 0.6, bits=16),
    Form("smaller", 0.7, 0.6),
    Form("larger", 2.05, 2.05),
    Form("monochrome2", 0.8, 0.8, "dcm", bits=12),
    Form("monochrome1", 0.75, 0.75, "dcm", bits=16, inverted=True),
    Form("wide-dicom", 0.5, 1.3, "dcm", bits=12),
    Form("narrow", 1.5, 0.7),
    Form("rgb-wide", 0.7, 1.2, rgb=True),
)


SCALED = {
    "wide": Form("wide-quarter", 4.1, 4.9, "jpg"),
    "larger": Form("larger-half", 2.05, 2.05, "jpg", rgb=True),
}
"""In their places where large JPEGs are decoded smaller."""


@dataclass(frozen=True, eq=False)
class Golden:
    """One case: its files' names, the encoded input, and the tensor that must come of it."""

    input: str
    pixels: str
    encoded: bytes
    tensor: Pixels

    def write(self, folder: Path) -> None:
        """Write the input, and the tensor as raw uint8, row by row."""
        for name, data in ((self.input, self.encoded), (self.pixels, self.tensor.tobytes())):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)


def golden_set(spec: Preprocessing, answer: Answer) -> list[Golden]:
    """Twelve cases, at least ``MIN_UNSURE`` of them with a p in [.05, .95]; always the same ones.

    Raises GateError where the model is sure of every synthetic picture that was tried.
    """
    forms = _forms(spec)
    scenes = list(_scenes(2 * max(spec.height, spec.width)))
    column, lows, highs = _ranked(scenes, forms[0], spec, answer)
    if not (lows and highs):
        scenes += [faint for scene in scenes[::3] for faint in _faint(scene)]
        column, lows, highs = _ranked(scenes, forms[0], spec, answer)
    lows, highs = lows or highs[::-1], highs or lows[::-1]

    cases = []
    for number, form in enumerate(forms):
        low, high = lows[number % len(lows)], highs[number % len(highs)]
        extreme = high if number % 2 else low
        scene = extreme if number % 4 == 3 else _unsure(low, high, form, spec, answer, column)
        cases.append(_golden(number + 1, form, scene, spec))
    found = answer(np.stack([case.tensor for case in cases]))
    unsure = int(((found >= UNSURE[0]) & (found <= UNSURE[1])).any(axis=1).sum())
    if unsure < MIN_UNSURE:
        raise GateError(
            f"The model is sure of almost every synthetic picture: {unsure} of {CASES} golden "
            f"cases have a probability in {list(UNSURE)}, and {MIN_UNSURE} are needed to notice a "
            "changed graph. Give it a higher temperature, or train it with more variety."
        )
    return cases


def _forms(spec: Preprocessing) -> list[Form]:
    """A PNG holds no Hounsfield units: with fixed windows every case is a DICOM file."""
    if not isinstance(spec.intensity, Windows):
        return [SCALED.get(form.name, form) if spec.needed else form for form in FORMS]
    return [replace(form, suffix="dcm", bits=max(12, form.bits), rgb=False) for form in FORMS]


def _scenes(size: int) -> Iterator[Scene]:
    """Chests with and without opacities, and other pictures for models of other things."""
    for seed in range(24):
        phantom = chest(seed, positive=seed % 2 == 1, size=size, severity=1.0 + 0.5 * (seed % 3))
        scene = phantom.pixels.astype(np.float32) / 65535
        yield scene
        if seed % 4 == 0:
            yield 1 - scene[:, ::-1]  # mirrored: half a scene and half its negative is plain grey
            yield scene ** (0.5 if seed % 8 else 2.0)
    generator = np.random.default_rng(0)
    for cells in (2, 3, 5, 9, 17, 33):
        field = generator.random((cells, cells)).astype(np.float32)
        smooth = cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)
        yield np.clip(smooth, 0, 1).astype(np.float32)


def _faint(scene: Scene) -> Iterator[Scene]:
    """The scene with little contrast, dark to bright: most networks are less sure of these."""
    for level in (0.15, 0.35, 0.5, 0.65, 0.85):
        yield np.clip(level + 0.3 * (scene - scene.mean()), 0, 1)


def _ranked(
    scenes: list[Scene], form: Form, spec: Preprocessing, answer: Answer
) -> tuple[int, list[Scene], list[Scene]]:
    """The finding that differs most, the scenes without it and those with it, the surest first."""
    scores = answer(np.stack([_golden(0, form, scene, spec).tensor for scene in scenes]))
    column = int((scores.max(axis=0) - scores.min(axis=0)).argmax())
    order = np.argsort(scores[:, column], kind="stable")
    middle = int(np.searchsorted(scores[order, column], 0.5))
    lows, highs = order[:middle], order[middle:][::-1]
    return column, [scenes[at] for at in lows], [scenes[at] for at in highs]


def _unsure(
    low: Scene, high: Scene, form: Form, spec: Preprocessing, answer: Answer, column: int
) -> Scene:
    """A blend of two scenes of which the model is unsure, by bisection; p is continuous between."""
    near, far = 0.0, 1.0
    scene = low
    for _ in range(20):
        share = (near + far) / 2
        scene = (1 - share) * low + share * high
        p = answer(_golden(0, form, scene, spec).tensor[None])[0, column]
        if _AIM[0] <= p <= _AIM[1]:
            break
        near, far = (share, far) if p < 0.5 else (near, share)
    return scene


def _golden(number: int, form: Form, scene: Scene, spec: Preprocessing) -> Golden:
    rows = max(MIN_SIDE, round(form.rows * spec.height))
    columns = max(MIN_SIDE, round(form.columns * spec.width))
    shown = cv2.resize(scene, (columns, rows), interpolation=cv2.INTER_AREA)
    stored = np.rint(np.clip(shown, 0, 1) * 65535).astype(np.uint16)
    encoded = _dicom(stored, form, spec) if form.suffix == "dcm" else _raster(stored, form)
    stem = f"golden/{number:02}-{form.name}"
    tensor = preprocess(read_image(encoded, needed=spec.needed), spec)
    return Golden(f"{stem}.{form.suffix}", f"{stem}.pixels", encoded, tensor)


def _raster(stored: NDArray[np.uint16], form: Form) -> bytes:
    values = stored if form.bits == 16 else (stored >> 8).astype(np.uint8)
    if form.rgb:  # tinted, so that a swapped channel order is seen
        tint = np.array([0.8, 0.95, 1.0])  # blue, green, red
        values = np.rint(values[..., None] * tint).astype(values.dtype)
    quality = (cv2.IMWRITE_JPEG_QUALITY, QUALITY) if form.suffix == "jpg" else ()
    return cv2.imencode(f".{form.suffix}", values, quality)[1].tobytes()


def _dicom(stored: NDArray[np.uint16], form: Form, spec: Preprocessing) -> bytes:
    encoded = phantom_dicom.encode(stored, form.name, bits=form.bits, inverted=form.inverted)
    if not isinstance(spec.intensity, Windows):
        return encoded
    windows = spec.intensity.windows
    low = min(each.center - each.width / 2 for each in windows)
    high = max(each.center + each.width / 2 for each in windows)
    dataset = pydicom.dcmread(io.BytesIO(encoded))
    dataset.RescaleIntercept = low
    dataset.RescaleSlope = (high - low) / (2**form.bits - 1)
    rescaled = io.BytesIO()
    dataset.save_as(rescaled)
    return rescaled.getvalue()
