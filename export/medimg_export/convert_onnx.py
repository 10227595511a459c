"""Keras -> ONNX, float32 and int8. Nobody else knows tf2onnx and ONNX Runtime's quantizer."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from medimg_edge.errors import ConversionError
from medimg_export.chatter import conversion
from medimg_export.finite import probe_images, require_finite_outputs, require_finite_weights
from medimg_export.int8 import Int8Variant, Node, trunk

INPUT = "pixels"
OPSET = 17
IR_VERSION = 8  # the one that came with opset 17; devices load what is not newer than their runtime

_BATCH = "N"
_POOLING = frozenset({"GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum"})
_ADVICE = f"Use layers that ONNX opset {OPSET} can express, or export TFLite only."


def to_onnx(model: keras.Model, path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``model`` as one float32 ONNX file that explains itself.

    Batch normalizations are folded into the convolutions. Equal models give equal bytes, as long
    as the versions of the libraries are equal.

    Args:
        model: one input, uint8 (N, H, W, C), and a dict of float32 outputs. Its keys become the
            names to read the outputs by: their order in an ONNX file means nothing.
        path: the file to write. Its input is called ``pixels``, and N is free.
        metadata: written to ``metadata_props``.

    Raises:
        ConversionError: weights or outputs that are not finite, or a layer that does not convert.
        WriteError: the file cannot be written.
    """
    with conversion("The conversion to ONNX", _ADVICE):
        require_finite_weights(model)
        _write(_canonical(_pooled(_folded(_converted(model)))), path, metadata)
        _require_answers(path, set(model.output))


