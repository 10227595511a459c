"""What is installed by a name, for a service that goes on while that changes."""

from __future__ import annotations

import os

from medimg_edge import installed
from medimg_edge.errors import StoreDamaged
from medimg_edge.installed import Active


class Named:
    """Asked again and again, at the cost of a stat."""

    def __init__(self, name: str) -> None:
        folder = installed.folder()
        self._name = name
        self._pointer = None if folder is None else folder / name / installed.POINTER
        self._seen: tuple[int, ...] | None = None
        self._active: Active | None = None

    def active(self) -> Active | None:
        """What the name means now; None where nothing is installed.

        Raises StoreDamaged, once for each time that the pointer was written.
        """
        if self._pointer is None:
            return None
        try:
            found = os.stat(self._pointer)
        except OSError:
            self._seen = self._active = None
            return None
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._seen, self._active = seen, None
            self._active = installed.find(self._name)
        return self._active


def may_go_back(name: str | None) -> bool:
    """Whether the next start that fails, or the one after it, is of the bundle before."""
    try:
        active = None if name is None else installed.find(name)
    except StoreDamaged:
        return False
    return active is not None and active.previous is not None and active.starts > 0
