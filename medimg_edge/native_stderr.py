"""The process's standard error, where native libraries chat and Python cannot stop them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
"""Two threads that turn it away would each bring back what the other left."""


@contextmanager
def turned_away() -> Iterator[None]:
    """Nothing that is written to it is shown, by whatever thread; one thread at a time."""
    with _LOCK:
        try:
            kept = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
