"""The TFLite operators that are accepted, and for each the shape and the work of what it makes.

Shapes that a network computes (SHAPE, STRIDED_SLICE, PACK, then RESHAPE) are computed here, too.
What the file says of the shape of a tensor has to be what its operator makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import prod

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
from medimg_edge.tflite_file import MOST_KNOWN, Operator, TfliteFile

_SAME, _VALID = 0, 1
_LARGEST_VALUE = 2**31


def require(file: TfliteFile) -> None:
    """Count what a network takes for one image.

    Raises ModelRefused: an operator that is not accepted, shapes that do not fit each other or
    cannot be told, or more memory or work than ``network_size`` accepts.
    """
    steps = [(_names(each.inputs), _names(each.outputs)) for each in file.operators]
    budget = Budget(steps, _names(file.outputs.values()))
    known = {number: each.values for number, each in enumerate(file.tensors) if each.is_constant}
    ready, constants = {*known, *file.inputs.values()}, set(known)
    shapes = {number: file.tensors[number].shape for number in ready}
    if ready & {number for each in file.operators for number in each.outputs}:
        raise refused("an operator of it changes a constant or its input")
    for number, operator in enumerate(file.operators):
        name, _, rule = OPERATORS.get(operator.builtin, ("", 0, None))
        if rule is None:
            raise refused(
                f"it uses the builtin operator {operator.builtin}, which is not among the "
                f"{len(OPERATORS)} that are accepted; it may run for ever or take any memory"
            )
        inputs = {each for each in operator.inputs if each >= 0}
        if not inputs <= ready or ready & set(operator.outputs):
            raise refused(f"its operator {name} reads a tensor too early, or makes one twice")
        step = Step(file, operator, shapes, known)
        try:
            made = _declared(rule(step), step)
            values = _values(step)
        except (IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise refused(f"its operator {name} lacks an input or an option") from error
        is_constant = inputs <= constants
        budget.add(number, name, made, constant=is_constant)
        ready.update(operator.outputs)
        shapes.update(zip(operator.outputs, made.shapes, strict=True))
        if is_constant:
            constants.update(operator.outputs)
        if values is not None and values.shape == made.shapes[0]:
            known[operator.outputs[0]] = values
    if not set(file.outputs.values()) <= ready:
        raise refused("it returns a tensor that no operator makes")


def _names(numbers: Iterable[int]) -> list[str]:
    return [str(each) for each in numbers if each >= 0]


class Step:
    """One operator and what is known of what it reads."""

    def __init__(
        self,
        file: TfliteFile,
        operator: Operator,
        shapes: dict[int, Shape],
        known: dict[int, NDArray | None],
    ) -> None:
        self._file, self.operator, self._shapes, self._known = file, operator, shapes, known
        self.name, kind, _ = OPERATORS[operator.builtin]
        given, self._options = operator.options
        if given and given != kind:
            raise refused(f"its operator {self.name} has the options of another")

    def has(self, index: int) -> bool:
        """Whether it has that input."""
        return index < len(self.operator.inputs) and self.operator.inputs[index] >= 0

    def shape(self, index: int = 0) -> Shape:
        """Of an input."""
        if not self.has(index):
            raise IndexError(index)
        return self._shapes[self.operator.inputs[index]]

    @property
    def shapes(self) -> list[Shape]:
        """Of all inputs."""
        return [self.shape(index) for index in range(len(self.operator.inputs))]

    @property
    def declared(self) -> list[Shape]:
        """Of all outputs, as the file says; -1 for a side that it leaves open."""
        return [self._file.tensors[each].signature for each in self.operator.outputs]

    def value(self, index: int) -> NDArray | None:
        """Of an input that is a short constant or computed from such."""
        self.shape(index)
        return self._known.get(self.operator.inputs[index])

    def constant(self, index: int) -> list[int]:
        """Whole numbers that decide about a shape. Raises ModelRefused where they are not known."""
        values = self.value(index)
        if values is None:
            raise refused(
                f"its operator {self.name} makes a tensor whose shape depends on the image, or "
                "cannot be told"
            )
        return values.ravel().tolist()

    def option(self, field: int, default: int = 0, form: str = "i") -> int:
        """A number of its options."""
        return default if self._options is None else self._options.number(field, form, default)

    def options(self, field: int) -> tuple[int, ...] | None:
        """Numbers of its options; None where there are none."""
        if self._options is None or not self._options.has(field):
            return None
        return self._options.numbers(field)


Rule = Callable[[Step], Made]


def _declared(made: Made, step: Step) -> Made:
    """Where a rule knows one shape, all outputs have it; and the file says so."""
    shapes = made.shapes * len(step.declared) if len(made.shapes) == 1 else made.shapes
    if len(shapes) != len(step.declared) or not all(map(_agree, shapes, step.declared)):
        raise refused(
            f"its operator {step.name} makes tensors of the shapes {shapes}, and the file says "
            f"{step.declared}"
        )
    return made._replace(shapes=shapes)


def _agree(shape: Shape, declared: Shape) -> bool:
    return len(shape) == len(declared) and all(
        said in (-1, side) for side, said in zip(shape, declared, strict=True)
    )


def _shaped(shape: Shape, work: int | None = None) -> Made:
    return Made([shape], elements(shape, "it") if work is None else work)


def _same(step: Step) -> Made:
    return _shaped(step.shape())


def _by_element(step: Step) -> Made:
    return _shaped(broadcast(*step.shapes))


def _moved(step: Step, kernel: tuple[int, int], dilations: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns after a window has moved; options 0 to 2 are padding and strides."""
    _, rows, columns, _ = step.shape()
    padding, across, down = step.option(0, form="b"), step.option(1), step.option(2)
    if padding not in (_SAME, _VALID):
        raise refused(f"its operator {step.name} has the padding {padding}")
    pad = None if padding == _SAME else 0
    return (
        windowed(rows, kernel[0], down, dilations[0], pad),
        windowed(columns, kernel[1], across, dilations[1], pad),
    )


