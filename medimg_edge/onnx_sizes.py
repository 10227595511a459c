"""The ONNX operators that are accepted, and for each the shape and the work of what it makes.

Shapes that a network computes (Shape, Gather, Concat, then Reshape) are computed here, too: one
that cannot be told without running the network is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import floor, isfinite, prod
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from medimg_edge.network_size import (
    Budget,
    Made,
    Shape,
    at,
    broadcast,
    concatenated,
    elements,
    matmul,
    permuted,
    reduced,
    refused,
    reshaped,
    sliced,
    squeezed,
    unsqueezed,
    windowed,
)
from medimg_edge.onnx_file import DOUBLE, FLOAT, INT32, INT64, MOST_KNOWN, Node, OnnxFile, Tensor

_LARGEST_VALUE = 2**31
"""Of the sides of tensors, so that it does not matter in how many bits a runtime computes them."""
_CAST = {FLOAT: "<f4", DOUBLE: "<f8", INT32: "<i8", INT64: "<i8"}


def require(file: OnnxFile, inputs: dict[str, Shape]) -> None:
    """Count what a network takes for one image; inputs: the shapes of what goes in.

    Raises ModelRefused: an operator that is not accepted, shapes that do not fit each other or
    cannot be told, or more memory or work than ``network_size`` accepts.
    """
    budget = Budget(
        [(node.inputs, node.outputs) for node in file.nodes], [each.name for each in file.outputs]
    )
    known = _Known(dict(inputs), {}, set())
    for tensor in file.tensors:
        known.hold(tensor.name, tensor.shape, tensor.values, constant=True)
    for number, node in enumerate(file.nodes):
        rule = OPERATORS.get(node.operator)
        if rule is None:
            raise refused(
                f"it uses the operator {node.operator!r}, which is not among the "
                f"{len(OPERATORS)} that are accepted; it may run for ever or take any memory"
            )
        step = Step(node, known)
        try:
            made = _every_output(rule(step), node)
            values = _values(step)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise refused(f"its operator {node.operator} lacks an input or an attribute") from error
        constant = step.is_constant
        budget.add(number, node.operator, made, constant=constant)
        for name, shape in zip(node.outputs, made.shapes, strict=True):
            fits = values is not None and values.shape == shape
            known.hold(name, shape, values if fits else None, constant=constant)


class _Known(NamedTuple):
    """What is known of tensors, by name. constants: those that no pixel changes."""

    shapes: dict[str, Shape]
    values: dict[str, NDArray]
    constants: set[str]

    def hold(self, name: str, shape: Shape, values: NDArray | None, *, constant: bool) -> None:
        if name in self.shapes:
            raise refused(f"two of its tensors are called {name!r}")
        if not name:
            return
        self.shapes[name] = shape
        if values is not None:
            self.values[name] = values
        if constant:
            self.constants.add(name)


class Step:
    """One operator and what is known of what it reads."""

    def __init__(self, node: Node, known: _Known) -> None:
        self.node, self._known = node, known

    @property
    def is_constant(self) -> bool:
        """Whether no pixel changes what it makes."""
        return all(not name or name in self._known.constants for name in self.node.inputs)

    def has(self, index: int) -> bool:
        """Whether it has that input."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def shape(self, index: int = 0) -> Shape:
        """Of an input. Raises ModelRefused where nothing has made it before."""
        name = self.node.inputs[index]
        try:
            return self._known.shapes[name]
        except KeyError:
            raise refused(f"its operator {self.node.operator} reads {name!r} too early") from None

    @property
    def shapes(self) -> list[Shape]:
        """Of all inputs."""
        return [self.shape(index) for index in range(len(self.node.inputs))]

    def value(self, index: int) -> NDArray | None:
        """Of an input that is a short constant or computed from such."""
        self.shape(index)
        return self._known.values.get(self.node.inputs[index])

    def constant(self, index: int) -> list[int]:
        """Whole numbers that decide about a shape. Raises ModelRefused where they are not known."""
        values = self.value(index)
        if values is None or values.dtype.kind not in "iu":
            raise refused(
                f"its operator {self.node.operator} makes a tensor whose shape depends on the "
                "image, or cannot be told"
            )
        return values.ravel().tolist()

    def number(self, name: str, default: int | None) -> int:
        """A whole number of its attributes."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise TypeError(name)
        return value

    def numbers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Whole numbers of its attributes."""
        value = self.node.attributes.get(name, default)
        if not isinstance(value, list | tuple) or not all(isinstance(each, int) for each in value):
            raise TypeError(name)
        return list(cast(Sequence[int], value))

    def text(self, name: str, default: str) -> str:
        """A word of its attributes."""
        value = self.node.attributes.get(name, default.encode())
        if not isinstance(value, bytes):
            raise TypeError(name)
        return value.decode()

    def given(self, name: str, index: int) -> list[int] | None:
        """Whole numbers that older opsets have as an attribute and newer ones as an input."""
        if name in self.node.attributes:
            return self.numbers(name)
        return self.constant(index) if self.has(index) else None


