"""A file that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from medimg_edge.errors import WriteError


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, see it onto the disk, and give it the name in one step.

    Raises WriteError; what was there before is then unchanged.
    """
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise WriteError(
            f"{path} was not written: {error.strerror}. What was there before is unchanged; check "
            "that the folder exists and that the disk has room."
        ) from error
