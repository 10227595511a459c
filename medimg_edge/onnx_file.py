"""An ONNX file, read without a runtime: its protobuf, down to every operator and tensor.

Strict where readers differ: a field that is not in onnx.proto, or twice where it may be once, is
refused, so that what is checked here is what a runtime gets to see.
"""

from __future__ import annotations

import struct
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medimg_edge.errors import ModelLoad, ModelRefused
from medimg_edge.network_size import Shape, refused

FLOAT, UINT8, INT32, INT64, DOUBLE = 1, 2, 6, 7, 11
BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Of one value, by TensorProto.DataType. No text, no complex numbers, nothing below 8 bits."""

MOST_KNOWN = 256
"""Values of a constant that decide about shapes; longer ones are weights."""


class Tensor(NamedTuple):
    """A constant. values: those of a short one; None for weights."""

    name: str
    kind: int
    shape: Shape
    values: NDArray | None


Value = int | float | bytes | tuple[int, ...] | tuple[float, ...] | tuple[bytes, ...] | Tensor


class Node(NamedTuple):
    """An operator of the standard domain."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Value]


class Port(NamedTuple):
    """What goes in or out. kind: None where it is no tensor. A side of None is any size."""

    name: str
    kind: int | None
    shape: tuple[int | None, ...] | None


class OnnxFile(NamedTuple):
    """All of a file that decides what it does."""

    nodes: list[Node]
    tensors: list[Tensor]
    inputs: list[Port]
    outputs: list[Port]


class _Message(NamedTuple):
    """A message of onnx.proto: its fields, by number and wire type, and what is refused.

    many: fields that may come more than once.
    """

    name: str
    fields: dict[int, str]
    many: frozenset[str] = frozenset()
    refused: dict[int, str] | None = None


MOST_FIELDS = 1_000_000
"""Of a file's messages; 8,000 of 300 operators. So many take 100 MB to be looked at."""

Span = tuple[int, int]
_VARINT, _EIGHT, _TEXT, _FOUR = 0, 1, 2, 5


def _fields(wires: dict[int, dict[int, str]]) -> dict[int, str]:
    return {
        number << 3 | wire: name for wire, names in wires.items() for number, name in names.items()
    }


_ELSEWHERE = "it keeps weights in other files, and a bundle's must not"
_SPARSE = "it holds sparse tensors, which are not accepted"
_FUNCTIONS = "it defines functions of its own, and only standard operators are accepted"
_GRAPHS = "it holds a graph in an operator, such as a loop or a branch, which may run for ever"

