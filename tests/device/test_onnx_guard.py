"""ONNX files that may be run, and those that no runtime gets to see."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from medimg_edge import onnx_file, onnx_guard, onnx_sizes
from medimg_edge.bundle import Bundle, shipped
from medimg_edge.errors import ModelError, ModelLoad, ModelRefused
from medimg_edge.machine import peak_memory
from medimg_edge.manifest import Input, Output
from tests.device import hostile_models as hostile

onnx = pytest.importorskip("onnx", reason="onnx, of the export extra, builds the networks")
FLOAT = np.float32


@pytest.fixture(scope="module")
def opened(frozen) -> Bundle:
    return Bundle.open(frozen)


@pytest.fixture(scope="module")
def mean() -> Bundle:
    return hostile.manifest_of_mean()


def test_exported_models_are_accepted(opened):
    for bundle in (opened, *map(Bundle.open, shipped())):
        for name, artifact in bundle.manifest.artifacts.items():
            if artifact.format == "onnx":
                onnx_guard.require(bundle.read(name), bundle.manifest)


def test_it_takes_milliseconds():
    """Of the model that every device has: 3.7 MB, 285 operators."""
    bundle = Bundle.open(shipped()[0])
    data = bundle.read("model.int8.onnx")
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        onnx_guard.require(data, bundle.manifest)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.05


# What each operator makes, as ONNX Runtime does


def tensor(*shape: int, kind: Any = FLOAT) -> np.ndarray:
    return np.linspace(0.1, 0.9, int(np.prod(shape))).reshape(shape).astype(kind)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = tensor(1, 4, 6, 6)
Case = tuple[str, list[np.ndarray], dict[str, Any]]
SAME = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid "
    "HardSwish Hardmax Identity LeakyRelu Log LogSoftmax LpNormalization MeanVarianceNormalization "
    "Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt "
    "Tan Tanh ThresholdedRelu IsInf IsNaN Clip Dropout Mish"
)
PAIRS = "Add Div Max Mean Min Mul Pow Sub Sum Equal Greater GreaterOrEqual Less LessOrEqual"
LOGICAL = tensor(2, 3) > 0.5
FOUR = np.ones(4, FLOAT)
CASES: list[Case] = [
    *((name, [X], {}) for name in SAME.split()),
    *((name, [X, tensor(4, 1, 6)], {}) for name in PAIRS.split()),
    *((name, [LOGICAL, LOGICAL[:1]], {}) for name in ("And", "Or", "Xor")),
    ("Not", [LOGICAL], {}),
    ("Mod", [ints(7, 8), ints(3)], {}),
    ("PRelu", [X, tensor(4, 1, 1)], {}),
    ("Where", [LOGICAL, tensor(2, 1), tensor(1, 3)], {}),
    ("Gelu", [X], {}),
    ("GroupNormalization", [X, FOUR, FOUR], {"num_groups": 2}),
    ("Swish", [X], {}),
    ("Cast", [X], {"to": 7}),
    ("BatchNormalization", [X, FOUR, FOUR, FOUR, FOUR], {}),
    ("InstanceNormalization", [X, FOUR, FOUR], {}),
    ("LayerNormalization", [X, np.ones(6, FLOAT)], {}),
    ("QuantizeLinear", [X, np.array(0.1, FLOAT), np.array(0, np.uint8)], {}),
    ("DequantizeLinear", [X.astype(np.uint8), np.array(0.1, FLOAT)], {}),
    ("Conv", [X, tensor(8, 4, 3, 3)], {"pads": [1, 2, 0, 1], "strides": [2, 1]}),
    ("Conv", [X, tensor(8, 4, 3, 3)], {"auto_pad": b"SAME_UPPER", "strides": [4, 2]}),
    ("Conv", [X, tensor(4, 1, 2, 2), FOUR], {"group": 4, "dilations": [2, 3]}),
    ("Conv", [X, tensor(8, 4, 3, 3)], {"auto_pad": b"VALID"}),
    ("Conv", [tensor(1, 2, 9), tensor(3, 2, 4)], {}),
    ("ConvTranspose", [X, tensor(4, 3, 2, 3)], {"strides": [2, 3], "pads": [0, 1, 1, 0]}),
    ("ConvTranspose", [X, tensor(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": b"SAME_LOWER"}),
    ("ConvTranspose", [X, tensor(4, 3, 3, 3)], {"strides": [2, 2], "output_shape": [12, 13]}),
    (
        "ConvTranspose",
        [X, tensor(4, 2, 3, 3)],
        {"group": 2, "dilations": [2, 1], "strides": [2, 2], "output_padding": [1, 1]},
    ),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [4, 4], "strides": [3, 3], "auto_pad": b"SAME_UPPER"}),
    ("GlobalAveragePool", [X], {}),
    ("GlobalMaxPool", [X], {}),
    ("MatMul", [X, tensor(6, 5)], {}),
    ("MatMul", [tensor(3, 1, 2, 4), tensor(5, 4, 3)], {}),
    ("MatMul", [tensor(4), tensor(4, 3)], {}),
    ("MatMul", [tensor(3, 4), tensor(4)], {}),
    ("Gemm", [tensor(2, 3), tensor(5, 3), tensor(5)], {"transB": 1}),
    ("Gemm", [tensor(3, 2), tensor(3, 5)], {"transA": 1}),
    ("Einsum", [tensor(1, 4, 5, 3), tensor(4, 5, 3, 2)], {"equation": b"nhwd,hwdc->nhwc"}),
    ("Einsum", [tensor(2, 3)], {"equation": b"ij->ji"}),
    *((f"Reduce{name}", [X, ints(1, -1)], {"keepdims": 0}) for name in ("Sum", "Mean")),
    *(
        (f"Reduce{name}", [X, ints(2)], {})
        for name in ["L1", "L2", "LogSum", "LogSumExp", "Max", "Min", "Prod", "SumSquare"]
    ),
    ("ReduceSum", [X], {}),
    ("ReduceMax", [X], {"keepdims": 0}),
    ("ArgMax", [X], {"axis": -1, "keepdims": 0}),
    ("ArgMin", [X], {"axis": 1}),
    ("Reshape", [X, ints(0, -1, 3)], {}),
    ("Reshape", [X, ints(12, 12)], {"allowzero": 1}),
    ("Flatten", [X], {"axis": 2}),
    ("Flatten", [X], {"axis": 4}),
    ("Flatten", [X], {"axis": -1}),
    ("Squeeze", [X, ints(0)], {}),
    ("Squeeze", [tensor(1, 3, 1)], {}),
    ("Unsqueeze", [X, ints(0, -1)], {}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Transpose", [tensor(2, 3, 4)], {}),
    ("Concat", [X, X[:, :, :2]], {"axis": 2}),
    ("Split", [X, ints(1, 3)], {"axis": 1}),
    ("Split", [X], {"axis": 3, "num_outputs": 2}),
    ("Slice", [X, ints(1, -9), ints(2**62, 5), ints(1, -1), ints(2, 1)], {}),
    ("Slice", [X, ints(-1), ints(-(2**62)), ints(3), ints(-2)], {}),
    ("Gather", [X, np.array([[0, 1], [2, 3]])], {"axis": 1}),
    ("Pad", [X, ints(0, 1, -1, 2, 0, 0, 3, 4)], {}),
    ("Pad", [X, ints(1, 2), np.array(0, FLOAT), ints(-1)], {}),
    ("Expand", [tensor(4, 1), ints(3, 1, 5)], {}),
    ("Tile", [X, ints(1, 2, 1, 3)], {}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("Resize", [X, np.zeros(0, FLOAT), np.array([1, 1, 2.5, 0.5], FLOAT)], {}),
    ("Resize", [X, np.zeros(0, FLOAT), np.zeros(0, FLOAT), ints(1, 4, 9, 5)], {"mode": b"cubic"}),
    ("DepthToSpace", [X], {"blocksize": 2}),
    ("SpaceToDepth", [X], {"blocksize": 3}),
    ("Shape", [X], {}),
    ("Shape", [X], {"start": 1, "end": -1}),
]
NEWER = {"Gelu": 20, "GroupNormalization": 21, "Swish": 24}
"""Operators that opset 18 has not."""


def single(case: Case) -> tuple[bytes, dict[str, np.ndarray]]:
    """A network of one operator; whole numbers are constants, and all else is given to it."""
    operator, values, attributes = case
    names = [f"in{index}" if value.size else "" for index, value in enumerate(values)]
    constants = [
        onnx.numpy_helper.from_array(value, name)
        for name, value in zip(names, values, strict=True)
        if name and (value.dtype == np.int64 or (operator == "Resize" and name != "in0"))
    ]
    fixed = {each.name for each in constants}
    given = {
        name: each for name, each in zip(names, values, strict=True) if name and name not in fixed
    }
    count = 2 if operator == "Split" else 1
    node = onnx.helper.make_node(
        operator, names, [f"out{index}" for index in range(count)], **attributes
    )
    graph = onnx.helper.make_graph(
        [node],
        "single",
        [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(each.dtype), each.shape
            )
            for name, each in given.items()
        ],
        [onnx.ValueInfoProto(name=f"out{index}") for index in range(count)],
        constants,
    )
    opset = onnx.helper.make_opsetid("", NEWER.get(operator, 18))
    return onnx.helper.make_model(
        graph, opset_imports=[opset], ir_version=10
    ).SerializeToString(), given


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {list(case[2])}")
def test_shapes_are_those_that_onnx_runtime_makes(case):
    import onnxruntime

    data, given = single(case)
    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception:
        if case[0] not in NEWER:
            raise
        pytest.skip("this ONNX Runtime does not have the operator")
    answers: Any = session.run(None, given)
    expected = [np.shape(each) for each in answers]
    file = onnx_file.read(data)
    known = onnx_sizes._Known({name: each.shape for name, each in given.items()}, {}, set())
    for each in file.tensors:
        known.hold(each.name, each.shape, each.values, constant=True)
    (node,) = file.nodes
    made = onnx_sizes._every_output(
        onnx_sizes.OPERATORS[case[0]](onnx_sizes.Step(node, known)), node
    )
    assert made.shapes == expected
    assert made.work >= 0


def test_every_accepted_operator_was_tried():
    assert {case[0] for case in CASES} | {"Constant"} == set(onnx_sizes.OPERATORS)


OTHERS = (
    "If Loop Scan SequenceMap RandomNormal RandomUniform Multinomial Bernoulli NonZero Unique "
    "Compress Range OneHot TopK NonMaxSuppression LSTM GRU RNN SequenceConstruct Optional "
    "StringNormalizer ScatterND GatherND"
)


@pytest.mark.parametrize("operator", OTHERS.split())
def test_other_operators_are_refused(mean, operator):
    def change(model) -> None:
        model.graph.node.append(onnx.helper.make_node(operator, ["mean"], ["extra"]))

    with pytest.raises(ModelRefused, match=rf"'{operator}'.* not among"):
        onnx_guard.require(hostile.changed(change), mean.manifest)


# Shapes that a network computes, as tf2onnx writes them


def computed_reshape(model, *, last: int) -> None:
    """probability is reshaped to (its rows, last)."""
    make = onnx.helper.make_node
    hostile.constant(model, "zero", ints(0))
    hostile.constant(model, "last", ints(last))
    for node in model.graph.node:
        node.output[:] = ["plain" if name == "probability" else name for name in node.output]
    model.graph.node.extend(
        [
            make("Shape", ["plain"], ["sides"]),
            make("Gather", ["sides", "zero"], ["rows"]),
            make("Cast", ["rows"], ["rows32"], to=6),
            make("Cast", ["rows32"], ["rows64"], to=7),
            make("Concat", ["rows64", "last"], ["target"], axis=0),
            make("Reshape", ["plain", "target"], ["probability"]),
        ]
    )


def test_a_shape_that_is_computed(mean):
    onnx_guard.require(
        hostile.changed(lambda model: computed_reshape(model, last=2)), mean.manifest
    )
    with pytest.raises(ModelRefused, match=r"\(1, 2\) the shape \[1, 3\]"):
        onnx_guard.require(
            hostile.changed(lambda model: computed_reshape(model, last=3)), mean.manifest
        )


def test_a_shape_that_depends_on_the_image(mean):
    def change(model) -> None:
        model.graph.node.extend(
            [
                onnx.helper.make_node("Cast", ["mean"], ["target"], to=7),
                onnx.helper.make_node("Expand", ["logit", "target"], ["extra"]),
            ]
        )

    with pytest.raises(ModelRefused, match="depends on the image"):
        onnx_guard.require(hostile.changed(change), mean.manifest)


# Hostile files


@pytest.mark.parametrize("name", hostile.REFUSED_ONNX)
def test_hostile_files_are_refused(mean, name):
    change, says = hostile.REFUSED_ONNX[name]
    data = hostile.changed(change)
    started = time.perf_counter()
    with pytest.raises(ModelRefused, match=says):
        onnx_guard.require(data, mean.manifest)
    assert time.perf_counter() - started < 2
    assert len(data) < 20 * 2**20


def test_the_unchanged_network_is_accepted(mean):
    """What the others change is all that is wrong with them."""
    onnx_guard.require(hostile.changed(lambda model: None), mean.manifest)


@pytest.mark.parametrize("name", hostile.ALLOWED_ONNX)
def test_large_but_honest_networks_are_accepted(mean, name):
    onnx_guard.require(hostile.changed(hostile.ALLOWED_ONNX[name]), mean.manifest)


def test_other_shapes_than_the_manifest_says(opened):
    data = opened.read("model.onnx")
    other = structs.replace(opened.manifest, input=Input(shape=(32, 48, 1)))
    with pytest.raises(ModelRefused, match=r"64, 64, 1\); the manifest says \(32, 48, 1\)"):
        onnx_guard.require(data, other)
    for name, shape in (("embedding", (None, 127)), ("probability", (None, 2))):
        outputs = {**opened.manifest.outputs, name: Output(shape, "feature")}
        with pytest.raises(ModelRefused, match=rf"returns '{name}' of float32"):
            onnx_guard.require(data, structs.replace(opened.manifest, outputs=outputs))


def test_a_shape_that_the_manifest_leaves_open(opened):
    outputs = {**opened.manifest.outputs, "heatmap": Output((None, None, None, 1), "logit")}
    manifest = structs.replace(opened.manifest, outputs=outputs)
    onnx_guard.require(opened.read("model.onnx"), manifest)


# The protobuf itself


def field(number: int, value: bytes | int) -> bytes:
    """One field of a protobuf message."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def varint(value: int) -> bytes:
    done = b""
    while value > 127:
        done += bytes([value & 127 | 128])
        value >>= 7
    return done + bytes([value])


