"""The process that answers, as the service sees it: messages in order, deadlines, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from medimg_edge.errors import AnswerStopped, MachineFault, MedimgEdgeError
from medimg_edge.kiosk.messages import (
    HEAD,
    Answer,
    Ask,
    Facts,
    Picture,
    Ready,
    Refusal,
    Setup,
    packed,
)

START_SECONDS = 120.0
"""To load a model and to answer its golden set, on a small device."""

END_SECONDS = 2.0
"""To end when it is asked to."""

GRACE_SECONDS = 0.25
"""For an answer that is on its way when its time is over: this process may have been stopped."""

_READ_AHEAD = 2**20

_SMALL = 2**17
"""Bytes that are copied sooner than they are written by themselves."""

_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # more of them keep tens of MB for threads that hardly allocate
    "MALLOC_TRIM_THRESHOLD_": str(8 * 2**20),  # what a large image took is given back
    "OMP_NUM_THREADS": "1",
}

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM})
"""Somebody ended it, such as a system that is short of memory: it is not of the image alone."""

_TOLD = msgspec.json.Decoder(Ready | Refusal | Answer | Picture)

End = tuple[Any, bytes] | MedimgEdgeError


@dataclass(eq=False)
class Job:
    """What is asked, and what waits for its end.

    done: what was told and its payload, or why there is no answer: as a value, for as an exception
        it would hold the frames of whoever waits, and they the job.
    began: when nothing was before it any more, by ``time.monotonic`` as ``asked`` is. tries: how
        often that came to be. facts: of what it was sent to.
    """

    ask: Ask
    payload: bytes
    done: asyncio.Future[End]
    asked: float = field(default_factory=time.monotonic)
    began: float = 0.0
    tries: int = 0
    facts: Facts | None = None

    def end(self, end: End) -> None:
        """Whoever waited may have gone."""
        if not self.done.done():
            self.done.set_result(end)


class Child:
    """Answers jobs in the order in which they are sent, each within ``seconds``.

    sent: those without an answer yet; the first is the one that is being answered.
    late: the one that took too long, because of which it was ended.
    facts: of what answers, once it is ready.
    """

    def __init__(self, process: Process, seconds: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._seconds = process, seconds
        self._requests, self._answers = process.stdin, process.stdout
        self._watch: asyncio.TimerHandle | None = None
        self.sent: deque[Job] = deque()
        self.late: Job | None = None
        self.facts: Facts | None = None

    @classmethod
    async def start(cls, setup: Setup, seconds: float) -> Child:
        """A process that loads what ``setup`` says. Raises MachineFault."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "medimg_edge.kiosk.answers_child"),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,  # libraries quote there what files hold
                limit=_READ_AHEAD,
                env=_ENVIRONMENT | os.environ,
                start_new_session=True,  # what ends a group, such as Ctrl-C, ends us alone
            )
        except (OSError, TypeError) as error:  # no memory, or no Python to start
            raise MachineFault(
                f"Images are answered by a process of their own, and {sys.executable or 'Python'} "
                "cannot be started for it. Free memory."
            ) from error
        child = cls(process, seconds)
        child._write(packed(setup, 0), b"")
        return child

    async def ready(self) -> Ready | Refusal | None:
        """What it says once it has loaded; None where it is gone, or silent for too long."""
        self._watched(START_SECONDS)
        found = await self._receive()
        self._watched(None)
        told = found[0] if found is not None else None
        if isinstance(told, Ready):
            self.facts = told.facts
        return told

    def send(self, job: Job) -> None:
        """Have a job answered; what is answered before it may still be on its way."""
        job.facts = self.facts
        self.sent.append(job)
        if len(self.sent) == 1:
            self._begin(job)
        self._write(packed(job.ask, len(job.payload)), job.payload)

    async def answered(self) -> bool:
        """Wait until the first of ``sent`` has its answer; False where the process is gone."""
        found = await self._receive()
        if found is None or not self.sent:
            return False
        self.sent.popleft().end(found)
        self._watched(None)
        if self.sent:
            self._begin(self.sent[0])
        return True

    def close(self) -> None:
        """Ask it to end once it has answered what was sent."""
        with suppress(OSError):
            self._requests.close()

    async def ended(self) -> int:
        """End it if it runs, and return how it ended: its code, or a signal as a negative one."""
        self._watched(None)
        self._kill()
        self.close()
        return await self._process.wait()

    def how(self, code: int) -> str:
        """Why it ended, in a word or two; code: of ``ended``."""
        if self.late is not None:
            return "deadline"
        return f"signal {-code}" if code < 0 else f"code {code}"

    def blames_first(self, code: int) -> AnswerStopped | None:
        """Why the first of ``sent`` gets no answer; None where it is to be sent again."""
        first = self.sent[0]
        if self.late is first:
            return AnswerStopped(
                f"The image was not answered within {self._seconds:g} seconds, and was given up. "
                "It may be damaged: export it again."
            )
        if self.late is not None or (-code in _FROM_OUTSIDE and first.tries == 1):
            return None
        return AnswerStopped(
            "The process that answered the image ended over it. It may be damaged, or too large "
            "for this machine: export it again."
        )

    async def end(self) -> None:
        """Let it end by itself."""
        self._watched(None)
        self.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        await self.ended()

    def _begin(self, job: Job) -> None:
        job.began = time.monotonic()
        job.tries += 1
        self._watched(self._seconds)

    def _watched(self, seconds: float | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        later = asyncio.get_running_loop().call_later
        self._watch = None if seconds is None else later(seconds, self._too_late)

    def _too_late(self) -> None:
        later = asyncio.get_running_loop().call_later
        self._watch = later(GRACE_SECONDS, self._end_late)

    def _end_late(self) -> None:
        self.late = self.sent[0] if self.sent else None
        self._kill()

    def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                # Not by subprocess, which would ask how it ended and leave nothing for asyncio.
                os.kill(self._process.pid, signal.SIGKILL)

    def _write(self, head: bytes, payload: bytes) -> None:
        with suppress(OSError, RuntimeError):  # it is gone, which reading tells
            if len(payload) < _SMALL:
                self._requests.write(head + payload)
            else:
                self._requests.write(head)
                self._requests.write(payload)

    async def _receive(self) -> tuple[Any, bytes] | None:
        try:
            head = await self._answers.readexactly(HEAD.size)
            length, payload_bytes = HEAD.unpack(head)
            told = _TOLD.decode(await self._answers.readexactly(length))
            return told, await self._answers.readexactly(payload_bytes)
        except (asyncio.IncompleteReadError, OSError, msgspec.DecodeError):
            return None
