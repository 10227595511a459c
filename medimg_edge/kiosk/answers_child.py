"""The process that answers: it loads the model, and may be ended at any moment.

Run by ``child``, with messages on standard input and output (``messages``). It ends with standard
input, and on Linux with its parent. Images may make a library do anything: it takes no more memory
than it was told, is the first that a system short of memory ends, and leaves no core behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from medimg_edge.errors import (
    BundleError,
    ExtraMissing,
    MachineFault,
    MedimgEdgeError,
    ModelError,
    Unexpected,
)
from medimg_edge.kiosk import confinement
from medimg_edge.kiosk.messages import HEAD, Ask, AskAnswer, AskPicture, Refusal, Setup, packed
from medimg_edge.kiosk.shortage import is_of_memory

_LASTING = (BundleError, ModelError, ExtraMissing)
_ASK = msgspec.json.Decoder(AskAnswer | AskPicture)


def main() -> None:
    """Answer until there are no more requests."""
    confinement.begin()
    requests, answers = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # nothing but answers on the pipe
    head = HEAD.unpack(requests.read(HEAD.size))
    setup = msgspec.json.decode(requests.read(head[0]), type=Setup)
    try:
        from medimg_edge.kiosk.answering import Answering  # here: what cannot be loaded is told

        answering = Answering(setup)
    except BaseException as error:
        _write(answers, packed(_refusal(error), 0))
        return
    _write(answers, packed(answering.ready, 0))
    for ask, payload in _asked(requests):
        told, parts = answering.told(ask, payload)
        _write(answers, packed(told, sum(map(len, parts))), *parts)


def _refusal(error: BaseException) -> Refusal:
    """Why nothing was loaded. There is no image yet, so a foreign error's words may be told."""
    ours = error if isinstance(error, MedimgEdgeError) else _ours(error)
    is_lasting = isinstance(ours, _LASTING) and not is_of_memory(error)
    return Refusal(ours.code, ours.message, passing=not is_lasting)


def _ours(error: BaseException) -> MedimgEdgeError:
    first = error.__cause__ or error  # numpy has a page of advice for its own
    told = f"{type(first).__name__}: {first}"
    if is_of_memory(error):
        return MachineFault(f"What answers finds too little memory to load ({told}). Free memory.")
    if isinstance(error, ImportError):  # such as a native library that this machine cannot load
        return ExtraMissing(f"The installation is broken ({told}). Install medimg-edge anew.")
    return Unexpected(told)


def _asked(requests: BinaryIO) -> Iterator[tuple[Ask, bytes]]:
    while len(head := requests.read(HEAD.size)) == HEAD.size:
        length, payload_bytes = HEAD.unpack(head)
        ask = _ASK.decode(requests.read(length))
        yield ask, requests.read(payload_bytes)


def _write(descriptor: int, *parts: bytes | memoryview) -> None:
    left = list(parts)
    while left:
        written = os.writev(descriptor, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = memoryview(left[0])[written:]


if __name__ == "__main__":
    main()