def to_onnx_int8(
    float_path: Path,
    path: Path,
    calibration: NDArray[np.uint8],
    variant: Int8Variant,
    metadata: Mapping[str, str],
) -> None:
    """Quantize the trunk of a file that ``to_onnx`` wrote; the head stays float32.

    Activations are unsigned, because ONNX Runtime fuses depthwise convolutions only then. Weights
    use 7 of their 8 bits (``reduce_range``): x86 processors without VNNI add two products in 16
    bits, which saturates with 8-bit weights, so that one bundle would give two answers on two
    machines. Ranges are the extremes seen in calibration.

    Args:
        float_path: the float32 ONNX file.
        path: the file to write; input and outputs are those of ``float_path``.
        calibration: preprocessed training images, uint8 (M, H, W, C); may be a memory map, it is
            read image by image.
        variant: how to quantize; ``int8.trunk`` says what.
        metadata: written to ``metadata_props``.

    Raises:
        ConversionError: nothing to quantize, no calibration images, or a quantizer that fails.
        WriteError: the file cannot be written.
    """
    with conversion("The int8 quantization of the ONNX file", "Export without int8."):
        if not len(calibration):
            raise ConversionError("Calibration got no images; int8 needs some, better 100 or more.")
        graph = onnx.shape_inference.infer_shapes(onnx.load(float_path)).graph
        outputs = [output.name for output in graph.output]
        chosen = trunk(_nodes(graph), INPUT, outputs, variant.float_first_convs)
        quantize_static(
            float_path,
            path,
            _Images(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=variant.per_channel,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[node.name for node in chosen],
            calibrate_method=CalibrationMethod.MinMax,
        )
        _write(onnx.load(path), path, metadata)
        _require_answers(path, set(outputs))


def _converted(model: keras.Model) -> onnx.ModelProto:
    pixels = tf.TensorSpec(model.inputs[0].shape, tf.uint8, name=INPUT)

    @tf.function(input_signature=[pixels])
    def answer(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(pixels, training=False)
        return {name: _apart(tensor, name) for name, tensor in outputs.items()}

    proto, _ = tf2onnx.convert.from_function(answer, input_signature=[pixels], opset=OPSET)
    return _without_casts(proto)


def _apart(tensor: tf.Tensor, name: str) -> tf.Tensor:
    """An output that is never the pooled values themselves.

    Of those tf2onnx makes one of two sets of nodes, by the order in which it walks its sets.
    """
    is_vector = tensor.shape.rank == 2
    return tf.cast(tensor, tf.float64, name) if is_vector else tf.identity(tensor, name)


def _without_casts(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Take the casts of ``_apart`` out again."""
    graph = proto.graph
    makers = {tensor: node for node in graph.node for tensor in node.output}
    names: dict[str, str] = {}
    for output in graph.output:
        if output.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
            output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
            names[makers[output.name].input[0]] = output.name
            graph.node.remove(makers[output.name])
    for node in graph.node:
        node.input[:] = [names.get(tensor, tensor) for tensor in node.input]
        node.output[:] = [names.get(tensor, tensor) for tensor in node.output]
    return proto


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Fold the Mul and Add that tf2onnx leaves behind a depthwise convolution into its weights.

    ONNX Runtime's basic optimizations do that, in standard operators and for any hardware.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "folded.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(file)
        onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return onnx.load(file)


def _pooled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """One form of the mean over rows and columns: tf2onnx makes this one or a ReduceMean.

    Which of them follows from the order in which it walks its sets, that is, from memory addresses.
    """
    graph = proto.graph
    nodes = list(graph.node)
    for node in nodes:
        found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type != "ReduceMean" or found.get("keepdims", 1) or found["axes"] != [2, 3]:
            continue
        (made,) = node.output
        kept, axes = f"{made}, pooled", f"{made}, axes"
        pool = onnx.helper.make_node("GlobalAveragePool", list(node.input), [kept])
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3]), axes))
        nodes[nodes.index(node)] = onnx.helper.make_node("Squeeze", [kept, axes], [made])
        nodes.append(pool)
    del graph.node[:]
    graph.node.extend(nodes)
    return proto


def _canonical(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Order and name nodes and tensors by their place: tf2onnx counts differently each time."""
    graph = proto.graph
    nodes = _from_the_outputs(graph)
    names = {"": ""} | {tensor.name: tensor.name for tensor in (*graph.input, *graph.output)}
    for index, node in enumerate(nodes):
        node.name = f"{node.op_type}_{index}"
        for tensor in node.input:  # not named yet: a constant, and this is its first use
            names.setdefault(tensor, f"constant_{len(names)}")
        for tensor in node.output:
            names.setdefault(tensor, f"{node.name}_{len(names)}")
        node.input[:] = [names[tensor] for tensor in node.input]
        node.output[:] = [names[tensor] for tensor in node.output]
    constants = {names[tensor.name]: tensor for tensor in graph.initializer if tensor.name in names}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    for name in sorted(constants):
        constants[name].name = name
        graph.initializer.append(constants[name])
    return proto


def _from_the_outputs(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, each after those it reads from.

    Walked back from the outputs in the order of their names, so that the result depends on the
    graph alone, and not on the order that its nodes are listed in.
    """
    makers = {tensor: index for index, node in enumerate(graph.node) for tensor in node.output}
    wanted = sorted((output.name for output in graph.output), reverse=True)
    placed: dict[int, onnx.NodeProto] = {}
    while wanted:
        index = makers.get(wanted[-1])
        if index is None or index in placed:  # an input of the graph, a constant, or done
            wanted.pop()
            continue
        missing = [t for t in graph.node[index].input if t in makers and makers[t] not in placed]
        if missing:
            wanted.extend(reversed(missing))
        else:
            placed[index] = graph.node[index]
    return list(placed.values())


def _write(proto: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "medimg-edge", ""
    proto.doc_string = proto.graph.doc_string = ""
    proto.graph.name = "medimg-edge"
    del proto.graph.value_info[:]
    outputs = sorted(proto.graph.output, key=lambda output: output.name)
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = _BATCH
    # Both tools import domains that they do not use; any node of one would fail the checker below.
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _require_answers(path: Path, outputs: set[str]) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    if set(names) != outputs:
        raise ConversionError(
            f"The ONNX file has the outputs {sorted(names)}, the model has {sorted(outputs)}. "
            f"{_ADVICE}"
        )
    images = probe_images(session.get_inputs()[0].shape[1:])
    answers: Any = session.run(names, {INPUT: images})
    require_finite_outputs(dict(zip(names, answers, strict=True)), "The ONNX file")


def _nodes(graph: onnx.GraphProto) -> list[Node]:
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output)
    }
    return [
        Node(
            name=node.name,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            is_conv=node.op_type == "Conv",
            is_spatial=ranks.get(node.output[0]) == 4 and node.op_type not in _POOLING,
        )
        for node in graph.node
    ]


class _Images(CalibrationDataReader):
    """Hands calibration images over one by one: memory does not grow with their number."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._feeds = ({INPUT: images[index : index + 1]} for index in range(len(images)))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The next feed, or None at the end: the protocol of ONNX Runtime's calibrator."""
        return next(self._feeds, None)
