"""Keras against LiteRT, through the signature."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from medimg_edge.errors import ConversionError, WriteError
from medimg_export.convert_tflite import require_whole, to_tflite, to_tflite_int8
from medimg_export.graph import Deployable
from medimg_export.int8 import VARIANTS, Int8Variant

KINDS = ("binary", "multiclass", "multilabel, color, not square", "flatten", "no heatmap")
PER_CHANNEL, PER_TENSOR = VARIANTS[:2]
FIRST_FLOAT = Int8Variant("first convolutions float", per_channel=True, float_first_convs=3)

Blobs = tuple[NDArray[np.uint8], NDArray[np.int64]]
Outputs = dict[str, NDArray[np.float32]]


def run(path: Path, images: NDArray[np.uint8]) -> Outputs:
    signature: Any = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    assert list(signature.get_input_details()) == ["pixels"]
    return signature(pixels=images)


def noise(model: keras.Model, count: int) -> NDArray[np.uint8]:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8)


def operators(path: Path) -> list[tuple[str, str]]:
    """(operator, element type of what it writes) in the file's order."""
    model: Any = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    types = {value: name for name, value in vars(schema.TensorType).items()}
    graph = model.subgraphs[0]
    return [
        (
            kinds[model.operatorCodes[operator.opcodeIndex].builtinCode],
            types[graph.tensors[operator.outputs[0]].type],
        )
        for operator in graph.operators
    ]


