"""Folders to which images are still being added: each image once, when it is complete."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from medimg_edge.errors import ExtraMissing, InputMissing
from medimg_edge.inputs import Input
from medimg_edge.reader import files, is_image

SETTLED_SECONDS = 1.0
"""A file that has not changed for so long is read."""

GIVEN_UP_SECONDS = 30.0
"""One that is then no whole image is read again after so long without a change, and believed."""

WAKE_MILLISECONDS = 500
SEARCH_SECONDS = 60.0
"""Folders are searched at each change, and so often for those that the system does not tell of:
network shares, and more changes than its queue holds."""

_Signature = tuple[int, int]


class _Waiting(NamedTuple):
    signature: _Signature
    since: float
    seconds: float


class Watch:
    """Iterate over the images in ``folders`` and those that arrive there; there is no end.

    Files are found as by ``reader.search``, and come when their size and time of change rest: those
    that are no whole image ``again``, and then for the last time.

    Construction raises ExtraMissing, InputMissing; iterating may raise InputMissing.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        try:
            import watchfiles
        except ImportError as error:
            raise ExtraMissing(
                "--watch needs watchfiles, which is not installed: pip install 'medimg-edge[watch]'"
            ) from error
        for folder in folders:
            if not folder.is_dir():
                raise InputMissing(f"{folder} is no folder. To be watched, it has to be there.")
        self._watchfiles, self._folders = watchfiles, folders
        self._known: set[str] = set()
        self._waiting: dict[Path, _Waiting] = {}
        self._incomplete: deque[Path] = deque()
        self._given_up: set[Path] = set()

    def __iter__(self) -> Iterator[Input]:
        searched = -SEARCH_SECONDS
        for changed in self._changes():
            if changed or time.monotonic() - searched >= SEARCH_SECONDS:
                yield from self._search()
                searched = time.monotonic()
            yield from self._settled()

    def again(self, path: Path) -> bool:
        """Whether a file that came and is no whole image will come again. From any thread."""
        if path in self._given_up:
            self._given_up.discard(path)
            return False
        self._incomplete.append(path)
        return True

    def _changes(self) -> Iterator[bool]:
        """At least every WAKE_MILLISECONDS, whether something changed."""
        while True:
            try:
                for changes in self._watchfiles.watch(
                    *self._folders,
                    watch_filter=None,
                    debounce=WAKE_MILLISECONDS,
                    step=WAKE_MILLISECONDS // 5,
                    rust_timeout=WAKE_MILLISECONDS,
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                ):
                    yield bool(changes)
            except (FileNotFoundError, PermissionError) as error:
                names = ", ".join(map(str, self._folders))
                raise InputMissing(
                    f"{names} cannot be watched: {error.strerror or error}."
                ) from error
            except (OSError, RuntimeError):
                # Stopped by a name that is not UTF-8, or out of inotify's watches: look for itself.
                time.sleep(WAKE_MILLISECONDS / 1000)
                yield True

    def _search(self) -> Iterator[Input]:
        """Let new files wait; yield new folders that cannot be searched."""
        for folder in self._folders:
            for path, error in files(folder):
                if (name := os.fspath(path)) in self._known:
                    continue
                self._known.add(name)
                if error is not None:
                    yield Input(path, self._key(path), error)
                else:
                    self._wait(path, SETTLED_SECONDS)

    def _settled(self) -> Iterator[Input]:
        while self._incomplete:
            self._wait(self._incomplete.popleft(), GIVEN_UP_SECONDS)
        for path, waiting in list(self._waiting.items()):
            if _signature(path) != waiting.signature:
                self._wait(path, SETTLED_SECONDS)
            elif time.monotonic() - waiting.since >= waiting.seconds:
                del self._waiting[path]
                last = waiting.seconds == GIVEN_UP_SECONDS
                if is_image(path):
                    if last:
                        self._given_up.add(path)
                    yield Input(path, self._key(path))
                elif not last:  # a DICOM file may not have its prefix yet
                    self._wait(path, GIVEN_UP_SECONDS)

    def _wait(self, path: Path, seconds: float) -> None:
        """Look at a file again when it has not changed for so long; forget one that is gone."""
        self._waiting.pop(path, None)
        signature = _signature(path)
        if signature is None:
            self._known.discard(os.fspath(path))
        else:
            self._waiting[path] = _Waiting(signature, time.monotonic(), seconds)

    def _key(self, path: Path) -> str:
        folder = next(each for each in self._folders if path.is_relative_to(each))
        return path.relative_to(folder).as_posix()


def _signature(path: Path) -> _Signature | None:
    try:
        information = os.stat(path)
    except OSError:
        return None
    return information.st_size, information.st_mtime_ns
