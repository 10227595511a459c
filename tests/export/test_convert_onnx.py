"""Keras against ONNX Runtime, and what an ONNX file says of itself."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tf2onnx
from numpy.typing import NDArray

from medimg_edge.errors import ConversionError, WriteError
from medimg_export import convert_onnx as module
from medimg_export.convert_onnx import to_onnx, to_onnx_int8
from medimg_export.graph import Deployable
from medimg_export.int8 import VARIANTS, Int8Variant

KINDS = ("binary", "multiclass", "multilabel, color, not square", "flatten", "no heatmap")
METADATA = {"labels": '["normal", "pneumonia"]', "threshold": "0.41"}
PER_CHANNEL, PER_TENSOR = VARIANTS[:2]
FIRST_FLOAT = Int8Variant("first convolutions float", per_channel=True, float_first_convs=3)

Blobs = tuple[NDArray[np.uint8], NDArray[np.int64]]
Outputs = dict[str, NDArray[np.float32]]


def run(path: Path, images: NDArray[np.uint8]) -> Outputs:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers: Any = session.run(names, {"pixels": images})
    return dict(zip(names, answers, strict=True))


def noise(model: keras.Model, count: int) -> NDArray[np.uint8]:
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(8).integers(0, 256, shape, dtype=np.uint8)


def weights_are_int8(path: Path) -> list[bool]:
    """For every convolution in topological order: does it read its weights as int8?"""
    graph = onnx.load(path).graph
    producer = {tensor: node for node in graph.node for tensor in node.output}
    kernels = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    return [k in producer and producer[k].op_type == "DequantizeLinear" for k in kernels]


@pytest.fixture(scope="module")
def files(
    deployables: dict[str, Deployable], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    paths = {kind: folder / f"{kind}.onnx" for kind in KINDS}
    for kind, path in paths.items():
        to_onnx(deployables[kind].model, path, METADATA)
    return paths


@pytest.fixture(scope="module")
def file(files: dict[str, Path]) -> Path:
    return files["binary"]


@pytest.fixture(scope="module")
def quantize(file: Path, blobs: Blobs) -> Callable[..., Path]:
    def quantize(
        variant: Int8Variant, calibration: NDArray[np.uint8] = blobs[0][:100], name: str = "int8"
    ) -> Path:
        path = file.with_name(f"{name}.onnx")
        to_onnx_int8(file, path, calibration, variant, METADATA)
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


def test_the_file_explains_itself(file: Path) -> None:
    proto = onnx.load(file)
    assert {entry.key: entry.value for entry in proto.metadata_props} == METADATA
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert proto.ir_version <= 9
    (pixels,) = proto.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = [dim.dim_param or dim.dim_value for dim in pixels.type.tensor_type.shape.dim]
    assert dims == ["N", 28, 28, 1]
    assert {output.type.tensor_type.shape.dim[0].dim_param for output in proto.graph.output} == {
        "N"
    }
    assert not any(tensor.external_data for tensor in proto.graph.initializer)


def test_batch_normalizations_are_inside_the_convolutions(file: Path) -> None:
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    pool = next(i for i, kind in enumerate(kinds) if kind in ("GlobalAveragePool", "ReduceMean"))
    trunk = kinds[kinds.index("Conv") : pool]
    assert set(trunk) <= {"Conv", "Clip", "Add"}
    assert trunk.count("Add") == 1  # the residual one


def test_the_same_model_gives_the_same_bytes(file: Path, trained: Deployable) -> None:
    again = file.with_name("again.onnx")
    to_onnx(trained.model, again, METADATA)
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("seed", range(5))
def test_the_bytes_do_not_depend_on_the_order_and_names_that_tf2onnx_gives(
    seed: int, file: Path, trained: Deployable, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = tf2onnx.convert.from_function

    def shuffled(*args: Any, **options: Any) -> tuple[onnx.ModelProto, Any]:
        proto, rest = convert(*args, **options)
        return reordered(proto, random.Random(seed)), rest

    monkeypatch.setattr(tf2onnx.convert, "from_function", shuffled)
    again = file.with_name("shuffled.onnx")
    to_onnx(trained.model, again, METADATA)
    assert again.read_bytes() == file.read_bytes()


def test_either_form_of_the_mean_gives_the_same_bytes(
    file: Path, trained: Deployable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form that tf2onnx makes now and then is put in place of the usual one."""
    folded = module._folded
    replaced = []

    def rare(proto: onnx.ModelProto) -> onnx.ModelProto:
        proto = module._pooled(folded(proto))
        graph = proto.graph
        (squeeze,) = [node for node in graph.node if node.op_type == "Squeeze"]
        (pool,) = [node for node in graph.node if squeeze.input[0] in node.output]
        mean = onnx.helper.make_node(
            "ReduceMean", [pool.input[0]], [squeeze.output[0]], axes=[2, 3], keepdims=0
        )
        for node in (squeeze, pool):
            graph.node.remove(node)
        graph.node.append(mean)
        replaced.append(mean)
        return proto

    monkeypatch.setattr(module, "_folded", rare)
    again = file.with_name("rare.onnx")
    to_onnx(trained.model, again, METADATA)
    assert len(replaced) == 1
    assert again.read_bytes() == file.read_bytes()


