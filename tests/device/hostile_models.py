"""Model files that must not be run: the network of ``mean_bundle`` with something added to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medimg_edge import manifest as m
from medimg_edge.bundle import Bundle
from tests.device.conftest import SIDE, mean_network

FLOAT = np.float32
Change = Callable[[Any], object]


def manifest_of_mean() -> Bundle:
    """What a bundle of the network says of it; there are no files."""
    point = m.OperatingPoint(threshold=0.5, rule="stated")
    manifest = m.Manifest(
        name="mean",
        version="1",
        task="multilabel",
        labels=("a", "b"),
        intended_use="tests",
        input=m.Input(shape=(SIDE, SIDE, 1)),
        preprocessing=m.Preprocessing(SIDE, SIDE),
        outputs={
            "probability": m.Output((None, 2), "probability"),
            "heatmap": m.Output((None, SIDE, SIDE, 2), "logit"),
        },
        decision={"model.onnx": dict.fromkeys(("a", "b"), point)},
        default_artifact="model.onnx",
        artifacts={"model.onnx": m.Artifact(0, "0" * 64, "onnx", "float32")},
    )
    return Bundle(Path(), manifest, "")


def changed(change: Change) -> bytes:
    """The network's file after a change to its ModelProto."""
    import onnx

    model = onnx.load_model_from_string(mean_network([1, 2], [0.5, -0.5], "Sigmoid"))
    change(model)
    return model.SerializeToString()


def constant(model: Any, name: str, values: np.ndarray) -> str:
    """Add an initializer."""
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def add(model: Any, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
    """Add an operator at the end."""
    from onnx import helper

    model.graph.node.append(helper.make_node(operator, inputs, [output], **attributes))
    return output


def used(model: Any, tensor: str) -> None:
    """Let the answer depend on a tensor, so that no runtime leaves it out."""
    from onnx import helper

    for node in model.graph.node:
        node.output[:] = ["plain" if name == "probability" else name for name in node.output]
    least = helper.make_node("ReduceMin", [tensor], ["least"], keepdims=0)
    model.graph.node.append(least)
    constant(model, "nothing", np.array(0, FLOAT))
    add(model, "Mul", ["least", "nothing"], "zero")
    add(model, "Add", ["plain", "zero"], "probability")


def _floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, FLOAT)


# Control flow, and what is not ONNX's own


def loop(model: Any) -> None:
    """A loop that never ends, in a few hundred bytes."""
    from onnx import TensorProto, helper

    kind = TensorProto
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["still"]),
            helper.make_node("Neg", ["carried"], ["next"]),
        ],
        "body",
        [value("turn", kind.INT64, []), value("go_on", kind.BOOL, []), value("carried", 1, [])],
        [value("still", kind.BOOL, []), value("next", 1, [])],
    )
    constant(model, "turns", np.array(2**62, np.int64))
    constant(model, "true", np.array(True))
    constant(model, "first", np.array(1, FLOAT))
    add(model, "Loop", ["turns", "true", "first"], "last", body=body)
    used(model, "last")


def _branch(model: Any) -> None:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("taken", TensorProto.FLOAT, [])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["taken"], value_float=1.0)], "branch", [], [value]
    )
    constant(model, "true", np.array(True))
    add(model, "If", ["true"], "taken_of_two", then_branch=branch, else_branch=branch)
    used(model, "taken_of_two")


def _custom(model: Any) -> None:
    from onnx import helper

    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    add(model, "PyOp", ["mean"], "extra", domain="ai.onnx.contrib")
    used(model, "extra")


def _custom_import(model: Any) -> None:
    from onnx import helper

    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _custom_node(model: Any) -> None:
    add(model, "FusedConv", ["mean"], "extra", domain="com.microsoft")


def _function(model: Any) -> None:
    from onnx import helper

    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Own", ["x"], ["y"], body, opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    add(model, "Own", ["mean"], "extra", domain="own")
    used(model, "extra")


def _function_of_a_standard_name(model: Any) -> None:
    """It would take the place of ONNX's own, where a runtime looks there first."""
    from onnx import helper

    opset = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Sigmoid", ["x"], ["y"], body, opset))


def external(model: Any) -> None:
    """Weights that lie in another file."""
    from onnx import TensorProto

    weight = model.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/hostname")


def short(model: Any) -> None:
    """A constant whose data are fewer than its shape says."""
    weight = model.graph.initializer[1]
    weight.raw_data = weight.raw_data[:-1]
    weight.dims[:] = [1, 2]


