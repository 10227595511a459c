"""How long a call takes, again and again; how many are done in a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from medimg_edge.batch import in_order


def timed(call: Callable[[], object], *, seconds: float, least: int) -> list[float]:
    """Seconds of each call; called until ``seconds`` are over and there are ``least`` calls.

    The first call, which fills caches and allocates, is not counted.
    """
    call()
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while (started := time.perf_counter()) < end or len(durations) < least:
        call()
        durations.append(time.perf_counter() - started)
    return durations


def rate(call: Callable[[], object], *, at_once: int, seconds: float, least: int) -> float:
    """Calls a second, so many at a time; for as long as ``timed``, and each has ``least`` calls.

    The first calls are not counted.
    """

    def calls(turns: Iterator[int]) -> int:
        return sum(1 for _ in in_order(lambda _: call(), turns, at_once))

    calls(iter(range(2 * at_once)))
    started = time.perf_counter()

    def turns() -> Iterator[int]:
        for turn in count():
            if turn >= least * at_once and time.perf_counter() >= started + seconds:
                return
            yield turn

    return calls(turns()) / (time.perf_counter() - started)
