"""TFLite files that may be run, and those that LiteRT does not get to see."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from msgspec import structs

from medimg_edge import tflite_file, tflite_guard
from medimg_edge.bundle import Bundle, shipped
from medimg_edge.errors import ModelError, ModelLoad, ModelRefused
from medimg_edge.manifest import Input, Output
from tests.device import hostile_models as hostile

NAMES = ("model.tflite", "model.int8.tflite")


@pytest.fixture(scope="module")
def opened(frozen) -> Bundle:
    return Bundle.open(frozen)


@pytest.fixture
def builder() -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT brings the schema that files are made by")
    pytest.importorskip("flatbuffers")


def test_exported_models_are_accepted(opened):
    for bundle in (opened, *map(Bundle.open, shipped())):
        for name, artifact in bundle.manifest.artifacts.items():
            if artifact.format == "tflite":
                tflite_guard.require(bundle.read(name), bundle.manifest)


@pytest.mark.parametrize("name", hostile.REFUSED_TFLITE)
def test_hostile_files_are_refused(opened, builder, name):
    change, says = hostile.REFUSED_TFLITE[name]
    data = hostile.changed_tflite(opened.read("model.tflite"), change)
    started = time.perf_counter()
    with pytest.raises(ModelRefused, match=says):
        tflite_guard.require(data, opened.manifest)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_written_anew_is_accepted(opened, builder, name):
    """What the others change is all that is wrong with them."""
    data = hostile.changed_tflite(opened.read(name), lambda model: None)
    tflite_guard.require(data, opened.manifest)


def test_heavy_but_honest_networks_are_accepted(opened, builder):
    data = hostile.changed_tflite(opened.read("model.tflite"), hostile.heavy_tflite)
    tflite_guard.require(data, opened.manifest)


def test_other_shapes_than_the_manifest_says(opened):
    data = opened.read("model.tflite")
    other = structs.replace(opened.manifest, input=Input(shape=(32, 48, 1)))
    with pytest.raises(ModelRefused, match=r"64, 64, 1\); the manifest says \(32, 48, 1\)"):
        tflite_guard.require(data, other)
    for name, shape in (("embedding", (None, 127)), ("probability", (None, 2))):
        outputs = {**opened.manifest.outputs, name: Output(shape, "feature")}
        with pytest.raises(ModelRefused, match=rf"returns '{name}' of float32"):
            tflite_guard.require(data, structs.replace(opened.manifest, outputs=outputs))
    outputs = {**opened.manifest.outputs, "second": Output((None, 1), "feature")}
    with pytest.raises(ModelRefused, match="no output 'second'"):
        tflite_guard.require(data, structs.replace(opened.manifest, outputs=outputs))


# The flatbuffer itself


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text, not a model",
        b"\x1c\0\0\0TFL3",
        b"\xff\xff\xff\xffTFL3" + bytes(100),
        b"\x08\0\0\0TFL3" + b"\xff" * 100,
        b"\x08\0\0\0TFL3\0\0\0\0" + bytes(100),
        b"\x09\0\0\0TFL3" + bytes(100),
    ],
)
def test_what_is_no_flatbuffer(data):
    with pytest.raises(ModelLoad, match="not TFLite"):
        tflite_file.read(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_cut_anywhere_is_no_model(opened, name):
    """Its last bytes, which nothing refers to, may be missing."""
    data = opened.read(name)
    for length in range(0, len(data) - 64, len(data) // 50):
        with pytest.raises(ModelError):
            tflite_guard.require(data[:length], opened.manifest)


def test_offsets_that_lead_elsewhere(opened):
    """Every offset that is followed, one after the other, leads out of the file instead."""
    data = opened.read("model.tflite")
    followed: set[int] = set()

    class Watched(tflite_file.Table):
        def _referred(self, place: int) -> int:
            followed.add(place)
            return super()._referred(place)

    original, tflite_file.Table = tflite_file.Table, Watched
    try:
        tflite_file.read(data)
    finally:
        tflite_file.Table = original
    assert len(followed) > 100
    random = np.random.default_rng(3)
    for place in sorted(followed):
        for offset in (len(data), 2**31, 2**32 - 4, 4 * int(random.integers(len(data) // 4))):
            broken = bytearray(data)
            struct.pack_into("<I", broken, place, offset)
            try:
                tflite_guard.require(bytes(broken), opened.manifest)
            except ModelError:
                continue
            # It leads to something of the same kind, within the file.
            assert offset < len(data)
