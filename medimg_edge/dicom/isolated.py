"""JPEG frames decoded in a process of their own, which a damaged one may end."""

from __future__ import annotations

import atexit
import json
import struct
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from typing import NamedTuple

from medimg_edge.errors import DicomTransferSyntax

SECONDS = 60
"""A frame that takes longer is damaged: one of 64 megapixels takes a few."""

_CHILD = Path(__file__).with_name("gdcm_child.py")
_LENGTHS = struct.Struct("<QQ")


class Request(NamedTuple):
    """What GDCM is told of a frame of so many ``bytes``; ``signed`` and ``planar`` are 0 or 1."""

    syntax: str
    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: int
    planar: int
    bytes: int


def available() -> bool:
    """Whether GDCM is installed."""
    return find_spec("gdcm") is not None


def decode(frame: bytes, request: Request) -> tuple[bytes, list[str]]:
    """The pixels as they lie in memory, none of a damaged frame, and what GDCM said of them.

    May be called from several threads at once. Raises DicomTransferSyntax where no process can be
    started.
    """
    child = _waiting() or _Child()
    answer = child.decode(frame, request)
    if child.alive:
        _idle.append(child)
    return answer


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
            )
        except (OSError, TypeError) as error:  # no Python to start, no memory
            raise DicomTransferSyntax(
                "JPEG frames are decoded in a process of their own, which cannot be started. Free "
                "memory, or export the image uncompressed."
            ) from error

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, frame: bytes, request: Request) -> tuple[bytes, list[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watch = Timer(SECONDS, self._process.kill)
        watch.start()
        try:
            line = json.dumps(request._asdict()) + "\n"
            self._process.stdin.write(line.encode() + frame)
            self._process.stdin.flush()
            pixels, words = _LENGTHS.unpack(self._process.stdout.read(_LENGTHS.size))
            answer = self._process.stdout.read(pixels)
            said = self._process.stdout.read(words).decode(errors="replace").splitlines()
        except (OSError, struct.error):  # it is gone
            self.end()
            return b"", []
        finally:
            watch.cancel()
        return (answer if len(answer) == pixels else b""), said

    def end(self) -> None:
        with suppress(OSError):
            self._process.kill()
        self._process.communicate()


_idle: list[_Child] = []


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()
