"""Many items in threads: order, bounds, errors, and an end at any time."""

import threading
import time
from collections.abc import Callable, Iterator

import cv2
import pytest

from medimg_edge.batch import WINDOW, in_order


def until(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    return true()


def workers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if "_work" in each.name]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert until(lambda: not workers()), workers()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_in_order_although_the_first_is_the_slowest(count):
    def squared(item: int) -> int:
        time.sleep(0.05 if item % 5 == 0 else 0)
        return item * item

    assert list(in_order(squared, range(40), count)) == [item * item for item in range(40)]
    assert list(in_order(squared, [], count)) == []


def test_as_many_at_once_as_there_are_workers():
    together = threading.Barrier(3, timeout=10)
    assert list(in_order(lambda _: together.wait() >= 0, range(6), 3)) == [True] * 6


def test_few_are_begun_before_they_are_asked_for():
    begun = []
    results = in_order(begun.append, range(1000), 2)
    assert begun == []
    for asked in (1, 2):
        next(results)
        assert until(lambda asked=asked: len(begun) == 2 * WINDOW + asked)
        time.sleep(0.05)
        assert len(begun) == 2 * WINDOW + asked
    results.close()


def test_a_result_does_not_wait_for_the_next_item():
    """As where files arrive one an hour."""
    more = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        more.wait(10)
        yield 2

    results = in_order(lambda item: item, items(), 2)
    assert next(results) == 1
    assert not more.is_set()
    more.set()
    assert list(results) == [2]


def test_the_end_does_not_wait_for_an_item_that_never_comes():
    never = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        never.wait(10)

    results = in_order(lambda item: item, items(), 2)
    next(results)
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5
    never.set()


def test_what_is_raised_is_raised_in_its_place():
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the list ends here")

    results = in_order(lambda item: 6 // item, items(), 2)
    with pytest.raises(ZeroDivisionError):
        next(results)
    results = in_order(lambda item: 6 // (item + 1), items(), 2)
    assert [next(results) for _ in range(3)] == [6, 3, 2]
    with pytest.raises(OSError, match="the list ends here"):
        next(results)


def test_opencv_has_no_threads_beside_ours():
    before = cv2.getNumThreads()
    results = in_order(lambda _: cv2.getNumThreads(), range(3), 2)
    assert next(results) == 1
    results.close()
    assert cv2.getNumThreads() == before
