"""Image file directories: the table of tags that TIFF is made of and that Exif borrows.

TIFF 6.0, section 2. Every offset and count is checked against the bytes there are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from medimg_edge.errors import Truncated

_INTEGERS = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG: all that the tags we read use
_MAX_DIRECTORIES = 1000


class Directory(NamedTuple):
    """One table: the integer tags, by number, and the byte order of the file ("<" or ">")."""

    tags: dict[int, tuple[int, ...]]
    order: Literal["<", ">"]

    def one(self, tag: int, default: int | None = None) -> int:
        """The first value of a tag; Truncated where it is missing and has no default."""
        values = self.tags.get(tag)
        if values:
            return values[0]
        if default is None:
            raise Truncated(f"The TIFF directory has no tag {tag}: the file is damaged.")
        return default


def directories(data: bytes, wanted: frozenset[int]) -> Iterator[Directory]:
    """Each directory of a TIFF file or an Exif block, in the order of its chain.

    Raises Truncated where a table or a wanted value lies outside of the file.
    """
    order = "<" if data[:2] == b"II" else ">"
    offset = _unpack(order + "I", data, 4)[0]
    seen: set[int] = set()
    while offset:
        if offset in seen or len(seen) >= _MAX_DIRECTORIES:
            raise Truncated("The TIFF directories form a loop: the file is damaged.")
        seen.add(offset)
        count = _unpack(order + "H", data, offset)[0]
        tags = {}
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, length = _unpack(order + "HHI", data, entry)
            if tag in wanted and kind in _INTEGERS:
                tags[tag] = _values(data, entry, order, _INTEGERS[kind], length)
        yield Directory(tags, order)
        offset = _unpack(order + "I", data, offset + 2 + 12 * count)[0]


def _values(data: bytes, entry: int, order: str, code: str, length: int) -> tuple[int, ...]:
    size = length * struct.calcsize(order + code)
    start = entry + 8 if size <= 4 else _unpack(order + "I", data, entry + 8)[0]
    if start + size > len(data):
        raise _outside(start + size, data)
    return struct.unpack_from(f"{order}{length}{code}", data, start)


def _unpack(layout: str, data: bytes, offset: int) -> tuple[int, ...]:
    end = offset + struct.calcsize(layout)
    if end > len(data):
        raise _outside(end, data)
    return struct.unpack_from(layout, data, offset)


def _outside(end: int, data: bytes) -> Truncated:
    return Truncated(
        f"The TIFF directory points to byte {end:,}, but the file ends at {len(data):,}: "
        "part of it is missing. Copy it again from its source."
    )
