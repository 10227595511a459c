"""What is counted, and how often."""

import itertools

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
