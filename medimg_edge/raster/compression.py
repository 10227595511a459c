"""The lossless compressions of TIFF 6.0: ``decode(data, expected) -> bytes``.

``expected`` is how many bytes the block must give: a decoder stops there, whatever the data would
inflate to, and returns fewer where the data ends before or is damaged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_CLEAR, _END, _FIRST = 256, 257, 258
# Section 13: codes grow from 9 to 12 bits as the table grows, one entry early. The table is
# full, and has to be cleared, after 3838 codes.
_WIDTHS = np.repeat([9, 10, 11, 12], [254, 512, 1024, 2050])
_STARTS = np.cumsum(_WIDTHS) - _WIDTHS


def stored(data: bytes, expected: int) -> bytes:
    """Compression 1: none."""
    return data[:expected]


def deflate(data: bytes, expected: int) -> bytes:
    """Compression 8 (Adobe) and 32946: zlib, with its checksum where the data ends in time."""
    inflater = zlib.decompressobj()
    try:
        block = inflater.decompress(data, expected + 1)
    except zlib.error:
        return b""
    if len(block) == expected and not inflater.eof:
        return b""  # cut inside of the checksum
    return block[:expected]


def packbits(data: bytes, expected: int) -> bytes:
    """Compression 32773: section 9, runs of literal and of repeated bytes."""
    block = bytearray()
    position = 0
    while len(block) < expected and position + 1 < len(data):
        count = data[position]
        position += 1
        if count < 128:
            block += data[position : position + count + 1]
            position += count + 1
        elif count > 128:
            block += data[position : position + 1] * (257 - count)
            position += 1
    return bytes(block[:expected])


def lzw(data: bytes, expected: int) -> bytes:
    """Compression 5: section 13, most significant bit first."""
    block = bytearray()
    padded = np.frombuffer(data + b"\0\0\0", np.uint8)
    position = 0
    while len(block) < expected:
        codes = _lzw_codes(padded, position, 8 * len(data))
        stops = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        stop = int(stops[0]) if len(stops) else len(codes)
        strings = _lzw_strings(codes[:stop])
        if strings is None:
            break
        block += strings
        if stop == len(codes) or codes[stop] == _END:
            break
        position += int(_STARTS[stop] + _WIDTHS[stop])
    return bytes(block[:expected])


def _lzw_codes(padded: NDArray, position: int, bits: int) -> NDArray:
    """The codes from a bit position on, as far as one table and the data reach."""
    starts = position + _STARTS
    starts = starts[starts + _WIDTHS <= bits]
    widths = _WIDTHS[: len(starts)]
    first, second, third = (padded[(starts >> 3) + i].astype(np.int64) for i in range(3))
    window = first << 16 | second << 8 | third
    return window >> (24 - (starts & 7) - widths) & ((1 << widths) - 1)


def _lzw_strings(codes: NDArray) -> bytes | None:
    """What the codes between two clears stand for; None where one means nothing yet.

    Entry k of the table is the string of code k and the first byte of the next one: a slice of
    the output. So every byte is a literal or points to an earlier byte, and following all
    pointers at once, doubling the stride each time, replaces the loop over the codes.
    """
    order = np.arange(len(codes))
    literal = codes < _CLEAR
    parent = np.where(literal, order, codes - _FIRST)
    if (parent >= order)[~literal].any():
        return None
    lengths = 1 + _chain_lengths(parent, literal)
    starts = np.cumsum(lengths) - lengths
    owner = np.repeat(order, lengths)
    source = np.arange(len(owner)) - starts[owner] + starts[parent[owner]]
    while not np.array_equal(further := source[source], source):
        source = further
    return codes[owner[source]].astype(np.uint8).tobytes()


def _chain_lengths(parent: NDArray, literal: NDArray) -> NDArray:
    """How many steps each code is from the literal that its string begins with."""
    steps = (~literal).astype(np.int64)
    while not literal[parent].all():
        steps += steps[parent]
        parent = parent[parent]
    return steps


DECODERS: dict[int, Callable[[bytes, int], bytes]] = {
    1: stored,
    5: lzw,
    8: deflate,
    32773: packbits,
    32946: deflate,
}