def _long(model: Any) -> None:
    model.graph.initializer[1].raw_data += bytes(4)


def _absent(model: Any) -> None:
    """8 GB of weights, of which not one is there."""
    model.graph.initializer[1].ClearField("raw_data")
    model.graph.initializer[1].dims[:] = [1, 2**31]


def other_input(model: Any) -> None:
    """Twice as high as the manifest says."""
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2 * SIDE


def _second_input(model: Any) -> None:
    from onnx import helper

    model.graph.input.append(helper.make_tensor_value_info("second", 1, [1]))


def _batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


def nan(model: Any) -> None:
    """Weights that are no numbers: of the bundle's own making, and found by the answer."""
    weight = model.graph.initializer[1]
    weight.raw_data = np.full(2, np.nan, FLOAT).tobytes()


# 8 GB and more, by operators that every network has: 2**31 values of float32


def broadcast(model: Any) -> None:
    """Two constants of 180 KB, times each other."""
    constant(model, "row", _floats(1, 46341))
    constant(model, "column", _floats(46341, 1))
    used(model, add(model, "Mul", ["row", "column"], "large"))


def _broadcast_pixels(model: Any) -> None:
    """The same with the image in it, so that no runtime computes it while it loads."""
    constant(model, "row", _floats(1, 2**12))
    constant(model, "column", _floats(2**12, 1, 1, 1))
    add(model, "Add", ["values", "column"], "tall")
    used(model, add(model, "Add", ["tall", "row"], "large"))


def _outer(model: Any) -> None:
    constant(model, "row", _floats(1, 46341))
    constant(model, "column", _floats(46341, 1))
    used(model, add(model, "MatMul", ["column", "row"], "large"))


def _channels(model: Any) -> None:
    """A convolution by 1 x 1 with many filters, and a little padding."""
    constant(model, "filters", _floats(2**15, SIDE, 1, 1))
    pads = [120, 128, 120, 127]
    used(model, add(model, "Conv", ["values", "filters"], "large", pads=pads))


def _padded_conv(model: Any) -> None:
    constant(model, "filter", _floats(1, SIDE, 1, 1))
    used(model, add(model, "Conv", ["values", "filter"], "large", pads=[23170] * 4))


def _padded_pool(model: Any) -> None:
    used(
        model,
        add(model, "MaxPool", ["values"], "large", kernel_shape=[9, 9], pads=[23170] * 4),
    )


def _wide_window(model: Any) -> None:
    """A window as large as the image, at every place: no memory, and work without end."""
    constant(model, "filter", _floats(64, SIDE, 64, 64))
    add(model, "Conv", ["values", "filter"], "large", pads=[600, 600, 600, 600])
    used(model, "large")


def _padded(model: Any) -> None:
    constant(model, "pads", np.array([0, 0, 0, 0, 0, 0, 0, 2**23]))
    used(model, add(model, "Pad", ["values", "pads"], "large"))


def _resized(model: Any) -> None:
    constant(model, "scales", np.array([1, 1, 4096, 4096], FLOAT))
    used(model, add(model, "Resize", ["values", "", "scales"], "large"))


def _expanded(model: Any) -> None:
    constant(model, "shape", np.array([2**23, SIDE, SIDE, 1]))
    used(model, add(model, "Expand", ["values", "shape"], "large"))


def _tiled(model: Any) -> None:
    constant(model, "times", np.array([2**12, 2**11, 1, 1]))
    used(model, add(model, "Tile", ["values", "times"], "large"))


def _filled(model: Any) -> None:
    constant(model, "shape", np.array([2**31]))
    used(model, add(model, "ConstantOfShape", ["shape"], "large"))


def _doubled(model: Any) -> None:
    """A tensor beside itself, and that beside itself, 23 times."""
    last = "values"
    for turn in range(23):
        last = add(model, "Concat", [last, last], f"twice{turn}", axis=0)
    used(model, last)


def _gathered(model: Any) -> None:
    constant(model, "many", np.zeros(2**20, np.int8).astype(np.int64))
    constant(model, "table", _floats(1, 2**11))
    used(model, add(model, "Gather", ["table", "many"], "large"))


def _transposed(model: Any) -> None:
    constant(model, "filter", _floats(SIDE, 1, 1, 1))
    used(
        model,
        add(model, "ConvTranspose", ["values", "filter"], "large", strides=[2**27, 1]),
    )


