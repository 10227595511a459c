"""One thread that stops what runs for too long. It is there while something runs, and a little on.

Native code does not notice that its time is over; somebody else has to stop it. A thread for each
run would cost more than a small network does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

TICK_SECONDS = 0.1
"""How late something may be stopped."""

IDLE_SECONDS = 2.0
"""The thread ends when nothing has run for so long; to start it costs as much as 50 runs."""

GRACE_SECONDS = 1.0
"""How much later the last resort follows, where what was stopped still runs."""


class Watched:
    """A block that is stopped after so many seconds: ``stop`` is called by another thread, once.

    stop: returns at once; None where what runs cannot be stopped. expired: whether the time was
    over before the block ended. Costs about a microsecond.
    """

    __slots__ = ("_end", "_seconds", "_stop", "expired")

    def __init__(self, seconds: float, stop: Callable[[], object] | None) -> None:
        self._seconds, self._stop = seconds, stop
        self._end = 0.0
        self.expired = False

    def __enter__(self) -> Watched:
        self._end = time.monotonic() + self._seconds
        with _lock:
            if _thread is None:
                _start()
            _running.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:  # not while it is being stopped: what runs next is not to be
            _running.discard(self)

    def _check(self, now: float) -> None:
        if now < self._end:
            return
        if not self.expired:
            self.expired = True
            if self._stop is not None:
                self._stop()
        if _last_resort is not None and now > self._end + GRACE_SECONDS:
            _last_resort()


def at_last(resort: Callable[[], object] | None) -> None:
    """What to call where something that was stopped still runs, such as to end the process."""
    global _last_resort
    _last_resort = resort


_lock = threading.Lock()
_running: set[Watched] = set()
_thread: threading.Thread | None = None
_last_resort: Callable[[], object] | None = None


def _start() -> None:
    global _thread
    thread = threading.Thread(target=_watch, name="watchdog", daemon=True)
    thread.start()
    _thread = thread


def _watch() -> None:
    global _thread
    busy = time.monotonic()
    while True:
        time.sleep(TICK_SECONDS)
        now = time.monotonic()
        with _lock:
            for each in _running:
                busy = now
                each._check(now)
            if now > busy + IDLE_SECONDS:
                _thread = None
                return


def _after_fork() -> None:
    """A forked process has none of its parent's threads, and none of what ran in them."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
