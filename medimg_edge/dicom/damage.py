"""The error of a compressed frame that is not whole."""

from __future__ import annotations

from medimg_edge.errors import Truncated


def damaged(problem: str) -> Truncated:
    """problem: what the compressed pixels do."""
    return Truncated(
        f"The compressed pixels {problem}: the image was cut or damaged. Copy it again from its "
        "source."
    )
