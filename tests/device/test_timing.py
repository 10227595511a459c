"""What is counted, and how often."""

import itertools
import threading

import pytest

from medimg_edge import timing


@pytest.mark.parametrize(("seconds", "least", "calls"), [(0, 3, 3), (5, 1, 5), (2.5, 1, 3)])
def test_seconds_and_calls(monkeypatch, seconds, least, calls):
    """By a clock that goes on a second in each call."""
    clock = itertools.count()
    now = [0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    made = timing.timed(lambda: now.__setitem__(0, next(clock)), seconds=seconds, least=least)
    assert made == [1] * calls  # the first is not among them


def test_an_error_goes_through():
    with pytest.raises(ZeroDivisionError):
        timing.timed(lambda: 1 / 0, seconds=1, least=1)


@pytest.mark.parametrize(("seconds", "least", "calls"), [(0, 3, 3), (5, 1, 5), (2.5, 1, 3)])
def test_calls_a_second(monkeypatch, seconds, least, calls):
    """By the same clock; two more calls come before it."""
    clock = itertools.count(1)
    now = [0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def call() -> None:
        now[0] = next(clock)

    # What is begun a call ahead of the clock may be one more.
    assert timing.rate(call, at_once=1, seconds=seconds, least=least) == 1
    assert calls + 2 <= now[0] <= calls + 3


def test_so_many_at_once():
    """Each call waits for two others."""
    together = threading.Barrier(3, timeout=30)
    made = []

    def call() -> None:
        together.wait()
        made.append(1)

    assert timing.rate(call, at_once=3, seconds=0, least=4) > 0
    assert len(made) == 6 + 12
    with pytest.raises(ZeroDivisionError):
        timing.rate(lambda: 1 / 0, at_once=2, seconds=0, least=1)