def _conv(step: Step) -> Made:
    batch, _, _, channels = step.shape()
    filters, high, wide, depth = step.shape(1)
    if depth < 1 or channels % depth:
        raise refused(f"a convolution with weights {step.shape(1)} of {step.shape()}")
    rows, columns = _moved(step, (high, wide), (step.option(5, 1), step.option(4, 1)))
    window = high * wide * depth
    shape = (batch, rows, columns, filters)
    return Made([shape], elements(shape, step.name) * window, rows * columns * window)


def _depthwise(step: Step) -> Made:
    batch, _, _, channels = step.shape()
    one, high, wide, filters = step.shape(1)
    if one != 1 or channels < 1 or filters % channels:
        raise refused(f"a convolution with weights {step.shape(1)} of {step.shape()}")
    rows, columns = _moved(step, (high, wide), (step.option(6, 1), step.option(5, 1)))
    return _shaped((batch, rows, columns, filters), rows * columns * filters * high * wide)


def _conv_transpose(step: Step) -> Made:
    batch, rows, columns, depth = step.shape(2)
    filters, high, wide, channels = step.shape(1)
    shape = tuple(step.constant(0))
    if depth != channels or len(shape) != 4 or (shape[0], shape[3]) != (batch, filters):
        raise refused(f"a transposed convolution with weights {step.shape(1)} to {shape}")
    work = rows * columns * high * wide * filters * depth
    return Made([shape], work, work // max(depth, 1))


def _pool(step: Step) -> Made:
    batch, _, _, channels = step.shape()
    kernel = step.option(4), step.option(3)
    rows, columns = _moved(step, kernel, (1, 1))
    return _shaped((batch, rows, columns, channels), rows * columns * channels * prod(kernel))


def _dense(step: Step) -> Made:
    shape, (units, depth) = step.shape(), step.shape(1)
    count = elements(shape, step.name)
    if depth < 1 or count % depth:
        raise refused(f"a dense layer with weights {step.shape(1)} of {shape}")
    made = (*shape[:-1], units) if step.option(2, form="b") else (count // depth, units)
    return _shaped(made, count * units)


def _batch_matmul(step: Step) -> Made:
    left, right = step.shape(0), step.shape(1)
    left = (*left[:-2], left[-1], left[-2]) if step.option(0, form="b") else left
    right = (*right[:-2], right[-1], right[-2]) if step.option(1, form="b") else right
    return matmul(left, right)


def _concat(step: Step) -> Made:
    return _shaped(concatenated(step.shapes, step.option(0)))


def _reduce(step: Step) -> Made:
    shape = step.shape()
    return _shaped(reduced(shape, step.constant(1), bool(step.option(0, form="b"))), prod(shape))


def _arg_reduce(step: Step) -> Made:
    shape = step.shape()
    return _shaped(reduced(shape, step.constant(1), keep=False), prod(shape))


def _reshape(step: Step) -> Made:
    target = step.constant(1) if step.has(1) else step.options(0)
    if target is None:
        raise KeyError("new_shape")
    return _shaped(reshaped(step.shape(), target, zero_copies=False), work=1)


def _squeeze(step: Step) -> Made:
    return _shaped(squeezed(step.shape(), step.options(0) or None), work=1)


def _expand(step: Step) -> Made:
    return _shaped(unsqueezed(step.shape(), step.constant(1)), work=1)


def _transpose(step: Step) -> Made:
    return _shaped(permuted(step.shape(), step.constant(1)))


def _pad(step: Step) -> Made:
    pads = step.constant(1)
    sides = zip(step.shape(), pads[::2], pads[1::2], strict=True)
    if min(pads, default=0) < 0:
        raise refused(f"it pads by {pads}")
    return _shaped(tuple(side + before + behind for side, before, behind in sides))


def _resize(step: Step) -> Made:
    batch, rows, columns, channels = step.shape()
    high, wide = step.constant(1)
    return _shaped((batch, high, wide, channels), 16 * channels * (high * wide + rows * columns))


def _depth_to_space(step: Step) -> Made:
    batch, rows, columns, depth = step.shape()
    size = step.option(0)
    if size < 1 or depth % size**2:
        raise refused(f"it spreads {depth} channels over blocks of {size}")
    return _shaped((batch, rows * size, columns * size, depth // size**2))


def _space_to_depth(step: Step) -> Made:
    batch, rows, columns, depth = step.shape()
    size = step.option(0)
    if size < 1 or rows % size or columns % size:
        raise refused(f"it gathers blocks of {size} of {rows} x {columns}")
    return _shaped((batch, rows // size, columns // size, depth * size**2))


def _pack(step: Step) -> Made:
    shapes = step.shapes
    if any(shape != shapes[0] for shape in shapes):
        raise refused(f"it packs tensors of the shapes {shapes}")
    whole = unsqueezed(shapes[0], [step.option(1)])
    axis = at(step.option(1), len(whole))
    return _shaped((*whole[:axis], len(shapes), *whole[axis + 1 :]))


def _split(step: Step) -> Made:
    (axis,), shape, count = step.constant(0), step.shape(1), len(step.operator.outputs)
    axis = at(axis, len(shape))
    if not count or shape[axis] % count:
        raise refused(f"it splits {shape[axis]} values into {count} parts")
    part = (*shape[:axis], shape[axis] // count, *shape[axis + 1 :])
    return _shaped(part, prod(shape))


def _strided_slice(step: Step) -> Made:
    shape = step.shape()
    starts, stops, strides = (step.constant(index) for index in (1, 2, 3))
    first, last, ellipsis, new, gone = (step.option(field) for field in range(5))
    if ellipsis or new or not len(starts) == len(stops) == len(strides) <= len(shape):
        raise refused("it slices in a way that is not accepted")
    found = []
    for axis, side in enumerate(shape):
        if axis >= len(starts):
            found.append(side)
            continue
        bit = 1 << axis
        if gone & bit:
            at(starts[axis], side)
            continue
        found.append(
            len(
                range(side)[
                    slice(
                        None if first & bit else starts[axis],
                        None if last & bit else stops[axis],
                        strides[axis],
                    )
                ]
            )
        )
    return _shaped(tuple(found))


def _slice(step: Step) -> Made:
    shape, starts, sizes = step.shape(), step.constant(1), step.constant(2)
    found = []
    for side, start, size in zip(shape, starts, sizes, strict=True):
        count = side - start if size == -1 else size
        if not 0 <= start <= start + count <= side:
            raise refused(f"it slices {size} of {side} values from {start} on")
        found.append(sliced(side, start, start + count, 1))
    return _shaped(tuple(found))


def _gather(step: Step) -> Made:
    shape, indices = step.shape(0), step.shape(1)
    axis = at(step.option(0), len(shape))
    if step.option(1):
        raise refused("it gathers by batch")
    return _shaped((*shape[:axis], *indices, *shape[axis + 1 :]))


def _tile(step: Step) -> Made:
    sides = zip(step.shape(), step.constant(1), strict=True)
    return _shaped(tuple(side * times for side, times in sides))


def _broadcast_to(step: Step) -> Made:
    return _shaped(broadcast(step.shape(), tuple(step.constant(1))))


def _filled(step: Step) -> Made:
    return _shaped(tuple(step.constant(0)))


def _shape_of(step: Step) -> Made:
    return _shaped((len(step.shape()),), work=1)


# Values that decide about shapes: what is computed of the sides of tensors.


def _values(step: Step) -> NDArray | None:
    """What an operator makes of known numbers; None where that is not known, or not needed."""
    evaluate = _EVALUATED.get(step.name)
    if evaluate is None or len(step.operator.outputs) != 1:
        return None
    if step.name == "SHAPE":
        return np.array(step.shape(), np.int64)
    known = [step.value(index) for index in range(len(step.operator.inputs))]
    numbers = [each for each in known if each is not None]
    if len(numbers) != len(known):
        return None
    found = evaluate(step, numbers)
    if found.size > MOST_KNOWN:
        return None
    if abs(found).max(initial=0) > _LARGEST_VALUE:
        raise refused(f"its operator {step.name} makes a shape of {found.tolist()}")
    return found


def _cut(step: Step, known: list[NDArray]) -> NDArray:
    (shape,) = _strided_slice(step).shapes
    starts, stops, strides = (each.ravel().tolist() for each in known[1:])
    if known[0].ndim != 1:
        raise refused("it slices sides of tensors in another way than one by one")
    if step.option(4):
        return known[0][starts[0]].reshape(shape)
    first, last = step.option(0), step.option(1)
    return known[0][slice(None if first else starts[0], None if last else stops[0], strides[0])]


def _arranged(step: Step, known: list[NDArray]) -> NDArray:
    """The same numbers in the shape that the operator's rule gives them."""
    return known[0].reshape(OPERATORS[step.operator.builtin][2](step).shapes[0])


def _product(step: Step, known: list[NDArray]) -> NDArray:
    (shape,) = _reduce(step).shapes
    if prod(shape) != 1:
        raise refused("it multiplies sides of tensors by rows")
    return np.array(prod(known[0].ravel().tolist())).reshape(shape)


_EVALUATED: dict[str, Callable[[Step, list[NDArray]], NDArray]] = {
    "SHAPE": lambda step, _: np.array(step.shape(), np.int64),
    "STRIDED_SLICE": _cut,
    "PACK": lambda step, known: np.stack(known, step.option(1)),
    "CONCATENATION": lambda step, known: np.concatenate(known, step.option(0)),
    "GATHER": lambda step, known: known[0].take(known[1], axis=step.option(0)),
    "RESHAPE": _arranged,
    "SQUEEZE": _arranged,
    "EXPAND_DIMS": _arranged,
    "ADD": lambda _, known: known[0] + known[1],
    "SUB": lambda _, known: known[0] - known[1],
    "MUL": lambda _, known: known[0] * known[1],
    "MAXIMUM": lambda _, known: np.maximum(*known),
    "MINIMUM": lambda _, known: np.minimum(*known),
    "REDUCE_PROD": _product,
}

OPERATORS: dict[int, tuple[str, int, Rule]] = {
    0: ("ADD", 11, _by_element),
    1: ("AVERAGE_POOL_2D", 5, _pool),
    2: ("CONCATENATION", 10, _concat),
    3: ("CONV_2D", 1, _conv),
    4: ("DEPTHWISE_CONV_2D", 2, _depthwise),
    5: ("DEPTH_TO_SPACE", 94, _depth_to_space),
    6: ("DEQUANTIZE", 38, _same),
    8: ("FLOOR", 0, _same),
    9: ("FULLY_CONNECTED", 8, _dense),
    11: ("L2_NORMALIZATION", 12, _same),
    14: ("LOGISTIC", 0, _same),
    17: ("MAX_POOL_2D", 5, _pool),
    18: ("MUL", 21, _by_element),
    19: ("RELU", 0, _same),
    20: ("RELU_N1_TO_1", 0, _same),
    21: ("RELU6", 0, _same),
    22: ("RESHAPE", 17, _reshape),
    23: ("RESIZE_BILINEAR", 15, _resize),
    25: ("SOFTMAX", 9, _same),
    26: ("SPACE_TO_DEPTH", 19, _space_to_depth),
    28: ("TANH", 0, _same),
    34: ("PAD", 22, _pad),
    36: ("GATHER", 23, _gather),
    39: ("TRANSPOSE", 26, _transpose),
    40: ("MEAN", 27, _reduce),
    41: ("SUB", 28, _by_element),
    42: ("DIV", 29, _by_element),
    43: ("SQUEEZE", 30, _squeeze),
    45: ("STRIDED_SLICE", 32, _strided_slice),
    47: ("EXP", 33, _same),
    49: ("SPLIT", 35, _split),
    50: ("LOG_SOFTMAX", 36, _same),
    53: ("CAST", 37, _same),
    54: ("PRELU", 0, _by_element),
    55: ("MAXIMUM", 39, _by_element),
    56: ("ARG_MAX", 40, _arg_reduce),
    57: ("MINIMUM", 39, _by_element),
    58: ("LESS", 41, _by_element),
    59: ("NEG", 42, _same),
    60: ("PADV2", 43, _pad),
    61: ("GREATER", 44, _by_element),
    62: ("GREATER_EQUAL", 45, _by_element),
    63: ("LESS_EQUAL", 46, _by_element),
    65: ("SLICE", 48, _slice),
    66: ("SIN", 0, _same),
    67: ("TRANSPOSE_CONV", 49, _conv_transpose),
    69: ("TILE", 51, _tile),
    70: ("EXPAND_DIMS", 52, _expand),
    71: ("EQUAL", 53, _by_element),
    72: ("NOT_EQUAL", 54, _by_element),
    73: ("LOG", 0, _same),
    74: ("SUM", 27, _reduce),
    75: ("SQRT", 0, _same),
    76: ("RSQRT", 0, _same),
    77: ("SHAPE", 55, _shape_of),
    78: ("POW", 56, _by_element),
    79: ("ARG_MIN", 57, _arg_reduce),
    81: ("REDUCE_PROD", 27, _reduce),
    82: ("REDUCE_MAX", 27, _reduce),
    83: ("PACK", 59, _pack),
    84: ("LOGICAL_OR", 60, _by_element),
    86: ("LOGICAL_AND", 62, _by_element),
    87: ("LOGICAL_NOT", 63, _same),
    89: ("REDUCE_MIN", 27, _reduce),
    90: ("FLOOR_DIV", 65, _by_element),
    92: ("SQUARE", 66, _same),
    93: ("ZEROS_LIKE", 67, _same),
    94: ("FILL", 68, _filled),
    95: ("FLOOR_MOD", 72, _by_element),
    97: ("RESIZE_NEAREST_NEIGHBOR", 74, _resize),
    98: ("LEAKY_RELU", 75, _same),
    99: ("SQUARED_DIFFERENCE", 76, _by_element),
    100: ("MIRROR_PAD", 77, _pad),
    101: ("ABS", 78, _same),
    104: ("CEIL", 0, _same),
    108: ("COS", 84, _same),
    111: ("ELU", 0, _same),
    114: ("QUANTIZE", 89, _same),
    116: ("ROUND", 0, _same),
    117: ("HARD_SWISH", 91, _same),
    123: ("SELECT_V2", 98, _by_element),
    126: ("BATCH_MATMUL", 101, _batch_matmul),
    130: ("BROADCAST_TO", 104, _broadcast_to),
    150: ("GELU", 116, _same),
    152: ("RELU_0_TO_1", 0, _same),
    158: ("SIGN", 123, _same),
}
"""By BuiltinOperator: the name, what kind its options are (BuiltinOptions), and its rule.

Everything else is refused: what branches, loops, draws lots, keeps state, calls what is not in the
file, or makes tensors whose size depends on the image."""
