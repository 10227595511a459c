"""A file that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from medimg_edge.errors import WriteError

_READABLE = 0o644
SECRET = 0o600
"""The mode of a file that only its owner may read."""


@contextlib.contextmanager
def whole_file(path: Path, mode: int = _READABLE) -> Iterator[IO[bytes]]:
    """Give a file beside ``path`` to fill; when the block ends well it takes the name in one step.

    It is opened at once, so that a path that cannot be written is refused before the work whose
    result it is to hold. Raises WriteError; what was there before is then unchanged.
    """
    if path.is_dir() or not path.name:
        raise WriteError(f"{path} is a folder; name a file.")
    try:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below, before it is renamed
            dir=path.parent, prefix=f".{path.name}.", suffix=".partial", delete=False
        )
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        yield file
        try:
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.chmod(file.name, mode)
            os.replace(file.name, path)
        except OSError as error:
            raise _not_written(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            os.unlink(file.name)


def write_whole(path: Path, data: bytes, mode: int = _READABLE) -> None:
    """Write ``data`` as ``whole_file`` does. Raises WriteError."""
    with whole_file(path, mode) as file:
        try:
            file.write(data)
        except OSError as error:
            raise _not_written(path, error) from error


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Let the names in it outlive a power cut. Raises OSError."""
    with contextlib.suppress(PermissionError):  # a folder on Windows
        sync(folder)


def _not_written(path: Path, error: OSError) -> WriteError:
    return WriteError(
        f"{path} was not written: {error.strerror}. What was there before is unchanged; check that "
        "the folder exists, may be written and has room, or name another file."
    )
