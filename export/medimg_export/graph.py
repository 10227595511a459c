"""From a trained Keras classifier, our own or another's, to the graph that devices run.

The trunk is taken as it is. The head (pooling, dense, sigmoid or softmax) is read and built anew,
so that it takes uint8 pixels, answers with calibrated probabilities, and explains itself: with
pooling by mean and one dense layer, swapping the two gives the class activation map (Zhou et al.
2016, "Learning Deep Features for Discriminative Localization", section 2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers
from numpy.typing import NDArray

from medimg_edge.errors import ModelUnsupported
from medimg_edge.manifest import Task
from medimg_export.keras_head import INFERENCE_IDENTITY, Head, Reduction, read_head

_RANGE_KEPT = (*INFERENCE_IDENTITY, layers.InputLayer, layers.Resizing, layers.CenterCrop)


@dataclass(frozen=True, eq=False)
class Deployable:
    """What is converted, and what its maker should know.

    model: ``pixels`` uint8 (N, H, W, C) -> a dict of float32 tensors:
        ``probability`` (N, outputs) in [0, 1];
        ``heatmap`` (N, h, w, outputs) in logits, absent where ``reduction`` is None;
        ``embedding`` (N, D), what the dense layer takes.
    kernel, bias: float32 (D, outputs) and (outputs,), the dense layer, in logits before the
        temperature.
    reduction: the heatmap's mean or sum over h and w, plus ``bias``, is the logit before the
        temperature.
    notes: sentences for the export's report.
    """

    model: keras.Model
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    reduction: Reduction | None
    notes: tuple[str, ...]


def deployable(
    model: keras.Model,
    *,
    task: Task,
    positive_first: bool = False,
    temperature: float = 1.0,
    input_scale: tuple[float, float] | None = None,
) -> Deployable:
    """The graph for devices, with the weights that ``model`` has now.

    Args:
        model: Functional or Sequential, one image in (N, H, W, C), one output, whose last
            layer with weights is Dense. Linear outputs are taken as logits.
        task: binary (one unit with sigmoid, or two with softmax, which become the one logit
            that is their difference), multiclass (softmax), multilabel (sigmoid).
        positive_first: binary only: the positive label was class 0 in training. Two units
            then count the other way round, and one unit with the other sign.
        temperature: above 0; logits are divided by it before sigmoid or softmax (Guo et al. 2017).
        input_scale: (scale, offset) for a model with float input: it gets x * scale + offset of
            the pixels x in 0..255. Needed unless the model scales by its own first layer.

    Raises:
        ModelUnsupported: inputs, outputs or a head that are not as described.
    """
    if not 0 < temperature < math.inf:
        raise ModelUnsupported(f"The temperature is {temperature}; it must be above 0 and finite.")
    _require_image_classifier(model)
    head = read_head(model, task, positive_first=positive_first)
    pixels, source, notes = _trunk(model, head, input_scale)
    embedding = _embedding(source, head)
    activation = "softmax" if task == "multiclass" else "sigmoid"
    calibrated = _logits(embedding, head) * (1.0 / temperature)
    outputs = {
        "probability": layers.Activation(activation, name="probability")(calibrated),
        "embedding": embedding,
    }
    if head.reduction is not None:
        outputs["heatmap"] = _heatmap(source, head)
    deployed = keras.Model(pixels, outputs, name="deployable")
    return Deployable(deployed, head.kernel, head.bias, head.reduction, head.notes + notes)


def logits_model(
    model: keras.Model,
    *,
    task: Task,
    positive_first: bool = False,
    input_scale: tuple[float, float] | None = None,
) -> keras.Model:
    """``pixels`` uint8 (N, H, W, C) -> float32 logits (N, outputs), to fit a temperature on.

    Arguments and errors as in ``deployable``.
    """
    _require_image_classifier(model)
    head = read_head(model, task, positive_first=positive_first)
    pixels, source, _ = _trunk(model, head, input_scale)
    return keras.Model(pixels, _logits(_embedding(source, head), head), name="logits_model")


def _require_image_classifier(model: keras.Model) -> None:
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelUnsupported(
            f"The model is a {type(model).__name__} whose graph cannot be read. Functional and "
            "Sequential models with a stated input shape can be exported: start it with "
            "keras.Input and build it as keras.Model(inputs, outputs)."
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelUnsupported(
            f"The model has {len(inputs)} inputs and {len(outputs)} outputs; one of each can be "
            "exported. Make a keras.Model of the one image input and the one output to deploy."
        )
    shape = tuple(inputs[0].shape)
    if len(shape) != 4 or None in shape[1:]:
        raise ModelUnsupported(
            f"The model's input has the shape {shape}; height, width and channels must be "
            "known: (None, H, W, C). Build it anew with a fixed keras.Input and load the weights."
        )
    for layer in _layers(model):
        if getattr(layer, "data_format", None) == "channels_first":
            raise ModelUnsupported(
                f"The layer {layer.name!r} is channels-first; models must be channels-last, "
                "(N, H, W, C). Build it anew with data_format='channels_last'; convolution "
                "kernels have the same shape in both."
            )


def _layers(model: keras.Model) -> Iterator[layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def _trunk(
    model: keras.Model, head: Head, input_scale: tuple[float, float] | None
) -> tuple[KerasTensor, KerasTensor, tuple[str, ...]]:
    """Pixels (N, H, W, C) uint8, the head's source as float32, and notes."""
    pixels: Any = keras.Input(model.inputs[0].shape[1:], dtype="uint8", name="pixels")
    x, notes = _model_input(model, pixels, input_scale)
    for layer in _layers(model):
        if isinstance(layer, layers.Normalization):
            # The same values as NumPy arrays: tf2onnx takes the eager tensors that a traced
            # function captures for inputs of the graph.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    trunk = keras.Model(model.inputs[0], head.source, name="trunk")
    source: Any = trunk(x, training=False)  # else Keras' augmentation layers augment by default
    if source.dtype != "float32":  # trained in mixed precision
        source = keras.ops.cast(source, "float32")
    return pixels, source, notes


