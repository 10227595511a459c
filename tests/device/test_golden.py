"""``verify`` passes on what was exported, and on nothing else."""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from medimg_edge import engines, preprocess
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.errors import FilesDiffer, GoldenMismatch
from medimg_edge.golden import INT8_WARNING, Check, verify
from medimg_edge.manifest import GoldenCase


def statuses(folder) -> dict[str, Check]:
    return {check.artifact: check for check in verify(Bundle.open(folder))}


def test_what_version_1_wrote_still_answers_the_same(frozen):
    """For ever: a bundle that was exported once opens and verifies with every later release."""
    seen = []
    checks = verify(Bundle.open(frozen), seen.append)
    names = ["model.onnx", "model.tflite", "model.int8.onnx", "model.int8.tflite"]
    assert [check.artifact for check in checks] == seen == names
    for check in checks:
        if check.artifact.endswith("tflite") and not engines.installed("tflite"):
            assert check.status == "not run"
            continue
        # An int8 kernel of another CPU may round elsewhere; float32 may not.
        assert check.status in (("ok", "warning") if "int8" in check.artifact else ("ok",))
        assert check.cases == 12


def test_the_golden_set_is_worth_something(frozen):
    """A saturated probability moves with nothing, so half of them must not be."""
    cases = Bundle.open(frozen).manifest.golden
    assert len(cases) >= 12
    for name in ("model.onnx", "model.int8.onnx"):
        assert sum(0.05 <= case.probability[name][0] <= 0.95 for case in cases) >= 6


def test_a_wrong_scale(bundle, rewrite, called):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    by_name = {each.name: each for each in model.graph.initializer}
    scale = next(by_name[node.input[1]] for node in model.graph.node if node.op_type == "Mul")
    value = onnx.numpy_helper.to_array(scale)
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32(value * 1.02), scale.name))
    onnx.save(model, bundle / "model.onnx")
    rewrite(bundle)
    checks = statuses(bundle)
    assert checks["model.onnx"].status == "failed"
    assert "max |dp| is" in checks["model.onnx"].message
    assert checks["model.int8.onnx"].status in ("ok", "warning")
    done = called("verify", bundle)
    assert done.returncode == 1
    assert "error [bundle-golden]: model.onnx: max |dp| is" in done.stderr


def nearest(values, height, width):
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST)


def bilinear(values, height, width):
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)


def swapped(values):
    return cv2.cvtColor(values, cv2.COLOR_BGR2GRAY) if values.ndim == 3 else values


def one_brighter(grey):
    return np.minimum(np.rint(grey), 254).astype(np.uint8) + np.uint8(1)


@pytest.mark.parametrize(
    ("stage", "wrong"),
    [
        ("resize", nearest),
        ("resize", bilinear),
        ("one_channel", swapped),
        ("_polarity", lambda grey, image: grey),
        ("_round", lambda grey: grey.astype(np.uint8)),  # cut off, not rounded
        ("_round", one_brighter),
    ],
)
def test_another_preprocessing(frozen, monkeypatch, called, stage, wrong):
    monkeypatch.setattr(preprocess, stage, wrong)
    with pytest.raises(GoldenMismatch, match="gives other pixels here"):
        verify(Bundle.open(frozen))
    monkeypatch.setattr("medimg_edge.golden_apart.verify_apart", verify)  # in this process
    done = called("verify", frozen)
    assert done.returncode == 1
    assert "error [bundle-golden]: golden/" in done.stderr


def test_an_opencv_that_resizes_otherwise_is_not_asked(frozen, monkeypatch):
    """That of aarch64 does."""
    monkeypatch.delattr(cv2, "resize")
    assert {check.status for check in verify(Bundle.open(frozen))} <= {"ok", "not run"}


@pytest.mark.parametrize(("shift", "status"), [(0.015, "ok"), (0.03, "warning"), (0.06, "failed")])
def test_the_limits_of_int8(bundle, rewrite, shift, status):
    """The expected value is moved away from what this machine answers."""
    classifier = Classifier(bundle)
    cases = classifier.manifest.golden
    first = next(i for i, case in enumerate(cases) if 0.3 < case.probability["model.onnx"][0] < 0.9)
    answers = [classifier.predict(bundle / case.input).probability for case in cases]

    def change(raw: dict) -> None:
        for case, answer in zip(raw["golden"], answers, strict=True):
            case["probability"]["model.int8.onnx"] = [answer]
        raw["golden"][first]["probability"]["model.int8.onnx"] = [answers[first] + shift]

    rewrite(bundle, change)
    check = statuses(bundle)["model.int8.onnx"]
    assert check.status == status
    assert check.difference == pytest.approx(shift, abs=1e-5)
    if status == "warning":
        assert check.difference is not None
        assert check.difference > INT8_WARNING
        assert "rounds int8 otherwise" in check.message


