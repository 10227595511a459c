"""Files and names that outlive a power cut from the moment on that a function returns."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medimg_edge.errors import WriteError
from medimg_edge.whole_file import sync

PRIVATE = 0o700
"""Folders that hold images and reports of patients are their owner's alone."""


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """The edge: an OSError in the block becomes a WriteError about ``folder``."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{folder} cannot be used: {error.strerror}. Check that it may be written, that its "
            "disk has room, and that the disk is well."
        ) from error


def write(path: Path, data: bytes) -> None:
    """Write a new file that only its owner may read. Its name lasts once its folder is synced.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, in one step that lasts. Raises OSError."""
    os.rename(source, target)
    sync(target.parent)


def make_folder(path: Path) -> None:
    """Make a private folder where there is none. Raises OSError."""
    try:
        path.mkdir(mode=PRIVATE)
    except FileExistsError:
        return
    sync(path.parent)


def taken(folder: Path, seconds: float) -> tuple[int, bool]:
    """The bytes of the disk that a folder takes, and whether all was counted in so much time."""
    end, size, folders = time.monotonic() + seconds, 0, [folder]
    while folders:
        if time.monotonic() > end:
            return size, False
        try:
            with os.scandir(folders.pop()) as entries:
                for each in entries:
                    if each.is_dir(follow_symlinks=False):
                        folders.append(Path(each.path))
                    size += _blocks(each.stat(follow_symlinks=False))
        except OSError:  # it moved on meanwhile
            continue
    return size, True


def _blocks(found: os.stat_result) -> int:
    """In bytes: a small file takes a whole block. Where blocks are not told, its length."""
    return getattr(found, "st_blocks", -(-found.st_size // 512)) * 512
