"""The record of what was answered: entries are added, and none is changed."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec

from medimg_edge import disk
from medimg_edge.claim import claim
from medimg_edge.errors import KeyReused, LedgerDamaged, NotFound, RequestInvalid
from medimg_edge.kiosk import retention
from medimg_edge.kiosk.chain import Entry, Pruned
from medimg_edge.kiosk.kept import (
    COMMENT_CHARACTERS,
    Acknowledged,
    Comment,
    Kept,
    New,
    body_of,
    kept_of,
)
from medimg_edge.kiosk.ledger_file import NAME, Synchronous, overwrite_removed
from medimg_edge.kiosk.ledger_reader import COLUMNS, Reader
from medimg_edge.kiosk.ledger_writer import Tail, Writer, now
from medimg_edge.record import printable

REMOVED_AT_ONCE = 5000
"""Entries that one commit removes, so that answers do not wait for long."""


class Ledger(Reader):
    """The record in a folder, which one process uses at a time. May be shared between threads.

    What is added is on the disk when its future has a result. Where the disk was full or failed,
    the future has WriteError, nothing of it is in the record, and the next one is tried anew.

    synchronous: "NORMAL" loses answers when the power fails, and is there to show that.

    Construction raises WriteError, also where another process uses the folder; LedgerUnknown;
    LedgerDamaged.
    """

    def __init__(self, folder: Path, *, synchronous: Synchronous = "FULL") -> None:
        self.folder = folder
        path = folder / NAME
        with disk.written(folder):
            folder.mkdir(mode=disk.PRIVATE, parents=True, exist_ok=True)
            self._claim = claim(folder)
        try:
            with disk.written(folder):
                _make(path)
            self._writer = Writer(path, synchronous)
            super().__init__(path)
        except BaseException:
            self._claim.close()
            raise

    def close(self) -> None:
        """Finish what was given to be kept, and let another process use the folder."""
        super().close()
        self._writer.close()
        self._claim.close()

    def append(self, new: New) -> Future[Kept]:
        """Keep an answer. The future may have KeyReused: there is an answer with that key."""
        body = body_of(new)

        def work(tail: Tail) -> Kept:
            _require_new(tail, new)
            return kept_of(tail.add("answer", new.id, body))

        return self._writer.submit(work)

    def acknowledge(self, name: str, comment: str) -> Future[Kept]:
        """Keep that an operator has seen an answer; the newest counts.

        comment: at most COMMENT_CHARACTERS; what cannot be seen, such as a change of direction, is
            left out. Raises RequestInvalid. The future may have NotFound.
        """
        if len(comment) > COMMENT_CHARACTERS:
            raise RequestInvalid(
                f"The comment has {len(comment)} characters, and {COMMENT_CHARACTERS} are kept."
            )
        comment = _visible(comment)

        def work(tail: Tail) -> Kept:
            answer = _answer(tail, name)
            body = msgspec.json.encode(Comment(comment, answer.sequence)).decode()
            entry = tail.add("acknowledgement", name, body)
            return kept_of(answer, Acknowledged(entry.time, comment))

        return self._writer.submit(work)

    def started(self, facts: bytes) -> Future[Entry]:
        """Keep that the service started. facts: a JSON object, such as its version and model."""
        msgspec.json.decode(facts, type=dict[str, msgspec.Raw])
        return self._writer.submit(lambda tail: tail.add("started", "", facts.decode()))

    def prune(self, days: float) -> int:
        """Remove the entries that are older, and say so in a new one; how many there were.

        days: above 0, counted as ``retention.through`` does. To be called once a day at least: it
        also keeps that the day passed. What is removed can then be read in no file of the record,
        unless somebody has read for longer than ten seconds, or the service stops before; then
        the next call sees to it. Raises WriteError; what was removed by then stays removed.
        """
        removed = 0
        while found := self._writer.submit(lambda tail: _prune(tail, days)).result():
            removed += found
        overwrite_removed(self._path)
        return removed


def _make(path: Path) -> None:
    """An empty file that only its owner may read, where there is none. Raises OSError."""
    with suppress(FileExistsError):
        disk.write(path, b"")
        disk.sync(path.parent)
        disk.sync(path.parent.parent)


def _require_new(tail: Tail, new: New) -> None:
    if tail.connection.execute(
        "SELECT 1 FROM entries WHERE kind = 'answer' AND id = ?", (new.id,)
    ).fetchone():
        raise ValueError(f"{new.id} is the id of another answer")
    if (
        new.key is not None
        and tail.connection.execute(
            "SELECT 1 FROM entries WHERE kind = 'answer' AND key = ?", (new.key,)
        ).fetchone()
    ):
        raise KeyReused("There is an answer to a request with this Idempotency-Key already.")


def _answer(tail: Tail, name: str) -> Entry:
    row = tail.connection.execute(
        f"SELECT {COLUMNS} FROM entries WHERE kind = 'answer' AND id = ?", (name,)
    ).fetchone()
    if row is None:
        raise NotFound("There is no answer with this id in the record.")
    return Entry(*row)


def _visible(text: str) -> str:
    """On one line, so that it can be read in any list and on any screen as it was written."""
    seen = (each for each in printable(text) if each.isprintable() or each.isspace())
    return " ".join("".join(seen).split())


def _date(day: str, last: int) -> date:
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise LedgerDamaged(
            f"Entry {last} has no time that can be read: no entry is removed. `medimg-edge audit "
            "verify` tells more."
        ) from error


def _prune(tail: Tail, days: float) -> int:
    """Remove a part of what is too old; 0 where nothing is left to do."""
    connection = tail.connection
    rows = connection.execute(
        "SELECT substr(time, 1, 10), max(sequence) FROM entries GROUP BY substr(time, 1, 10)"
    ).fetchall()
    if not rows:
        return 0
    today = now().date()
    last_of_day = {_date(day, last): last for day, last in rows}
    (first,) = connection.execute("SELECT min(sequence) FROM entries").fetchone()
    old = retention.through(last_of_day.items(), today, days)
    if not old and today in last_of_day:
        return 0
    through = min(old, first + REMOVED_AT_ONCE - 1) if old else first - 1
    (before,) = connection.execute(
        "SELECT previous FROM entries WHERE sequence = ?", (through + 1,)
    ).fetchone()
    pruned = Pruned(through=through, hash=before, days=days)
    tail.add("pruned", "", msgspec.json.encode(pruned).decode())
    return connection.execute("DELETE FROM entries WHERE sequence <= ?", (through,)).rowcount
