"""A view's bytes: what stands where in it. Read without numpy, which the service does not load.

First 4 bytes, little endian: the length of the JSON object that follows, a ``Layout``. Then the
samples, uint8 or uint16, row by row, channels interleaved; then the heatmap, float32, row by row,
findings interleaved. All little endian.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Annotated, Literal

import msgspec

from medimg_edge.errors import NotFound, PictureGone

_LENGTH = struct.Struct("<I")
_Side = Annotated[int, msgspec.Meta(ge=1, le=2**16)]


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How the samples are shown, and where the heatmap lies.

    low, high: the samples shown black and white, or white and black where ``inverted`` is 1.
    slope, intercept: sample * slope + intercept is the image's value, such as Hounsfield units.
    labels: one for each channel of the heatmap; label: of the answer, None without a heatmap.
    heat: (h, w, C) of the heatmap; covers: its top, left, bottom and right edge, in heights and
        widths of the image from its top left corner.
    """

    rows: _Side
    columns: _Side
    channels: Literal[1, 3]
    bits: Literal[8, 16]
    low: float
    high: float
    inverted: Literal[0, 1]
    slope: float
    intercept: float
    labels: tuple[str, ...] = ()
    label: str | None = None
    heat: tuple[_Side, _Side, _Side] | None = None
    covers: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @property
    def sample_bytes(self) -> int:
        """How many the samples take."""
        return self.rows * self.columns * self.channels * self.bits // 8

    @property
    def heat_bytes(self) -> int:
        """How many the heatmap takes."""
        return 4 * prod(self.heat) if self.heat else 0

    def drawn(self, label: str | None) -> str:
        """The label whose heatmap is drawn; None is the answer's. Raises NotFound."""
        if self.label is None:
            raise NotFound("This answer has no heatmap.")
        if label is not None and label not in self.labels:
            raise NotFound(
                f"There is no heatmap of that label. There are: {', '.join(self.labels)}."
            )
        return label or self.label


def packed(layout: Layout) -> bytes:
    """The beginning of a view, up to its samples."""
    encoded = msgspec.json.encode(layout)
    return _LENGTH.pack(len(encoded)) + encoded


def opened(view: bytes) -> tuple[Layout, int]:
    """The layout, and where the samples begin. Raises PictureGone where it is no whole view."""
    try:
        (length,) = _LENGTH.unpack_from(view)
        start = _LENGTH.size + length
        layout = msgspec.json.decode(view[_LENGTH.size : start], type=Layout)
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged() from error
    if len(view) != start + layout.sample_bytes + layout.heat_bytes:
        raise _damaged()
    return layout, start


def _damaged() -> PictureGone:
    return PictureGone("The picture that was kept of this answer is damaged. Send the image again.")
