"""A function over many items, in threads: in order, as they come, and never many at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock, Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW = 4
"""Items begun and not yet handed on, for each worker: that many wait for a slow one before them."""


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result]:
    """Yield the function of each item, in their order, with ``workers`` threads at work.

    The threads also read ``items``, one of them at a time and a little ahead, so that a result is
    handed on while the next item is still awaited. What the function or the items raise is raised
    in its place. Once the results are no longer asked for, no further item is begun. Meanwhile
    OpenCV, which has threads of its own, works in those that call it.
    """
    with _opencv_without_threads():
        yield from _Batch(function, iter(items), workers).results()


@contextmanager
def _opencv_without_threads() -> Iterator[None]:
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Batch:
    def __init__(
        self, function: Callable[[Item], Result], items: Iterator[Item], workers: int
    ) -> None:
        self._function, self._items = function, items
        self._reading = Lock()
        self._room = Semaphore(WINDOW * workers)
        self._order: SimpleQueue[SimpleQueue | None] = SimpleQueue()
        self._ended = False
        # Daemons: one that waits for an item that never comes must not keep the process alive.
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(workers)]

    def results(self) -> Iterator:
        for each in self._threads:
            each.start()
        try:
            while (outcome := self._order.get()) is not None:
                result, error = outcome.get()
                if error is not None:
                    raise error
                self._room.release()
                yield result
        finally:
            self._ended = True
            self._room.release(len(self._threads))

    def _work(self) -> None:
        while True:
            self._room.acquire()
            outcome: SimpleQueue = SimpleQueue()
            with self._reading:
                if self._ended:
                    return
                try:
                    item = next(self._items)
                except StopIteration:
                    self._ended = True
                    self._order.put(None)
                    return
                except BaseException as error:
                    self._ended = True
                    outcome.put((None, error))
                    self._order.put(outcome)
                    return
                self._order.put(outcome)
            try:
                outcome.put((self._function(item), None))
            except BaseException as error:
                outcome.put((None, error))
