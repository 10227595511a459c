"""Changes to a file that keep most of it: what a reader meets after damage, or by intent.

Some know nothing of the format; others keep its outermost checks right, so that what lies behind
them is reached: the CRC of a PNG's chunk, the lengths of a protobuf, JSON that is still JSON.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536)
NUMBERS += (2**24, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
FORMS = ("<H", ">H", "<I", ">I", "<Q", ">Q")


def mutated(
    random: Random,
    data: bytes,
    others: Sequence[bytes],
    places: Sequence[int] = (),
    shaped: Sequence[Mutation] = (),
) -> bytes:
    """The file after one to four changes.

    others: files to take pieces from. places: offsets worth changing more often than others.
    shaped: changes that know the format; half of all are of these.
    """
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        if shaped and random.random() < 0.5:
            data = random.choice(shaped)(random, data)
        else:
            data = _CHANGES[random.randrange(len(_CHANGES))](random, data, others, places)
        if not data:
            return data
    return data


def _place(random: Random, data: bytes, places: Sequence[int]) -> int:
    """Where headers are, where it was told, or anywhere."""
    kind = random.random()
    if places and kind < 0.6:
        return min(random.choice(places), len(data) - 1)
    if kind < 0.8:
        return random.randrange(min(len(data), 512))
    return random.randrange(len(data))


def _flip(random: Random, data: bytes, __: Sequence[bytes], places: Sequence[int]) -> bytes:
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8))):
        found[_place(random, data, places)] ^= 1 << random.randrange(8)
    return bytes(found)


def _number(random: Random, data: bytes, _: Sequence[bytes], places: Sequence[int]) -> bytes:
    """A length, a count or an offset becomes another, often one at an edge."""
    form = random.choice(FORMS)
    size = struct.calcsize(form)
    at = _place(random, data, places)
    if at + size > len(data):
        return data
    (value,) = struct.unpack_from(form, data, at)
    choices = (random.choice(NUMBERS), value + random.randint(-16, 16), value * 2, len(data) - at)
    found = bytearray(data)
    struct.pack_into(form, found, at, random.choice(choices) % 2 ** (8 * size))
    return bytes(found)


def _cut(random: Random, data: bytes, _: Sequence[bytes], places: Sequence[int]) -> bytes:
    return data[: _place(random, data, places)]


def _without(random: Random, data: bytes, _: Sequence[bytes], places: Sequence[int]) -> bytes:
    at = _place(random, data, places)
    return data[:at] + data[at + random.choice((1, 2, 4, 16, 64, 1024)) :]


def _twice(random: Random, data: bytes, _: Sequence[bytes], places: Sequence[int]) -> bytes:
    """A piece is there once more, or many times more."""
    at = _place(random, data, places)
    piece = data[at : at + random.choice((1, 4, 16, 64, 512))]
    return data[:at] + piece * random.choice((1, 1, 1, 16, 256)) + data[at:]


def _spliced(random: Random, data: bytes, others: Sequence[bytes], places: Sequence[int]) -> bytes:
    """The head of one file and the tail of another."""
    other = random.choice(others)
    return data[: _place(random, data, places)] + other[_place(random, other, ()) :]


def _patched(random: Random, data: bytes, others: Sequence[bytes], places: Sequence[int]) -> bytes:
    """A piece of another file, or of this one, in the place of as many bytes."""
    other = random.choice([*others, data])
    at, start = _place(random, data, places), _place(random, other, ())
    piece = other[start : start + random.choice((2, 4, 8, 32, 256))]
    return data[:at] + piece + data[at + len(piece) :]


_CHANGES = (_flip, _flip, _number, _number, _number, _cut, _without, _twice, _spliced, _patched)


# Of a format


def png_checksums(random: Random, data: bytes) -> bytes:
    """One chunk changed, and every CRC right again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return data
    index = random.randrange(len(chunks))
    kind, content = chunks[index]
    how = random.randrange(5)
    if how == 0:
        del chunks[index]
    elif how == 1:
        chunks.insert(random.randrange(len(chunks)), (kind, content))
    elif how == 2 and kind == b"IDAT":
        chunks[index] = kind, zlib.compress(random.randbytes(random.choice((0, 1, 100, 5000))))
    elif content:
        chunks[index] = kind, _CHANGES[random.randrange(6)](random, content, [content], ())
    body = b"".join(
        struct.pack(">I", len(each)) + name + each + struct.pack(">I", zlib.crc32(name + each))
        for name, each in chunks
    )
    return data[:8] + body