@pytest.fixture(scope="module")
def files(
    deployables: dict[str, Deployable], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tflite")
    paths = {kind: folder / f"{kind}.tflite" for kind in KINDS}
    for kind, path in paths.items():
        to_tflite(deployables[kind].model, path)
    return paths


@pytest.fixture(scope="module")
def file(files: dict[str, Path]) -> Path:
    return files["binary"]


@pytest.fixture(scope="module")
def quantize(file: Path, blobs: Blobs) -> Callable[..., Path]:
    def quantize(
        variant: Int8Variant, calibration: NDArray[np.uint8] = blobs[0][:100], name: str = "int8"
    ) -> Path:
        path = file.with_name(f"{name}.tflite")
        to_tflite_int8(file, path, calibration, variant)
        return path

    return quantize


@pytest.mark.parametrize("kind", KINDS)
def test_float32_agrees_with_keras(
    kind: str, deployables: dict[str, Deployable], files: dict[str, Path]
) -> None:
    model = deployables[kind].model
    for count in (1, 7):
        images = noise(model, count)
        expected = model.predict(images, verbose=0)
        found = run(files[kind], images)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert (found[name].dtype, found[name].shape) == (np.float32, values.shape)
            np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def test_converting_is_silent(
    deployables: dict[str, Deployable],
    blobs: Blobs,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    to_tflite(deployables["flatten"].model, tmp_path / "model.tflite")
    to_tflite_int8(tmp_path / "model.tflite", tmp_path / "int8.tflite", blobs[0][:4], PER_CHANNEL)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("variant", [PER_CHANNEL, PER_TENSOR, FIRST_FLOAT], ids=lambda v: v.name)
@pytest.mark.parametrize("count", [1, 7, 120])
def test_int8_stays_close_and_keeps_the_interface(
    variant: Int8Variant, count: int, file: Path, quantize: Callable[..., Path], blobs: Blobs
) -> None:
    images = blobs[0][100 : 100 + count]
    expected, found = run(file, images), run(quantize(variant), images)
    assert {name: (v.dtype, v.shape) for name, v in found.items()} == {
        name: (v.dtype, v.shape) for name, v in expected.items()
    }
    assert np.median(np.abs(found["probability"] - expected["probability"])) < 0.05


def test_the_trunk_is_int8_and_the_head_is_float(
    quantize: Callable[..., Path], blobs: Blobs
) -> None:
    path = quantize(PER_CHANNEL)
    found = operators(path)
    convolutions = [types for kind, types in found if kind.endswith("CONV_2D")]
    assert convolutions == ["INT8"] * 6 + ["FLOAT32"]  # the last one is the heatmap
    heads = {
        kind: types for kind, types in found if kind in ("MEAN", "FULLY_CONNECTED", "LOGISTIC")
    }
    assert heads == {"MEAN": "FLOAT32", "FULLY_CONNECTED": "FLOAT32", "LOGISTIC": "FLOAT32"}
    first = operators(quantize(FIRST_FLOAT, name="first"))
    assert [types for kind, types in first if kind.endswith("CONV_2D")][:6] == (
        ["FLOAT32"] * 3 + ["INT8"] * 3
    )
    assert len(np.unique(run(path, blobs[0][100:220])["probability"])) > 100


@pytest.mark.parametrize("kind", ["multiclass", "flatten", "no heatmap"])
def test_int8_of_every_kind_of_head(
    kind: str, deployables: dict[str, Deployable], files: dict[str, Path], tmp_path: Path
) -> None:
    model = deployables[kind].model
    images = noise(model, 40)
    to_tflite_int8(files[kind], tmp_path / "int8.tflite", images, PER_CHANNEL)
    expected = model.predict(images, verbose=0)
    found = run(tmp_path / "int8.tflite", images)
    assert found.keys() == expected.keys()
    assert np.median(np.abs(found["probability"] - expected["probability"])) < 0.05
    types = dict(operators(tmp_path / "int8.tflite"))
    assert types["FULLY_CONNECTED"] == "FLOAT32"
    assert types["CONV_2D" if kind != "multiclass" else "DEPTHWISE_CONV_2D"] == "INT8"


def test_the_heatmap_still_explains_the_logit_in_int8(
    trained: Deployable, quantize: Callable[..., Path], blobs: Blobs
) -> None:
    found = run(quantize(PER_CHANNEL), blobs[0][100:140])
    logit = found["heatmap"].mean(axis=(1, 2)) + trained.bias
    p = found["probability"].astype(np.float64)
    np.testing.assert_allclose(logit, 1.7 * np.log(p / (1 - p)), atol=1e-2)


def test_calibrating_with_pixels_scaled_twice_is_visible(
    file: Path, quantize: Callable[..., Path], blobs: Blobs
) -> None:
    images = blobs[0][100:220]
    right = quantize(PER_CHANNEL)
    wrong = quantize(PER_CHANNEL, blobs[0][:100] // 100, name="wrong")
    expected = run(file, images)["probability"]
    errors = [np.median(np.abs(run(p, images)["probability"] - expected)) for p in (right, wrong)]
    assert errors[1] > 0.1
    assert errors[1] > 5 * errors[0]


def test_the_order_of_calibration_images_does_not_matter(
    quantize: Callable[..., Path], blobs: Blobs
) -> None:
    images = blobs[0][:100]
    forward = quantize(PER_CHANNEL, images, name="forward")
    backward = quantize(PER_CHANNEL, images[::-1], name="backward")
    assert forward.read_bytes() == backward.read_bytes()


def test_a_file_that_lost_weights_is_refused(file: Path, trained: Deployable) -> None:
    content = file.read_bytes()
    require_whole(content, trained.model)
    kernels = sum(w.numpy().nbytes for w in trained.model.trainable_weights if w.ndim > 1)
    kernels -= trained.model.get_layer("heatmap").kernel.numpy().nbytes  # that of the dense layer
    with pytest.raises(ConversionError, match=f"kernels alone have {kernels}: .* lost weights"):
        require_whole(content[: int(0.89 * kernels)], trained.model)


def test_nan_weights_are_refused(trained: Deployable, tmp_path: Path) -> None:
    model = keras.models.clone_model(trained.model)
    model.set_weights([np.full_like(w, np.nan) for w in trained.model.get_weights()])
    with pytest.raises(ConversionError, match="NaN"):
        to_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 1), dtype="uint8", name="pixels")
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(pixels, "float32"))
    model = keras.Model(pixels, {"probability": keras.ops.log(x - 1)})
    with pytest.raises(ConversionError, match="NaN or infinity as probability"):
        to_tflite(model, tmp_path / "model.tflite")


def test_a_layer_that_needs_select_operators_is_refused_in_words(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 1), dtype="uint8", name="pixels")
    x: Any = keras.ops.cast(pixels, "float32")
    x = keras.ops.svd(x[..., 0], compute_uv=False)
    model = keras.Model(pixels, {"probability": keras.ops.sigmoid(x)})
    with pytest.raises(
        ConversionError, match=r"(?s)conversion to TFLite failed: .*'tf.Svd' op is neither"
    ):
        to_tflite(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variant", "images", "message"),
    [
        (Int8Variant("all float", per_channel=True, float_first_convs=6), 4, "Nothing to quantize"),
        (PER_CHANNEL, 0, "no images"),
    ],
)
def test_int8_that_cannot_be_made_is_refused(
    variant: Int8Variant, images: int, message: str, file: Path, blobs: Blobs, tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=message):
        to_tflite_int8(file, tmp_path / "int8.tflite", blobs[0][:images], variant)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_a_write_error(
    deployables: dict[str, Deployable], tmp_path: Path
) -> None:
    with pytest.raises(WriteError, match="missing"):
        to_tflite(deployables["flatten"].model, tmp_path / "missing" / "model.tflite")