_MODEL = _Message(
    "ModelProto",
    _fields(
        {
            _VARINT: {1: "ir_version", 5: "model_version"},
            _TEXT: {
                2: "producer_name",
                3: "producer_version",
                4: "domain",
                6: "doc_string",
                7: "graph",
                8: "opset_import",
                14: "metadata_props",
            },
        }
    ),
    frozenset({"opset_import", "metadata_props"}),
    _fields({_TEXT: {20: "it holds training steps, which are not accepted", 25: _FUNCTIONS}}),
)
_OPSET = _Message("OperatorSetIdProto", _fields({_TEXT: {1: "domain"}, _VARINT: {2: "version"}}))
_GRAPH = _Message(
    "GraphProto",
    _fields(
        {
            _TEXT: {
                1: "node",
                2: "name",
                5: "initializer",
                10: "doc_string",
                11: "input",
                12: "output",
                13: "value_info",
                16: "metadata_props",
            }
        }
    ),
    frozenset({"node", "initializer", "input", "output", "value_info", "metadata_props"}),
    _fields({_TEXT: {15: _SPARSE}}),
)
_NODE = _Message(
    "NodeProto",
    _fields(
        {
            _TEXT: {
                1: "input",
                2: "output",
                3: "name",
                4: "op_type",
                5: "attribute",
                6: "doc_string",
                7: "domain",
                9: "metadata_props",
            }
        }
    ),
    frozenset({"input", "output", "attribute", "metadata_props"}),
    _fields({_TEXT: {8: _FUNCTIONS}}),
)
_ATTRIBUTE = _Message(
    "AttributeProto",
    _fields(
        {
            _TEXT: {1: "name", 4: "s", 5: "t", 7: "floats", 8: "ints", 9: "strings", 13: "doc"},
            _VARINT: {3: "i", 8: "ints", 20: "type"},
            _FOUR: {2: "f", 7: "floats"},
        }
    ),
    frozenset({"floats", "ints", "strings"}),
    _fields({_TEXT: {6: _GRAPHS, 11: _GRAPHS, 21: _FUNCTIONS, 22: _SPARSE, 23: _SPARSE}}),
)
_TENSOR = _Message(
    "TensorProto",
    _fields(
        {
            _VARINT: {
                1: "dims",
                2: "data_type",
                5: "int32_data",
                7: "int64_data",
                11: "uint64_data",
                14: "data_location",
            },
            _TEXT: {
                1: "dims",
                4: "float_data",
                5: "int32_data",
                7: "int64_data",
                8: "name",
                9: "raw_data",
                10: "double_data",
                11: "uint64_data",
                12: "doc_string",
                16: "metadata_props",
            },
            _FOUR: {4: "float_data"},
            _EIGHT: {10: "double_data"},
        }
    ),
    frozenset(
        {"dims", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"}
        | {"metadata_props"}
    ),
    _fields({_TEXT: {13: _ELSEWHERE}}),
)
_PORT = _Message(
    "ValueInfoProto",
    _fields({_TEXT: {1: "name", 2: "type", 3: "doc_string", 4: "metadata_props"}}),
    frozenset({"metadata_props"}),
)
_TYPE = _Message(
    "TypeProto",
    _fields(
        {_TEXT: {1: "tensor", 4: "other", 5: "other", 6: "denotation", 8: "other", 9: "other"}}
    ),
)
_TENSOR_TYPE = _Message("TypeProto.Tensor", _fields({_VARINT: {1: "kind"}, _TEXT: {2: "shape"}}))
_SHAPE = _Message("TensorShapeProto", _fields({_TEXT: {1: "dim"}}), frozenset({"dim"}))
_DIMENSION = _Message(
    "Dimension", _fields({_VARINT: {1: "value"}, _TEXT: {2: "param", 3: "denotation"}})
)

_TYPES = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
"""Where the value of an attribute lies, by AttributeProto.AttributeType."""

_TYPED = {
    "float_data": (frozenset({1}), "<f4"),
    "double_data": (frozenset({11}), "<f8"),
    "int32_data": (frozenset({2, 3, 4, 5, 6, 9, 10, 16}), ""),
    "int64_data": (frozenset({7}), ""),
    "uint64_data": (frozenset({12, 13}), ""),
}
"""What kinds may lie in them, and how the fixed ones are written."""

_RAW = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "u1", 11: "<f8"}
"""How short constants are read."""


def read(model: bytes) -> OnnxFile:
    """Read the bytes of a file.

    Raises ModelLoad (it is no ONNX file, or damaged), ModelRefused: it holds weights in other
    files, graphs in operators, functions, domains other than the standard one, or a constant whose
    data are not as many as its shape says.
    """
    try:
        return _Reader(model).file()
    except (IndexError, ValueError, OverflowError, struct.error) as error:
        raise ModelLoad("The model file is not ONNX, or it is damaged.") from error


