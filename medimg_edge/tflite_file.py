"""A TFLite file, read without a runtime: its flatbuffer, down to every operator and tensor.

LiteRT follows the offsets in the file without looking where they lead; here each of them has to
stay in the file. Field numbers are those of TensorFlow's schema.fbs, from 0.
"""

from __future__ import annotations

import struct
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import ModelLoad
from medimg_edge.network_size import OPERATORS, Shape, refused

FLOAT32, INT32, UINT8, INT64 = 0, 2, 3, 4
BYTES = {0: 4, 1: 2, 2: 4, 3: 1, 4: 8, 6: 1, 7: 2, 9: 1, 10: 8, 12: 8, 15: 4, 16: 2}
"""Of one value, by TensorType. No text, no complex numbers, no resources, nothing below 8 bits."""

MOST_KNOWN = 256
"""Values of a constant that decide about shapes; longer ones are weights."""

MOST_TABLES = 50_000
MOST_NUMBERS = 1000
MOST_LETTERS = 10_000
"""Of a list in the file, which many others may share: what is looked at stays in proportion."""

_KNOWN = {INT32: "<i4", INT64: "<i8"}
_OPEN = -1


class Tensor(NamedTuple):
    """shape: for one image, where ``signature`` does not leave a side open, which then is -1.

    values: those of a short constant of whole numbers.
    """

    kind: int
    shape: Shape
    signature: Shape
    is_constant: bool
    values: NDArray | None


class Operator(NamedTuple):
    """A builtin one, by its number. inputs, outputs: numbers of tensors; -1 is none.

    options: what kind they are, 0 for none, and their fields.
    """

    builtin: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: tuple[int, Table | None]


class TfliteFile(NamedTuple):
    """All of a file that decides what it does. inputs, outputs: by name, numbers of tensors."""

    tensors: list[Tensor]
    operators: list[Operator]
    inputs: dict[str, int]
    outputs: dict[str, int]


def read(model: bytes) -> TfliteFile:
    """Read the bytes of a file.

    Raises ModelLoad (it is no TFLite file, or damaged), ModelRefused: it holds more than one graph
    or signature, operators that are not builtin, or a constant whose data are not as many as its
    shape says.
    """
    if model[4:8] != b"TFL3":
        raise ModelLoad("The model file is not TFLite.")
    try:
        return _file(model)
    except (IndexError, ValueError, OverflowError, struct.error) as error:
        raise ModelLoad("The model file is not TFLite, or it is damaged.") from error


class Table:
    """A table of a flatbuffer: fields by number, each with a default where it is left out."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        below = self._unpack("<i", at)
        self._fields_at = at - below
        size, self._size = self._unpack("<H", self._fields_at), 0
        self._fields = (size - 4) // 2
        self._size = self._unpack("<H", self._fields_at + 2)
        if size < 4 or size % 2 or self._fields_at + size > len(data):
            raise _damaged()
        if self._size < 4 or at + self._size > len(data):
            raise _damaged()

    def number(self, field: int, form: str = "i", default: int = 0) -> int:
        """A whole number; form: as ``struct`` names it."""
        place = self._place(field, struct.calcsize(f"<{form}"))
        return default if place is None else self._unpack(f"<{form}", place)

    def table(self, field: int) -> Table | None:
        """A table that it refers to."""
        place = self._place(field, 4)
        return None if place is None else Table(self._data, self._referred(place))

    def tables(self, field: int) -> list[Table]:
        """Tables that it refers to, one by one."""
        start, count = self._vector(field, 4)
        _require_few(count, MOST_TABLES)
        return [
            Table(self._data, self._referred(place)) for place in range(start, start + 4 * count, 4)
        ]

    def span(self, field: int, size: int = 1) -> tuple[int, int]:
        """From where to where a list of values of so many bytes lies in the file."""
        start, count = self._vector(field, size)
        return start, start + count * size

    def numbers(self, field: int, form: str = "i") -> tuple[int, ...]:
        """Whole numbers, one by one."""
        start, count = self._vector(field, struct.calcsize(f"<{form}"))
        _require_few(count, MOST_NUMBERS)
        return struct.unpack_from(f"<{count}{form}", self._data, start) if count else ()

    def text(self, field: int) -> str:
        """A word; flatbuffers end them with a zero."""
        start, end = self.span(field)
        _require_few(end - start, MOST_LETTERS)
        if start and self._data[end] != 0:
            raise _damaged()
        return self._data[start:end].decode()

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return self._place(field, 1) is not None

    def _place(self, field: int, size: int) -> int | None:
        if field >= self._fields:
            return None
        offset = self._unpack("<H", self._fields_at + 4 + 2 * field)
        if not offset:
            return None
        if offset < 4 or offset + size > self._size or (self._at + offset) % size:
            raise _damaged()
        return self._at + offset

    def _referred(self, place: int) -> int:
        return place + self._unpack("<I", place)

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Where the values begin, and how many there are."""
        place = self._place(field, 4)
        if place is None:
            return 0, 0
        at = self._referred(place)
        count = self._unpack("<I", at)
        if at + 4 + count * size > len(self._data) or (at + 4) % size:
            raise _damaged()
        return at + 4, count

    def _unpack(self, form: str, at: int) -> int:
        if at < 0 or at % struct.calcsize(form):
            raise _damaged()
        return struct.unpack_from(form, self._data, at)[0]


