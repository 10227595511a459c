"""Has a process that answers what waits in a line, and another one when that is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from medimg_edge.errors import MachineFault, MedimgEdgeError, ModelDeadline, NotReady, Unexpected
from medimg_edge.kiosk.child import Child, Job
from medimg_edge.kiosk.messages import STEP_SECONDS, Facts, Ready, Refusal, Setup, error_of
from medimg_edge.kiosk.named import may_go_back

STABLE_SECONDS = 10.0
"""A process that lives as long has started well."""

RESTART_SECONDS = 10.0
"""Images wait for as long for a process that replaces one."""

LATE_STARTS = 2
"""So many in a row that take too long, and the model is refused: a machine may stand still once."""

_AHEAD = 2
"""The one that is answered, and the next: it is there when the process wants it."""

_PAUSES = (0, 1, 2, 4, 8, 16, 32, 60)
"""Seconds before a process that could not start is started again, one after the other."""

State = Literal["starting", "ready", "refused"]


class Loaded(NamedTuple):
    """A process that has said that it is ready."""

    child: Child
    ready: Ready


class Keeper:
    """Answers by one bundle, whichever that is at its first start. For one event loop.

    line: what waits, for this keeper and the one after it. seconds: for an answer. loaded: what
    answers, where it has started already. ready: is told of it, when the golden set has passed.
    feed_other: is called where what was sent goes back to the line of a keeper that leaves.

    state: ``ready`` once the golden set has passed, also while a process that was ended is
        replaced, for then images wait; ``refused`` where this bundle must not answer here.
    facts, folder: of the bundle, once it was ready. refusal: why it is refused. child: the process
        that answers now. tried: folder and hash of the bundle that was refused.
    """

    def __init__(
        self,
        setup: Setup,
        line: deque[Job],
        *,
        seconds: float,
        log: Callable[..., None],
        ready: Callable[[Ready], object],
        feed_other: Callable[[], object],
        loaded: Loaded | None = None,
    ) -> None:
        self._first = self._setup = setup
        self._line, self._seconds, self._log = line, seconds, log
        self._tell_ready, self._feed_other, self._loaded = ready, feed_other, loaded
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._late = 0
        self._is_leaving = False
        self._told: str | None = None
        self.state: State = "ready" if loaded else "starting"
        self.facts: Facts | None = loaded.ready.facts if loaded else None
        self.folder: str | None = loaded.ready.folder if loaded else None
        self.refusal: MedimgEdgeError | None = None
        self.tried: tuple[str | None, str | None] | None = None
        self.child: Child | None = None

    def start(self) -> None:
        """Begin to load."""
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(self._stopped)

    async def stop(self) -> None:
        """End the process; what it has not answered is in the line again."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._loaded is not None:  # it had not begun
            await self._loaded.child.end()
        if self._ending is not None:
            await self._ending

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._running is not None and self._running.done()

    def leave(self) -> None:
        """Take nothing more from the line, and end when what was sent has its answers."""
        self._is_leaving = True
        if self.child is None:
            if self._running is not None:
                self._running.cancel()
        elif not self.child.sent:
            self.child.close()

    def feed(self) -> None:
        """Send what waits, as far as the process is to have it now."""
        if self._is_leaving:
            return
        while self.child and self._line and len(self.child.sent) < _AHEAD:
            self.child.send(self._line.popleft())

    def give_up(self, error: MedimgEdgeError) -> None:
        """End all that waits in the line; one that leaves has none."""
        while self._line and not self._is_leaving:
            self._line.popleft().end(error)

    async def _run(self) -> None:
        failures = 0
        while self.refusal is None:
            started_well = await self._run_one()
            if self._is_leaving:
                return
            if started_well:
                failures = 0
                continue
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            if pause and self.refusal is None:
                self.state = "starting"
            if self.state != "ready":
                passing = NotReady("Answering does not start just now. Try again in some minutes.")
                self.give_up(self.refusal or passing)
            await asyncio.sleep(0 if self.refusal else pause)

    def _stopped(self, running: asyncio.Task[None]) -> None:
        """By a fault of ours, nobody has images answered any more: that has to be told."""
        if not running.cancelled() and (error := running.exception()) is not None:
            self._refuse(Unexpected(f"A fault of medimg-edge: {error!r}. Start it again."))
            self.give_up(NotReady("The service has to be started again."))

    async def _run_one(self) -> bool:
        """Whether a process started well; returns when it is gone."""
        loaded, self._loaded = self._loaded, None
        try:
            child = loaded.child if loaded else await Child.start(self._setup, self._seconds)
        except MachineFault as error:
            return self._does_not_start(error.code, error.message)
        slow = asyncio.get_running_loop().call_later(RESTART_SECONDS, self._is_slow)
        try:
            told = loaded.ready if loaded else await child.ready()
            if not self._is_ready(told or gone(await child.ended())):
                return False
            slow.cancel()
            return await self._attend(child)
        finally:
            slow.cancel()
            self.child = None
            self._line.extendleft(each for each in reversed(child.sent) if not each.done.done())
            if self._is_leaving:
                self._feed_other()
            self._ending = asyncio.create_task(child.end())
            await asyncio.shield(self._ending)

    async def _attend(self, child: Child) -> bool:
        since = time.monotonic()
        self.child = child
        self.feed()
        while (child.sent or not self._is_leaving) and await child.answered():
            self.feed()
        self.child = None
        if self._is_leaving and not child.sent:
            return True
        was_busy = bool(child.sent)
        self._take_back(child, await child.ended())
        return was_busy or time.monotonic() - since > STABLE_SECONDS

    def _is_slow(self) -> None:
        """A replacement loads for longer than images are to wait for it."""
        self.state = "starting"
        self.give_up(NotReady("Answering is started anew, which takes long. Try again later."))

    def _is_ready(self, told: Ready | Refusal) -> bool:
        if isinstance(told, Refusal):
            return self._is_refused(told)
        for note in told.notes:
            self._log(note)
        self.folder = told.folder
        if self._told != told.facts.hash:
            self._told = told.facts.hash
            self._log("ready", model=told.facts.name, version=told.facts.version)
            self._tell_ready(told)
        self.facts, self.state = told.facts, "ready"
        if self._first.name is not None:  # which may mean one that was declined
            self._setup = msgspec.structs.replace(
                self._first, bundle=told.folder, hash=told.facts.hash, name=None
            )
        return True

    def _is_refused(self, told: Refusal) -> Literal[False]:
        self.tried = (told.folder, told.hash)
        is_lasting = not told.passing or self._is_late_again(told)
        if is_lasting and self._setup is not self._first:
            self._setup = self._first  # its slot may be another bundle's by now
        elif is_lasting:
            self._refuse(error_of(told.code, told.message))
        return self._does_not_start(told.code, told.message)

    def _is_late_again(self, told: Refusal) -> bool:
        """What has answered once is tried again for ever."""
        self._late = self._late + 1 if told.code == ModelDeadline.code else 0
        is_new = self.facts is None and not may_go_back(self._setup.name)
        return is_new and self._late >= LATE_STARTS

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


def gone(code: int) -> Refusal:
    """What a process would have said that ended without a word. code: how it ended."""
    if code == -signal.SIGALRM:
        return Refusal(
            ModelDeadline.code,
            "The model was not loaded, or did not answer an image of its golden set, within "
            f"{STEP_SECONDS:g} seconds, and was stopped. Do not use the bundle on this machine.",
            passing=True,
        )
    return Refusal(
        MachineFault.code,
        "What answers is gone, or is silent; `medimg-edge doctor` may tell why.",
        passing=True,
    )
