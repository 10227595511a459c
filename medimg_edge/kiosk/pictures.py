"""The views of answers, by their ids: the newest in memory, and on the disk for some days.

Views are what ``view.View`` made; here they are bytes.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from medimg_edge import disk
from medimg_edge.errors import WriteError
from medimg_edge.kiosk.layout import opened
from medimg_edge.whole_file import SECRET, write_whole

MEMORY_BYTES = 24 * 10**6

_ID = re.compile("[0-9a-f]{32}")
_DAY_SECONDS = 86_400
_VIEW, _SOURCE = ".view", ".source"


class Pictures:
    """May be shared between threads. Other ids than 32 lowercase hexadecimal digits have none.

    folder: for files that only their owner may read. keep_days: None or 0 keeps nothing there.
    memory_bytes: that views may take in memory.
    """

    def __init__(
        self, folder: Path, *, keep_days: float | None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._folder, self._keep_days, self._memory_bytes = folder, keep_days, memory_bytes
        self._views: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def on_disk(self) -> bool:
        """Whether views and their images are kept there."""
        return bool(self._keep_days)

    def put(self, name: str, view: bytes, source: bytes) -> None:
        """Keep a view, and on the disk the image, ``source``, too. Raises WriteError."""
        if not _ID.fullmatch(name):
            raise WriteError(f"{name!r} is no id of an answer; its picture is not kept.")
        self._remember(name, view)
        if self.on_disk:
            with disk.written(self._folder):
                disk.make_folder(self._folder)
            write_whole(self._path(name, _SOURCE), source, SECRET)
            write_whole(self._path(name, _VIEW), view, SECRET)

    def get(self, name: str) -> bytes | None:
        """The view of an answer."""
        with self._lock:
            found = self._views.get(name)
        return self._read(name, _VIEW) if found is None else found

    def has(self, name: str) -> bool:
        """Whether ``get`` has something to return."""
        with self._lock:
            if name in self._views:
                return True
        return self._may_be(name) and self._path(name, _VIEW).is_file()

    def remove(self, name: str) -> None:
        """Of an image that has no answer after all."""
        with self._lock:
            self._bytes -= len(self._views.pop(name, b""))
        if self._may_be(name):
            for kind in (_SOURCE, _VIEW):
                with suppress(OSError):
                    self._path(name, kind).unlink()

    def prune(self, now: float | None = None) -> int:
        """Remove files that are older than is kept, and return how many; all, if none is kept.

        A file of the future, of a clock that was wrong, ages from now on. now: seconds since 1970.
        """
        now = time.time() if now is None else now
        oldest = now - (self._keep_days or 0) * _DAY_SECONDS
        removed = 0
        for path, written in self._files():
            with suppress(OSError):
                if not self.on_disk or written < oldest:
                    path.unlink()
                    removed += 1
                elif written > now:
                    os.utime(path, (now, now))
        return removed

    def _remember(self, name: str, view: bytes) -> None:
        with self._lock:
            self._bytes += len(view) - len(self._views.pop(name, b""))
            self._views[name] = view
            while self._bytes > self._memory_bytes:
                _, oldest = self._views.popitem(last=False)
                self._bytes -= len(oldest)

    def _may_be(self, name: str) -> bool:
        return self.on_disk and bool(_ID.fullmatch(name))

    def _read(self, name: str, kind: str) -> bytes | None:
        if not self._may_be(name):
            return None
        try:
            return self._path(name, kind).read_bytes()
        except OSError:
            return None

    def _path(self, name: str, kind: str) -> Path:
        return self._folder / (name + kind)

    def _files(self) -> list[tuple[Path, float]]:
        """Ours, also what a power cut left half written, and when they were written."""
        try:
            with os.scandir(self._folder) as entries:
                return [
                    (Path(each.path), each.stat(follow_symlinks=False).st_mtime)
                    for each in entries
                    if _ID.match(each.name.lstrip("."))
                ]
        except OSError:  # there is no folder, or not any more
            return []


def header(view: bytes) -> dict[str, Any]:
    """How a view's samples are shown, by name: see ``layout.Layout``. Raises PictureGone."""
    return msgspec.structs.asdict(opened(view)[0])


def samples(view: bytes) -> bytes:
    """Its samples, little endian, row by row, channels interleaved. Raises PictureGone."""
    layout, start = opened(view)
    return view[start : start + layout.sample_bytes]