Field = tuple[int, int, Any]


def protobuf(random: Random, data: bytes) -> bytes:
    """A field of some message is changed, doubled, moved or left out; all lengths fit."""
    fields = _message(data, 0)
    if not fields:
        return data
    path = [fields]
    while True:
        inner = [each for _, _, each in path[-1] if isinstance(each, list) and each]
        if not inner or random.random() < 0.2:
            break
        path.append(random.choice(inner))
    message = random.choice(path)
    index = random.randrange(len(message))
    number, wire, value = message[index]
    how = random.randrange(6)
    if how == 0:
        del message[index]
    elif how == 1:
        message.extend([message[index]] * random.choice((1, 1, 50)))
    elif how == 2:
        message[index] = random.choice(message)
    elif how == 3:
        message[index] = (random.choice((number + 1, random.randrange(1, 30))), wire, value)
    elif wire == 0:
        message[index] = (number, wire, random.choice((*NUMBERS, value + 1, max(value - 1, 0))))
    elif isinstance(value, bytes) and value:
        message[index] = (number, wire, _CHANGES[random.randrange(8)](random, value, [value], ()))
    return _written(fields)


def _message(data: bytes, depth: int) -> list[Field] | None:
    """The fields of a protobuf message; of a length, those that are messages as lists."""
    fields: list[Field] = []
    at = 0
    try:
        while at < len(data):
            key, at = _varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = _varint(data, at)
                fields.append((number, wire, value))
                continue
            length, at = _varint(data, at) if wire == 2 else ({1: 8, 5: 4}[wire], at)
            if not number or at + length > len(data):
                return None
            content = data[at : at + length]
            inner = None
            if wire == 2 and depth < 6 and length > 1 and (depth < 2 or length < 2000):
                inner = _message(content, depth + 1)
            fields.append((number, wire, content if inner is None else inner))
            at += length
    except (IndexError, KeyError):
        return None
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _coded(value: int) -> bytes:
    value &= 2**64 - 1
    done = b""
    while value > 127:
        done += bytes([value & 127 | 128])
        value >>= 7
    return done + bytes([value])


def _written(fields: list[Field]) -> bytes:
    done = []
    for number, wire, value in fields:
        done.append(_coded(number << 3 | wire))
        if wire == 0:
            done.append(_coded(value))
            continue
        content = _written(value) if isinstance(value, list) else value
        if wire == 2:
            done.append(_coded(len(content)))
        done.append(content)
    return b"".join(done)


LEAVES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e308,
    2**70,
    "",
    "../../x",
    "\0",
    [],
    {},
    [[]],
    "é" * 40,
)


def json_values(random: Random, data: bytes) -> bytes:
    """A value of some object or list is changed, doubled, moved or left out."""
    try:
        whole = json.loads(data)
    except ValueError:
        return data
    path = [whole]
    while True:
        values = path[-1].values() if isinstance(path[-1], dict) else path[-1]
        inner = [each for each in values if isinstance(each, dict | list) and each]
        if not inner or random.random() < 0.3:
            break
        path.append(random.choice(inner))
    _change_json(random, path[-1], whole)
    text = json.dumps(whole)
    if random.random() < 0.1:  # a key twice, which no value can say
        key = json.dumps(random.choice(list(whole))) if isinstance(whole, dict) and whole else '"k"'
        text = f"{{{key}: 1, {text[1:]}"
    return text.encode()


def _change_json(random: Random, part: Any, whole: Any) -> None:
    if not part or not isinstance(part, dict | list):
        return
    keys = list(part) if isinstance(part, dict) else range(len(part))
    key = random.choice(keys)
    how = random.randrange(5)
    if how == 0:
        del part[key]
    elif how == 1:
        part[key] = random.choice(LEAVES)
    elif how == 2:
        part[key] = json.loads(json.dumps(random.choice(list(_values(whole)))))
    elif how == 3 and isinstance(part, dict):
        part[random.choice(("x", "schema", "../x", str(key) + " "))] = part[key]
    elif isinstance(part[key], int | float):
        part[key] = part[key] * random.choice((-1, 2, 1e9, 0.5)) + random.choice((0, 1, -1))
    elif isinstance(part[key], str):
        part[key] += random.choice(("x", "\ud800", "/..", "\n"))


def _values(part: Any) -> Any:
    yield part if not isinstance(part, dict | list) else None
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _values(each)