EXTERNAL = field(8, b"weights") + field(14, 1)
ATTRIBUTES = {
    "tensor": field(20, 4) + field(5, EXTERNAL),
    "tensors": field(20, 9) + field(10, EXTERNAL),
    "sparse": field(22, field(2, EXTERNAL)),
    "sparses": field(23, field(1, EXTERNAL)),
    "graph": field(6, field(5, EXTERNAL)),
    "graphs": field(11, field(1, field(5, field(5, EXTERNAL)))),
}


@pytest.mark.parametrize(
    "model",
    [
        field(7, field(5, EXTERNAL)),
        field(7, field(5, field(8, b"weights") + field(13, b"\x0a\x00"))),
        field(7, field(15, field(1, EXTERNAL))),
        field(7, field(5, field(14, 1))),
        *(field(7, field(1, field(5, attribute))) for attribute in ATTRIBUTES.values()),
        *(field(25, field(7, field(5, attribute))) for attribute in ATTRIBUTES.values()),
        *(field(25, field(11, attribute)) for attribute in ATTRIBUTES.values()),
    ],
)
def test_external_data_wherever_a_tensor_may_be(model):
    with pytest.raises(ModelRefused):
        onnx_file.read(field(1, 8) + model)


def test_the_low_bits_of_an_enum_count():
    """Protobuf keeps 32 of them."""
    whole = field(2, 1) + field(9, bytes(4))
    onnx_file.read(field(7, field(5, whole + field(14, 2**32))))
    with pytest.raises(ModelRefused, match="other files"):
        onnx_file.read(field(7, field(5, whole + field(14, 2**32 + 1))))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (field(7, b"") + field(7, b""), "two fields graph"),
        (field(7, b"") + field(20, b""), "training"),
        (field(7, field(1, field(4, b"Relu") + field(4, b"Loop"))), "two fields op_type"),
        (field(7, field(1, field(77, b"?"))), "field 77, which is not known"),
        (field(7, field(1, varint(4 << 3 | 5) + b"Relu")), "field 4, which is not known"),
        (field(7, field(5, field(2, 8))), "type 8"),
        (field(7, field(5, field(2, 1) + field(1, 2**64 - 1))), "shape"),
        (field(7, field(5, field(2, 1) + field(9, bytes(4)) + field(4, bytes(4)))), "twice"),
        (field(7, field(5, field(2, 1) + field(7, bytes(4)))), "as int64_data"),
        (field(7, field(5, field(2, 1) + field(9, bytes(5)))), "5 bytes"),
    ],
)
def test_what_readers_may_understand_in_two_ways(model, says):
    with pytest.raises(ModelRefused, match=says):
        onnx_file.read(model)


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\x80" * 11, b"\xff" * 2**20, b"\x0a\x05ab", b"\x0b", b"", b"\x3a\x02\x0a\xff"],
)
def test_damaged_protobuf(data):
    with pytest.raises(ModelLoad, match="not ONNX"):
        onnx_file.read(data)


