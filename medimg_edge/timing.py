"""How long a call takes, again and again."""

from __future__ import annotations

import time
from collections.abc import Callable


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
