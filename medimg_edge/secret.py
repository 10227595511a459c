"""A random secret that is made once and kept in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from medimg_edge.errors import WriteError
from medimg_edge.whole_file import sync_folder

BYTES = 32


def kept(path: Path) -> bytes:
    """The secret in a file, BYTES bytes in hexadecimal; where there is no file it is made.

    It appears whole or not at all; of processes that make it at once, one does, and all return the
    same. Raises WriteError where it can be neither read nor made, or holds anything else.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path)
        return _decoded(path)
    except OSError as error:
        raise WriteError(
            f"The secret {path} can be neither read nor made: {error.strerror}. Name another file, "
            "or check its folder."
        ) from error


def _make(path: Path) -> None:
    descriptor, partial = tempfile.mkstemp(".partial", f".{path.name}.", path.parent)  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(BYTES).hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        _give_name(partial, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            os.unlink(partial)


def _give_name(partial: str, path: Path) -> None:
    """Without replacing what has it; where the file system has no links, that is not certain."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:
        os.replace(partial, path)


def _decoded(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(path.read_text("ascii"))
    except ValueError:
        secret = b""
    if len(secret) != BYTES:
        raise WriteError(
            f"{path} is no secret of {BYTES} bytes in hexadecimal. Restore it, or remove it for a "
            "new one: the names that were made with it are then not made again."
        )
    return secret