@pytest.mark.parametrize(
    "model",
    [
        field(7, field(1, b"") * 5_000_000),
        field(7, field(1, field(1, b"") * 5_000_000)),
        field(7, field(1, field(5, field(20, 7) + field(8, b"\1" * 20_000_000)))),
        field(7, field(5, field(2, 1) + field(1, b"\1" * 20_000_000))),
        field(14, b"") * 5_000_000,
    ],
    ids=["operators", "inputs", "attribute", "shape", "metadata"],
)
def test_a_large_file_is_not_larger_in_memory(model):
    """20 MB that would be gigabytes of Python's objects."""
    before, started = peak_memory(), time.monotonic()
    with pytest.raises(ModelRefused, match="more than"):
        onnx_file.read(model)
    assert time.monotonic() - started < 5
    if before is not None:
        assert (peak_memory() or 0) - before < 2**28


def test_typed_data_are_counted(mean):
    """As old writers store them: value by value, not as raw bytes."""

    def change(model) -> None:
        for each in model.graph.initializer:
            values = onnx.numpy_helper.to_array(each)
            each.ClearField("raw_data")
            each.float_data.extend(values.ravel().tolist())

    onnx_guard.require(hostile.changed(change), mean.manifest)

    def shorter(model) -> None:
        change(model)
        del model.graph.initializer[1].float_data[-1:]

    with pytest.raises(ModelRefused, match="data for"):
        onnx_guard.require(hostile.changed(shorter), mean.manifest)


def test_a_file_cut_anywhere_is_no_model(opened):
    data = opened.read("model.onnx")
    for length in {*range(0, len(data), len(data) // 50), len(data) - 1}:
        with pytest.raises(ModelError):
            onnx_guard.require(data[:length], opened.manifest)