Rule = Callable[[Step], Made]
Evaluate = Callable[[Step], NDArray | None]


def _every_output(made: Made, node: Node) -> Made:
    """Where a rule knows one shape, all outputs have it."""
    count = len(node.outputs)
    shapes = made.shapes * count if len(made.shapes) == 1 else made.shapes
    if len(shapes) != count:
        raise refused(f"its operator {node.operator} has {count} outputs")
    return made._replace(shapes=shapes)


def _shaped(shape: Shape, work: int | None = None) -> Made:
    return Made([shape], elements(shape, "it") if work is None else work)


def _same(step: Step) -> Made:
    return _shaped(step.shape())


def _by_element(step: Step) -> Made:
    return _shaped(broadcast(*step.shapes))


def _window(step: Step, kernel: Sequence[int], channels: int) -> tuple[Shape, int]:
    """The shape after a window has moved over rows and columns, and the size of the window."""
    batch, _, *sides = step.shape()
    rank = len(sides)
    strides, dilations = step.numbers("strides", [1] * rank), step.numbers("dilations", [1] * rank)
    pads = step.numbers("pads", [0] * 2 * rank)
    mode = step.text("auto_pad", "NOTSET")
    if not len(kernel) == len(strides) == len(dilations) == len(pads) // 2 == rank:
        raise refused(f"its operator {step.node.operator} has a window of another rank")
    found = []
    for axis, side in enumerate(sides):
        pad = {"NOTSET": pads[axis] + pads[axis + rank], "VALID": 0}.get(mode)
        if step.number("ceil_mode", 0) and pad is not None:
            pad += strides[axis] - 1
        found.append(windowed(side, kernel[axis], strides[axis], dilations[axis], pad))
    return (batch, channels, *found), prod(kernel)


def _conv(step: Step) -> Made:
    filters, depth, *kernel = step.shape(1)
    groups = step.number("group", 1)
    if groups < 1 or step.shape()[1] != depth * groups:
        raise refused(f"a convolution with weights {step.shape(1)} of {step.shape()}")
    shape, window = _window(step, kernel, filters)
    columns = prod(shape[2:]) * depth * window
    return Made([shape], elements(shape, "Conv") * depth * window, columns)


def _conv_transpose(step: Step) -> Made:
    batch, depth, *sides = step.shape()
    _, filters, *kernel = step.shape(1)
    channels = filters * step.number("group", 1)
    columns = channels * prod(kernel) * prod(sides)
    shape = (batch, channels, *_grown(step, sides, kernel))
    return Made([shape], columns * depth, columns)


