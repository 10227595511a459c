"""A random secret that is made once and kept in a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from medimg_edge.errors import WriteError
from medimg_edge.whole_file import SECRET

BYTES = 32


def kept(path: Path) -> bytes:
    """The secret in a file, BYTES bytes in hexadecimal; where there is no file it is made.

    Raises WriteError where it can be neither read nor made, or holds anything else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET)
        except FileExistsError:
            return _decoded(path)
        with open(descriptor, "wb") as file:
            secret = secrets.token_bytes(BYTES)
            file.write(secret.hex().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return secret
    except OSError as error:
        raise WriteError(
            f"The secret {path} can be neither read nor made: {error.strerror}. Name another file, "
            "or check its folder."
        ) from error


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
