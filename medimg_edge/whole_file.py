"""A file that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from medimg_edge.errors import WriteError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file beside ``path`` to fill; when the block ends well it takes the name in one step.

    It is opened at once, so that a path that cannot be written is refused before the work whose
    result it is to hold. Raises WriteError; what was there before is then unchanged.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(
            f"{path} was not written: {error.strerror}. What was there before is unchanged; check "
            "that the folder exists and that the disk has room."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` as ``whole_file`` does. Raises WriteError."""
    with whole_file(path) as file:
        file.write(data)
