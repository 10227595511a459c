"""What a network would take, counted from its file before anything runs: shapes, memory, work.

For one image. ``onnx_sizes`` and ``tflite_sizes`` say what each operator makes; here is the
arithmetic that both share, and how much is accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import NamedTuple

from medimg_edge.errors import ModelRefused

Shape = tuple[int, ...]

MEMORY_BYTES = 2**30
"""Of values between operators at any one time, and the most that one operator may work in.

The int8 EfficientNet-Lite0 of the package takes 21 MiB at 224 x 224 pixels, 13 of them weights.
"""

TOTAL_BYTES = 2**32
"""Of all values that are ever made: a runtime may choose an order in which it holds more of them.
80 MiB of the same network."""

WORK = 2**36
"""Multiplications of one operator, between which alone a run can be stopped: seconds on a core."""

TOTAL_WORK = 2**38
"""Of all operators; the same network needs less than 2**29."""

CONSTANT_WORK = 2**31
"""Of what reads no pixels: runtimes do that while they load a file. 2**22 of the same network."""

OPERATORS = 20_000
_VALUE_BYTES = 4
_LARGEST_SIDE = 2**31


class Made(NamedTuple):
    """What an operator makes. workspace: how many values it holds besides them, at most."""

    shapes: list[Shape]
    work: int
    workspace: int = 0


class Budget:
    """Adds up the operators of a network in the order in which they run.

    steps: what each reads and what it makes, by name. kept: what the network returns.
    """

    def __init__(
        self, steps: Sequence[tuple[Sequence[str], Sequence[str]]], kept: Iterable[str]
    ) -> None:
        if len(steps) > OPERATORS:
            raise refused(f"it has {len(steps)} operators, and {OPERATORS} are accepted")
        self._last: dict[str, int] = {}
        for step, (reads, makes) in enumerate(steps):
            for name in makes:
                self._last[name] = step
            for name in reads:
                self._last[name] = step
        for name in kept:
            self._last.pop(name, None)
        self._steps = steps
        self._held: dict[str, int] = {}
        self._bytes = self._total = self._work = self._constant_work = 0

    def add(self, step: int, operator: str, made: Made, *, constant: bool) -> None:
        """Count one operator. constant: it reads no pixels, and a runtime may keep what it makes.

        Raises ModelRefused.
        """
        reads, makes = self._steps[step]
        for name, shape in zip(makes, made.shapes, strict=True):
            self._held[name] = size = _VALUE_BYTES * elements(shape, operator)
            self._bytes += size
            self._total += size
        taken = self._bytes + _VALUE_BYTES * made.workspace
        if taken > MEMORY_BYTES or self._total > TOTAL_BYTES:
            raise refused(
                f"at its operator {operator} it would hold {taken / 2**30:.3g} GiB for one image, "
                f"of {self._total / 2**30:.3g} that it makes; {MEMORY_BYTES / 2**30:g} of "
                f"{TOTAL_BYTES / 2**30:g} are accepted"
            )
        self._work += made.work
        if made.work > WORK or self._work > TOTAL_WORK:
            raise refused(
                f"up to its operator {operator} it would multiply {self._work:.2g} times for one "
                f"image; {WORK:.2g} are accepted of one operator, {TOTAL_WORK:.2g} of all"
            )
        self._constant_work += made.work * constant
        if self._constant_work > CONSTANT_WORK:
            raise refused(
                f"its operator {operator} would compute with constants alone for too long; "
                f"{CONSTANT_WORK:.2g} multiplications are accepted"
            )
        for name in (*reads, *makes):
            if self._last.get(name) == step and not (constant and name in makes):
                self._bytes -= self._held.pop(name, 0)


def refused(what: str) -> ModelRefused:
    """The error for what a bundle's model must not be."""
    return ModelRefused(f"The model is refused: {what}. Export it with `medimg-edge export`.")


def elements(shape: Shape, operator: str) -> int:
    """How many values a tensor has. Raises ModelRefused for one that no machine holds."""
    for side in shape:
        if not 0 <= side <= _LARGEST_SIDE:
            raise refused(f"its operator {operator} would make a tensor of shape {shape}")
    return prod(shape)


def broadcast(*shapes: Shape) -> Shape:
    """The shape of what is computed element by element. Raises ModelRefused."""
    found: list[int] = []
    rank = max(map(len, shapes))
    for axis in range(-rank, 0):
        sides = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sides) > 1:
            raise refused(f"shapes that do not fit each other: {', '.join(map(str, shapes))}")
        found.append(sides.pop() if sides else 1)
    return tuple(found)


