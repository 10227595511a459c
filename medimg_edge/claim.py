"""A folder that one process uses at a time."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from medimg_edge.errors import WriteError


def claim(folder: Path) -> IO[bytes]:
    """Lock a folder until the file is closed or the process ends, however it ends.

    Raises WriteError where another process has it; OSError.
    """
    file = (folder / "lock").open("ab")
    try:
        import fcntl
    except ImportError:  # not on Windows
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise WriteError(
            f"{folder} is used by another process. Stop that one, or name another folder."
        ) from error
    return file
