"""How large an input may be before it is decoded: a header costs nothing, what it declares may."""

from __future__ import annotations

from medimg_edge.errors import TooLarge

MAX_PIXELS = 2**26
"""Rows times columns: 8192 x 8192, four times the largest detector in common use."""

MAX_BYTES = 512 * 2**20
"""Of one file."""

MAX_FRAMES = 10_000
"""Of one file: each has a record."""


def check_pixels(rows: int, columns: int) -> None:
    """Raise TooLarge where an image declares more than MAX_PIXELS."""
    if rows * columns > MAX_PIXELS:
        raise TooLarge(
            f"The image declares {columns} x {rows} pixels; at most {MAX_PIXELS:,} are decoded. "
            "Scale it down before it is read."
        )
