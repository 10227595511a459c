"""Images that are turned away by their looks: each with its reason, and by force with a warning."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from medimg_edge import errors, screening
from medimg_edge import manifest as m
from medimg_edge.bundle import Bundle
from medimg_edge.classifier import Classifier
from medimg_edge.image import Image, Range
from medimg_edge.preprocess import Area
from medimg_edge.reader import read_image
from medimg_edge.record import Failure, Measured

SIDE = 16
Write = Callable[..., Path]

SCREENING = {
    "contrast": 10.0,
    "content": 0.4,
    "polarity": {"side": 2, "weights": "screening/polarity.f32", "limit": -20.0},
    "novelty": {
        "method": "knn",
        "arrays": {"bank": "screening/bank.f32"},
        "shapes": {"bank": (2, 3)},
        "limit": {"model.onnx": 0.5},
    },
}


def picture(seed: int = 0, size: int = 64) -> NDArray[np.uint8]:
    """Bright above, dark below, with grain: what the tests' model was trained on."""
    grain = np.random.default_rng(seed).integers(-40, 40, (size, size))
    ramp = np.linspace(220, 40, size)[:, None]
    return np.clip(ramp + grain, 0, 255).astype(np.uint8)


@pytest.fixture
def screened(mean_bundle: Write, rewrite: Callable[..., None]) -> Path:
    """A bundle that turns images away; its embedding is (mean, 1 - mean, 1) by its own network."""
    onnx = pytest.importorskip("onnx", reason="onnx, of the export extra, builds the network")
    folder = mean_bundle([8.0], [-4.0], task="binary", labels=("no", "yes"))
    model = onnx.load(folder / "model.onnx")
    helper, tensor = onnx.helper, onnx.TensorProto.FLOAT
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.array([[1, -1, 0]], np.float32), "spread"),
            onnx.numpy_helper.from_array(np.array([0, 1, 1], np.float32), "offset"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Sigmoid", ["logit"], ["share"]),
            helper.make_node("MatMul", ["share", "spread"], ["mixed"]),
            helper.make_node("Add", ["mixed", "offset"], ["embedding"]),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("embedding", tensor, ["N", 3]))
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "screening").mkdir()
    weights = np.array([1, 1, -1, -1], "<f4")
    (folder / "screening" / "polarity.f32").write_bytes(weights.tobytes())
    bank = np.array([[0.4, 0.6, 1], [0.6, 0.4, 1]], "<f4")
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    (folder / "screening" / "bank.f32").write_bytes(bank.tobytes())

    def change(raw: dict) -> None:
        raw["outputs"]["embedding"] = {
            "shape": [None, 3],
            "unit": "feature",
            "dtype": "float32",
        }
        raw["screening"] = SCREENING

    rewrite(folder, change)
    return folder


def strip() -> NDArray[np.uint8]:
    return picture()[:20, :].copy()


def framed() -> NDArray[np.uint8]:
    found = np.zeros((64, 64), np.uint8)
    found[10:30, 10:30] = picture()[:20, :20]
    return found


def faint() -> NDArray[np.uint8]:
    return (120 + picture() // 20).astype(np.uint8)


def few_levels() -> NDArray[np.uint8]:
    return (picture() > 128).astype(np.uint8) * 20


def bright() -> NDArray[np.uint8]:
    """Upright, and so bright that no training image was like it."""
    return np.clip(picture().astype(int) + 90, 0, 255).astype(np.uint8)


CASES = [
    (strip, errors.Cropped),
    (framed, errors.Cropped),
    (faint, errors.LowContrast),
    (few_levels, errors.LowContrast),
    (lambda: 255 - picture(), errors.Inverted),
    (bright, errors.NotLikeTraining),
]


@pytest.mark.parametrize(("draw", "error"), CASES)
def test_each_has_its_reason(screened, draw, error):
    with pytest.raises(error) as raised:
        Classifier(screened).predict(draw())
    assert raised.value.code == error.code
    assert "--force" in raised.value.message
    assert isinstance(raised.value.measured, Measured)
    assert (raised.value.measured.novelty is not None) == (error is errors.NotLikeTraining)


@pytest.mark.parametrize(("draw", "error"), CASES)
def test_by_force_each_is_answered_and_says_so(screened, draw, error):
    found = Classifier(screened, force=True).predict(draw())
    assert found.probability is not None
    forced = [each for each in found.record.warnings if each.startswith(screening.FORCED)]
    assert forced
    assert all("--force" not in each for each in forced)
    assert Classifier(screened, screened=False).predict(draw()).record.warnings == (
        found.record.warnings
    )


def test_an_image_of_the_kind_is_answered(screened):
    found = Classifier(screened).predict(picture())
    assert found.record.warnings == ()
    measured = found.record.measured
    assert measured is not None
    assert measured.novelty is not None
    assert 0 <= measured.novelty < 1
    assert measured.brightness == pytest.approx(found.pixels.mean(), abs=0.01)
    assert measured.contrast == pytest.approx(found.pixels.std(), abs=0.01)
    steps = np.abs(np.diff(found.pixels[..., 0].astype(int), axis=0)).mean()
    assert measured.sharpness == pytest.approx(steps, abs=0.001)


def test_among_many_a_rejection_is_a_record(screened):
    found = [*Classifier(screened).predict_many([picture(), bright(), picture(1)])]
    assert [isinstance(each, Failure) for each in found] == [False, True, False]
    assert isinstance(found[1], Failure)
    assert found[1].status == "rejected"
    assert found[1].measured is not None


def test_the_command(screened, tmp_path, command):
    files = {"fine.png": picture(), "negative.png": 255 - picture()}
    for name, pixels in files.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    words = ("infer", *(tmp_path / name for name in files), "-b", screened)
    done = command(*words)
    assert done.returncode == 1
    fine, negative = map(msgspec.json.decode, done.stdout.splitlines())
    assert (fine["status"], negative["status"]) == ("ok", "rejected")
    assert negative["code"] == "inverted"
    assert "probability" not in negative
    forced = command(*words, "--force")
    assert forced.returncode == 0
    assert (
        "black and white"
        in msgspec.json.decode(forced.stdout.splitlines()[1])["warnings"][0].lower()
    )


def test_a_bundle_that_says_nothing_turns_nothing_away(mean_bundle):
    folder = mean_bundle([8.0], [-4.0], task="binary", labels=("no", "yes"))
    for draw, _ in CASES:
        found = Classifier(folder).predict(draw())
        assert found.record.warnings == ()
        assert found.record.measured is not None
        assert found.record.measured.novelty is None


def test_an_artifact_without_a_limit_is_not_judged_by_one(screened, rewrite):
    rewrite(screened, lambda raw: raw["screening"]["novelty"].update(limit={}))
    assert Classifier(screened).predict(bright()).record.measured.novelty is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("polarity", np.zeros(3, "<f4")),
        ("polarity", np.full(4, np.nan, "<f4")),
        ("bank", np.zeros(5, "<f4")),
        ("bank", np.full(6, np.inf, "<f4")),
        ("polarity", np.zeros(17, np.uint8)),
        ("bank", np.zeros(25, np.uint8)),
        ("bank", np.zeros(0, "<f4")),
    ],
)
def test_arrays_that_do_not_fit(screened, rewrite, name, data):
    (screened / "screening" / f"{name}.f32").write_bytes(data.tobytes())
    rewrite(screened)
    with pytest.raises(errors.ManifestInvalid, match=r"screening\.(polarity|novelty)"):
        Classifier(screened)


