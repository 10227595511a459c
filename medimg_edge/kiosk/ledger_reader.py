"""Reads a record: one answer, lists of them, all entries, and whether the chain is whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from queue import LifoQueue

import msgspec

from medimg_edge.errors import LedgerDamaged
from medimg_edge.kiosk.chain import GENESIS, Chain, Entry, Verified
from medimg_edge.kiosk.kept import Kept, acknowledged_of, kept_of
from medimg_edge.kiosk.ledger_file import (
    NAME,
    open_to_read,
    opened_anywhere,
    require_whole,
    sqlite_errors,
)

PAGE = 200
"""The most answers that one list gives."""

CONNECTIONS = 4
"""So many read at a time: an answer does not wait for a list that takes long."""

COLUMNS = "sequence, time, kind, id, body, previous, hash"

_SELECTED = "SELECT e.sequence, e.time, e.kind, e.id, e.body, e.previous, e.hash, a.time, a.body"

_NEWEST = "SELECT max(sequence) FROM entries WHERE kind = 'acknowledgement' AND answer ="

_ANSWERS = f"""
    {_SELECTED} FROM entries e LEFT JOIN entries a ON a.sequence = ({_NEWEST} e.sequence)
    WHERE e.kind = 'answer'
"""

# In the order of the answers, from the index of acknowledgements: CROSS is a's turn first.
_ACKNOWLEDGED = f"""
    {_SELECTED} FROM entries a CROSS JOIN entries e ON e.sequence = a.answer
    WHERE a.kind = 'acknowledgement' AND a.sequence = ({_NEWEST} a.answer) AND e.kind = 'answer'
"""

# Where a clock only goes forward, all between them is of that time.
_OF_TIME = "FROM entries INDEXED BY times WHERE time >= ? AND time < ?"


class Reader:
    """Answers of a record that a process is writing. May be shared between threads.

    Methods raise LedgerDamaged; WriteError where the disk does not let them read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: LifoQueue[sqlite3.Connection] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(open_to_read(path))

    def close(self) -> None:
        """Wait for those who read. Nothing can be read after that."""
        every = [self._idle.get() for _ in range(CONNECTIONS)]
        for each in every:
            each.close()
            self._idle.put(each)

    def get(self, name: str) -> Kept | None:
        """The answer with an id."""
        found = self._kept(f"{_ANSWERS} AND e.id = ?", name)
        return found[0] if found else None

    def of_key(self, key: str) -> str | None:
        """The id of the answer to a request that was called so."""
        rows = self._rows("SELECT id FROM entries WHERE kind = 'answer' AND key = ?", key)
        return rows[0][0] if rows else None

    def page(
        self,
        *,
        limit: int = 50,
        before: int | None = None,
        status: str | None = None,
        decision: str | None = None,
        code: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        input_sha256: str | None = None,
        acknowledged: bool | None = None,
    ) -> tuple[list[Kept], int | None]:
        """The newest answers for which all of that holds, and what ``before`` is for the next page.

        limit: from 1; there are at most PAGE. before: their sequence is below it. since is among
        them, until is not; without a zone they are in UTC. The second is None where there are no
        more.
        """
        limit = min(limit, PAGE)
        number = "a.answer" if acknowledged else "e.sequence"
        asked = {
            f"{number} < ?": before,
            "e.status = ?": status,
            "e.decision = ?": decision,
            "e.code = ?": code,
            "e.input_sha256 = ?": input_sha256,
        }
        conditions = {each: [value] for each, value in asked.items() if value is not None}
        if since is not None or until is not None:
            conditions |= _of_time(number, *_period(since, until))
        if acknowledged is False:
            conditions["a.sequence IS NULL"] = []
        where = "".join(f" AND {each}" for each in conditions)
        found = self._kept(
            f"{_ACKNOWLEDGED if acknowledged else _ANSWERS}{where} ORDER BY {number} DESC LIMIT ?",
            *chain.from_iterable(conditions.values()),
            limit + 1,
        )
        more = len(found) > limit
        return found[:limit], found[limit - 1].sequence if more else None

    @property
    def entries(self) -> int:
        """How many the record has."""
        (count,) = self._rows(  # two look-ups, where max and min in one query read everything
            "SELECT (SELECT max(sequence) FROM entries) - (SELECT min(sequence) FROM entries) + 1"
        )[0]
        return count or 0

    @property
    def head(self) -> str:
        """The hash of the last entry."""
        rows = self._rows("SELECT hash FROM entries ORDER BY sequence DESC LIMIT 1")
        return rows[0][0] if rows else GENESIS

    def _kept(self, query: str, *values: object) -> list[Kept]:
        try:
            return [_kept(row) for row in self._rows(query, *values)]
        except msgspec.DecodeError as error:
            raise LedgerDamaged(
                f"The record {self._path} holds an entry that cannot be read: {error}. Leave it as "
                "it is, and restore a copy."
            ) from error

    def _rows(self, query: str, *values: object) -> list[tuple]:
        connection = self._idle.get()
        try:
            with sqlite_errors(self._path):
                return connection.execute(query, values).fetchall()
        finally:
            self._idle.put(connection)


def _of_time(number: str, since: str, until: str) -> dict[str, list]:
    """Conditions, and their values."""
    return {
        f"{number} >= (SELECT min(sequence) {_OF_TIME})": [since, until],
        f"{number} <= (SELECT max(sequence) {_OF_TIME})": [since, until],
        "e.time >= ? AND e.time < ?": [since, until],
    }


def _period(since: datetime | None, until: datetime | None) -> tuple[str, str]:
    """As the record writes times; what is not given is before or after all of them."""
    return stamp(since) if since else "", stamp(until) if until else "~"


def _kept(row: tuple) -> Kept:
    time, body = row[7:]
    return kept_of(Entry(*row[:7]), None if time is None else acknowledged_of(time, body))


def verify(folder: Path, head: str | None = None) -> Verified:
    """Check the whole record in a folder, also while a service writes it, or on a read-only disk.

    head: a hash that was noted earlier, which has to be in it. Raises LedgerDamaged, which says
    what is wrong with which entry; LedgerUnknown; LedgerMissing where there is none; WriteError.
    """
    with _opened(folder / NAME) as connection:
        require_whole(connection)
        followed = Chain(head)
        for entry in _entries(connection):
            followed.add(entry)
        return followed.end()


def entries(
    folder: Path, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Entry]:
    """All entries of the record in a folder, the oldest first, as they were at one moment.

    since is among them, until is not; without a zone they are in UTC. Raises as ``verify``, but
    checks nothing.
    """
    with _opened(folder / NAME) as connection:
        yield from _entries(connection, since, until)


def stamp(moment: datetime) -> str:
    """How the record writes a time; without a zone it is in UTC."""
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:  # on the first or last day of the calendar
        moment = moment.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _entries(
    connection: sqlite3.Connection, since: datetime | None = None, until: datetime | None = None
) -> Iterator[Entry]:
    rows = connection.execute(
        # In the order of the chain: the plus keeps SQLite from sorting by the index of times.
        f"SELECT {COLUMNS} FROM entries WHERE +time >= ? AND +time < ? ORDER BY sequence",
        _period(since, until),
    )
    for row in rows:
        yield Entry(*row)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with opened_anywhere(path) as connection, sqlite_errors(path):
        yield connection
