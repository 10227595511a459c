"""What native libraries write to the process's standard error, where Python cannot turn it off."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
"""Two threads that turn it away would each bring back what the other left."""

_CHARACTERS = 10_000


@contextmanager
def captured() -> Iterator[list[str]]:
    """Give a list that holds, once the block has ended, the lines that were written in it.

    One thread at a time; what others write meanwhile is among them, and not shown.
    """
    said: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield said
            return
        os.dup2(file.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said += file.read(_CHARACTERS).decode(errors="replace").splitlines()
