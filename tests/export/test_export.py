"""The export: a bundle that passed every gate, or nothing."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import pytest

from medimg_edge import golden
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import ConversionError, GateError, RecipeError, WriteError
from medimg_edge.image import Image
from medimg_edge.manifest import Preprocessing
from medimg_edge.preprocess import preprocess
from medimg_export import export as exporting
from medimg_export.calibration import matching_threshold
from medimg_export.export import Exported, export
from medimg_export.gates import Limits
from medimg_export.graph import deployable
from medimg_export.int8 import VARIANTS
from medimg_export.metrics import auc
from medimg_export.prepared import encoded
from medimg_export.recipe import Recipe, override
from medimg_export.run import Run
from medimg_export.trained_model import TrainedModel, trained_model

ARTIFACTS = {
    "model.onnx": ("onnx", "float32"),
    "model.tflite": ("tflite", "float32"),
    "model.int8.onnx": ("onnx", "int8"),
    "model.int8.tflite": ("tflite", "int8"),
}


def left_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.fixture
def old(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that must survive whatever comes."""
    return shutil.copytree(bundle, tmp_path / "out" / "bundle")


def unharmed(old: Path, bundle: Path) -> bool:
    """The old bundle opens, is what it was, and nothing lies beside it."""
    opened = Bundle.open(old)
    opened.check_contents()
    return opened.hash == Bundle.open(bundle).hash and left_in(old.parent) == [old.name]


# --- a bundle that passed ---


def test_four_artifacts_that_verify(bundle: Path):
    opened = Bundle.open(bundle)
    found = {name: (of.format, of.precision) for name, of in opened.manifest.artifacts.items()}
    assert found == ARTIFACTS
    assert opened.manifest.default_artifact == "model.int8.onnx"
    checks = golden.verify(opened)
    assert {check.artifact: check.status for check in checks} == dict.fromkeys(ARTIFACTS, "ok")


def test_the_float32_files_can_be_left_out(model: TrainedModel, bundle: Path, tmp_path: Path):
    small = export(model, tmp_path / "small", name="bundle", int8_only=True)
    kept = ("model.int8.onnx", "model.int8.tflite")
    manifest, whole = small.bundle.manifest, Bundle.open(bundle).manifest
    assert tuple(manifest.artifacts) == tuple(manifest.decision) == kept
    assert all(tuple(case.probability) == kept for case in manifest.golden)
    assert {name: manifest.artifacts[name].sha256 for name in kept} == {
        name: whole.artifacts[name].sha256 for name in kept
    }
    assert {gate.artifact for gate in manifest.gates} == set(ARTIFACTS)  # all were checked
    assert len(small.rows) == 4
    checks = golden.verify(small.bundle)
    assert {check.artifact: check.status for check in checks} == dict.fromkeys(kept, "ok")


def test_the_manifest_says_everything(bundle: Path, run: Run):
    manifest = Bundle.open(bundle).manifest
    assert (manifest.name, manifest.version) == ("bundle", "0.1.0")
    assert (manifest.task, manifest.labels) == ("binary", ("normal", "opacity"))
    assert manifest.intended_use == "For tests."
    assert manifest.modality == ("DX",)
    assert manifest.preprocessing == Preprocessing(height=32, width=32)
    assert manifest.input.shape == (32, 32, 1)
    shapes = {name: output.shape for name, output in manifest.outputs.items()}
    assert shapes["probability"] == (None, 1)
    assert shapes["heatmap"][-1] == 1
    assert min(shapes["heatmap"][1:3]) >= 7  # type: ignore[type-var]
    assert shapes["embedding"] == (None, 128)
    assert manifest.training["backbone"] == "tiny"
    assert manifest.training["data_fingerprint"] == run.record.dataset["fingerprint"]
    assert set(manifest.decision) == set(ARTIFACTS)
    assert manifest.decision["model.onnx"] == run.record.decision
    assert "MODEL_CARD.md" in manifest.files
    assert len(manifest.golden) == 12
    assert all(set(case.probability) == set(ARTIFACTS) for case in manifest.golden)