def _hoarded(model: Any) -> None:
    """A thousand tensors of 8 MB each, none of which can be freed before the last is made."""
    constant(model, "column", _floats(2**13, 1, 1, 1))
    names = [add(model, "Add", ["values", "column"], "kept")]
    for turn in range(1000):
        names.append(add(model, "Cos", [names[-1]], f"kept{turn}"))
    last = names.pop()
    for turn, each in enumerate(reversed(names)):
        last = add(model, "Add", [last, each], f"sum{turn}")
    used(model, last)


def _computed(model: Any) -> None:
    """A size that is the product of small ones, computed while it runs."""
    constant(model, "side", np.array([46341]))
    add(model, "Mul", ["side", "side"], "size")
    used(model, add(model, "ConstantOfShape", ["size"], "large"))


def _endless(model: Any) -> None:
    """No loop, and yet more work than a day has: convolution after convolution."""
    constant(model, "first", _floats(64, SIDE, 1, 1))
    constant(model, "filter", _floats(64, 64, 3, 3))
    constant(model, "scales", np.array([1, 1, 32, 512], FLOAT))
    last = add(model, "Resize", [add(model, "Conv", ["values", "first"], "c"), "", "scales"], "c0")
    for turn in range(5000):
        last = add(model, "Conv", [last, "filter"], f"c{turn + 1}", pads=[1, 1, 1, 1])
    used(model, last)


def _constants_alone(model: Any) -> None:
    """What no pixel changes is computed while a runtime loads the file, where nothing stops it."""
    constant(model, "matrix", _floats(1024, 1024))
    last = "matrix"
    for turn in range(50):
        last = add(model, "MatMul", [last, "matrix"], f"power{turn}")
    used(model, last)


def _too_many(model: Any) -> None:
    last = "values"
    for turn in range(20_001):
        last = add(model, "Neg", [last], f"n{turn}")
    used(model, last)


MEMORY, WORK = "GiB", "multipl"
REFUSED_ONNX: dict[str, tuple[Change, str]] = {
    "a loop": (loop, "loop"),
    "a branch": (_branch, "loop or a branch"),
    "a domain of its own": (_custom, re.escape("'ai.onnx.contrib'")),
    "a domain that is not used": (_custom_import, re.escape("'com.microsoft'")),
    "an operator of a domain that is not imported": (_custom_node, re.escape("'com.microsoft'")),
    "a function": (_function, "functions|domain"),
    "a function that is called as a standard operator": (_function_of_a_standard_name, "functions"),
    "external data": (external, "other files"),
    "a constant with too few data": (short, "bytes of data|data for"),
    "a constant with too many data": (_long, "data for 3 values"),
    "a constant without data": (_absent, "data for 0 values"),
    "another input shape": (other_input, "takes 'pixels'"),
    "a second input": (_second_input, "one input"),
    "a batch of its own": (_batch, "takes 'pixels'"),
    "broadcast": (broadcast, MEMORY),
    "broadcast of pixels": (_broadcast_pixels, MEMORY),
    "an outer product": (_outer, MEMORY),
    "channels": (_channels, MEMORY),
    "a padded convolution": (_padded_conv, MEMORY),
    "a padded pooling": (_padded_pool, MEMORY),
    "a wide window": (_wide_window, f"{WORK}|{MEMORY}"),
    "a padded image": (_padded, MEMORY),
    "a resized image": (_resized, MEMORY),
    "an expanded image": (_expanded, MEMORY),
    "a tiled image": (_tiled, MEMORY),
    "a filled tensor": (_filled, MEMORY),
    "doubled and doubled": (_doubled, MEMORY),
    "gathered": (_gathered, MEMORY),
    "a transposed convolution": (_transposed, f"{MEMORY}|{WORK}"),
    "hoarded": (_hoarded, MEMORY),
    "a computed size": (_computed, "makes a shape of"),
    "convolutions without end": (_endless, WORK),
    "constants alone": (_constants_alone, "constants alone"),
    "too many operators": (_too_many, "operators"),
}
"""How the network is changed, and what is said of it."""


def heavy(model: Any, turns: int = 20) -> None:
    """Seconds of work, a little below what is refused, in small steps."""
    constant(model, "first", _floats(64, SIDE, 1, 1))
    constant(model, "filter", _floats(64, 64, 3, 3))
    constant(model, "scales", np.array([1, 1, 32, 512], FLOAT))
    last = add(model, "Resize", [add(model, "Conv", ["values", "first"], "c"), "", "scales"], "c0")
    for turn in range(turns):
        last = add(model, "Conv", [last, "filter"], f"c{turn + 1}", pads=[1, 1, 1, 1])
    used(model, last)


