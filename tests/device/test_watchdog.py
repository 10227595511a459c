"""The thread that stops what takes too long, with real blocks that take it."""

import os
import statistics
import subprocess
import sys
import threading
import time

import pytest

from medimg_edge import watchdog
from medimg_edge.watchdog import GRACE_SECONDS, IDLE_SECONDS, TICK_SECONDS, Watched


def watching() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "watchdog"]


def test_what_ends_in_time_is_left_alone():
    stopped = threading.Event()
    with Watched(0.3, stopped.set) as watched:
        time.sleep(0.1)
    assert not stopped.wait(0.6)
    assert not watched.expired


def test_what_takes_too_long_is_stopped_once():
    calls: list[float] = []
    started = time.monotonic()
    with Watched(0.3, lambda: calls.append(time.monotonic() - started)) as watched:
        time.sleep(1)
    (after,) = calls
    assert 0.3 <= after < 0.3 + TICK_SECONDS + 0.6
    assert watched.expired


def test_blocks_have_their_own_times():
    stopped = [threading.Event() for _ in range(20)]
    ends = [0.2 if index % 2 else 5.0 for index in range(20)]
    blocks = [Watched(end, event.set) for end, event in zip(ends, stopped, strict=True)]
    for block in blocks:
        block.__enter__()
    assert all(event.wait(3) for end, event in zip(ends, stopped, strict=True) if end < 1)
    for block in blocks:
        block.__exit__()
    assert [event.is_set() for event in stopped] == [end < 1 for end in ends]


def test_there_is_one_thread_and_only_while_it_is_needed():
    with Watched(5, None):
        assert len(watching()) == 1
        workers = [threading.Thread(target=lambda: Watched(5, None).__enter__()) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(watching()) == 1
        watchdog._running.clear()
    time.sleep(IDLE_SECONDS + 10 * TICK_SECONDS)
    assert watching() == []
    with Watched(5, None):
        assert len(watching()) == 1


@pytest.mark.parametrize("stop", [None, lambda: None])
def test_the_last_resort_follows_where_nothing_else_helped(stop):
    """Also where there was nothing to stop it with."""
    called: list[float] = []
    watchdog.at_last(lambda: called.append(time.monotonic()))
    try:
        started = time.monotonic()
        with Watched(0.2, stop):
            time.sleep(0.3)
            assert not called
            while not called and time.monotonic() - started < GRACE_SECONDS + 5:
                time.sleep(0.05)
    finally:
        watchdog.at_last(None)
    assert 0.2 + GRACE_SECONDS <= called[0] - started < 0.2 + GRACE_SECONDS + 3


@pytest.mark.alone
def test_it_costs_microseconds():
    times = []
    with Watched(20, None):  # the thread is there
        for _ in range(2000):
            started = time.perf_counter()
            with Watched(20, None):
                pass
            times.append(time.perf_counter() - started)
    assert statistics.median(times) < 15e-6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_process_has_its_own():
    program = (
        "import os, time\n"
        "from medimg_edge.watchdog import Watched\n"
        "with Watched(9, None):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        seen = []\n"
        "        with Watched(0.2, lambda: seen.append(1)): time.sleep(0.6)\n"
        "        os._exit(7 if seen == [1] else 1)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("7\n", "")


def test_it_keeps_no_process_from_ending():
    program = "from medimg_edge.watchdog import Watched; Watched(99, None).__enter__()"
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert time.monotonic() - started < 20