class _Reader:
    def __init__(self, model: bytes) -> None:
        self._data = model
        self._seen = 0
        self._attributes: dict[bytes, tuple[str, Value]] = {}

    def file(self) -> OnnxFile:
        """All of it."""
        model = self._parts(_MODEL, (0, len(self._data)))
        if "graph" not in model:
            raise ModelLoad("The model file is not ONNX: it holds no graph.")
        for opset in model.get("opset_import", ()):
            self._require_standard(self._text(self._parts(_OPSET, opset), "domain"))
        graph = self._parts(_GRAPH, model["graph"][0])
        return OnnxFile(
            [self._node(each) for each in graph.get("node", ())],
            [self._tensor(each) for each in graph.get("initializer", ())],
            [self._port(each) for each in graph.get("input", ())],
            [self._port(each) for each in graph.get("output", ())],
        )

    def _fields(self, at: int, end: int) -> list[tuple[int, int, int]]:
        """(number << 3 | wire type, value, -1), or from where to where of what has a length."""
        data, found = self._data, []
        most = MOST_FIELDS - self._seen
        while at < end:
            if len(found) > most:
                raise refused(f"it has more than {MOST_FIELDS} fields")
            key = data[at]
            at += 1
            if key > 127:
                key, at = self._varint(at - 1)
            wire = key & 7
            if wire == _VARINT:
                value = data[at]
                at += 1
                if value > 127:
                    value, at = self._varint(at - 1)
                found.append((key, value, -1))
                continue
            if wire == _TEXT:
                length = data[at]
                at += 1
                if length > 127:
                    length, at = self._varint(at - 1)
            elif wire in (_EIGHT, _FOUR):
                length = 8 if wire == _EIGHT else 4
            else:
                raise _damaged()
            found.append((key, at, at := at + length))
        if at != end:
            raise _damaged()
        self._seen += len(found)
        return found

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:  # ten bytes hold 64 bits
                raise _damaged()

    def _parts(self, message: _Message, span: Span) -> dict[str, list[Span]]:
        names, found = message.fields, {}
        for key, start, end in self._fields(*span):
            name = names.get(key)
            if name is None:
                raise _unknown(message, key)
            if name not in found:
                found[name] = [(start, end)]
            elif name in message.many:
                found[name].append((start, end))
            else:
                raise refused(f"its {message.name} has two fields {name}")
        return found

    def _text(self, parts: dict[str, list[Span]], name: str) -> str:
        if name not in parts:
            return ""
        start, end = parts[name][0]
        return self._data[start:end].decode()

    def _texts(self, parts: dict[str, list[Span]], name: str) -> tuple[str, ...]:
        return tuple([self._data[start:end].decode() for start, end in parts.get(name, ())])

    def _integers(self, spans: list[Span]) -> list[int]:
        """Of fields one by one, and of packed ones."""
        found = []
        for value, end in spans:
            if end < 0:
                found.append(_signed(value))
                continue
            at = value
            while at < end and len(found) <= MOST_KNOWN:
                each, at = self._varint(at)
                found.append(_signed(each))
            if len(found) > MOST_KNOWN:
                raise refused(f"it has more than {MOST_KNOWN} numbers in a row")
            if at != end:
                raise _damaged()
        return found

    def _bytes(self, spans: list[Span]) -> bytes:
        return b"".join([self._data[start:end] for start, end in spans])

    def _require_standard(self, domain: str) -> None:
        if domain not in ("", "ai.onnx"):
            raise refused(
                f"it uses operators of the domain {domain!r}, and only ONNX's own are accepted"
            )

    def _node(self, span: Span) -> Node:
        parts = self._parts(_NODE, span)
        if "domain" in parts:
            self._require_standard(self._text(parts, "domain"))
        return Node(
            self._text(parts, "op_type"),
            self._texts(parts, "input"),
            self._texts(parts, "output"),
            dict([self._attribute(each) for each in parts.get("attribute", ())]),
        )

    def _attribute(self, span: Span) -> tuple[str, Value]:
        """Most are equal to others of the file."""
        key = self._data[span[0] : span[1]]
        found = self._attributes.get(key)
        if found is None:
            parts = self._parts(_ATTRIBUTE, span)
            name = self._text(parts, "name")
            found = self._attributes[key] = name, self._value(name, parts)
        return found

    def _value(self, name: str, parts: dict[str, list[Span]]) -> Value:
        kind = parts["type"][0][0] & 0xFFFFFFFF if "type" in parts else 0
        place = _TYPES.get(kind)
        given = [each for each in parts if each not in ("name", "doc", "type")]
        if place is None or given not in ([place], []):
            raise refused(f"its attribute {name!r} is of type {kind} and holds {given}")
        spans = parts.get(place, [])
        if place in ("ints", "floats", "strings"):
            return self._several(place, spans)
        if place == "t":
            return self._tensor(spans[0])
        if place == "i":
            return _signed(spans[0][0]) if spans else 0
        content = self._bytes(spans)
        return content if place == "s" else struct.unpack("<f", content or bytes(4))[0]

    def _several(self, place: str, spans: list[Span]) -> Value:
        if place == "ints":
            return tuple(self._integers(spans))
        if place == "floats":
            return tuple(np.frombuffer(self._bytes(spans), "<f4").tolist())
        return tuple(self._data[start:end] for start, end in spans)

    def _tensor(self, span: Span) -> Tensor:
        parts = self._parts(_TENSOR, span)
        name = self._text(parts, "name")
        if "data_location" in parts and parts["data_location"][0][0] & 0xFFFFFFFF:
            raise refused(_ELSEWHERE)
        kind = parts["data_type"][0][0] & 0xFFFFFFFF if "data_type" in parts else 0
        shape = tuple(self._integers(parts["dims"])) if "dims" in parts else ()
        if kind not in BYTES or min(shape, default=0) < 0:
            raise refused(f"its constant {name!r} is of type {kind} and shape {shape}")
        count, places = self._data_of(kind, parts)
        if count != prod(shape):
            raise refused(
                f"its constant {name!r} has data for {count} values, and its shape {shape} says "
                f"{prod(shape)}"
            )
        values = self._known(kind, places, parts) if count <= MOST_KNOWN else None
        return Tensor(name, kind, shape, None if values is None else values.reshape(shape))

    def _data_of(self, kind: int, parts: dict[str, list[Span]]) -> tuple[int, str | None]:
        """How many values of a kind there are, and the field that holds them."""
        given = [each for each in parts if each == "raw_data" or each in _TYPED]
        if len(given) > 1:
            raise refused(f"a constant of it has its data twice, as {' and '.join(given)}")
        if not given:
            return 0, None
        (place,) = given
        if place == "raw_data":
            start, end = parts[place][0]
            count, rest = divmod(end - start, BYTES[kind])
            if rest:
                raise refused(f"a constant of it has {end - start} bytes of data")
            return count, place
        kinds, fixed = _TYPED[place]
        if kind not in kinds:
            raise refused(f"a constant of type {kind} has its data as {place}")
        if fixed:
            size = sum(end - start for start, end in parts[place])
            return (size // BYTES[kind], place) if size % BYTES[kind] == 0 else (-1, place)
        return self._count(parts[place]), place

    def _count(self, spans: list[Span]) -> int:
        """Of varints: each ends in a byte below 128."""
        packed = self._bytes([each for each in spans if each[1] >= 0])
        if packed and packed[-1] > 127:
            raise _damaged()
        ends = np.count_nonzero(np.frombuffer(packed, np.uint8) < 128)
        return int(ends) + sum(end < 0 for _, end in spans)

    def _known(self, kind: int, place: str | None, parts: dict[str, list[Span]]) -> NDArray | None:
        """Values of a short constant, where they are numbers that can decide about a shape."""
        if kind not in _RAW:
            return None
        if place is None:
            return np.zeros(0, _RAW[kind])
        if place == "raw_data" or _TYPED[place][1]:
            return np.frombuffer(self._bytes(parts[place]), _RAW[kind])
        values = self._integers(parts[place])
        if kind == INT32:
            values = [((value & 0xFFFFFFFF) ^ 2**31) - 2**31 for value in values]
        return np.array(values, np.int64)

    def _port(self, span: Span) -> Port:
        parts = self._parts(_PORT, span)
        name = self._text(parts, "name")
        kinds = self._parts(_TYPE, parts["type"][0]) if "type" in parts else {}
        if "tensor" not in kinds or "other" in kinds:
            return Port(name, None, None)
        tensor = self._parts(_TENSOR_TYPE, kinds["tensor"][0])
        kind = tensor["kind"][0][0] & 0xFFFFFFFF if "kind" in tensor else 0
        if "shape" not in tensor:
            return Port(name, kind, None)
        sides = self._parts(_SHAPE, tensor["shape"][0]).get("dim", [])
        return Port(name, kind, tuple(self._side(each) for each in sides))

    def _side(self, span: Span) -> int | None:
        parts = self._parts(_DIMENSION, span)
        return _signed(parts["value"][0][0]) if "value" in parts else None


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _damaged() -> ModelLoad:
    return ModelLoad("The model file is not ONNX: its protobuf is damaged.")


def _unknown(message: _Message, key: int) -> ModelRefused | ModelLoad:
    if message.refused and key in message.refused:
        return refused(message.refused[key])
    if message is _MODEL:  # whatever else begins like a protobuf
        return ModelLoad(
            f"The model file is not ONNX, or newer than this release: its field {key >> 3} is not "
            "known."
        )
    return refused(f"its {message.name} has a field {key >> 3}, which is not known")