def large(model: Any) -> None:
    """Half of the memory that is accepted."""
    constant(model, "row", _floats(1, 2**19))
    used(model, add(model, "Add", ["values", "row"], "large"))


ALLOWED_ONNX: dict[str, Change] = {"heavy": heavy, "large": large, "not a number": nan}


# TFLite: the frozen bundle's file with something changed

Unpacked = Any
"""A ModelT of LiteRT's own schema."""


def changed_tflite(model: bytes, change: Callable[[Unpacked], object]) -> bytes:
    """The file after a change to its ModelT."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    unpacked = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    change(unpacked)
    builder = flatbuffers.Builder(len(model))
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(model: Unpacked, builtin: int, custom: bytes | None = None) -> int:
    from ai_edge_litert import schema_py_generated as schema

    code: Any = schema.OperatorCodeT()
    code.deprecatedBuiltinCode, code.builtinCode = min(builtin, 127), builtin
    code.customCode, code.version = custom, 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _replaced(model: Unpacked, builtin: int, custom: bytes | None = None, at: int = -1) -> None:
    operator = model.subgraphs[0].operators[at]
    operator.opcodeIndex = _code(model, builtin, custom)
    operator.builtinOptionsType, operator.builtinOptions = 0, None


def _appended(
    model: Unpacked, builtin: int, inputs: list[int], shape: list[int], options: Any = None
) -> int:
    """An operator at the end, and the number of the tensor that it makes."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    tensor: Any = schema.TensorT()
    tensor.shape, tensor.type, tensor.buffer, tensor.name = shape, 0, 0, b"made"
    graph.tensors.append(tensor)
    operator: Any = schema.OperatorT()
    operator.opcodeIndex = _code(model, builtin)
    operator.inputs, operator.outputs = inputs, [len(graph.tensors) - 1]
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        operator.builtinOptions = options
    graph.operators.append(operator)
    return len(graph.tensors) - 1


def _held(model: Unpacked, values: np.ndarray) -> int:
    """The number of a new constant."""
    from ai_edge_litert import schema_py_generated as schema

    buffer: Any = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor: Any = schema.TensorT()
    tensor.shape, tensor.name = list(values.shape), b"held"
    tensor.type = {"f": 0, "i": 2}[values.dtype.kind]
    tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _custom_tflite(model: Unpacked) -> None:
    _replaced(model, 32, b"FlexErf")


def _while(model: Unpacked) -> None:
    _replaced(model, 119)


def _two_graphs(model: Unpacked) -> None:
    model.subgraphs.append(model.subgraphs[0])


def _outside(model: Unpacked) -> None:
    model.buffers[-1].offset, model.buffers[-1].size = 2**40, 2**20
    model.buffers[-1].data = None


def _fewer(model: Unpacked) -> None:
    largest = max(model.buffers, key=lambda each: 0 if each.data is None else len(each.data))
    largest.data = largest.data[:-4]


def _none_there(model: Unpacked) -> None:
    operator = model.subgraphs[0].operators[2]
    operator.inputs = [operator.inputs[0], 2**20, *operator.inputs[2:]]


def _no_such_buffer(model: Unpacked) -> None:
    model.subgraphs[0].tensors[1].buffer = 2**20


def _too_early(model: Unpacked) -> None:
    operators = model.subgraphs[0].operators
    operators[0], operators[-1] = operators[-1], operators[0]


def _made_twice(model: Unpacked) -> None:
    operators = model.subgraphs[0].operators
    operators[3].outputs = operators[2].outputs


def _declared(model: Unpacked) -> None:
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].operators[2].outputs[0]]
    tensor.shape, tensor.shapeSignature = [*tensor.shape[:3], tensor.shape[3] + 1], None


def _variable(model: Unpacked) -> None:
    model.subgraphs[0].tensors[model.subgraphs[0].operators[2].outputs[0]].isVariable = True


def _two_signatures(model: Unpacked) -> None:
    model.signatureDefs.append(model.signatureDefs[0])


def _other_input_tflite(model: Unpacked) -> None:
    tensor = model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]]
    tensor.shape, tensor.shapeSignature = [1, 64, 32, 1], [-1, 64, 32, 1]


def _foreign_options(model: Unpacked) -> None:
    from ai_edge_litert import schema_py_generated as schema

    operator = model.subgraphs[0].operators[2]
    operator.builtinOptions = schema.WhileOptionsT()
    operator.builtinOptionsType = schema.BuiltinOptions.WhileOptions