def test_the_manifest_records_every_gate(bundle: Path):
    gates = Bundle.open(bundle).manifest.gates
    assert all(gate.passed and gate.measured is not None for gate in gates)
    named = {(gate.artifact, gate.name, gate.split) for gate in gates}
    float32 = {
        (name, gate, split)
        for name in ("model.onnx", "model.tflite")
        for gate in ("pixels", "probability")
        for split in ("val", "test")
    }
    int8 = {
        (name, gate, "val")
        for name in ("model.int8.onnx", "model.int8.tflite")
        for gate in ("auc", "sensitivity of opacity", "specificity of opacity")
    }
    assert named == float32 | int8
    assert {gate.limit for gate in gates if gate.name == "probability"} == {1e-4}


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_the_table_is_what_the_device_answers(
    exported: Exported, model: TrainedModel, artifact: str
):
    row = next(row for row in exported.rows if row.artifact == artifact)
    classifier = Classifier(exported.bundle, artifact=artifact, screened=False)
    rows = model.prepared.rows("val")
    answers = [classifier.predict(encoded(sample)) for sample in model.prepared.samples(rows)]
    p = np.array([answer.probability for answer in answers])[:, None]
    y, reference = model.prepared.y[rows], model.answers("val")
    assert row.max_dp == pytest.approx(np.abs(p - reference).max(), abs=1e-9)
    assert row.median_dp == pytest.approx(np.median(np.abs(p - reference)), abs=1e-9)
    assert row.auc == pytest.approx(auc("binary", y, p))
    called = np.array([answer.decision == "positive" for answer in answers])
    theirs = reference[:, 0] >= model.decision["opacity"].threshold
    assert row.decisions_differ == (called != theirs).sum()
    assert called.sum() == theirs.sum()  # the int8 threshold is matched
    assert row.sensitivity == pytest.approx(called[y == 1].mean())
    assert row.specificity == pytest.approx((~called[y == 0]).mean())
    assert row.bytes == (exported.bundle.path / artifact).stat().st_size
    assert row.ms > 0
    manifest = exported.bundle.manifest.artifacts[artifact]
    assert manifest.metrics["auc"] == row.auc
    assert manifest.metrics["max_dp"] == row.max_dp
    assert "ms" not in manifest.metrics  # of this machine, not of the model
    assert manifest.variant == row.variant
    point = exported.bundle.manifest.decision[artifact]["opacity"]
    assert (point.sensitivity, point.specificity) == (row.sensitivity, row.specificity)


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_an_int8_artifact_makes_as_many_positive_calls_as_float32(
    exported: Exported, model: TrainedModel, kind: str
):
    """By a threshold of its own where float32's would not: its probabilities are a little other."""
    pixels = model.prepared.cached.pixels[model.prepared.rows("val")]
    artifacts = (f"model.{kind}", f"model.int8.{kind}")
    float32, int8 = (Classifier(exported.bundle, artifact=name).run(pixels) for name in artifacts)
    points = exported.bundle.manifest.decision
    own, theirs = (points[name]["opacity"].threshold for name in reversed(artifacts))
    wanted = matching_threshold(float32["probability"], theirs, int8["probability"])
    assert own == pytest.approx(wanted, abs=1e-7)
    calls = int((float32["probability"] >= theirs).sum())
    assert int((int8["probability"] >= own).sum()) == calls
    assert 0 < calls < len(pixels)
    assert (own == theirs) == (int((int8["probability"] >= theirs).sum()) == calls)