def reordered(proto: onnx.ModelProto, chance: random.Random) -> onnx.ModelProto:
    """The same graph: nodes in another order that is topological too, other inner names."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    graph = proto.graph
    outer = {tensor.name for tensor in (*graph.input, *graph.output)}
    inner = [t for node in graph.node for t in node.output if t not in outer]
    inner += [tensor.name for tensor in graph.initializer]
    names = dict(zip(inner, chance.sample(range(10_000), len(inner)), strict=True))
    for node in graph.node:
        node.input[:] = [f"t{names[t]}" if t in names else t for t in node.input]
        node.output[:] = [f"t{names[t]}" if t in names else t for t in node.output]
        node.name = f"n{chance.random()}"
    for tensor in graph.initializer:
        tensor.name = f"t{names[tensor.name]}"
    del graph.value_info[:]
    waiting, nodes = list(graph.node), []
    made = {tensor.name for tensor in (*graph.input, *graph.initializer)} | {""}
    while waiting:
        ready = [node for node in waiting if made.issuperset(node.input)]
        node = waiting.pop(waiting.index(chance.choice(ready)))
        nodes.append(node)
        made.update(node.output)
    del graph.node[:]
    graph.node.extend(nodes)
    initializers = chance.sample(list(graph.initializer), len(graph.initializer))
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return proto


def test_converting_is_silent(
    deployables: dict[str, Deployable],
    blobs: Blobs,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    to_onnx(deployables["flatten"].model, tmp_path / "model.onnx", {})
    to_onnx_int8(
        tmp_path / "model.onnx", tmp_path / "int8.onnx", blobs[0][:4], PER_CHANNEL, METADATA
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("variant", [PER_CHANNEL, PER_TENSOR, FIRST_FLOAT], ids=lambda v: v.name)
def test_int8_stays_close_and_keeps_the_interface(
    variant: Int8Variant, file: Path, quantize: Callable[..., Path], blobs: Blobs
) -> None:
    path = quantize(variant)
    images = blobs[0][100:220]
    expected, found = run(file, images), run(path, images)
    assert {name: (v.dtype, v.shape) for name, v in found.items()} == {
        name: (v.dtype, v.shape) for name, v in expected.items()
    }
    assert np.median(np.abs(found["probability"] - expected["probability"])) < 0.05
    proto = onnx.load(path)
    assert {entry.key: entry.value for entry in proto.metadata_props} == METADATA
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", 17)]
    assert proto.graph.input == onnx.load(file).graph.input


def test_the_trunk_is_int8_and_the_head_is_float(
    quantize: Callable[..., Path], blobs: Blobs
) -> None:
    path = quantize(PER_CHANNEL)
    assert weights_are_int8(path) == [True] * 6 + [False]  # the last one is the heatmap
    assert weights_are_int8(quantize(FIRST_FLOAT, name="first"))[:6] == [False] * 3 + [True] * 3
    # The pooled features of this small trunk are int8 themselves, so equal ones are possible.
    assert len(np.unique(run(path, blobs[0][100:220])["probability"])) > 100


def test_weights_use_seven_bits(quantize: Callable[..., Path]) -> None:
    graph = onnx.load(quantize(PER_CHANNEL)).graph
    tensors = map(onnx.numpy_helper.to_array, graph.initializer)
    kernels = [tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 4]
    assert len(kernels) == 6
    assert max(int(np.abs(kernel).max()) for kernel in kernels) == 64


@pytest.mark.parametrize("kind", ["multiclass", "flatten", "no heatmap"])
def test_int8_of_every_kind_of_head(
    kind: str, deployables: dict[str, Deployable], files: dict[str, Path], tmp_path: Path
) -> None:
    model = deployables[kind].model
    images = noise(model, 40)
    to_onnx_int8(files[kind], tmp_path / "int8.onnx", images, PER_CHANNEL, {})
    expected = model.predict(images, verbose=0)
    found = run(tmp_path / "int8.onnx", images)
    assert found.keys() == expected.keys()
    assert np.median(np.abs(found["probability"] - expected["probability"])) < 0.05
    graph = onnx.load(tmp_path / "int8.onnx").graph
    kernels = {node.input[1] for node in graph.node if node.op_type in ("MatMul", "Gemm", "Einsum")}
    floats = {t.name for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    assert kernels
    assert kernels <= floats
    assert any(weights_are_int8(tmp_path / "int8.onnx"))


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


def test_calibration_may_be_a_memory_map(
    quantize: Callable[..., Path], blobs: Blobs, tmp_path: Path
) -> None:
    np.save(tmp_path / "pixels.npy", blobs[0][:100])
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    path = quantize(PER_CHANNEL, mapped, name="mapped")
    assert path.read_bytes() == quantize(PER_CHANNEL).read_bytes()


def test_nan_weights_are_refused(trained: Deployable, tmp_path: Path) -> None:
    model = keras.models.clone_model(trained.model)
    model.set_weights([np.full_like(w, np.nan) for w in trained.model.get_weights()])
    with pytest.raises(ConversionError, match="NaN"):
        to_onnx(model, tmp_path / "model.onnx", {})
    assert not list(tmp_path.iterdir())


def test_a_layer_without_an_onnx_operator_is_refused_in_words(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 1), dtype="uint8")
    x: Any = keras.ops.cast(pixels, "float32")
    x = keras.ops.svd(x[..., 0], compute_uv=False)
    model = keras.Model(pixels, {"probability": keras.ops.sigmoid(x)})
    with pytest.raises(ConversionError, match=r"(?s)conversion to ONNX failed: .*opset 17"):
        to_onnx(model, tmp_path / "model.onnx", {})
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
        to_onnx_int8(file, tmp_path / "int8.onnx", blobs[0][:images], variant, {})
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_a_write_error(
    deployables: dict[str, Deployable], tmp_path: Path
) -> None:
    with pytest.raises(WriteError, match="missing"):
        to_onnx(deployables["flatten"].model, tmp_path / "missing" / "model.onnx", {})