def broadcast_tflite(model: Unpacked) -> None:
    """8 GB of two constants of 180 KB."""
    from ai_edge_litert import schema_py_generated as schema

    row, column = _held(model, _floats(1, 46341)), _held(model, _floats(46341, 1))
    _appended(model, 18, [row, column], [46341, 46341], schema.MulOptionsT())


def _broadcast_said_to_be_small(model: Unpacked) -> None:
    """The same; LiteRT does not care what the file says of it."""
    from ai_edge_litert import schema_py_generated as schema

    row, column = _held(model, _floats(1, 46341)), _held(model, _floats(46341, 1))
    _appended(model, 18, [row, column], [1, 1], schema.MulOptionsT())


def _filled_tflite(model: Unpacked) -> None:
    from ai_edge_litert import schema_py_generated as schema

    sides = _held(model, np.array([46341, 46341], np.int32))
    number = _held(model, np.array(1, FLOAT))
    _appended(model, 94, [sides, number], [46341, 46341], schema.FillOptionsT())


def _shared(model: Unpacked) -> None:
    """A list of a million inputs."""
    operator = model.subgraphs[0].operators[2]
    operator.inputs = np.resize(operator.inputs, 2**20)


def _resized_tflite(model: Unpacked) -> None:
    from ai_edge_litert import schema_py_generated as schema

    sides = _held(model, np.array([46341, 46341], np.int32))
    image = _held(model, _floats(1, 2, 2, 1))
    options = schema.ResizeBilinearOptionsT()
    _appended(model, 23, [image, sides], [1, 46341, 46341, 1], options)


def _outer_tflite(model: Unpacked) -> None:
    from ai_edge_litert import schema_py_generated as schema

    row, column = _held(model, _floats(1, 46341)), _held(model, _floats(46341, 1))
    _appended(model, 126, [column, row], [46341, 46341], schema.BatchMatMulOptionsT())


REFUSED_TFLITE: dict[str, tuple[Callable[[Unpacked], object], str]] = {
    "a custom operator": (_custom_tflite, "FlexErf"),
    "a loop": (_while, "builtin operator 119"),
    "two graphs": (_two_graphs, "2 graphs"),
    "a buffer out of the file": (_outside, "out of the file"),
    "a constant with too few data": (_fewer, "bytes of data"),
    "a tensor that is not there": (_none_there, "not there"),
    "a buffer that is not there": (_no_such_buffer, "not there"),
    "operators in another order": (_too_early, "too early"),
    "a tensor that is made twice": (_made_twice, "twice"),
    "a shape that is not made": (_declared, "the file says"),
    "a state": (_variable, "state"),
    "two signatures": (_two_signatures, "2 signatures"),
    "another input shape": (_other_input_tflite, "takes 'pixels'"),
    "options of another operator": (_foreign_options, "options of another"),
    "broadcast": (broadcast_tflite, MEMORY),
    "broadcast that is said to be small": (_broadcast_said_to_be_small, "the file says"),
    "a filled tensor": (_filled_tflite, MEMORY),
    "a million inputs": (_shared, "list of 1048576"),
    "a resized image": (_resized_tflite, f"{MEMORY}|{WORK}"),
    "an outer product": (_outer_tflite, MEMORY),
}


def heavy_tflite(model: Unpacked, side: int = 2048, turns: int = 450) -> None:
    """Seconds of work, a little below what is refused."""
    from ai_edge_litert import schema_py_generated as schema

    options = schema.BatchMatMulOptionsT()
    matrix = _held(model, _floats(1, side, side))
    (embedding,) = [each for each in model.signatureDefs[0].outputs if each.name == b"embedding"]
    pooled = embedding.tensorIndex
    wide = _appended(
        model, 0, [pooled, _held(model, _floats(1, side, 1))], [1, side, 128], schema.AddOptionsT()
    )
    last = _appended(model, 126, [matrix, wide], [1, side, 128], options)
    for _ in range(turns):
        last = _appended(model, 126, [matrix, last], [1, side, 128], options)
    axes = _held(model, np.array([1], np.int32))
    summed = _appended(model, 74, [last, axes], [1, 128], schema.ReducerOptionsT())
    outputs = model.subgraphs[0].outputs
    model.subgraphs[0].outputs = [summed if each == pooled else each for each in outputs]
    embedding.tensorIndex = summed