def _grown(step: Step, sides: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Rows and columns after a transposed convolution."""
    ones, none = [1] * len(sides), [0] * len(sides)
    if "output_shape" in step.node.attributes:
        return step.numbers("output_shape")
    strides, dilations = step.numbers("strides", ones), step.numbers("dilations", ones)
    if step.text("auto_pad", "NOTSET").startswith("SAME"):
        return [side * stride for side, stride in zip(sides, strides, strict=True)]
    pads, extra = step.numbers("pads", none * 2), step.numbers("output_padding", none)
    both = [sum(each) for each in zip(pads[: len(sides)], pads[len(sides) :], strict=True)]
    axes = zip(sides, kernel, strides, dilations, extra, both, strict=True)
    return [
        stride * (side - 1) + more + (size - 1) * dilation + 1 - pad
        for side, size, stride, dilation, more, pad in axes
    ]


def _pool(step: Step) -> Made:
    shape, window = _window(step, step.numbers("kernel_shape"), step.shape()[1])
    return _shaped(shape, prod(shape) * window)


def _global_pool(step: Step) -> Made:
    shape = step.shape()
    return _shaped((*shape[:2], *[1] * (len(shape) - 2)), prod(shape))


def _matmul(step: Step) -> Made:
    return matmul(step.shape(0), step.shape(1))


def _gemm(step: Step) -> Made:
    left, right = step.shape(0), step.shape(1)
    if len(left) != 2 or len(right) != 2:
        raise refused(f"a Gemm of the shapes {left} and {right}")
    left = left[::-1] if step.number("transA", 0) else left
    right = right[::-1] if step.number("transB", 0) else right
    made = matmul(left, right)
    if step.has(2) and broadcast(made.shapes[0], step.shape(2)) != made.shapes[0]:
        raise refused(f"a Gemm of shape {made.shapes[0]} with a bias of shape {step.shape(2)}")
    return made


def _einsum(step: Step) -> Made:
    terms, arrow, result = step.text("equation", "").replace(" ", "").partition("->")
    sides: dict[str, int] = {}
    shapes = step.shapes
    for term, shape in zip(terms.split(","), shapes, strict=True):
        for label, side in zip(term, shape, strict=True):
            if not label.isalpha() or sides.setdefault(label, side) != side:
                raise refused(f"an Einsum {terms!r} of the shapes {shapes}")
    if not arrow or len(shapes) > 2:
        raise refused(f"an Einsum {terms!r} of {len(shapes)} tensors")
    shape = tuple(sides[label] for label in result)
    return Made([shape], prod(sides.values()), sum(map(prod, shapes)))


def _reduce(step: Step) -> Made:
    shape, axes = step.shape(), step.given("axes", 1)
    if not axes and step.number("noop_with_empty_axes", 0):
        return _same(step)
    return _shaped(reduced(shape, axes or None, bool(step.number("keepdims", 1))), prod(shape))


def _arg_reduce(step: Step) -> Made:
    shape, keep = step.shape(), bool(step.number("keepdims", 1))
    return _shaped(reduced(shape, [step.number("axis", 0)], keep), prod(shape))


def _reshape(step: Step) -> Made:
    target = step.constant(1)
    return _shaped(
        reshaped(step.shape(), target, zero_copies=not step.number("allowzero", 0)), work=1
    )


def _flatten(step: Step) -> Made:
    shape = step.shape()
    axis = step.number("axis", 1)
    axis = len(shape) if axis == len(shape) else at(axis, len(shape))
    return _shaped((prod(shape[:axis]), prod(shape[axis:])), work=1)


def _squeeze(step: Step) -> Made:
    return _shaped(squeezed(step.shape(), step.given("axes", 1)), work=1)


def _unsqueeze(step: Step) -> Made:
    return _shaped(unsqueezed(step.shape(), step.given("axes", 1) or ()), work=1)


def _transpose(step: Step) -> Made:
    shape = step.shape()
    return _shaped(permuted(shape, step.numbers("perm", list(range(len(shape)))[::-1])))


def _concat(step: Step) -> Made:
    return _shaped(concatenated(step.shapes, step.number("axis", None)))


def _split(step: Step) -> Made:
    shape = step.shape()
    axis, count = at(step.number("axis", 0), len(shape)), len(step.node.outputs)
    parts = step.given("split", 1)
    if parts is None:
        size = -(-shape[axis] // count)
        parts = [max(0, min(size, shape[axis] - size * index)) for index in range(count)]
    if min(parts) < 0 or sum(parts) != shape[axis]:
        raise refused(f"it splits {shape[axis]} values into {parts}")
    shapes = [(*shape[:axis], part, *shape[axis + 1 :]) for part in parts]
    return Made(shapes, prod(shape))


def _slice(step: Step) -> Made:
    shape = list(step.shape())
    starts, stops = step.given("starts", 1), step.given("ends", 2)
    axes, steps = step.given("axes", 3), step.given("steps", 4)
    if starts is None or stops is None:
        raise KeyError("starts")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    for axis, start, stop, by in zip(axes, starts, stops, steps, strict=True):
        shape[axis] = sliced(shape[axis], start, stop, by)
    return _shaped(tuple(shape))


def _gather(step: Step) -> Made:
    shape, indices = step.shape(0), step.shape(1)
    axis = at(step.number("axis", 0), len(shape))
    return _shaped((*shape[:axis], *indices, *shape[axis + 1 :]))


def _pad(step: Step) -> Made:
    shape, pads = step.shape(), step.given("pads", 1) or []
    axes = step.constant(3) if step.has(3) else list(range(len(shape)))
    if len(pads) != 2 * len(axes):
        raise refused(f"it pads a tensor of shape {shape} by {pads}")
    sides = list(shape)
    for index, axis in enumerate(axes):
        sides[axis] += pads[index] + pads[index + len(axes)]
    return _shaped(tuple(sides))


def _expand(step: Step) -> Made:
    return _shaped(broadcast(step.shape(), tuple(step.constant(1))))


def _tile(step: Step) -> Made:
    sides = zip(step.shape(), step.constant(1), strict=True)
    return _shaped(tuple(side * times for side, times in sides))


def _filled(step: Step) -> Made:
    return _shaped(tuple(step.constant(0)))


def _resize(step: Step) -> Made:
    shape = step.shape()
    if step.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise refused("it resizes by an aspect ratio")
    axes = step.numbers("axes", list(range(len(shape))))
    sides = list(shape)
    if step.has(3):
        for axis, side in zip(axes, step.constant(3), strict=True):
            sides[axis] = side
        return _resized(shape, sides)
    scales = step.value(2)
    if scales is None or not all(isfinite(scale) for scale in scales.ravel().tolist()):
        raise refused("it resizes by scales that cannot be told")
    for axis, scale in zip(axes, scales.ravel().tolist(), strict=True):
        sides[axis] = floor(shape[axis] * scale)
    return _resized(shape, sides)


def _resized(shape: Shape, sides: list[int]) -> Made:
    """Interpolation reads up to 16 values for each, and more where it shrinks."""
    return _shaped(tuple(sides), 16 * (elements(tuple(sides), "Resize") + prod(shape)))


def _depth_to_space(step: Step) -> Made:
    batch, depth, rows, columns = step.shape()
    size = step.number("blocksize", None)
    if size < 1 or depth % size**2:
        raise refused(f"it spreads {depth} channels over blocks of {size}")
    return _shaped((batch, depth // size**2, rows * size, columns * size))


def _space_to_depth(step: Step) -> Made:
    batch, depth, rows, columns = step.shape()
    size = step.number("blocksize", None)
    if size < 1 or rows % size or columns % size:
        raise refused(f"it gathers blocks of {size} of {rows} x {columns}")
    return _shaped((batch, depth * size**2, rows // size, columns // size))


def _shape_of(step: Step) -> Made:
    return _shaped((len(_told_shape(step)),), work=1)


def _told_shape(step: Step) -> Shape:
    shape = step.shape()
    return shape[step.number("start", 0) : step.number("end", len(shape))]


def _constant(step: Step) -> Made:
    return _shaped(_constant_value(step)[0])


def _constant_value(step: Step) -> tuple[Shape, NDArray | None]:
    ((name, value),) = step.node.attributes.items()
    if name == "value" and isinstance(value, Tensor):
        return value.shape, value.values
    kinds = {"value_int": int, "value_ints": tuple, "value_float": float, "value_floats": tuple}
    if name not in kinds or not isinstance(value, kinds[name]):
        raise refused(f"it has a constant that is a {name}")
    values = np.array(value, np.int64 if "int" in name else np.float32)
    return values.shape, values if values.size <= MOST_KNOWN else None


# Values that decide about shapes: what is computed of the sides of tensors.


def _values(step: Step) -> NDArray | None:
    """What an operator makes of known numbers; None where that is not known, or not needed."""
    evaluate = _EVALUATED.get(step.node.operator)
    if evaluate is None or len(step.node.outputs) != 1:
        return None
    found = evaluate(step)
    if found is None or found.size > MOST_KNOWN:
        return None
    if step.node.operator in _COMPUTED and abs(found.astype(float)).max(initial=0) > _LARGEST_VALUE:
        raise refused(f"its operator {step.node.operator} makes a shape of {found.tolist()}")
    return found


def _of_known(
    compute: Callable[[Step, list[NDArray]], NDArray],
) -> Evaluate:
    """Computed where every input is known."""

    def evaluate(step: Step) -> NDArray | None:
        inputs = [step.value(index) for index in range(len(step.node.inputs)) if step.has(index)]
        known = [each for each in inputs if each is not None]
        return compute(step, known) if known and len(known) == len(inputs) else None

    return evaluate


def _divided(left: NDArray, right: NDArray) -> NDArray:
    """As C divides: towards 0."""
    if left.dtype.kind == "f" or right.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return left / right
    if not right.all():
        raise refused("it divides the side of a tensor by 0")
    return np.where((left < 0) != (right < 0), -(abs(left) // abs(right)), left // right)


def _product(step: Step, known: list[NDArray]) -> NDArray:
    shape = reduced(known[0].shape, step.given("axes", 1), bool(step.number("keepdims", 1)))
    if prod(shape) != 1:
        raise refused("it multiplies sides of tensors by rows")
    return np.array(prod(known[0].ravel().tolist())).reshape(shape)


def _cast(step: Step, known: list[NDArray]) -> NDArray:
    kind = _CAST.get(step.number("to", None))
    if kind is None or not np.isfinite(known[0].astype(float)).all():
        raise refused("it casts the side of a tensor to what is no number")
    return known[0].astype(kind)


def _taken(step: Step, known: list[NDArray]) -> NDArray:
    return known[0].take(known[1], axis=step.number("axis", 0))


def _cut(step: Step, known: list[NDArray]) -> NDArray:
    starts, stops = step.given("starts", 1), step.given("ends", 2)
    axes, steps = step.given("axes", 3), step.given("steps", 4)
    if known[0].ndim != 1 or axes not in (None, [0], [-1]) or not starts or not stops:
        raise refused("it slices sides of tensors in another way than one by one")
    return known[0][slice(starts[0], stops[0], steps[0] if steps else 1)]


def _arranged(step: Step, known: list[NDArray]) -> NDArray:
    """The same numbers in the shape that the operator's rule gives them."""
    return known[0].reshape(OPERATORS[step.node.operator](step).shapes[0])


def _several(compute: Callable[[NDArray, NDArray], NDArray]) -> Evaluate:
    return _of_known(lambda _, known: reduce(compute, known))


_EVALUATED: dict[str, Evaluate] = {
    "Shape": lambda step: np.array(_told_shape(step), np.int64),
    "Constant": lambda step: _constant_value(step)[1],
    "Identity": _of_known(lambda _, known: known[0]),
    "Cast": _of_known(_cast),
    "Gather": _of_known(_taken),
    "Slice": _of_known(_cut),
    "Concat": _of_known(lambda step, known: np.concatenate(known, step.number("axis", None))),
    "Reshape": _of_known(_arranged),
    "Squeeze": _of_known(_arranged),
    "Unsqueeze": _of_known(_arranged),
    "Add": _several(np.add),
    "Sub": _several(np.subtract),
    "Mul": _several(np.multiply),
    "Div": _several(_divided),
    "Max": _several(np.maximum),
    "Min": _several(np.minimum),
    "ReduceProd": _of_known(_product),
}

_COMPUTED = frozenset({"Add", "Sub", "Mul", "Div", "Cast", "ReduceProd"})

_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization Cast Ceil Celu Clip Cos Cosh "
    "DequantizeLinear Dropout Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish "
    "Hardmax Identity InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Log "
    "LogSoftmax LpNormalization MeanVarianceNormalization Mish Neg Not QuantizeLinear Reciprocal "
    "Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu"
)
_ELEMENTS = (
    "Add And Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or PRelu Pow "
    "Sub Sum Where Xor"
)
_REDUCING = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
    "ReduceSum ReduceSumSquare"
)

OPERATORS: dict[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), _same),
    **dict.fromkeys(_ELEMENTS.split(), _by_element),
    **dict.fromkeys(_REDUCING.split(), _reduce),
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "AveragePool": _pool,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape_of,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""By name. Everything else is refused: what branches, loops, draws lots, keeps state, or makes
tensors whose size depends on the image."""
