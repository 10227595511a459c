"""The sha256 of each sample's encoded content, without reading again what has not changed."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from medimg_edge.classifier import Progress
from medimg_export.dataset import ArrayRow, Sample

Item = TypeVar("Item")
Result = TypeVar("Result")

SETTLED_NS = 2_000_000_000
"""A file changed this recently could change again without its time changing: not remembered."""

BATCH = 64
"""Samples in flight: enough to keep every core busy, little enough to hold in memory."""


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What changes when a file's content does."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class Content(msgspec.Struct, frozen=True, array_like=True):
    """The sha256 (hexadecimal) of a sample's encoded content, and the stamp that its file had."""

    stamp: Stamp
    digest: str


def stamp(source: Path | ArrayRow) -> Stamp | None:
    """The stamp of the file behind a sample; None if there is no file that may be read."""
    path = source.path if isinstance(source, ArrayRow) else source
    try:
        status = path.stat()
    except OSError:
        return None
    if not os.access(path, os.R_OK):
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def contents(
    samples: Sequence[Sample], memory: Path, progress: Progress | None = None
) -> list[Content | None]:
    """The content of each sample; None where the file is missing or may not be read.

    ``memory`` is a file that remembers digests by name and stamp, for one data set. It only saves
    time: where it is missing, damaged or overwritten by another process, more files are read.
    """
    known = _recall(memory)
    found: list[Content | None] = []
    for entry in in_order(lambda sample: _content(sample, known.get(sample.name)), samples):
        found.append(entry)
        if progress:
            progress("hashing", len(found), len(samples))
    settled = time.time_ns() - SETTLED_NS
    current = {
        sample.name: entry
        for sample, entry in zip(samples, found, strict=True)
        if entry and max(entry.stamp.mtime_ns, entry.stamp.ctime_ns) < settled
    }
    if current != known:
        _remember(memory, current)
    return found


def in_order(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``map`` on all cores. Decoding, resizing and hashing release Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), BATCH):
            yield from pool.map(work, items[start : start + BATCH])


def _content(sample: Sample, known: Content | None) -> Content | None:
    now = stamp(sample.source)
    if now is None:
        return None
    if known and known.stamp == now:
        return known
    if isinstance(sample.source, ArrayRow):
        pixels = sample.source.pixels()
        content = f"{pixels.dtype} {pixels.shape} ".encode() + pixels.tobytes()
        return Content(now, hashlib.sha256(content).hexdigest())
    try:
        with sample.source.open("rb") as file:
            return Content(now, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return None


def _recall(memory: Path) -> dict[str, Content]:
    try:
        return msgspec.json.decode(memory.read_bytes(), type=dict[str, Content])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _remember(memory: Path, known: dict[str, Content]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=memory.parent, delete=False) as file:
        try:
            file.write(msgspec.json.encode(known))
            file.close()
            os.replace(file.name, memory)
        except BaseException:
            os.unlink(file.name)
            raise