def _file(data: bytes) -> TfliteFile:
    model = Table(data, struct.unpack_from("<I", data)[0])
    if model.number(0) != 3:
        raise refused(f"it is TFLite of version {model.number(0)}, and version 3 is accepted")
    subgraphs = model.tables(2)
    if len(subgraphs) != 1:
        raise refused(
            f"it holds {len(subgraphs)} graphs, and one is accepted: more are for loops and "
            "branches, which may run for ever"
        )
    (graph,) = subgraphs
    codes = [_builtin(each) for each in model.tables(1)]
    buffers = [_buffer(each, len(data)) for each in model.tables(4)]
    _require_metadata(model, len(buffers))
    tensors = [_tensor(each, buffers, data) for each in graph.tables(0)]
    steps = graph.tables(3)
    _require_few(len(steps), OPERATORS)
    operators = [_operator(each, codes, len(tensors)) for each in steps]
    inputs, outputs = _signature(model, graph, len(tensors))
    return TfliteFile(tensors, operators, inputs, outputs)


def _require_metadata(model: Table, buffers: int) -> None:
    """What LiteRT reads by itself."""
    model.text(3)
    places = [each.number(1, "I") for each in model.tables(6) if each.text(0) is not None]
    if any(not 0 <= place < buffers for place in (*places, *model.numbers(5))):
        raise refused("its metadata refer to a buffer that is not there")


def _builtin(code: Table) -> int:
    if code.text(1):
        raise refused(
            f"it uses the operator {code.text(1)!r} of its own, and only builtin ones are accepted"
        )
    return max(code.number(0, "b"), code.number(3))


def _buffer(buffer: Table, size: int) -> tuple[int, int]:
    """From where to where its bytes lie: in the flatbuffer, or behind it."""
    start, length = buffer.number(1, "Q"), buffer.number(2, "Q")
    if start <= 1 and length <= 1:  # 1: to be filled in, and never was
        return buffer.span(0)
    if buffer.has(0) or start + length > size:
        raise refused("a buffer of it lies out of the file")
    return start, start + length


