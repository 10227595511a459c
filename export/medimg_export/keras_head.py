"""What the last layers of a Keras classifier are: the part of it that is read, not just run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import KerasTensor, layers
from numpy.typing import NDArray

from medimg_edge.errors import ModelUnsupported
from medimg_edge.manifest import Task

Reduction = Literal["mean", "sum"]

INFERENCE_IDENTITY = (
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.Identity,
)
"""Layers that do something in training only."""


@dataclass(frozen=True, eq=False)
class Head:
    """A linear map of pooled features, whose outputs are those of the task.

    kernel: float32 (D, outputs). bias: float32 (outputs,).
    source: the symbolic tensor that is pooled: features (N, h, w, D), else (N, D).
    reduction: ``mean`` (global average pooling), ``sum`` (flattened), None (not features).
    notes: sentences for the export's report.
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    source: KerasTensor
    reduction: Reduction | None
    notes: tuple[str, ...] = ()


def read_head(model: keras.Model, task: Task, *, positive_first: bool = False) -> Head:
    """Back from the output, over activations, to the last dense layer and what it is applied to.

    Args:
        model: Functional or Sequential, with one output.
        task: binary (one unit with sigmoid, or two with softmax, which become the one logit
            that is their difference), multiclass (softmax), multilabel (sigmoid). Linear
            units are taken as logits.
        positive_first: binary only: the positive label was class 0 in training. Two units
            then count the other way round, and one unit with the other sign.

    Raises:
        ModelUnsupported: another kind of head.
    """
    if positive_first and task != "binary":
        raise ModelUnsupported(f"positive_first is for a binary task; this one is {task}.")
    dense, features, activation = _last_dense(model)
    if len(features.shape) != 2:
        raise ModelUnsupported(
            f"The last Dense layer takes a tensor of shape {tuple(features.shape)}; it must be "
            "(None, D): pool or flatten the features before it."
        )
    kernel = np.asarray(dense.kernel, np.float32)
    bias = np.zeros(dense.units) if dense.bias is None else np.asarray(dense.bias)
    _require_task(dense.units, activation, task)
    if task == "binary":
        positive = np.array([[1]] if dense.units == 1 else [[-1], [1]], np.float32)
        signed = -positive if positive_first else positive
        kernel, bias = kernel @ signed, bias @ signed
    source, reduction = _source(features)
    notes = () if reduction else (_no_heatmap(source),)
    return Head(kernel, bias.astype(np.float32), source, reduction, notes)


def _last_dense(model: keras.Model) -> tuple[layers.Dense, KerasTensor, str]:
    """The layer, what it takes, and the activation that follows: linear, sigmoid or softmax."""
    activations = []
    tensor = model.outputs[0]
    while True:
        operation, before, _ = _maker(tensor)
        activation = _activation(operation)
        if activation is None or before is None:
            raise ModelUnsupported(
                f"The model ends in {type(operation).__name__} {operation.name!r}; it must end in "
                "Dense, then at most a sigmoid or softmax, at the outer level of the model (not "
                "inside of a nested one)."
            )
        if activation != "linear":
            activations.append(activation)
        if isinstance(operation, layers.Dense):
            break
        tensor = before
    if len(activations) > 1:
        raise ModelUnsupported(
            f"The model's last layers apply {' after '.join(activations)}; one sigmoid or "
            "softmax, or none, can be exported. Remove the others."
        )
    return operation, before, activations[0] if activations else "linear"


def _require_task(units: int, activation: str, task: Task) -> None:
    fits = {
        "binary": activation in ("linear", {1: "sigmoid", 2: "softmax"}.get(units)) and units < 3,
        "multiclass": activation in ("linear", "softmax") and units > 1,
        "multilabel": activation in ("linear", "sigmoid"),
    }
    if not fits[task]:
        raise ModelUnsupported(
            f"The model ends in Dense of {units} with {activation}, which is not a {task} task. "
            "Accepted: binary, 1 unit with sigmoid or 2 with softmax; multiclass, 2 or more "
            "with softmax; multilabel, any number with sigmoid; linear units for each."
        )


def _maker(tensor: Any) -> tuple[Any, KerasTensor | None, int]:
    """The operation that made a tensor, its first input, and which of its outputs this is.

    ``layer.input`` would be public, but is ambiguous for a layer that is used twice.
    """
    operation, node_index, tensor_index = tensor._keras_history
    inputs = operation._inbound_nodes[node_index].input_tensors
    return operation, inputs[0] if inputs else None, tensor_index


def _activation(operation: Any) -> str | None:
    """The name of the activation that an operation applies, or None where it is another thing."""
    if isinstance(operation, layers.Dense | layers.Activation):
        return getattr(operation.activation, "__name__", type(operation.activation).__name__)
    if isinstance(operation, INFERENCE_IDENTITY):
        return "linear"
    kind = type(operation).__name__.lower()  # a layer, or the operation of keras.ops
    last_axis = getattr(operation, "axis", -1) in (-1, 1)
    return kind if kind in ("sigmoid", "softmax") and last_axis else None


def _source(tensor: KerasTensor) -> tuple[KerasTensor, Reduction | None]:
    """What is pooled (or flattened) into the tensor that the dense layer takes, and how.

    A nested model that ends in pooling, as keras.applications with ``pooling="avg"``, is opened.
    Where nothing is pooled: the tensor itself and None.
    """
    start = tensor
    while True:
        operation, before, index = _maker(tensor)
        if before is None:
            return start, None
        if isinstance(operation, layers.GlobalAveragePooling2D):
            return before, "mean"
        flattens = isinstance(operation, layers.Flatten | layers.Reshape)
        grid = len(before.shape) == 4 and max(before.shape[1:3]) > 1
        if flattens and grid and len(tensor.shape) == 2:
            return before, "sum"
        if isinstance(operation, keras.Model) and len(operation.inputs) == 1:
            inner, reduction = _source(operation.outputs[index])
            if reduction is not None:
                return keras.Model(operation.inputs[0], inner)(before), reduction
        if not (flattens or isinstance(operation, INFERENCE_IDENTITY)):
            return start, None
        tensor = before  # the same values in the same order, such as (N, 1, 1, D) -> (N, D)


def _no_heatmap(source: KerasTensor) -> str:
    operation, _, _ = _maker(source)
    return (
        f"No heatmap: the last Dense layer takes the output of {type(operation).__name__} "
        f"{operation.name!r}; it needs GlobalAveragePooling2D or Flatten directly before it "
        "(dropout may lie between)."
    )
