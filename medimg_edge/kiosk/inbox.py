"""Images that lie in folders of this machine, to be taken instead of an upload."""

from __future__ import annotations

import errno
import hashlib
import heapq
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from medimg_edge.errors import BodyTooLarge, InputMissing, NotFound
from medimg_edge.suffixes import SUFFIXES

Kind = Literal["folder", "dicom"]

ITEMS = 100
"""The newest that are told."""

LOOKED_AT = 20_000
"""Images of one folder, at each look: it is to end soon."""

SETTLED_SECONDS = 1.0
"""A file that has not changed for so long is told."""

_ANSWERED = re.compile(r"([0-9a-f]{32})-[0-9a-f]{1,32}")
"""A folder in the listener's results: see ``dicom.node.spool``."""
_ID_CHARACTERS = 32
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe may wait


class Item(NamedTuple):
    """An image. ``arrived`` is UTC, RFC 3339; ``name`` of the file, or of DICOM its pseudonym."""

    id: str
    name: str
    kind: Kind
    arrived: str
    bytes: int


class Look(NamedTuple):
    """What a look found: at most ITEMS, the newest first; and for a person what it could not."""

    items: list[Item]
    notes: list[str]


class _File(NamedTuple):
    arrived_ns: int
    folder: str
    parts: tuple[str, ...]
    name: str
    kind: Kind
    bytes: int


class Inbox:
    """The images in ``folders``, looked for when they are asked for.

    The folder of a DICOM listener that keeps its images (``listen --out DIR --keep-images``) has
    those that it has answered, by their pseudonyms; any other folder the files whose suffix is an
    image's, and those of its folders. Hidden names are passed over, and no link leads out.

    secret: what ids are made of; by default they hold until the process ends. May be shared between
    threads.
    """

    def __init__(self, folders: Sequence[Path], secret: bytes | None = None) -> None:
        self._folders = tuple(os.path.abspath(each) for each in folders)
        self._secret = secret or secrets.token_bytes(32)

    @property
    def is_watching(self) -> bool:
        """Whether there is a folder at all."""
        return bool(self._folders)

    def look(self) -> Look:
        """The newest images that do not change any more. A folder that cannot be read is noted."""
        notes: list[str] = []
        newest = heapq.nlargest(ITEMS, self._files(notes.append))
        return Look([self._item(each) for each in newest], notes)

    def read(self, id: str, limit_bytes: int) -> tuple[bytes, Kind]:  # noqa: A002
        """The bytes of an item, and its kind.

        Raises NotFound where it is not there (any more), BodyTooLarge above ``limit_bytes``, and
        InputMissing where it cannot be read.
        """
        for each in self._files(lambda note: None):
            if hmac.compare_digest(self._id(each).encode(), id.encode("utf-8", "replace")):
                return _content(each, limit_bytes), each.kind
        raise _gone()

    def _files(self, note: Callable[[str], None]) -> Iterator[_File]:
        for folder in self._folders:
            kept = _kept_by_listener if _is_listener(folder) else _images_below
            found = kept(folder, note)
            yield from islice(found, LOOKED_AT)
            if next(found, None) is not None:
                note(
                    f"{folder} holds more than {LOOKED_AT:,} images, and only so many are looked "
                    "at: take old ones away."
                )

    def _item(self, file: _File) -> Item:
        arrived = datetime.fromtimestamp(file.arrived_ns / 1e9, UTC).isoformat("T", "milliseconds")
        told = arrived.replace("+00:00", "Z")
        return Item(self._id(file), _printable(file.name), file.kind, told, file.bytes)

    def _id(self, file: _File) -> str:
        """Of a file that is replaced, another: it is another image."""
        path = os.fsencode(os.path.join(file.folder, *file.parts))
        said = b"%s\0%d\0%d" % (path, file.arrived_ns, file.bytes)
        return hmac.new(self._secret, said, hashlib.sha256).hexdigest()[:_ID_CHARACTERS]


def _is_listener(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "salt")) and all(
        os.path.isdir(os.path.join(folder, each)) for each in ("inbox", "results")
    )


def _kept_by_listener(folder: str, note: Callable[[str], None]) -> Iterator[_File]:
    results = os.path.join(folder, "results")
    for entry in _listed(results, note):
        match = _ANSWERED.fullmatch(entry.name)
        if match and entry.is_dir(follow_symlinks=False):
            name = f"{match[1]}.source.dcm"
            found = _state(os.path.join(entry.path, name))
            if found is not None:
                parts = ("results", entry.name, name)
                yield _File(found.st_ctime_ns, folder, parts, match[1], "dicom", found.st_size)


def _images_below(folder: str, note: Callable[[str], None]) -> Iterator[_File]:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        for entry in _listed(os.path.join(folder, *parts), note if not parts else _within(note)):
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append((*parts, entry.name))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                found = _state(entry.path)
                if found is not None:
                    at = (*parts, entry.name)
                    yield _File(found.st_ctime_ns, folder, at, entry.name, "folder", found.st_size)


def _within(note: Callable[[str], None]) -> Callable[[str], None]:
    """Folders within are not named: somebody may have given them the name of a patient."""
    return lambda _: note("A folder within a watched folder cannot be read. Check its rights.")


def _listed(folder: str, note: Callable[[str], None]) -> Iterator[os.DirEntry[str]]:
    """Of a folder that cannot be read, what could be; and a note."""
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        note(
            f"{folder} cannot be read: {error.strerror}. Check that it is there, and that the user "
            "of the service may read it."
        )


def _state(path: str) -> os.stat_result | None:
    """Of a file that does not change any more.

    By the time of its last change on this disk: a copy may bring an old time of its content along.
    """
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:  # it is gone again
        return None
    age = time.time() - found.st_ctime
    is_changing = 0 <= age < SETTLED_SECONDS  # not below 0: a clock that was set back
    return found if stat.S_ISREG(found.st_mode) and not is_changing else None


def _content(file: _File, limit_bytes: int) -> bytes:
    try:
        with open(_opened(file), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _gone()
            data = opened.read(limit_bytes + 1)
    except OSError as error:
        if error.errno in _GONE:
            raise _gone() from error
        raise InputMissing(
            f"The image cannot be read: {error.strerror}. Check that the user of the service may "
            "read it."
        ) from error
    if len(data) > limit_bytes:
        raise BodyTooLarge(f"The file has {file.bytes:,} bytes; at most {limit_bytes:,} are taken.")
    return data


def _opened(file: _File) -> int:
    """A descriptor; no part of the way may have become a link. Raises OSError."""
    descriptor = os.open(file.folder, os.O_RDONLY)
    for each in file.parts:
        try:
            below = os.open(each, _READ, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _gone() -> NotFound:
    return NotFound("There is no such image, or not any more. Look at the folder again.")


def _printable(name: str) -> str:
    """Without what a screen does not show, or what cannot be encoded."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)
