"""Images in, answers out, by a process that may be ended: the line before it, and its restarts.

A bomb or a hang costs the answer of one image, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

from medimg_edge import record
from medimg_edge.errors import (
    AnswerStopped,
    Busy,
    MachineFault,
    MedimgEdgeError,
    NotReady,
    Unexpected,
)
from medimg_edge.kiosk.child import Child, Job
from medimg_edge.kiosk.layout import opened
from medimg_edge.kiosk.messages import (
    AskAnswer,
    AskPicture,
    Facts,
    Layer,
    Ready,
    Refusal,
    Setup,
    Status,
    error_of,
)
from medimg_edge.kiosk.settings import Limits

__all__ = ["Answered", "Answers", "Facts"]

WAITING_BYTES = 100 * 10**6
"""Of the images that wait: many large ones must not take all memory."""

STABLE_SECONDS = 10.0
"""A process that lives as long has started well."""

RESTART_SECONDS = 10.0
"""Images wait for as long for a process that replaces one."""

_AHEAD = 2
"""The one that is answered, and the next: it is there when the process wants it."""

_PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""Seconds before a process that could not start is started again, one after the other."""

State = Literal["starting", "ready", "refused"]


class Answered(NamedTuple):
    """An image's record, as JSON; and its view, where it could be read.

    waited_ms: until it was its turn. answer_ms: from then on.
    """

    record: bytes
    status: Status
    code: str | None
    decision: str | None
    view: bytes | None
    waited_ms: float
    answer_ms: float