@pytest.mark.parametrize("artifact", ["model.onnx", "model.int8.onnx"])
def test_a_lone_onnx_file_explains_itself(bundle: Path, artifact: str, run: Run):
    found = {each.key: each.value for each in onnx.load(bundle / artifact).metadata_props}
    assert found["task"] == "binary"
    assert found["labels"] == '["normal","opacity"]'
    assert '"height":32' in found["preprocessing"]
    assert '"geometry":"stretch"' in found["preprocessing"]
    assert str(run.record.decision["opacity"].threshold) in found["float32_thresholds"]
    assert found["intended_use"] == "For tests."


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_other_tasks(kind: str, request: pytest.FixtureRequest):
    run: Run = request.getfixturevalue(f"{kind}_run")
    bundle = Bundle.open(request.getfixturevalue(f"{kind}_bundle"))
    manifest, prepared = bundle.manifest, trained_model(run.path).prepared
    assert (manifest.task, manifest.labels) == (kind, run.record.labels)
    assert all(set(points) == set(run.record.decision) for points in manifest.decision.values())
    if kind == "multilabel":  # chosen on draws; what the manifest tells is of the images themselves
        assert manifest.decision["model.onnx"] == run.record.decision
    assert {check.status for check in golden.verify(bundle)} == {"ok"}
    rows = prepared.rows("test")
    for name in ARTIFACTS:
        classifier = Classifier(bundle, artifact=name, screened=False)
        answers = [classifier.predict(encoded(each)) for each in prepared.samples(rows)]
        p = np.array([[each.probability for each in found.findings] for found in answers])
        assert auc(manifest.task, prepared.y[rows], p) > 0.8
        assert answers[0].heatmap is not None
        assert answers[0].heatmap.shape[-1] == len(manifest.labels)
        if kind == "multiclass":
            assert [each.label for each in answers] == [manifest.labels[i] for i in p.argmax(1)]


