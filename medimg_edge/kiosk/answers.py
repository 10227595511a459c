"""Images in, answers out, by a process that may be ended: the line before it, and its successor.

A bomb or a hang costs the answer of one image, and nothing else. A bundle that takes the place of
another one costs none.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from medimg_edge import record
from medimg_edge.errors import (
    AnswerStopped,
    Busy,
    MedimgEdgeError,
    NotReady,
    Unexpected,
)
from medimg_edge.installed import Active
from medimg_edge.kiosk.child import Child, Job
from medimg_edge.kiosk.keeper import Keeper, Loaded, State, gone
from medimg_edge.kiosk.layout import opened
from medimg_edge.kiosk.messages import (
    AskAnswer,
    AskPicture,
    Facts,
    Layer,
    Ready,
    Setup,
    Status,
    error_of,
)
from medimg_edge.kiosk.named import Named
from medimg_edge.kiosk.settings import Limits
from medimg_edge.manifest import OperatingPoint

__all__ = ["Answered", "Answers", "Facts"]

WAITING_BYTES = 100 * 10**6
"""Of the images that wait: many large ones must not take all memory."""

WATCH_SECONDS = 1.0
"""How often it is looked what is installed."""


class Answered(NamedTuple):
    """An image's record, as JSON; and its view, where it could be read.

    waited_ms: until it was its turn. answer_ms: from then on. points: of what answered.
    """

    record: bytes
    status: Status
    code: str | None
    decision: str | None
    view: bytes | None
    waited_ms: float
    answer_ms: float
    points: dict[str, OperatingPoint]


class Answers:
    """One image after the other, first come, first served. For one event loop.

    bundle: its folder. name: the name that it goes by; what is installed by it answers instead, and
    what is installed later takes its place without a pause. artifact, profile, force, risk: see
    ``Classifier``; artifact ``auto`` is also what ``tune`` chose. trusted: the folder of the keys
    that may have signed it, by default that of ``trust``; allow_unsigned: see ``trust.require``.
    log: is told what an operator should know. ready: is called when the golden set of a bundle has
    passed, from which on it answers.

    declined: why what is installed is not what answers; None where it is.
    """

    def __init__(
        self,
        *,
        bundle: Path,
        name: str | None = None,
        artifact: str = "auto",
        profile: str | None = "auto",
        force: bool = False,
        risk: float | None = None,
        trusted: Path | None = None,
        allow_unsigned: bool = False,
        limits: Limits,
        log: Callable[..., None],
        ready: Callable[[Facts], object] = lambda facts: None,
    ) -> None:
        self._setup = Setup(
            bundle=str(bundle),
            name=name,
            artifact=artifact,
            profile=profile,
            force=force,
            risk=risk,
            trusted=None if trusted is None else str(trusted),
            allow_unsigned=allow_unsigned,
            memory_bytes=limits.memory_bytes,
        )
        self._limits, self._log, self._ready = limits, log, ready
        self._line: deque[Job] = deque()
        self._bytes = 0
        self._keeper = self._kept(None)
        self._leaving: list[Keeper] = []
        self._named = None if name is None else Named(name)
        self._watching: asyncio.Task[None] | None = None
        self._tried: tuple[str | None, str | None] | None = None
        self.declined: MedimgEdgeError | None = None

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._keeper.start()
        if self._named is not None:
            self._watching = asyncio.create_task(self._watch(self._named))

    async def stop(self) -> None:
        """End the process. What still waits gets no answer: NotReady."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})
        for each in (*self._leaving, self._keeper):
            await each.stop()
        self._keeper.give_up(NotReady("The service is being stopped."))

    @property
    def state(self) -> State:
        """Of what answers; see ``Keeper``."""
        return self._keeper.state

    @property
    def facts(self) -> Facts | None:
        """Of what answers, once it was ready."""
        return self._keeper.facts

    @property
    def folder(self) -> str | None:
        """Of the bundle that answers, once it was ready."""
        return self._keeper.folder

    @property
    def refusal(self) -> MedimgEdgeError | None:
        """Why nothing answers."""
        return self._keeper.refusal

    @property
    def waiting(self) -> int:
        """How many images and pictures wait, or are being answered."""
        children = [each.child for each in (self._keeper, *self._leaving)]
        return len(self._line) + sum(len(each.sent) for each in children if each)

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
                record.encode(failed), failed.status, failed.code, None, None, *_end(job)
            )
        if told.fault is not None:
            self._log("unexpected", fault=told.fault)
        return Answered(
            bytes(told.record), told.status, told.code, told.decision, view or None, *_end(job)
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
        self._keeper.feed()
        try:
            end = await job.done
        finally:
            self._bytes -= len(job.payload)
            with suppress(ValueError):
                self._line.remove(job)
        if isinstance(end, MedimgEdgeError):
            raise copy(end)  # else the job would hold its own frames
        return end

    def _kept(self, loaded: Loaded | None) -> Keeper:
        return Keeper(
            self._setup,
            self._line,
            seconds=self._limits.answer_seconds,
            log=self._log,
            ready=self._tell_ready,
            feed_other=lambda: self._keeper.feed(),
            loaded=loaded,
        )

    def _tell_ready(self, told: Ready) -> None:
        self.declined = None
        self._ready(told.facts)

    async def _watch(self, named: Named) -> None:
        """Have what is installed later take the place of what answers."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                active = named.active()
                if active is not None and self._is_news(active):
                    await self._succeed(active)
            except MedimgEdgeError as error:
                self._decline(error)
            except Exception as error:  # the edge: what answers goes on
                self._decline(Unexpected(f"A fault of medimg-edge: {error!r}. Please report it."))
            self._leaving = [each for each in self._leaving if not each.is_done]

    def _is_news(self, active: Active) -> bool:
        """Whether something else is installed than what answers, and than what was tried."""
        keeper = self._keeper
        if keeper.state == "starting" and keeper.facts is None:  # it starts what is installed
            return False
        if keeper.facts and keeper.refusal is None and keeper.facts.hash == active.hash:
            self._tried = self.declined = None
            return False
        return (str(active.folder), active.hash) not in (self._tried, keeper.tried)

    async def _succeed(self, active: Active) -> None:
        """Start a process for what is installed now; once it is ready, images go to it.

        Raises MachineFault, and why the bundle must not answer here.
        """
        self._tried = (str(active.folder), active.hash)
        self._log("another bundle is installed", model=active.name, version=active.version)
        child = await Child.start(self._setup, self._limits.answer_seconds)
        try:
            told = await child.ready()
            if not isinstance(told, Ready):
                refusal = told or gone(await child.ended())
                raise error_of(refusal.code, refusal.message)
            before, self._keeper = self._keeper, self._kept(Loaded(child, told))
        except BaseException:
            await child.end()
            raise
        self._keeper.start()
        self._leaving.append(before)
        before.leave()

    def _decline(self, error: MedimgEdgeError) -> None:
        """What answered goes on to answer."""
        self.declined = error
        self._log("what is installed is not used", code=error.code, message=error.message)


def _end(job: Job) -> tuple[float, float, dict[str, OperatingPoint]]:
    """Milliseconds that it waited, and that its answer took; and the points of what answered."""
    began, now = job.began or time.monotonic(), time.monotonic()
    points = job.facts.operating_points if job.facts else {}
    return round((began - job.asked) * 1000, 2), round((now - began) * 1000, 2), points
