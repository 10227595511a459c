"""Frames decoded in processes of their own, which a damaged one may end.

GDCM ends its process where one byte of a JPEG marker is another; no frame may do that to what
answers all the others. A process is kept for the next frame, and there are as many as threads that
decode.
"""

from __future__ import annotations

import atexit
import json
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import Literal, NamedTuple

from medimg_edge.dicom.damage import damaged
from medimg_edge.errors import MachineFault

Family = Literal["JPEG", "JPEG-LS", "JPEG 2000"]

LIBRARIES: dict[Family, str] = {"JPEG": "gdcm", "JPEG-LS": "jpeg_ls", "JPEG 2000": "openjpeg"}
"""Python's names of what decodes them, all of the extra ``dicom``."""

SECONDS = 60
"""For one frame: the largest takes a few."""

_CHILD = Path(__file__).with_name("decoder_child.py")
_READY, _PIXELS, _DAMAGED = b"R", b"P", b"D"
_HEAD = struct.Struct("<cQ")
_OWN_FAULT = frozenset(
    {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
)


class Request(NamedTuple):
    """A frame of so many ``bytes``. bits: of a cell, 8 or 16. planar: 0 or 1."""

    family: Family
    syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    planar: int
    bits: int
    bytes: int


def available(family: Family) -> bool:
    """Whether its library is installed."""
    return find_spec(LIBRARIES[family]) is not None


def decode(frame: bytes, request: Request) -> bytes:
    """The cells, by sample, little endian. May be called from several threads at once.

    Raises Truncated where a decoder refuses the frame or two processes are ended by it, and
    MachineFault where it cannot be decoded now: no process starts, or somebody ended it.
    """
    for first in (True, False):
        child = _waiting() or _Child()
        kind, pixels = child.decode(frame, request)
        if child.alive:
            _idle.append(child)
        if kind == _PIXELS:
            return pixels
        if kind == _DAMAGED:
            break
        if child.alive or -child.returncode not in _OWN_FAULT:
            if first:
                continue
            raise MachineFault(
                "A frame could not be decoded: its process was ended, or lacked time, memory or a "
                "library. Try again when the machine has less to do."
            )
    raise damaged(f"cannot be decoded as {request.family}")


def _waiting() -> _Child | None:
    """One that nobody has ended meanwhile, such as a system that is short of memory."""
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return None
        if child.alive:
            return child
        child.end()


class _Child:
    def __init__(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what ends a group, such as Ctrl-C, ends us alone
            )
        except (OSError, TypeError) as error:  # no memory, or no Python to start
            raise _cannot_start() from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        with self._watched():
            ready = self._answers.read(1)
        if ready != _READY:
            self.end()
            raise _cannot_start()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int:
        return self._process.wait()

    def decode(self, frame: bytes, request: Request) -> tuple[bytes, bytes]:
        """What the child says, and the pixels; nothing where it is gone."""
        with self._watched(), suppress(OSError):  # it is gone
            self._requests.write((json.dumps(request._asdict()) + "\n").encode() + frame)
            self._requests.flush()
            head = self._answers.read(_HEAD.size)
            if len(head) == _HEAD.size:
                kind, size = _HEAD.unpack(head)
                pixels = self._answers.read(size)
                if len(pixels) == size:
                    return kind, pixels
        self.end()
        return b"", b""

    def end(self) -> None:
        with suppress(OSError):
            if self.alive:
                self._process.kill()
        with suppress(OSError):
            self._requests.close()
        self._answers.close()
        self._process.wait()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        watch = Timer(SECONDS, self._process.kill)
        watch.start()
        try:
            yield
        finally:
            watch.cancel()


def _cannot_start() -> MachineFault:
    return MachineFault(
        f"Compressed frames are decoded by a process of their own, and {sys.executable or 'Python'}"
        " cannot be started for it. Free memory, or export the image uncompressed."
    )


_idle: list[_Child] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()