def test_a_broken_calibration_is_refused(
    multiclass_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pixels that were scaled twice: the files are valid and the answers are not."""
    whole = exporting._Export._calibration
    monkeypatch.setattr(exporting._Export, "_calibration", lambda self: whole(self) // 255)
    with pytest.raises(GateError, match=r"No int8 variant .*per-channel.*per-tensor"):
        export(trained_model(multiclass_run.path), tmp_path / "broken")
    assert left_in(tmp_path) == []


# --- refusals ---


def test_past_a_float32_limit_nothing_is_written(
    model: TrainedModel, old: Path, bundle: Path, tmp_path: Path
):
    message = r"model\.onnx is refused by the gate probability on test: .*Nothing was written"
    for out in (tmp_path / "new" / "bundle", old):
        with pytest.raises(GateError, match=message):
            export(model, out, limits=Limits(float32=-1.0))
    assert left_in(tmp_path / "new") == []
    assert unharmed(old, bundle)


def test_past_an_int8_limit_nothing_is_written(model: TrainedModel, old: Path, bundle: Path):
    limits = Limits(int8_rate=-1.0, int8_images=-1000)
    with pytest.raises(GateError, match=r"No int8 variant of model\.int8\.onnx") as refused:
        export(model, old, limits=limits)
    assert "per-channel: sensitivity of opacity on val: 0, at most -1" in str(refused.value)
    assert all(f"{variant.name}: " in str(refused.value) for variant in VARIANTS)
    assert "Nothing was written" in str(refused.value)
    assert unharmed(old, bundle)


def wrong_interpolation(image: Image, spec: Preprocessing) -> np.ndarray:
    pixels = cv2.resize(image.frames[0], (spec.width, spec.height), interpolation=cv2.INTER_LINEAR)
    return (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)[..., None]


def one_pixel(image: Image, spec: Preprocessing) -> np.ndarray:
    pixels = preprocess(image, spec)
    pixels[5, 5] ^= 1
    return pixels


@pytest.mark.parametrize("device", [wrong_interpolation, one_pixel])
def test_other_pixels_on_the_device_are_refused(
    model: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device
):
    monkeypatch.setattr("medimg_edge.classifier.preprocess", device)
    with pytest.raises(GateError, match=r"model\.onnx is refused by the gate pixels on test: "):
        export(model, tmp_path / "bundle")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_a_wrong_scale_in_one_artifact_is_refused(
    model: TrainedModel, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    net = run.model()
    net.get_layer("rescale").scale = 1 / 255  # pyright: ignore[reportAttributeAccessIssue]
    wrong = deployable(net, task="binary", temperature=run.record.temperature).model
    convert = getattr(exporting, f"to_{kind}")
    monkeypatch.setattr(exporting, f"to_{kind}", lambda _, *rest: convert(wrong, *rest))
    name = rf"model\.{kind}"
    with pytest.raises(GateError, match=f"{name} is refused by the gate probability on test"):
        export(model, tmp_path / "bundle")
    assert left_in(tmp_path) == []


@pytest.fixture(scope="module")
def color(arrays: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    """Somebody's network for RGB, with float input, trained a little and without a heatmap."""
    keras.utils.set_random_seed(0)
    data = arrays([0, 1] * 60, color=True)
    images, labels = (np.load(data)[f"train_{what}"] for what in ("images", "labels"))
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((28, 28, 3)),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    net.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")  # pyright: ignore[reportArgumentType]
    net.fit(images / 255, 1 - labels, epochs=3, verbose=0)  # pyright: ignore[reportArgumentType]
    path = tmp_path_factory.mktemp("theirs") / "theirs.keras"
    net.save(path)
    recipe = override(
        Recipe(),
        data={"labels": ["normal", "sick"], "positive": "sick"},
        pixels={"color": "rgb"},
        model={"scale": 1 / 255, "outputs": ["sick", "normal"], "temperature": 3.0},
    )
    return trained_model(path, data=data, recipe=recipe)


def test_a_model_from_elsewhere_without_a_heatmap(color: TrainedModel, tmp_path: Path):
    done = export(color, tmp_path / "theirs bundle")
    assert any("No heatmap" in note for note in done.notes)
    assert "heatmap" not in done.bundle.manifest.outputs
    assert done.bundle.manifest.name == "theirs-bundle"
    assert {check.status for check in golden.verify(done.bundle)} == {"ok"}
    assert done.rows[0].auc > 0.9
    prediction = Classifier(done.bundle).predict(
        encoded(color.prepared.samples(color.prepared.rows("test"))[0])
    )
    assert prediction.heatmap is None
    assert prediction.label == "sick"
    (tmp_path / "images").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "images" / "1.png"), picture)
    command = ["infer", tmp_path / "images", "--bundle", tmp_path / "theirs bundle"]
    process = subprocess.run(
        [sys.executable, "-m", "medimg_edge.cli", *command, "--heatmap", tmp_path / "maps"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "heatmap" in process.stderr
    assert "Traceback" not in process.stderr


def test_swapped_channels_on_the_device_are_refused(
    color: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "medimg_edge.classifier.preprocess",
        lambda image, spec: np.ascontiguousarray(preprocess(image, spec)[..., ::-1]),
    )
    with pytest.raises(GateError, match=r"model\.onnx is refused by the gate pixels"):
        export(color, tmp_path / "bundle")
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["my model", "-x", "a" * 101, "ö"])
def test_a_name_that_no_bundle_may_have_is_refused_first(
    model: TrainedModel, tmp_path: Path, name: str
):
    with pytest.raises(RecipeError, match="cannot be called"):
        export(model, tmp_path / "bundle", name=name)
    assert left_in(tmp_path) == []


def test_other_files_are_never_replaced(model: TrainedModel, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    (tmp_path / "file").touch()
    for name in ("thesis", "file"):
        with pytest.raises(WriteError, match="Name another output"):
            export(model, tmp_path / name)
    assert left_in(tmp_path / "thesis") == ["chapter1.tex"]


# --- a bundle is replaced by a finished one only ---


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does: writes beyond it fail with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("artifact", ["model.onnx", "model.tflite"])
def test_a_full_disk_leaves_the_old_bundle(
    model: TrainedModel, old: Path, bundle: Path, artifact: str
):
    room = (bundle / artifact).stat().st_size - 500
    with files_of_at_most(room), pytest.raises((WriteError, ConversionError)) as refused:
        export(model, old)
    assert refused.value.code in ("write", "export-conversion")  # a converter's own words for it
    assert unharmed(old, bundle)


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_bundle(run: Run, old: Path, bundle: Path):
    command = [sys.executable, "-m", "medimg_edge.cli", "export", str(run.path), "--out", str(old)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(old.parent.glob(".bundle.*.partial/model.tflite")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for partial in old.parent.glob(".*"):
        shutil.rmtree(partial)  # hidden, beside the bundle, and called .partial
    assert unharmed(old, bundle)