@pytest.mark.parametrize(
    "shape", [(2**62, 3), (2**32, 2**32), (10**30, 3), (0, 2**63 - 1), (2, 3, *[1] * 100), (), (6,)]
)
@pytest.mark.parametrize("is_empty", [False, True])
def test_shapes_that_no_file_has(screened, rewrite, shape, is_empty):
    if is_empty:
        (screened / "screening" / "bank.f32").write_bytes(b"")
    rewrite(screened, lambda raw: raw["screening"]["novelty"].update(shapes={"bank": shape}))
    with pytest.raises(errors.ManifestInvalid, match=r"screening\.novelty"):
        Classifier(screened)


@pytest.mark.parametrize("shape", [None, [None, None]])
def test_a_detector_needs_an_embedding(screened, rewrite, shape):
    def change(raw: dict) -> None:
        raw["outputs"]["embedding"]["shape"] = shape
        if shape is None:
            del raw["outputs"]["embedding"]

    rewrite(screened, change)
    with pytest.raises(errors.ManifestInvalid, match="embedding"):
        Bundle.open(screened)


def test_a_changed_array_is_refused(screened):
    path = screened / "screening" / "bank.f32"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.FilesDiffer):
        Classifier(screened)


def test_it_pickles(screened):
    classifier = Classifier(screened, screened=False)
    again = pickle.loads(pickle.dumps(classifier))
    assert again.predict(bright()).record.warnings == classifier.predict(bright()).record.warnings


def test_letterboxes_are_not_borders():
    pixels = np.zeros((64, 64, 1), np.uint8)
    pixels[16:48, :, 0] = picture()[:32]
    assert screening.content(pixels, Area(16, 0, 32, 64)) == 1
    assert screening.content(pixels, Area(0, 0, 64, 64)) == 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_levels_are_those_of_the_file(dtype):
    values = np.linspace(100, 200, 64 * 64).reshape(1, 64, 64, 1).astype(dtype)
    assert screening.grey_levels(Image(values, Range(0, 255), "array")) == pytest.approx(98, abs=2)


@pytest.mark.parametrize("top", [1.0, 0.01, 65535.0])
def test_floats_in_any_unit_have_their_levels(screened, top):
    classifier = Classifier(screened)

    def answer(pixels: NDArray[np.uint8]) -> None:
        values = pixels.astype(np.float32) * np.float32(top / 255)
        classifier.predict(read_image(values, value_range=(0, top)))

    answer(picture())
    with pytest.raises(errors.LowContrast):
        answer(few_levels())


def test_colour_and_sizes_are_measured(screened):
    for size in (16, 31, 200):
        colour = np.repeat(picture(size=size)[..., None], 3, axis=2)
        assert Classifier(screened).predict(colour).record.measured is not None


def test_cells_do_not_know_brightness():
    pixels = picture(size=SIDE)[..., None]
    brighter = np.clip(pixels.astype(int) // 2 + 100, 0, 255).astype(np.uint8)
    one, other = (screening.cells(each, 4) for each in (pixels, brighter))
    assert abs(float(one.mean())) < 1e-4
    assert np.corrcoef(one, other)[0, 1] > 0.999


def test_the_manifest_is_read_back(screened):
    found = Bundle.open(screened).manifest.screening
    assert isinstance(found, m.Screening)
    assert msgspec.to_builtins(found) == {
        **SCREENING,
        "novelty": {**SCREENING["novelty"], "figures": {}},  # type: ignore[dict-item]
    }
    assert read_image(picture()).size == (64, 64)
