"""Keras -> TFLite, float32 and int8, builtin operators only."""

import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from litert_quantizer.calibrator import Calibrator
from litert_quantizer.qtyping import QuantGranularity, TFLOperationName
from litert_quantizer.quantizer import Quantizer
from litert_quantizer.recipe_manager import RecipeManager
from litert_quantizer.utils.qsv_utils import min_max_update
from numpy.typing import NDArray

from medimg_edge.errors import ConversionError
from medimg_export.chatter import conversion
from medimg_export.finite import probe_images, require_finite_outputs, require_finite_weights
from medimg_export.int8 import Int8Variant, Node, trunk

INPUT = "pixels"
SIGNATURE = "serving_default"

MIN_SIZE_OF_WEIGHTS = 0.9
"""A conversion that loses the variables reports success, and writes the structure alone."""

_CONVOLUTIONS = frozenset(
    {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}
)
_POOLING = frozenset(
    {schema.BuiltinOperator.MEAN, schema.BuiltinOperator.REDUCE_MAX, schema.BuiltinOperator.SUM}
)
_ADVICE = "Use layers that LiteRT's builtin operators can express, or export ONNX only."


def to_tflite(model: keras.Model, path: Path) -> None:
    """Write ``model`` as a float32 TFLite file.

    Args:
        model: one input called ``pixels``, uint8 (N, H, W, C), and a dict of float32 outputs.
        path: the file to write. Its signature ``serving_default`` has the same names; N is free.

    Raises:
        ConversionError: weights or outputs that are not finite, a layer that needs more than
            builtin operators, or a file too small to hold the weights.
        WriteError: the file cannot be written.
    """
    with conversion("The conversion to TFLite", _ADVICE):
        require_finite_weights(model)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        content = converter.convert()
        require_whole(content, model)
        _require_answers(content, set(model.output))
        path.write_bytes(content)


def to_tflite_int8(
    float_path: Path, path: Path, calibration: NDArray[np.uint8], variant: Int8Variant
) -> None:
    """Quantize the trunk of a file that ``to_tflite`` wrote; the head stays float32.

    Args:
        float_path: the float32 TFLite file.
        path: the file to write; uint8 in, float32 out, with the signature of ``float_path``.
        calibration: preprocessed training images, uint8 (M, H, W, C); may be a memory map, it is
            read image by image.
        variant: how to quantize; ``int8.trunk`` says what.

    Raises:
        ConversionError: nothing to quantize, no calibration images, or a quantizer that fails.
        WriteError: the file cannot be written.
    """
    with conversion("The int8 quantization of the TFLite file", "Export without int8."):
        if not len(calibration):
            raise ConversionError("Calibration got no images; int8 needs some, better 100 or more.")
        content = float_path.read_bytes()
        nodes, source, outputs = _graph(content)
        chosen = trunk(nodes, source, outputs, variant.float_first_convs)
        quantized = _quantized(content, chosen, calibration, variant)
        _require_answers(quantized, set(_runner(content).get_output_details()))
        path.write_bytes(quantized)


def require_whole(content: bytes, model: keras.Model) -> None:
    """Refuse a float32 TFLite file that cannot hold the model.

    Only kernels are counted, because biases and batch normalizations are folded into less; and
    equal ones once, because the converter stores the kernel of the dense layer and that of the
    heatmap as one.

    Args:
        content: the file's bytes.
        model: what it was made from.

    Raises:
        ConversionError: smaller than 90 % of the kernels' bytes.
    """
    kernels = {np.asarray(w).tobytes() for w in model.weights if len(w.shape) > 1}
    expected = sum(map(len, kernels))
    if len(content) < MIN_SIZE_OF_WEIGHTS * expected:
        raise ConversionError(
            f"The TFLite file has {len(content)} bytes, but the model's kernels alone have "
            f"{expected}: the converter lost weights. {_ADVICE}"
        )


def _quantized(
    content: bytes, chosen: list[Node], calibration: NDArray[np.uint8], variant: Int8Variant
) -> bytes:
    granularities = {True: QuantGranularity.CHANNELWISE, False: QuantGranularity.TENSORWISE}
    recipe = RecipeManager()
    for node in chosen:
        recipe.add_static_config(
            f"^{re.escape(node.name)};$",
            TFLOperationName.ALL_SUPPORTED,
            activation_num_bits=8,
            weight_num_bits=8,
            weight_granularity=granularities[variant.per_channel],
        )
    # The default is a moving average, whose ranges depend on the order of the images.
    calibrator = Calibrator(
        content, num_threads=os.cpu_count() or 1, qsv_update_func=min_max_update
    )
    # A list, because it is gone through twice; of views, so that no pixel is read early.
    images = [{INPUT: calibration[index : index + 1]} for index in range(len(calibration))]
    calibrator.calibrate({SIGNATURE: images}, recipe)
    result = Quantizer(content, recipe.get_quantization_recipe()).quantize(
        calibrator.get_model_qsvs(), enable_progress_bar=False, enable_progress_report=False
    )
    return bytes(result.quantized_model or b"")


def _runner(content: bytes) -> Any:
    return Interpreter(model_content=content).get_signature_runner(SIGNATURE)


def _require_answers(content: bytes, outputs: set[str]) -> None:
    runner = _runner(content)
    (shape,) = (details["shape"][1:] for details in runner.get_input_details().values())
    answers = runner(**{INPUT: probe_images(shape)})
    if set(answers) != outputs:
        raise ConversionError(
            f"The TFLite file has the outputs {sorted(answers)}, the model has {sorted(outputs)}. "
            f"{_ADVICE}"
        )
    require_finite_outputs(answers, "The TFLite file")


def _graph(content: bytes) -> tuple[list[Node], str, list[str]]:
    """The nodes of a TFLite file, each named after the tensor it writes, its input and outputs."""
    model: Any = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    nodes = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        first = graph.tensors[operator.outputs[0]]
        nodes.append(
            Node(
                name=names[operator.outputs[0]],
                inputs=tuple(names[index] for index in operator.inputs if index >= 0),
                outputs=tuple(names[index] for index in operator.outputs),
                is_conv=code in _CONVOLUTIONS,
                is_spatial=len(first.shape) == 4 and code not in _POOLING,
            )
        )
    return nodes, names[graph.inputs[0]], [names[index] for index in graph.outputs]