def at(axis: int, rank: int) -> int:
    """An axis from 0, given from the front or the end. Raises ModelRefused."""
    if not -rank <= axis < rank:
        raise refused(f"it names axis {axis} of a tensor that has {rank}")
    return axis % rank


def reduced(shape: Shape, axes: Iterable[int] | None, keep: bool) -> Shape:
    """The shape with some axes, or all, gone or of size 1."""
    rank = len(shape)
    gone = set(range(rank)) if axes is None else {at(int(axis), rank) for axis in axes}
    if keep:
        return tuple(1 if axis in gone else side for axis, side in enumerate(shape))
    return tuple(side for axis, side in enumerate(shape) if axis not in gone)


def squeezed(shape: Shape, axes: Iterable[int] | None) -> Shape:
    """The shape without axes of size 1: those that are named, or all."""
    rank = len(shape)
    if axes is None:
        return tuple(side for side in shape if side != 1)
    gone = {at(int(axis), rank) for axis in axes}
    if any(shape[axis] != 1 for axis in gone):
        raise refused(f"it squeezes a tensor of shape {shape} at {sorted(gone)}")
    return tuple(side for axis, side in enumerate(shape) if axis not in gone)


def unsqueezed(shape: Shape, axes: Iterable[int]) -> Shape:
    """The shape with axes of size 1 at places of the result."""
    wanted = [int(axis) for axis in axes]
    rank = len(shape) + len(wanted)
    new = {at(axis, rank) for axis in wanted}
    if len(new) != len(wanted):
        raise refused(f"it puts two new axes at one place: {wanted}")
    sides = iter(shape)
    return tuple(1 if axis in new else next(sides) for axis in range(rank))


def reshaped(shape: Shape, target: Sequence[int], *, zero_copies: bool) -> Shape:
    """The target with its -1 filled in. zero_copies: a 0 stands for the side there before."""
    sides = [int(side) for side in target]
    if zero_copies:
        if any(side == 0 for side in sides[len(shape) :]):
            raise refused(f"it gives a tensor of shape {shape} the shape {sides}")
        sides = [shape[axis] if side == 0 else side for axis, side in enumerate(sides)]
    count, known = prod(shape), prod(side for side in sides if side != -1)
    if sides.count(-1) == 1 and known > 0 and count % known == 0:
        sides[sides.index(-1)] = count // known
    if min(sides, default=1) < 0 or prod(sides) != count:
        raise refused(f"it gives a tensor of shape {shape} the shape {sides}")
    return tuple(sides)


def matmul(left: Shape, right: Shape) -> Made:
    """The product of matrices, as numpy's ``matmul``."""
    if not left or not right:
        raise refused("it multiplies a matrix with a number")
    a = left if len(left) > 1 else (1, *left)
    b = right if len(right) > 1 else (*right, 1)
    if a[-1] != b[-2]:
        raise refused(f"it multiplies matrices of the shapes {left} and {right}")
    whole = (*broadcast(a[:-2], b[:-2]), a[-2], b[-1])
    shape = whole[:-2] + whole[-2:-1] * (len(left) > 1) + whole[-1:] * (len(right) > 1)
    return Made([shape], prod(whole) * a[-1])


def concatenated(shapes: Sequence[Shape], axis: int) -> Shape:
    """Tensors one behind the other along an axis."""
    first = shapes[0]
    axis = at(axis, len(first))
    for shape in shapes:
        if len(shape) != len(first) or any(
            side != other
            for place, (side, other) in enumerate(zip(shape, first, strict=True))
            if place != axis
        ):
            raise refused(f"it joins tensors of the shapes {first} and {shape} at axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def permuted(shape: Shape, order: Sequence[int]) -> Shape:
    """The axes in another order."""
    if sorted(order) != list(range(len(shape))):
        raise refused(f"it transposes a tensor of shape {shape} by {list(order)}")
    return tuple(shape[axis] for axis in order)


def sliced(side: int, start: int, stop: int, step: int) -> int:
    """How many of a side's indices are taken."""
    if step == 0:
        raise refused("it slices in steps of 0")
    return len(range(*slice(start, stop, step).indices(side)))


def windowed(side: int, kernel: int, stride: int, dilation: int, pad: int | None) -> int:
    """How often a window fits. pad: on both sides together; None: as often as strides do (SAME)."""
    if min(kernel, stride, dilation) < 1:
        raise refused(f"it has a window of {kernel} in steps of {stride}, dilated by {dilation}")
    if pad is None:
        return -(-side // stride)
    found = (side + pad - (kernel - 1) * dilation - 1) // stride + 1
    if found < 1:
        raise refused(f"it moves a window of {kernel} over {side} values")
    return found
