"""What decodes, what is refused, and that nothing else can happen."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medimg_edge import manifest
from medimg_edge.errors import BundleError, ManifestInvalid, RevisionUnknown, SchemaUnknown
from medimg_edge.manifest import (
    Display,
    Manifest,
    OperatingPoint,
    Percentile,
    Preprocessing,
    Windows,
    WindowSetting,
    decode,
    encode,
)

DATA = Path(__file__).parent.parent / "data"
WRITTEN = (DATA / "frozen-bundle" / "manifest.json").read_bytes()


def raw() -> dict:
    return json.loads(WRITTEN)


def changed(*path, to) -> bytes:
    """The frozen manifest with one value replaced."""
    whole = part = raw()
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = to
    return json.dumps(whole).encode()


def test_what_version_1_wrote_decodes_and_loses_nothing():
    found = decode(WRITTEN)
    assert found.labels == ("normal", "opacity")
    assert found.findings == ("opacity",)
    assert json.loads(encode(found)) == raw()


def test_the_schema_is_what_version_1_published():
    """Readers in other languages build on it: a change here is a new schema.

    But for its words, and for a field that may be absent and then changes nothing.
    """
    published = json.loads((DATA / "schema-manifest.json").read_text())
    assert json.loads(json.dumps(manifest.schema())) == published


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (Preprocessing(224, 160), (224, 160, 1)),
        (Preprocessing(224, 160, "rgb", Percentile()), (224, 160, 3)),
        (Preprocessing(32, 32, "rgb", Windows((WindowSetting(40, 400),))), (32, 32, 1)),
        (Preprocessing(32, 32, intensity=Windows((WindowSetting(40, 400),) * 3)), (32, 32, 3)),
    ],
)
def test_shape(spec, shape):
    assert spec.shape == shape


@pytest.mark.parametrize("intensity", [Display(0, 4095), Windows((WindowSetting(-600, 1500),))])
def test_written_and_read_back(intensity):
    spec = raw()
    spec["preprocessing"]["intensity"] = json.loads(manifest.msgspec.json.encode(intensity))
    found = decode(json.dumps(spec).encode())
    assert found.preprocessing.intensity == intensity
    assert decode(encode(found)) == found


PROBABILITY = {"unit": "probability", "dtype": "float32"}
POINT = {"threshold": 0.5, "rule": "stated"}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("extra",), 1, "unknown field"),
        (("preprocessing", "extra"), 1, "unknown field"),
        (("name",), "../up", "name"),
        (("task",), "regression", "task"),
        (("sample",), "volume", "sample"),
        (("labels",), ["normal"], "labels"),
        (("labels",), ["opacity", "opacity"], "two labels are equal"),
        (("labels",), ["normal", "opacity", "other"], "binary task has 2 labels"),
        (("labels",), "ab", "labels"),
        (("task",), "multilabel", "outputs do not fit the 2 labels"),
        (("outputs", "probability"), {"shape": [None, 2], **PROBABILITY}, "outputs do not fit"),
        (("outputs", "probability"), {"shape": [], **PROBABILITY}, "outputs do not fit"),
        (("outputs", "probability"), {"shape": [1, 1], **PROBABILITY}, "outputs do not fit"),
        (("outputs", "probability"), {"shape": [None, 1, 1], **PROBABILITY}, "outputs do not fit"),
        (("outputs", "heatmap", "shape"), [None, 8, 8, 2], "outputs do not fit"),
        (("outputs", "heatmap", "shape"), [None, 1], "outputs do not fit"),
        (("outputs", "embedding", "shape"), [None], "outputs do not fit"),
        (("outputs",), {}, "no 'probability'"),
        (("outputs", "probability", "unit"), "logit", "in the unit probability"),
        (("input", "shape"), [65, 64, 1], "not what preprocessing makes"),
        (("input", "axes"), "NCHW", "axes"),
        (("input", "dtype"), "float32", "dtype"),
        (("default_artifact",), "none.onnx", "not among the artifacts"),
        (("artifacts",), {}, "artifacts"),
        (("artifacts", "model.onnx", "format"), "pickle", "format"),
        (("artifacts", "model.onnx", "sha256"), "abc", "sha256"),
        (("artifacts", "model.onnx", "bytes"), -1, "bytes"),
        (("decision",), {}, "decision does not name exactly the artifacts"),
        (("decision", "model.onnx"), {"normal": POINT}, "exactly the labels opacity"),
        (("decision", "model.onnx", "opacity", "threshold"), 1.5, "threshold"),
        (("preprocessing", "height"), 0, "height"),
        (("preprocessing", "height"), 10**6, "height"),
        (("preprocessing", "height"), 10**30, "height"),
        (("preprocessing", "height"), "32", "height"),
        (("preprocessing", "geometry"), "fit", "geometry"),
        (("preprocessing", "intensity"), {"kind": "equalize"}, "intensity"),
        (("preprocessing", "intensity", "high"), 0, "not below high"),
        (("preprocessing", "intensity"), {"kind": "percentile", "low": 60, "high": 40}, "below"),
        (("preprocessing", "intensity"), {"kind": "window", "windows": []}, "windows"),
        (("training",), float("nan"), "NaN"),
        (("training",), {"loss": float("inf")}, "Infinity"),
    ],
)
def test_refused(path, value, says):
    with pytest.raises(ManifestInvalid) as caught:
        decode(changed(*path, to=value))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, SchemaUnknown), (2, SchemaUnknown), ("1", SchemaUnknown), (True, ManifestInvalid)],
)
def test_schema_version(value, error):
    with pytest.raises(error):
        decode(changed("schema", to=value))


def test_a_later_schema_is_named_before_its_unknown_fields():
    later = {**raw(), "schema": 2, "preprocessing": None, "volumes": []}
    with pytest.raises(SchemaUnknown, match="schema 2"):
        decode(json.dumps(later).encode())


FINE = {"0.05": [0.3, 0.6], "0.1": [0.4, 0.5]}


def test_risks_of_every_label():
    found = decode(changed("risks", to={"model.onnx": {"opacity": FINE}}))
    assert found.risks == {"model.onnx": {"opacity": {"0.05": (0.3, 0.6), "0.1": (0.4, 0.5)}}}


@pytest.mark.parametrize(
    "by_label",
    [
        {},
        {"normal": FINE},
        {"opacity": FINE, "normal": FINE},
        {"opacity": {}},
        *({"opacity": {risk: [0, 1]}} for risk in ("", "x", "0.050", ".05", "nan", "0", "1", "-1")),
    ],
)
def test_risks_that_nothing_can_be_decided_by(by_label):
    with pytest.raises(ManifestInvalid, match="risks of model"):
        decode(changed("risks", to={"model.onnx": by_label}))


def test_risks_are_those_of_every_label():
    whole = raw() | {
        "task": "multilabel",
        "outputs": {"probability": {"shape": [None, 2], "unit": "probability"}},
        "decision": {
            name: {each: {"threshold": 0.5, "rule": "stated"} for each in ("normal", "opacity")}
            for name in raw()["artifacts"]
        },
        "risks": {"model.onnx": {"normal": FINE, "opacity": {"0.05": [0, 1]}}},
    }
    with pytest.raises(ManifestInvalid, match="not the same for every label"):
        decode(json.dumps(whole).encode())


def histogram(edges, counts) -> dict:
    return {"numbers": {"brightness": {"edges": edges, "counts": counts}}}


@pytest.mark.parametrize(
    ("part", "says"),
    [
        ({}, None),
        (histogram([0, 1, 1, 2], [30, 0, 70]), None),
        (histogram([], []), "edges"),
        (histogram([1], []), "edges"),
        (histogram([0, 1], [1, 1]), "edges"),
        (histogram([2, 1], [100]), "edges"),
        (histogram([0, 1], [101]), "more images"),
        (histogram([0, 1], [10**400]), "more images"),
        ({"images": 10**30}, "more images"),
        ({"codes": {"blank": 60, "inverted": 60}}, "more images"),
        ({"decisions": {"opacity": {"positive": 101}}}, "more images"),
        ({"decisions": {"normal": {"positive": 1}}}, "no probability"),
    ],
)
def test_a_reference_counts_images(part, says):
    reference = {"images": 100, "numbers": {}, "decisions": {}, **part}
    data = changed("reference", to={"model.onnx": reference})
    if says is None:
        decode(data)
    else:
        with pytest.raises(ManifestInvalid, match=says):
            decode(data)


@pytest.mark.parametrize("value", [0, 2, None, "1"])
def test_preprocessing_revision(value):
    with pytest.raises(RevisionUnknown, match="revision"):
        decode(changed("preprocessing", "revision", to=value))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"\xef\xbb\xbf" + WRITTEN, "BOM"),
        (WRITTEN.decode().encode("utf-16"), "UTF-8"),
        (WRITTEN[:-9], "not JSON"),
        (WRITTEN + b"{}", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 100_000, "recursion"),
        (WRITTEN.replace(b'"name"', b'"name": "other", "name"', 1), "'name' twice"),
        (WRITTEN.replace(b'"rule"', b'"threshold": 0.9, "rule"', 1), "'threshold' twice"),
        (WRITTEN.replace(b'"rule"', b'"th\\u0072eshold": 0.9, "rule"', 1), "'threshold' twice"),
        (WRITTEN.replace(b"65535.0", b"NaN"), "NaN"),
        (WRITTEN.replace(b"65535.0", b"-Infinity"), "-Infinity"),
        (WRITTEN.replace(b"65535.0", b"1e999"), "out of range"),
        (WRITTEN.replace(b"65535.0", b"9" * 5000), "manifest.json"),
        (WRITTEN.replace(b'"normal"', b'"\\ud800"'), "surrogate"),
    ],
)
def test_not_one_json_document(data, says):
    with pytest.raises(ManifestInvalid) as caught:
        decode(data)
    assert says in str(caught.value)


def test_many_keys_take_no_quadratic_time():
    """4 MB of keys; looking each up among all the others would take an hour."""
    program = (
        "from medimg_edge import errors, manifest\n"
        "data = '{' + ','.join(f'\"{i}\":0' for i in range(400_000)) + '}'\n"
        "try: manifest.decode(data.encode())\n"
        "except errors.SchemaUnknown: print('refused')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert run.stdout == b"refused\n"


def paths(value, path=()):
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value[:2]):
            yield from paths(each, (*path, at))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS | st.sampled_from([[], {}, [None], 10**30, 1e308, -1, 1, 4096, "model.onnx", "gray"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([path for path in paths(raw()) if path]), JSON)
def test_any_change_decodes_or_is_refused(path, value):
    data = changed(*path, to=value)
    with suppress(BundleError):
        assert isinstance(decode(data), Manifest)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40), st.integers(0, len(WRITTEN)))
def test_any_bytes_decode_or_are_refused(data, at):
    for whole in (data, WRITTEN[:at] + data + WRITTEN[at + 1 :]):
        with suppress(BundleError):
            decode(whole)


def test_defaults_are_written_out():
    """A reader in another language knows no defaults."""
    assert json.loads(encode(decode(changed("gates", to=[]))))["sample"] == "image"
    assert "refer" in json.loads(manifest.msgspec.json.encode(OperatingPoint(0.5, "stated")))