def _model_input(
    model: keras.Model, pixels: KerasTensor, input_scale: tuple[float, float] | None
) -> tuple[KerasTensor, tuple[str, ...]]:
    dtype = model.inputs[0].dtype
    if dtype == "uint8":
        if input_scale is not None:
            raise ModelUnsupported(
                f"The model takes uint8 pixels, and an input scale {input_scale} is given; it "
                "would scale twice. Remove it from the recipe."
            )
        return pixels, ()
    if input_scale is not None:
        scale, offset = input_scale
        return layers.Rescaling(scale, offset, name="input_scale")(pixels), ()
    scaling = _scaling_layer(model)
    if scaling is None:
        raise ModelUnsupported(
            f"The model takes {dtype} and does not scale by its own first layer. Which range does "
            "it expect for pixels in 0..255? Say scale and offset in the recipe: (1/255, 0) "
            "for 0..1, (1/127.5, -1) for -1..1, (1, 0) for 0..255."
        )
    note = f"The model's own {type(scaling).__name__} {scaling.name!r} scales the pixels 0..255."
    x: Any = keras.ops.cast(pixels, dtype)
    return x, (note,)


def _scaling_layer(model: keras.Model) -> layers.Layer | None:
    """The first layer that changes values, if it is a scaling made for pixels in 0..255.

    One made for 0..1, such as Rescaling(2, -1), would give more than 255 for them.
    """
    for operation in _operations(model):
        if isinstance(operation, layers.Rescaling | layers.Normalization):
            white = np.full((1, 1, 1, model.inputs[0].shape[-1]), 255, np.float32)
            return operation if np.abs(operation(white)).max() <= 255 else None
        if not _keeps_range(operation):
            return _scaling_layer(operation) if isinstance(operation, keras.Model) else None
    return None


def _operations(model: keras.Model) -> list[Any]:
    """Layers and the bare arithmetic between them, which ``layers`` leaves out."""
    return getattr(model, "operations", model.layers)


def _keeps_range(operation: Any) -> bool:
    """Augmentation does nothing at inference; its layers are named Random..."""
    if isinstance(operation, keras.Model):
        return all(map(_keeps_range, _operations(operation)))
    return isinstance(operation, _RANGE_KEPT) or type(operation).__name__.startswith("Random")


def _embedding(source: KerasTensor, head: Head) -> KerasTensor:
    if head.reduction == "mean":
        return layers.GlobalAveragePooling2D(name="embedding")(source)
    if head.reduction == "sum":
        return layers.Flatten(name="embedding")(source)
    return source


def _logits(embedding: KerasTensor, head: Head) -> KerasTensor:
    layer = layers.Dense(len(head.bias), name="logits")
    logits = layer(embedding)
    layer.set_weights([head.kernel, head.bias])
    return logits


def _heatmap(features: KerasTensor, head: Head) -> KerasTensor:
    """(N, h, w, D) -> (N, h, w, outputs) in logits."""
    _, h, w, depth = features.shape
    outputs = len(head.bias)
    if head.reduction == "mean":  # the mean over positions and the dense layer commute
        layer = layers.Conv2D(outputs, 1, use_bias=False, name="heatmap")
        kernel = head.kernel.reshape(1, 1, depth, outputs)
    else:  # flattening is row by row: each position has its own part of the kernel
        layer = layers.EinsumDense("nhwd,hwdc->nhwc", (h, w, outputs), name="heatmap")
        kernel = head.kernel.reshape(h, w, depth, outputs)
    heatmap = layer(features)
    layer.set_weights([kernel])
    return heatmap