def _tensor(tensor: Table, buffers: list[tuple[int, int]], data: bytes) -> Tensor:
    name, kind, shape = tensor.text(3), tensor.number(1, "b"), tensor.numbers(0)
    if kind not in BYTES or min(shape, default=0) < 0:
        raise refused(f"its tensor {name!r} is of type {kind} and shape {shape}")
    if tensor.number(5, "b") or tensor.has(6) or tensor.has(9):
        raise refused(f"its tensor {name!r} keeps a state, or is sparse")
    _require_quantization(tensor.table(4), shape, name)
    signature = tensor.numbers(7)
    if signature and not _fits(shape, signature):
        raise refused(f"its tensor {name!r} has the shape {shape} and the signature {signature}")
    number = tensor.number(2, "I")
    if number >= len(buffers):
        raise refused(f"its tensor {name!r} refers to a buffer that is not there")
    start, end = buffers[number] if number else (0, 0)  # 0: the empty one
    if start == end and prod(shape):
        return Tensor(kind, shape, signature or shape, False, None)
    if end - start != BYTES[kind] * prod(shape):
        raise refused(
            f"its constant {name!r} has {end - start} bytes of data, and its shape {shape} needs "
            f"{BYTES[kind] * prod(shape)}"
        )
    values = None
    if kind in _KNOWN and prod(shape) <= MOST_KNOWN:
        values = np.frombuffer(data[start:end], _KNOWN[kind]).astype(np.int64).reshape(shape)
    return Tensor(kind, shape, shape, True, values)


def _fits(shape: Shape, signature: tuple[int, ...]) -> bool:
    return len(shape) == len(signature) and all(
        wanted in (_OPEN, side) for side, wanted in zip(shape, signature, strict=True)
    )


def _require_quantization(table: Table | None, shape: Shape, name: str) -> None:
    """One scale for all of a tensor, or one by channel."""
    if table is None:
        return
    if table.number(4, "B") or table.has(5):
        raise refused(f"its tensor {name!r} is quantized in a way of its own")
    for field in (0, 1):
        table.span(field, 4)
    (start, end), (first, last) = table.span(2, 4), table.span(3, 8)
    scales, zeros, axis = (end - start) // 4, (last - first) // 8, table.number(6)
    channels = shape[axis] if 0 <= axis < len(shape) else 1
    if scales not in (0, 1, channels) or zeros not in (0, 1, scales):
        raise refused(
            f"its tensor {name!r} has {scales} scales and {zeros} zero points for {channels} "
            "channels"
        )


def _operator(operator: Table, codes: list[int], tensors: int) -> Operator:
    code = operator.number(0, "I")
    if code >= len(codes):
        raise refused("an operator of it is not in its list of operators")
    inputs, outputs = operator.numbers(1), operator.numbers(2)
    if any(not -1 <= each < tensors for each in inputs):
        raise refused("an operator of it reads a tensor that is not there")
    if any(not 0 <= each < tensors for each in outputs):
        raise refused("an operator of it makes a tensor that is not there")
    if operator.span(5) != (0, 0) or operator.number(9, "Q") or operator.numbers(8):
        raise refused("an operator of it has options or tensors of its own")
    if operator.number(11, "B") or operator.has(12):
        raise refused("an operator of it has options that are not known")
    operator.span(7)
    options = operator.number(3, "B"), operator.table(4)
    return Operator(codes[code], inputs, outputs, options)


def _signature(model: Table, graph: Table, tensors: int) -> tuple[dict[str, int], dict[str, int]]:
    signatures = model.tables(7)
    if len(signatures) != 1:
        raise refused(f"it has {len(signatures)} signatures, and one is accepted")
    (signature,) = signatures
    signature.text(2)
    if signature.number(4, "I"):
        raise refused("its signature is not of its graph")
    found = []
    for field, of_graph in ((0, graph.numbers(1)), (1, graph.numbers(2))):
        named = {each.text(0): each.number(1, "I") for each in signature.tables(field)}
        if sorted(named.values()) != sorted(of_graph) or max(named.values(), default=0) >= tensors:
            raise refused("its signature names other tensors than its graph takes and returns")
        found.append(named)
    return found[0], found[1]


def _require_few(count: int, most: int) -> None:
    if count > most:
        raise refused(f"it has a list of {count}, and {most} are accepted")


def _damaged() -> ModelLoad:
    return ModelLoad("The model file is not TFLite: its flatbuffer is damaged.")
