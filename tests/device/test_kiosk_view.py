"""What is kept to draw an answer: the image as it was seen, and where evidence lay in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from medimg_edge import manifest as m
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier, Prediction
from medimg_edge.errors import NotFound, PictureGone
from medimg_edge.heatmap import OPACITY
from medimg_edge.image import Image, Range, Table, Window
from medimg_edge.kiosk.layout import opened
from medimg_edge.kiosk.pictures import header, samples
from medimg_edge.kiosk.view import SIDE, View
from medimg_edge.preprocess import preprocess
from medimg_edge.reader import read_image
from medimg_edge.record import Answer, Model

RNG = np.random.default_rng(9)
ROWS, COLUMNS = 40, 56
LEVELS_8 = RNG.integers(0, 256, (1, ROWS, COLUMNS, 1), np.uint8)
LEVELS_16 = RNG.integers(500, 3000, (1, ROWS, COLUMNS, 1), np.uint16)
HOUNSFIELD = RNG.integers(-1024, 3072, (1, ROWS, COLUMNS, 1)).astype(np.float32)
FRACTIONS = RNG.random((1, ROWS, COLUMNS, 1)).astype(np.float32) * 3 - 1
COLORS = RNG.integers(0, 256, (1, ROWS, COLUMNS, 3), np.uint8)
CURVE = Table(600, (np.sqrt(np.linspace(0, 1, 2000)) * 4095).astype(np.uint16), 12)

LUNG = m.Windows((m.WindowSetting(-600, 1500), m.WindowSetting(40, 400)))
DISPLAY, PERCENTILE = m.Display(), m.Percentile(2, 97)


def answered() -> Prediction:
    record = Answer(
        input="x",
        findings=(),
        label=None,
        probability=None,
        decision=None,
        artifact="",
        runtime="",
        model=Model("", "", ""),
        elapsed_ms=0,
    )
    return Prediction(record, np.zeros((1, 1, 1), np.uint8), None, None)


@pytest.fixture(scope="module")
def manifest(frozen) -> m.Manifest:
    return Bundle.open(frozen).manifest


def with_spec(manifest: m.Manifest, **changes: Any) -> m.Manifest:
    spec = m.Preprocessing(**{"height": ROWS, "width": COLUMNS, **changes})
    return msgspec.structs.replace(manifest, preprocessing=spec)


def kept(view: View) -> bytes:
    return b"".join(view.parts())


@pytest.mark.parametrize(
    ("image", "intensity", "off"),
    [
        (Image(LEVELS_8, Range(0, 255), "png"), DISPLAY, 0),
        (Image(LEVELS_8, Range(0, 255), "png", inverted=True), DISPLAY, 0),
        (Image(LEVELS_8, Range(0, 255), "png"), PERCENTILE, 0),
        (Image(LEVELS_8, Range(0, 255), "png", inverted=True), PERCENTILE, 0),
        (Image(LEVELS_8, Window(100, 80), "dicom"), DISPLAY, 0),
        (Image(LEVELS_16, Range(0, 65535), "png"), DISPLAY, 0),
        (Image(LEVELS_16, Range(0, 65535), "png"), m.Display(low=500, high=2900), 0),
        (Image(LEVELS_16, Range(0, 65535), "tiff", inverted=True), PERCENTILE, 0),
        (Image(LEVELS_16, Window(1500, 900), "dicom"), DISPLAY, 0),
        (Image(LEVELS_16, Window(1500, 900), "dicom", inverted=True), DISPLAY, 0),
        (Image(LEVELS_16, Window(1500, 900, "LINEAR_EXACT"), "dicom"), DISPLAY, 0),
        (Image(LEVELS_16, Window(1500, 1), "dicom"), DISPLAY, 0),
        (Image(LEVELS_16, Window(1500, 900, "SIGMOID"), "dicom"), DISPLAY, 1),
        (Image(LEVELS_16, Window(1500, 900, "SIGMOID"), "dicom", inverted=True), DISPLAY, 1),
        (Image(LEVELS_16, CURVE, "dicom"), DISPLAY, 0),
        (Image(HOUNSFIELD, Window(40, 400), "dicom"), LUNG, 0),
        (Image(HOUNSFIELD, Window(40, 400), "dicom"), DISPLAY, 0),
        (Image(HOUNSFIELD, Window(40, 400), "dicom"), PERCENTILE, 0),
        (Image(FRACTIONS, Range(-1, 2), "dicom"), DISPLAY, 1),
        (Image(FRACTIONS, Range(-1, 2), "dicom", inverted=True), PERCENTILE, 1),
    ],
)
def test_the_image_is_shown_as_the_network_sees_it(manifest, image, intensity, off):
    spec = with_spec(manifest, intensity=intensity)
    view = View.decode(kept(View.of(image, spec, answered())))
    expected = preprocess(image, spec.preprocessing)[..., 0].astype(int)
    assert np.ptp(expected) > 8
    assert np.abs(view.image() - expected).max() <= off


@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("gray", 1)])
def test_colour_is_shown_where_the_network_sees_it(manifest, color, channels):
    spec = with_spec(manifest, color=color)
    image = Image(COLORS, Range(0, 255), "png")
    view = View.decode(kept(View.of(image, spec, answered())))
    assert view.layout.channels == channels
    shown = view.image().reshape(ROWS, COLUMNS, channels)
    assert np.array_equal(shown, preprocess(image, spec.preprocessing))


@pytest.mark.parametrize("frames", [LEVELS_8, LEVELS_16, HOUNSFIELD, FRACTIONS])
def test_the_values_can_be_told_from_the_samples(manifest, frames):
    view = kept(View.of(Image(frames, Range(0, 255), "dicom"), with_spec(manifest), answered()))
    told = header(view)
    kind = np.uint8 if told["bits"] == 8 else np.dtype("<u2")
    array = np.frombuffer(samples(view), kind).reshape(told["rows"], told["columns"])
    values = array * told["slope"] + told["intercept"]
    assert np.abs(values - frames[0, ..., 0]).max() < 1e-4


def test_a_large_image_is_made_smaller_and_keeps_its_bits(manifest):
    frames = RNG.integers(0, 65536, (1, 1500, 3000, 1), np.uint16)
    view = View.of(Image(frames, Range(0, 65535), "png"), with_spec(manifest), answered())
    assert view.samples.shape == (SIDE // 2, SIDE)
    assert view.samples.dtype == np.uint16
    assert len(np.unique(view.samples)) > 256
    narrow = RNG.integers(0, 256, (1, 16, 50_000, 1), np.uint8)
    view = View.of(Image(narrow, Range(0, 255), "png"), with_spec(manifest), answered())
    assert view.samples.shape == (1, SIDE)


def test_a_rejected_image_is_shown_as_a_display_would(manifest):
    spec = with_spec(manifest, intensity=LUNG)
    view = View.of(Image(LEVELS_8, Range(0, 255), "png"), spec, None)
    assert np.array_equal(view.image(), LEVELS_8[0, ..., 0])
    with pytest.raises(NotFound, match="no heatmap"):
        view.overlay(None)


def test_an_image_of_one_level_is_shown(manifest):
    flat = np.full((1, 20, 20, 1), 7, np.float32)
    for image in (Image(flat, Range(7, 8), "dicom"), Image(flat, Window(7, 1), "dicom")):
        assert np.ptp(View.of(image, with_spec(manifest), None).image()) == 0


def spotted(shape: tuple[int, int], at: tuple[float, float]) -> np.ndarray:
    """A bright spot, its centre at parts of the height and the width."""
    rows, columns = (np.arange(side) + 0.5 for side in shape)
    near = (rows[:, None] - at[0] * shape[0]) ** 2 + (columns - at[1] * shape[1]) ** 2
    return (255 * np.exp(-near / (2 * (min(shape) / 20) ** 2))).astype(np.uint8)


def heat_of(bundle: Path, shown: np.ndarray) -> tuple[View, np.ndarray]:
    """The view of an image, and how opaque the layer over it is."""
    classifier = Classifier(bundle)
    image = read_image(shown)
    view = View.of(image, classifier.manifest, classifier.predict(image))
    view = View.decode(kept(view))
    layer = view.heat_layer(None)
    assert layer.shape[:2] == view.image().shape[:2]
    return view, layer[..., 3].astype(float)


@pytest.mark.parametrize("geometry", ["stretch", "letterbox", "center-crop"])
@pytest.mark.parametrize("shape", [(300, 200), (200, 301), (2000, 1500), (256, 256)])
@pytest.mark.parametrize("at", [(0.4, 0.3), (0.65, 0.7)])
def test_heat_lies_over_what_it_is_about(mean_bundle, geometry, shape, at):
    spec = m.Preprocessing(16, 16, geometry=geometry)
    bundle = mean_bundle([6.0], [0.0], task="binary", preprocessing=spec)
    _, opaque = heat_of(bundle, spotted(shape, at))
    rows, columns = opaque.shape
    weight = opaque * (opaque > 100)
    center = (
        (weight.sum(1) @ (np.arange(rows) + 0.5)) / weight.sum() / rows,
        (weight.sum(0) @ (np.arange(columns) + 0.5)) / weight.sum() / columns,
    )
    assert center == pytest.approx(at, abs=0.02)  # a third of a cell


def test_what_the_network_did_not_look_at_is_not_coloured(mean_bundle):
    spec = m.Preprocessing(16, 16, geometry="center-crop")
    bundle = mean_bundle([9.0], [0.0], task="binary", preprocessing=spec)
    shown = np.full((100, 300), 200, np.uint8)
    shown[::7, ::5] = 0
    view, opaque = heat_of(bundle, shown)
    assert view.layout.covers == (0, 1 / 3, 1, 2 / 3)
    assert (opaque[:, :100] == 0).all()
    assert (opaque[:, 100:200] > 0).all()
    assert (opaque[:, 200:] == 0).all()


def test_the_overlay_is_the_layer_over_the_image(mean_bundle):
    bundle = mean_bundle([6.0], [0.0], task="binary")
    view, opaque = heat_of(bundle, spotted((120, 90), (0.5, 0.5)))
    alpha = OPACITY * opaque[..., None] / 255
    mixed = view.image()[..., None] * (1 - alpha) + view.heat_layer(None)[..., :3] * alpha
    assert np.abs(view.overlay(None) - mixed).max() <= 1.5
    assert np.ptp(view.overlay(None)[60, 45]) > 30  # in colour


def test_the_heat_is_opencvs_where_all_is_seen(mean_bundle):
    bundle = mean_bundle([6.0], [0.0], task="binary")
    view, opaque = heat_of(bundle, spotted((160, 160), (0.3, 0.6)))
    assert view.heat is not None
    wanted = cv2.resize(np.maximum(view.heat[..., 0], 0), (160, 160), interpolation=cv2.INTER_CUBIC)
    wanted = np.sqrt(np.clip(wanted / max(view.heat.max(), 4), 0, 1)) * 255
    assert np.abs(opaque - wanted).max() < 2


def test_each_label_has_its_own(mean_bundle):
    bundle = mean_bundle([6.0, -6.0], [0.0, 5.0])
    view, _ = heat_of(bundle, spotted((64, 64), (0.5, 0.5)))
    assert view.layout.labels == ("a", "b")
    assert view.layout.label == "b"  # the most probable
    assert view.heat_layer("a")[32, 32, 3] > 200
    assert view.heat_layer("b")[32, 32, 3] == 0
    with pytest.raises(NotFound, match="a, b"):
        view.heat_layer("../c")


def other(view: bytes, **changes: Any) -> bytes:
    layout, start = opened(view)
    encoded = json.dumps(json.loads(msgspec.json.encode(layout)) | changes).encode()
    return len(encoded).to_bytes(4, "little") + encoded + view[start:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda view: b"",
        lambda view: view[:3],
        lambda view: view[:40],
        lambda view: view[:-1],
        lambda view: view + b"\0",
        lambda view: b"\xff" * len(view),
        lambda view: view[:4] + b"[" * (len(view) - 4),
        lambda view: other(view, rows=0),
        lambda view: other(view, rows=2**40),
        lambda view: other(view, rows=ROWS + 1),
        lambda view: other(view, channels=2),
        lambda view: other(view, bits=16),
        lambda view: other(view, heat=[-1, 1, 1]),
    ],
)
def test_what_is_no_view_is_not_drawn(manifest, damage):
    view = kept(View.of(Image(LEVELS_8, Range(0, 255), "png"), with_spec(manifest), answered()))
    assert View.decode(other(view)).layout.rows == ROWS
    for read in (View.decode, header, samples):
        with pytest.raises(PictureGone):
            read(damage(view))
