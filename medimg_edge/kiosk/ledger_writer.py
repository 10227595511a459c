"""Writes a record: one thread, which brings all entries that wait to the disk in one commit."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from medimg_edge.errors import WriteError
from medimg_edge.kiosk.chain import GENESIS, Entry, Kind, sealed
from medimg_edge.kiosk.ledger_file import Synchronous, open_to_write, sqlite_errors
from medimg_edge.kiosk.ledger_reader import COLUMNS, stamp

BATCH = 256
"""The most that one commit takes, so that none of them waits for long."""

T = TypeVar("T")


class Tail:
    """The end of the record inside of a transaction, where entries are added.

    connection: for what they depend on.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        row = connection.execute(
            "SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self._sequence, self._hash = row or (0, GENESIS)

    def add(self, kind: Kind, name: str, body: str) -> Entry:
        """One more. Raises sqlite3.Error."""
        entry = sealed(self._sequence + 1, stamp(now()), kind, name, body, self._hash)
        self.connection.execute(
            f"INSERT INTO entries ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(entry.sequence, entry.time, entry.kind, entry.id),
                *(entry.body, entry.previous, entry.hash),
            ),
        )
        self._sequence, self._hash = entry.sequence, entry.hash
        return entry


class _Job(NamedTuple):
    work: Callable[[Tail], Any]
    future: Future[Any]


class Writer:
    """Does what is submitted, in order, and tells when it is on the disk.

    Work raises what is its own before it adds or removes anything: the others of its commit are not
    concerned. Where the commit fails none of them is kept, and the next one starts anew.

    Construction raises as ``open_to_write``.
    """

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self._path: Path = path
        self._synchronous: Synchronous = synchronous
        self._connection: sqlite3.Connection | None = open_to_write(path, synchronous)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what was submitted, and end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def submit(self, work: Callable[[Tail], T]) -> Future[T]:
        """The future of what ``work`` returns, once that is on the disk; WriteError where not.

        Where it is cancelled before its turn it is not done.
        """
        future: Future[T] = Future()
        with self._lock:
            if not self._closed:
                self._jobs.put(_Job(work, future))
                return future
        future.set_exception(WriteError("The record is closed: the service ends."))
        return future

    def _run(self) -> None:
        while jobs := self._next():
            jobs = [each for each in jobs if each.future.set_running_or_notify_cancel()]
            try:
                results = self._committed(jobs)
            except Exception as error:
                self._disconnect()
                results = [error] * len(jobs)
            for job, result in zip(jobs, results, strict=True):
                if isinstance(result, Exception):
                    job.future.set_exception(result)
                else:
                    job.future.set_result(result)
        self._disconnect()

    def _next(self) -> list[_Job]:
        """All that wait, at least one; none at the end."""
        jobs: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            jobs.append(job)
            if len(jobs) == BATCH:
                return jobs
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return jobs
        if jobs:
            self._jobs.put(None)
        return jobs

    def _committed(self, jobs: list[_Job]) -> list[Any]:
        """What each returned, or why it was not done. Raises WriteError where none was."""
        connection = self._connect()
        with sqlite_errors(self._path):
            connection.execute("BEGIN IMMEDIATE")
            tail = Tail(connection)
            results = [_done(each, tail) for each in jobs]
            connection.execute("COMMIT")
        return results

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_to_write(self._path, self._synchronous)
        return self._connection

    def _disconnect(self) -> None:
        """Which takes back what was not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def now() -> datetime:
    """By this machine's clock, which may be wrong."""
    return datetime.now(UTC)


def _done(job: _Job, tail: Tail) -> Any:
    try:
        return job.work(tail)
    except sqlite3.Error:
        raise
    except Exception as error:
        return error
