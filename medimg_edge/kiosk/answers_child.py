"""The process that answers: it loads the model, and may be ended at any moment.

Run by ``child``, with messages on standard input and output (``messages``). It ends with standard
input, and on Linux with its parent. Images may make a library do anything: it takes no more memory
than it was told, is the first that a system short of memory ends, and leaves no core behind.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from medimg_edge.errors import (
    BundleError,
    ExtraMissing,
    KeyInvalid,
    MachineFault,
    MedimgEdgeError,
    ModelError,
    ModelRefused,
    RiskUnknown,
    Unexpected,
)
from medimg_edge.kiosk import confinement
from medimg_edge.kiosk.messages import HEAD, Ask, AskAnswer, AskPicture, Refusal, Setup, packed
from medimg_edge.kiosk.shortage import is_of_memory
from medimg_edge.machine import memory

if TYPE_CHECKING:
    from medimg_edge.kiosk.answering import Answering

_LASTING = (BundleError, ModelError, ExtraMissing, KeyInvalid, RiskUnknown)
_ASK = msgspec.json.Decoder(AskAnswer | AskPicture)


def main() -> None:
    """Answer until there are no more requests."""
    confinement.begin()
    requests, answers = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # nothing but answers on the pipe
    head = HEAD.unpack(requests.read(HEAD.size))
    setup = msgspec.json.decode(requests.read(head[0]), type=Setup)
    answering = _loaded(setup)
    if isinstance(answering, Refusal):
        _write(answers, packed(answering, 0))
        return
    _write(answers, packed(answering.ready, 0))
    for ask, payload in _asked(requests):
        told, parts = answering.told(ask, payload)
        _write(answers, packed(told, sum(map(len, parts))), *parts)


def _loaded(setup: Setup) -> Answering | Refusal:
    """What answers, or why nothing was loaded."""
    start = None
    try:
        from medimg_edge.kiosk.answering import Answering  # here: what cannot be loaded is told
        from medimg_edge.kiosk.start import Start

        start = Start(setup)
        answering = Answering(setup, start)
        start.ended_well()
    except BaseException as error:
        confinement.step(0)
        ours, passes = _ours(error)
        if start is None:
            return Refusal(ours.code, ours.message, passes)
        passes = start.may_pass(ours) or passes
        return Refusal(ours.code, ours.message, passes, start.folder, start.hash)
    return answering


def _ours(error: BaseException) -> tuple[MedimgEdgeError, bool]:
    """As an error of ours, and whether it may pass.

    There is no image yet, so a foreign error's words may be told.
    """
    if is_of_memory(error):
        return _of_memory(error)
    if isinstance(error, MedimgEdgeError):
        return error, not isinstance(error, _LASTING)
    told = _told(error)
    if isinstance(error, ImportError):  # such as a native library that this machine cannot load
        return ExtraMissing(
            f"The installation is broken ({told}). Install medimg-edge anew."
        ), False
    return Unexpected(told), True


def _of_memory(error: BaseException) -> tuple[MedimgEdgeError, bool]:
    """Either the machine has too little, or the model wanted more than any may have."""
    free = memory().available
    if free is not None and free > confinement.LOADING_BYTES:
        return ModelRefused(
            f"The model takes more than {confinement.LOADING_BYTES / 2**20:.0f} MB to be loaded "
            f"and to answer its golden set ({_told(error)}). Do not use the bundle here."
        ), False
    return MachineFault(
        f"What answers finds too little memory to load ({_told(error)}). Free memory."
    ), True


def _told(error: BaseException) -> str:
    first = error.__cause__ or error  # numpy has a page of advice for its own
    return f"{type(first).__name__}: {first}"


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