def test_float32_has_no_band(bundle, rewrite):
    def change(raw: dict) -> None:
        raw["golden"][0]["probability"]["model.onnx"][0] += 2e-4

    rewrite(bundle, change)
    check = statuses(bundle)["model.onnx"]
    assert check.status == "failed"
    assert "max |dp| is 0.0002, more than 0.0001" in check.message


@pytest.mark.parametrize("values", [[], [0.5, 0.5], None])
def test_expected_values_that_do_not_fit(bundle, rewrite, values):
    def change(raw: dict) -> None:
        for case in raw["golden"]:
            if values is None:
                del case["probability"]["model.onnx"]
            else:
                case["probability"]["model.onnx"] = values

    rewrite(bundle, change)
    check = statuses(bundle)["model.onnx"]
    assert check.status == "failed"
    assert "does not fit" in check.message


def test_golden_pixels_that_differ_by_one(bundle, rewrite):
    path = bundle / "golden" / "01-gray8.pixels"
    data = bytearray(path.read_bytes())
    data[7] += 1
    path.write_bytes(data)
    with pytest.raises(FilesDiffer):
        verify(Bundle.open(bundle))
    rewrite(bundle)
    with pytest.raises(GoldenMismatch, match="1 of 4096 differ, by up to 1 of 255"):
        verify(Bundle.open(bundle))
    path.write_bytes(data[:-1])
    rewrite(bundle)
    with pytest.raises(GoldenMismatch, match="4095 bytes, not 4096"):
        verify(Bundle.open(bundle))


def test_a_golden_input_that_cannot_be_read(bundle, rewrite):
    path = bundle / "golden" / "08-monochrome2.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    rewrite(bundle)
    with pytest.raises(GoldenMismatch, match=r"08-monochrome2\.dcm cannot be read here"):
        verify(Bundle.open(bundle))


def test_a_golden_input_that_is_not_listed(bundle, rewrite):
    rewrite(bundle, lambda raw: raw["golden"][0].update(input="../01-gray8.png"))
    with pytest.raises(FilesDiffer, match="lists no file"):
        verify(Bundle.open(bundle))


def test_no_golden_set(bundle, rewrite):
    rewrite(bundle, lambda raw: raw.update(golden=[]))
    with pytest.raises(GoldenMismatch, match="nothing can be checked"):
        verify(Bundle.open(bundle))


def test_a_small_golden_set_is_said(bundle, rewrite, called):
    rewrite(bundle, lambda raw: raw.update(golden=raw["golden"][:11]))
    done = called("verify", bundle)
    assert done.returncode == 0
    assert "warning: the golden set has 11 cases, fewer than 12" in done.stderr


def test_a_network_that_is_not_finite(bundle, rewrite):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "model.onnx")
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = onnx.numpy_helper.to_array(largest)
    largest.CopyFrom(onnx.numpy_helper.from_array(array * np.float32(np.nan), largest.name))
    onnx.save(model, bundle / "model.onnx")
    rewrite(bundle)
    check = statuses(bundle)["model.onnx"]
    assert check.status == "failed"
    assert "not finite" in check.message


def test_without_litert(bundle, rewrite):
    """What cannot be run is said; a bundle of which nothing can be run does not verify."""
    program = (
        "import sys; sys.modules['ai_edge_litert'] = None\n"
        "from medimg_edge import golden, golden_apart; golden_apart.verify_apart = golden.verify\n"
        "from medimg_edge.cli import main; sys.argv[1:] = ['verify', sys.argv[1]]; main()"
    )
    arguments = [sys.executable, "-c", program, bundle]
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.count("not run") == 2
    assert "Not checked here: model.tflite, model.int8.tflite." in run.stdout
    (bundle / "model.onnx").unlink()
    (bundle / "model.int8.onnx").unlink()

    def only_tflite(raw: dict) -> None:
        for name in ("model.onnx", "model.int8.onnx"):
            del raw["artifacts"][name], raw["decision"][name]
        raw["default_artifact"] = "model.tflite"

    rewrite(bundle, only_tflite)
    run = subprocess.run(arguments, capture_output=True, text=True)
    assert run.returncode == 1
    assert "error [bundle-golden]: No artifact can be run" in run.stderr


@pytest.mark.parametrize(
    ("expected", "status"),
    [
        ((0.46, 0.48, 0.06), "ok"),
        ((0.49, 0.45, 0.06), "warning"),  # another label, but it was a close call
        ((0.50, 0.44, 0.06), "failed"),
    ],
)
def test_another_label_that_was_not_a_close_call(mean_bundle, rewrite, expected, status):
    labels = ("a", "b", "c")
    biases = [float(each) for each in np.log([0.46, 0.48, 0.06])]
    folder = mean_bundle(
        [0, 0, 0], biases, task="multiclass", labels=labels, precision="int8",
        golden=(GoldenCase("a.png", "a.pixels", {"model.onnx": expected}),),
    )  # fmt: skip
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (folder / "a.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (folder / "a.pixels").write_bytes(pixels.tobytes())
    rewrite(folder)
    check = statuses(folder)["model.onnx"]
    assert check.status == status
    assert ("another decision" in check.message) == (status == "failed")