class Answers:
    """One image after the other, first come, first served. For one event loop.

    bundle: its folder. artifact, profile, force: see ``Classifier``; artifact ``auto`` is also what
    ``tune`` chose. log: is told what an operator should know. ready: is called once, when the
    golden set has passed.

    state: ``ready`` once the golden set has passed, also while a process that was ended is
        replaced, for then images wait; ``refused`` where this bundle must not answer here.
    facts: once it was ready. refusal: why it is refused.
    """

    def __init__(
        self,
        *,
        bundle: Path,
        artifact: str = "auto",
        profile: str | None = "auto",
        force: bool = False,
        limits: Limits,
        log: Callable[..., None],
        ready: Callable[[Facts], object] = lambda facts: None,
    ) -> None:
        self._setup = Setup(str(bundle), artifact, profile, force, limits.memory_bytes)
        self._limits, self._log, self._ready = limits, log, ready
        self._line: deque[Job] = deque()
        self._bytes = 0
        self._child: Child | None = None
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.state: State = "starting"
        self.facts: Facts | None = None
        self.refusal: MedimgEdgeError | None = None

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._stopped)

    async def stop(self) -> None:
        """End the process. What still waits gets no answer: NotReady."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._ending is not None:
            await self._ending
        self._give_up(NotReady("The service is being stopped."))

    @property
    def waiting(self) -> int:
        """How many images and pictures wait, or are being answered."""
        return len(self._line) + (len(self._child.sent) if self._child else 0)

    def require_ready(self) -> None:
        """Raise NotReady, or what the bundle was refused for."""
        if self.refusal is not None:
            raise copy(self.refusal)  # each has a traceback of its own
        if self.state != "ready":
            raise NotReady(
                "The model is being loaded, and its golden set answered. Try again in some seconds."
            )

    async def answer(self, data: bytes, *, name: str, frame: int | None = None) -> Answered:
        """Answer the bytes of an image; an image that has no answer has a record of that.

        name: what the record calls it. frame: of a DICOM file that has several, from 1.
        Raises NotReady, Busy, and what the bundle was refused for.
        """
        job = self._job(AskAnswer(name, frame), data)
        try:
            told, view = await self._done(job)
        except AnswerStopped as error:
            failed = record.failure(name, error, frame)
            return Answered(
                record.encode(failed), failed.status, failed.code, None, None, *_times(job)
            )
        if told.fault is not None:
            self._log("unexpected", fault=told.fault)
        return Answered(
            bytes(told.record), told.status, told.code, told.decision, view or None, *_times(job)
        )

    async def render(self, view: bytes, what: Layer, label: str | None) -> bytes:
        """Draw a view as PNG: the image, a layer of heat to lie over it, or both.

        Raises NotFound (there is no such heatmap), PictureGone, NotReady, Busy, AnswerStopped
        and what the bundle was refused for.
        """
        layout, _ = opened(view)
        if what != "image":
            label = layout.drawn(label)
        told, picture = await self._done(self._job(AskPicture(what, label), view))
        if told.fault is not None:
            self._log("unexpected", fault=told.fault)
        if told.code is not None:
            raise error_of(told.code, told.message)
        return picture

    def _job(self, ask: AskAnswer | AskPicture, payload: bytes) -> Job:
        self.require_ready()
        full = len(self._line) >= self._limits.waiting
        if full or (self._bytes and self._bytes + len(payload) > WAITING_BYTES):
            raise Busy(
                f"{self.waiting} images wait for their answers; no more are taken now. Try again "
                "in some seconds."
            )
        return Job(ask, payload, asyncio.get_running_loop().create_future())

    async def _done(self, job: Job) -> tuple[Any, bytes]:
        """What was told of a job; whoever waits for it may go away."""
        self._line.append(job)
        self._bytes += len(job.payload)
        self._feed()
        try:
            end = await job.done
        finally:
            self._bytes -= len(job.payload)
            with suppress(ValueError):
                self._line.remove(job)
        if isinstance(end, MedimgEdgeError):
            raise copy(end)  # else the job would hold its own frames
        return end

    def _feed(self) -> None:
        while self._child and self._line and len(self._child.sent) < _AHEAD:
            self._child.send(self._line.popleft())

    async def _run(self) -> None:
        """Have a process that answers, and another when that is gone."""
        failures = 0
        while self.refusal is None:
            if await self._run_one():
                failures = 0
                continue
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            if pause and self.refusal is None:
                self.state = "starting"
            if self.state != "ready":
                passing = NotReady("Answering does not start just now. Try again in some minutes.")
                self._give_up(self.refusal or passing)
            await asyncio.sleep(0 if self.refusal else pause)

    def _stopped(self, running: asyncio.Task[None]) -> None:
        """By a fault of ours, nobody has images answered any more: that has to be told."""
        if not running.cancelled() and (error := running.exception()) is not None:
            self._refuse(Unexpected(f"A fault of medimg-edge: {error!r}. Start it again."))
            self._give_up(NotReady("The service has to be started again."))

    async def _run_one(self) -> bool:
        """Whether a process started well; returns when it is gone."""
        try:
            child = await Child.start(self._setup, self._limits.answer_seconds)
        except MachineFault as error:
            return self._does_not_start(error.code, error.message)
        slow = asyncio.get_running_loop().call_later(RESTART_SECONDS, self._is_slow)
        try:
            if not self._is_ready(await child.ready()):
                return False
            slow.cancel()
            since = time.monotonic()
            self._child = child
            self._feed()
            while await child.answered():
                self._feed()
            self._child = None
            was_busy = bool(child.sent)
            self._take_back(child, await child.ended())
            return was_busy or time.monotonic() - since > STABLE_SECONDS
        finally:
            slow.cancel()
            self._child = None
            self._line.extendleft(each for each in reversed(child.sent) if not each.done.done())
            self._ending = asyncio.create_task(child.end())
            await asyncio.shield(self._ending)

    def _is_slow(self) -> None:
        """A replacement loads for longer than images are to wait for it."""
        self.state = "starting"
        self._give_up(NotReady("Answering is started anew, which takes long. Try again later."))

    def _is_ready(self, told: Ready | Refusal | None) -> bool:
        if isinstance(told, Ready):
            for note in told.notes:
                self._log(note)
            if self.facts is None:
                self._log("ready", model=told.facts.name, version=told.facts.version)
                self._ready(told.facts)
            self.facts, self.state = told.facts, "ready"
            return True
        if told is None:
            return self._does_not_start(
                None, "its process is gone, or is silent; `medimg-edge doctor` may tell why"
            )
        if not told.passing:
            self._refuse(error_of(told.code, told.message))
        return self._does_not_start(told.code, told.message)

    def _does_not_start(self, code: str | None, message: str) -> Literal[False]:
        self._log("answering does not start", code=code, message=message)
        if self.refusal is None:
            self.state = "starting"
        return False

    def _refuse(self, error: MedimgEdgeError) -> None:
        self.refusal, self.state = error, "refused"

    def _take_back(self, child: Child, code: int) -> None:
        """What was sent to a process that is gone: the first may be what ended it."""
        self._log("answering is started anew", ended=child.how(code))
        if child.sent and (stopped := child.blames_first(code)):
            child.sent.popleft().end(stopped)

    def _give_up(self, error: MedimgEdgeError) -> None:
        while self._line:
            self._line.popleft().end(error)


def _times(job: Job) -> tuple[float, float]:
    """Milliseconds that it waited, and that its answer took."""
    began, now = job.began or time.monotonic(), time.monotonic()
    return round((began - job.asked) * 1000, 2), round((now - began) * 1000, 2)
